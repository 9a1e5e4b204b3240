"""Data-parallel training in plain numpy: `isobit run -n 3 examples/data_parallel.py`.

A network learns which of two spirals a point lies on, with mini-batches, momentum and an evaluation after each epoch.
The batch of a step is cut into a fixed number of micro-batches. Their gradients are the leaves of the reduction,
whichever rank computes them, so losses, accuracies and weights are the same bits on 1 to 24 ranks.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from typing import Any, TypeAlias

import isobit
import numpy as np
from threadpoolctl import threadpool_limits

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

POINTS, MICRO_BATCH, MICRO_BATCHES = 1536, 16, 24
HIDDEN = 48
LEARNING_RATE, MOMENTUM = np.float32(0.3), np.float32(0.9)


def spirals() -> tuple[Array, Array]:
    """Points on two spirals, and which of the two each is on."""
    rng = np.random.default_rng(1)
    label = np.arange(POINTS) % 2
    angle = 3 * np.pi * np.sqrt(rng.random(POINTS))
    turned = angle + np.pi * label
    place = angle[:, None] * np.stack([np.cos(turned), np.sin(turned)], axis=1) / 9
    return (place + rng.normal(0, 0.01, place.shape)).astype(np.float32), label.astype(np.float32)


def initial_weights() -> list[Array]:
    """Two hidden layers and an output. Rank 0's are sent to all, as when it has read them from a file."""
    rng = np.random.default_rng(2)
    sizes = (2, HIDDEN, HIDDEN, 1)
    layers = [(rng.normal(0, (2 / m) ** 0.5, (m, n)), np.zeros(n)) for m, n in itertools.pairwise(sizes)]
    return [array.astype(np.float32) for layer in layers for array in layer]


def logits(weights: list[Array], x: Array) -> list[Array]:
    """The output of each layer, the input first."""
    a, a0, b, b0, c, c0 = weights
    first = np.maximum(x @ a + a0, 0)
    second = np.maximum(first @ b + b0, 0)
    return [x, first, second, (second @ c + c0)[:, 0]]


def gradient(weights: list[Array], x: Array, y: Array) -> Array:
    """The gradient of the mean loss over a micro-batch as one flat array, and behind it the loss."""
    *below, out = logits(weights, x)
    loss = np.mean(np.logaddexp(0, out) - y * out)
    error = ((1 / (1 + np.exp(-out)) - y) / np.float32(len(y)))[:, None]
    parts: list[Array] = []
    for layer, matrix in zip(reversed(below), reversed(weights[::2]), strict=True):
        parts = [(layer.T @ error).ravel(), error.sum(axis=0), *parts]
        error = (error @ matrix.T) * (layer > 0)
    return np.concatenate([*parts, [loss]]).astype(np.float32)


def correct(comm: isobit.Communicator, weights: list[Array], x: Array, y: Array) -> int:
    """How many points the network gets right. Integers add up in any order; still, each logit must be the same."""
    right = 0
    for start in range(comm.rank * MICRO_BATCH, POINTS, comm.world_size * MICRO_BATCH):
        block = slice(start, start + MICRO_BATCH)
        right += int(((logits(weights, x[block])[-1] > 0) == y[block]).sum())
    return int(comm.all_reduce(np.array([right]))[0])


def main() -> None:
    """Trains, and prints what came out on every rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()

    comm = isobit.init()
    x, y = spirals()
    weights = initial_weights()
    for array in weights:
        comm.broadcast(array, root=0)
    velocity = [np.zeros_like(array) for array in weights]

    for epoch in range(options.epochs):
        # Everybody shuffles alike; a step takes the next 24 micro-batches, and each rank those that it owns.
        order = np.random.default_rng((3, epoch)).permutation(POINTS).reshape(-1, MICRO_BATCHES, MICRO_BATCH)
        for step in order:
            with comm.accumulate(num_leaves=MICRO_BATCHES) as acc:
                for leaf in acc.leaves:
                    acc.add(leaf, gradient(weights, x[step[leaf]], y[step[leaf]]))
                mean = acc.all_reduce(op="mean")
            start = 0
            for array, speed in zip(weights, velocity, strict=True):
                speed *= MOMENTUM
                speed += mean[start : start + array.size].reshape(array.shape)
                array -= LEARNING_RATE * speed
                start += array.size
        right = correct(comm, weights, x, y)
        if comm.rank == 0 and epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {mean[-1]:.4f}, {right / POINTS:.1%} right", flush=True)

    digest = hashlib.sha256(b"".join(array.tobytes() for array in weights)).hexdigest()
    print(f"digest {digest[:16]}", flush=True)


if __name__ == "__main__":
    # A leaf's gradient must be a function of the leaf alone: on more threads BLAS may add in another order.
    with threadpool_limits(limits=1):
        main()
