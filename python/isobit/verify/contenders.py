"""One library on one machine: the same numbers, reduced on every world size, message size and bucket.

This is a rank's program, run by `peers`: under `isobit run` for isobit and Gloo, under `mpirun` for an MPI. Every
library gets the same leaves. With isobit a rank adds its leaves to an accumulation; elsewhere it sums them in f32, as a
training loop does, and the library sums over the ranks. 1,024 *watched* numbers are the same in every message: they
lie evenly spread in it, among others.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isobit.reference.leaves import LeafMap
from isobit.verify.data import random_words

Floats = NDArray[np.float32]

LEAVES = 24
WATCHED = 1024
#: Elements of f32 in a message, each a multiple of the number of those watched.
SIZES = (1024, 16_384, 262_144)
#: In how many parts a message is reduced, one call each.
BUCKETS = (1, 4, 32)
WORLD_SIZES = tuple(range(1, 9))


class Cell(NamedTuple):
    """Where a result belongs in the table."""

    size: int
    buckets: int
    world_size: int


#: From a rank's leaves, by number, to the sum of all ranks' leaves.
Sum = Callable[[Mapping[int, Floats]], Floats]


class Contender(NamedTuple):
    """A library in this process: its rank, and how a group of the first `n` ranks sums what each has."""

    name: str
    rank: int
    #: The sum over a group of so many ranks, of the leaves that this rank owns.
    sums: Callable[[int], Sum]
    close: Callable[[], None]


def watched(size: int) -> slice:
    """Where the watched numbers are in a message of `size` elements."""
    return slice(None, None, size // WATCHED)


def leaf(number: int, size: int) -> Floats:
    """The gradients of micro-batch `number`: everyday numbers of either sign, over some magnitudes."""
    values = _everyday(0x100 + number, size)
    values[watched(size)] = _everyday(0x200 + number, WATCHED)
    return values


def own_leaves(rank: int, world_size: int) -> list[int]:
    """The leaves of a rank, in order: the same ownership for every library."""
    return sorted(LeafMap.even(LEAVES, world_size).ranks[rank])


def main(words: Sequence[str]) -> int:
    """Runs one rank of the library `words[0]`; rank 0 writes what came out to the file `words[1]`."""
    contender = {"isobit": _isobit, "gloo": _gloo, "mpi": _mpi}[words[0]]()
    results: dict[str, str] = {}
    for world_size in sorted(WORLD_SIZES, reverse=True):
        if contender.rank >= world_size:
            break
        total = contender.sums(world_size)
        for size in SIZES:
            leaves = {number: leaf(number, size) for number in own_leaves(contender.rank, world_size)}
            for buckets in BUCKETS:
                step = size // buckets
                parts = (slice(start, start + step) for start in range(0, size, step))
                whole = np.concatenate([total({n: values[part] for n, values in leaves.items()}) for part in parts])
                cell = Cell(size, buckets, world_size)
                results["/".join(map(str, cell))] = whole[watched(size)].tobytes().hex()
        if contender.rank == 0:
            print(f"progress {world_size} {len(results)}/{len(WORLD_SIZES) * len(SIZES) * len(BUCKETS)}", flush=True)
    if contender.rank == 0:
        Path(words[1]).write_text(json.dumps({"name": contender.name, "results": results}))
    contender.close()
    return 0


def _everyday(stream: int, count: int) -> Floats:
    words = random_words(stream, count)
    sign, exponent, mantissa = (
        words >> np.uint64(63),
        words % np.uint64(12),
        words >> np.uint64(30) & np.uint64(0x7FFFFF),
    )
    bits = sign << np.uint64(31) | (exponent + np.uint64(115)) << np.uint64(23) | mantissa
    values: Floats = bits.astype(np.uint32).view(np.float32)
    return values


def _local_sum(leaves: Mapping[int, Floats]) -> Floats:
    """What a rank adds up before it communicates, in f32 and in order."""
    first, *rest = (leaves[number] for number in sorted(leaves))
    total = first.copy()
    for values in rest:
        total += values
    return total


def _isobit() -> Contender:
    import isobit

    rank = int(os.environ["RANK"])

    def sums(world_size: int) -> Sum:
        os.environ["WORLD_SIZE"] = str(world_size)
        comm = isobit.init(transport="shm")

        def total(leaves: Mapping[int, Floats]) -> Floats:
            with comm.accumulate(LEAVES) as accumulation:
                for number in accumulation.leaves:
                    accumulation.add(number, leaves[number])
                return accumulation.all_reduce()

        return total

    return Contender(f"isobit {isobit.__version__}", rank, sums, lambda: None)


def _gloo() -> Contender:
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    # Every rank takes part in making every group.
    groups = {size: distributed.new_group(list(range(size))) for size in WORLD_SIZES}

    def sums(world_size: int) -> Sum:
        def total(leaves: Mapping[int, Floats]) -> Floats:
            mine = torch.from_numpy(_local_sum(leaves))
            distributed.all_reduce(mine, group=groups[world_size])
            found: Floats = mine.numpy()
            return found

        return total

    def close() -> None:
        # A rank that leaves takes its connections with it.
        distributed.barrier()
        distributed.destroy_process_group()

    return Contender(f"Gloo (torch {torch.__version__.partition('+')[0]})", rank, sums, close)


def _mpi() -> Contender:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    groups: dict[int, Any] = {}
    for size in WORLD_SIZES:
        groups[size] = world.Split(0 if world.rank < size else MPI.UNDEFINED, world.rank)

    def sums(world_size: int) -> Sum:
        def total(leaves: Mapping[int, Floats]) -> Floats:
            mine = _local_sum(leaves)
            groups[world_size].Allreduce(MPI.IN_PLACE, mine)
            return mine

        return total

    return Contender(MPI.Get_library_version().split(",")[0].splitlines()[0].strip(), world.rank, sums, lambda: None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
