"""A sharded optimizer (ZeRO-1): `isobit run -n 3 examples/sharded_optimizer.py`.

Each rank keeps Adam's moments of its own blocks of the parameters only: gradients are reduce-scattered, the rank
updates its blocks, and the parameters are all-gathered. With `--replicated` every rank keeps everything, and gradients
are all-reduced. Both give the same parameters in every bit, on 1 to 24 ranks, clipping by the norm included.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from typing import Any, TypeAlias

import isobit
import numpy as np
from threadpoolctl import threadpool_limits

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

INPUTS, HIDDEN, OUTPUTS = 40, 64, 32
BLOCKS = 24  # of parameters; a rank owns some of them
MICRO_BATCHES, MICRO_BATCH = 12, 16
RATE, BETA1, BETA2, EPSILON = 0.01, np.float32(0.9), np.float32(0.99), np.float32(1e-8)
NORM_MAX = 0.5


def matrices(parameters: Array) -> tuple[Array, Array]:
    """The two layers, as views of the parameters."""
    flat = parameters.reshape(-1)
    return flat[: INPUTS * HIDDEN].reshape(INPUTS, HIDDEN), flat[INPUTS * HIDDEN :].reshape(HIDDEN, OUTPUTS)


def random_parameters(seed: int) -> Array:
    """Parameters as rows, one a block."""
    size = INPUTS * HIDDEN + HIDDEN * OUTPUTS
    return (np.random.default_rng(seed).standard_normal(size, np.float32) / np.float32(6)).reshape(BLOCKS, -1)


def gradient(parameters: Array, teacher: Array, step: int, leaf: int) -> Array:
    """Of the squared distance to another network's outputs, over micro-batch `leaf` of a step."""
    x = np.random.default_rng((step, leaf)).standard_normal((MICRO_BATCH, INPUTS), np.float32)
    (first, second), (first_of_teacher, second_of_teacher) = matrices(parameters), matrices(teacher)
    hidden = np.maximum(x @ first, 0)
    error = hidden @ second - np.maximum(x @ first_of_teacher, 0) @ second_of_teacher
    result = np.empty_like(parameters)
    into_first, into_second = matrices(result)
    into_second[:] = hidden.T @ error / MICRO_BATCH
    into_first[:] = x.T @ ((error @ second.T) * (hidden > 0)) / MICRO_BATCH
    return result


def norm(comm: isobit.Communicator, own_blocks: Array) -> float:
    """The norm of the whole gradient. A sum of squares a shard would depend on the shards: a block's does not."""
    with comm.accumulate(num_leaves=BLOCKS, shape=(1,), dtype=np.float64) as acc:
        for leaf, block in zip(acc.leaves, own_blocks, strict=True):
            acc.add(leaf, np.square(block, dtype=np.float64).sum(keepdims=True))
        return math.sqrt(acc.all_reduce()[0])


def adam(parameters: Array, moments: Array, slope: Array, scale: float, step: int) -> None:
    """Updates any number of blocks. Each element is on its own, so it does not matter with which others it is."""
    slope = slope * np.float32(scale)
    first, second = moments
    first *= BETA1
    first += (1 - BETA1) * slope
    second *= BETA2
    second += (1 - BETA2) * np.square(slope)
    rate = RATE * math.sqrt(1 - float(BETA2) ** (step + 1)) / (1 - float(BETA1) ** (step + 1))
    parameters -= np.float32(rate) * first / (np.sqrt(second) + EPSILON)


def main() -> None:
    """Trains, and prints what came out on every rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--replicated", action="store_true", help="keep the whole optimizer on every rank")
    options = parser.parse_args()

    comm = isobit.init()
    leaves = comm.accumulate(num_leaves=BLOCKS).leaves
    counts = comm.all_gather(np.array([len(leaves)])).tolist()
    first_block = sum(counts[: comm.rank])
    own = slice(first_block, first_block + counts[comm.rank])
    parameters, teacher = random_parameters(1), random_parameters(2)
    moments = np.zeros((2, *(parameters if options.replicated else parameters[own]).shape), np.float32)

    for step in range(options.steps):
        with comm.accumulate(num_leaves=MICRO_BATCHES, shape=parameters.shape, dtype=np.float32) as acc:
            for leaf in acc.leaves:
                acc.add(leaf, gradient(parameters, teacher, step, leaf))
            if options.replicated:
                slope = acc.all_reduce(op="mean")
                length = norm(comm, slope[own])
                adam(parameters, moments, slope, min(1, NORM_MAX / length), step)
            else:
                slope = acc.reduce_scatter(op="mean", counts=counts)
                length = norm(comm, slope)
                shard = parameters[own].copy()
                adam(shard, moments, slope, min(1, NORM_MAX / length), step)
                comm.all_gather(shard, parameters, counts=counts)
        if comm.rank == 0 and step % 50 == 49:
            print(f"step {step + 1}: the gradient's norm is {length:.4f}", flush=True)

    print(f"this rank keeps {moments.nbytes} bytes of moments", flush=True)
    print(f"digest {hashlib.sha256(parameters.tobytes()).hexdigest()[:16]}", flush=True)


if __name__ == "__main__":
    # A leaf's gradient must be a function of the leaf alone: on more threads BLAS may add in another order.
    with threadpool_limits(limits=1):
        main()
