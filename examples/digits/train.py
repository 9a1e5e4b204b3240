"""What one rank runs: `isobit run -n 4 examples/digits/train.py`. Data-parallel training of a small network.

The batch of a step is cut into a fixed number of micro-batches, the leaves. With isobit the averaged gradient
is a function of the leaves alone, so the weights after the last step are the same bits on any number of ranks.
With `--usual` they are averaged as everybody does it, and the weights depend on the number of ranks.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import time
from pathlib import Path

import isobit
import numpy as np
from data import LEAVES, SEED, Digits, Floats, leaf_images, load
from network import evaluate, gradient_and_loss, initial_weights
from threadpoolctl import threadpool_limits
from usual import mean_of_leaves

# High, near the edge of stability, where large models are trained too: there a difference in the last bit grows.
LEARNING_RATE = np.float32(0.4)
MOMENTUM = np.float32(0.9)


def main() -> None:
    """Trains, then writes what the run came to."""
    options = parse()
    comm = isobit.init()
    digits = load(options.data)
    weights = initial_weights(SEED)
    velocity = np.zeros_like(weights)
    snapshots: dict[int, Floats] = {0: weights.copy()}
    started = time.perf_counter()

    for step in range(options.steps):
        leaf_value = functools.partial(gradient_of_leaf, weights, digits, step)
        if options.usual:
            mean = mean_of_leaves(comm, LEAVES, leaf_value)
        else:
            with comm.accumulate(num_leaves=LEAVES) as acc:
                for leaf in acc.leaves:
                    acc.add(leaf, leaf_value(leaf))
                mean = acc.all_reduce(op="mean")
        velocity *= MOMENTUM
        velocity += mean[:-1]
        weights -= LEARNING_RATE * velocity

        done = step + 1
        if comm.rank == 0 and (done % 5 == 0 or done < 5):
            snapshots[done] = weights.copy()
            print(f"step {done}/{options.steps} loss {mean[-1]:.4f}", flush=True)

    seconds = time.perf_counter() - started
    digest = hashlib.sha256(weights.tobytes()).digest()
    require_the_same_on_every_rank(comm, digest)
    if comm.rank == 0:
        loss, _ = evaluate(weights, digits.train_x, digits.train_y)
        _, accuracy = evaluate(weights, digits.test_x, digits.test_y)
        result = {"loss": loss, "accuracy": accuracy, "seconds": seconds, "sha256": digest.hex()}
        print(json.dumps(result), flush=True)
        if options.out:
            options.out.write_text(json.dumps(result))
            np.savez(options.out.with_suffix(".npz"), steps=[*snapshots], weights=[*snapshots.values()])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--usual", action="store_true", help="running sums and a ring all-reduce in f32")
    parser.add_argument("--data", type=Path, help="the digits, as the demo saved them")
    parser.add_argument("--out", type=Path, help="where rank 0 writes its result and snapshots of the weights")
    return parser.parse_args()


def gradient_of_leaf(weights: Floats, digits: Digits, step: int, leaf: int) -> Floats:
    """The value of a leaf: nothing in it depends on the rank or on how many there are."""
    images = leaf_images(step, leaf)
    return gradient_and_loss(weights, digits.train_x[images], digits.train_y[images])


def require_the_same_on_every_rank(comm: isobit.Communicator, digest: bytes) -> None:
    """Data-parallel replicas must agree with each other, whichever way the gradients were averaged."""
    mine = np.frombuffer(digest, np.uint8)
    everyone = comm.all_gather(mine).reshape(comm.world_size, -1)
    different = np.flatnonzero((everyone != mine).any(axis=1))
    if len(different):
        raise SystemExit(f"rank {comm.rank}: ranks {different.tolist()} ended with other weights")


if __name__ == "__main__":
    # A leaf's gradient must be a function of the leaf alone. Every leaf has the same shape, but BLAS may still cut
    # a product by the threads it finds and then add in another order: so each rank gives it one thread.
    with threadpool_limits(limits=1):
        main()
