"""Sequence parallelism, on and off: `isobit run -n 3 examples/sequence_parallel.py`, or with `--off`.

A transformer block as Megatron-LM splits it. Attention and MLP are split by heads and by blocks of hidden units: each
gives a partial product, a leaf, whoever computes it. Norms, dropout and residuals need no neighbour: off, every rank
does them for all positions and partial products are all-reduced; on, each rank does them for its own positions only,
with a reduce_scatter before and an all_gather after. Every bit is the same, on and off, on 1 to 12 ranks.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any, TypeAlias

import isobit
import numpy as np
from threadpoolctl import threadpool_limits
from transformer import head, hidden_units, norm

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

BLOCKS, ROWS = 12, 4  # the sequence: 12 blocks of 4 positions
LENGTH, WIDTH, UNITS = BLOCKS * ROWS, 32, 8
SHARDS = 12  # heads, and blocks of hidden units
KEPT, RATE = 0.9, np.float32(0.1)


class Block:
    """A transformer block on one rank: the shards of the weights that it owns, and both gains."""

    def __init__(self, comm: isobit.Communicator, on: bool) -> None:
        self.comm, self.on = comm, on
        self.leaves = comm.accumulate(num_leaves=SHARDS).leaves
        self.counts = comm.all_gather(np.array([len(self.leaves)])).tolist()
        start = sum(self.counts[: comm.rank]) * ROWS
        self.own = slice(start, start + len(self.leaves) * ROWS)
        self.rows = self.own if on else slice(0, LENGTH)
        kinds = [[(WIDTH, UNITS)] * 3 + [(UNITS, WIDTH)], [(WIDTH, UNITS), (UNITS, WIDTH)]]
        self.weights = [{leaf: _random((2, i, leaf), shapes) for leaf in self.leaves} for i, shapes in enumerate(kinds)]
        self.gains = np.ones((2, WIDTH), np.float32)

    def whole(self, rows: Array) -> Array:
        """All positions, from those that this rank works on."""
        all_rows: Array = self.comm.all_gather(rows, counts=[n * ROWS for n in self.counts]) if self.on else rows
        return all_rows

    def total(self, parts: dict[int, Array]) -> Array:
        """The sum of all shards' parts, for the positions that this rank works on."""
        with self.comm.accumulate(num_leaves=SHARDS, shape=(LENGTH, WIDTH), dtype=np.float32) as acc:
            for leaf, part in parts.items():
                acc.add(leaf, part)
            rows: Array = acc.reduce_scatter(counts=[n * ROWS for n in self.counts]) if self.on else acc.all_reduce()
        return rows

    def sum_of_positions(self, rows: Array) -> Array:
        """The sum over all positions; the leaves are the blocks of the sequence, on and off."""
        own = (rows if self.on else rows[self.own]).reshape(-1, ROWS, *rows.shape[1:])
        with self.comm.accumulate(num_leaves=BLOCKS, shape=rows.shape[1:], dtype=np.float32) as acc:
            for leaf, block in zip(self.leaves, own, strict=True):
                acc.add(leaf, block.sum(axis=0))
            result: Array = acc.all_reduce()
        return result

    def train(self, step: int) -> float:
        """One step: to give, at each position, the mean of all up to it. Returns the loss."""
        rng = np.random.default_rng((1, step))
        sequence = rng.standard_normal((LENGTH, WIDTH), np.float32)
        kept = (rng.random((2, LENGTH, WIDTH)) < KEPT)[:, self.rows] / np.float32(KEPT)  # by position, not by rank
        x, undo = sequence[self.rows], []
        for i, shard in enumerate((head, hidden_units)):
            y, norm_back = norm(x)
            n = self.whole(y * self.gains[i])
            done = {leaf: shard(n, self.weights[i][leaf]) for leaf in self.leaves}
            x = x + kept[i] * self.total({leaf: part for leaf, (part, _) in done.items()})
            undo.append((y, norm_back, {leaf: back for leaf, (_, back) in done.items()}))
        error = x - (np.cumsum(sequence, axis=0) / np.arange(1, LENGTH + 1, dtype=np.float32)[:, None])[self.rows]
        loss = self.sum_of_positions(np.square(error).sum(axis=1, keepdims=True))[0] / LENGTH / WIDTH

        d = error / LENGTH
        for i, (y, norm_back, backs) in reversed([*enumerate(undo)]):
            to_all = self.whole(kept[i] * d)
            slopes = {leaf: back(to_all) for leaf, back in backs.items()}
            to_n = self.total({leaf: to_input for leaf, (to_input, _) in slopes.items()})
            d = d + norm_back(to_n * self.gains[i])
            self.gains[i] -= RATE * self.sum_of_positions(to_n * y)
            for leaf, (_, to_weights) in slopes.items():
                for w, to_w in zip(self.weights[i][leaf], to_weights, strict=True):
                    w -= RATE * to_w
        return float(loss)

    def digest(self) -> str:
        """Of all ranks' weights."""
        mine = [np.concatenate([w.ravel() for kind in self.weights for w in kind[leaf]]) for leaf in self.leaves]
        everything = self.comm.all_gather(np.stack(mine), counts=self.counts)
        return hashlib.sha256(everything.tobytes() + self.gains.tobytes()).hexdigest()[:16]


def _random(seed: tuple[int, ...], shapes: list[tuple[int, int]]) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) / np.float32(WIDTH**0.5) for shape in shapes]


def main() -> None:
    """Trains, and prints what came out on every rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--off", action="store_true", help="every rank does norms and dropout for all positions")
    options = parser.parse_args()
    comm = isobit.init()
    block = Block(comm, on=not options.off)
    for step in range(options.steps):
        loss = block.train(step)
        if comm.rank == 0 and step % 50 == 49:
            print(f"step {step + 1}: loss {loss:.4f}", flush=True)
    print(f"norms and dropout for {block.rows.stop - block.rows.start} of {LENGTH} positions", flush=True)
    print(f"digest {block.digest()}", flush=True)


if __name__ == "__main__":
    # A product must be a function of its operands alone: on more threads BLAS may add in another order.
    with threadpool_limits(limits=1):
        main()
