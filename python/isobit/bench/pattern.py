"""The input data, and the one right answer: small integers that differ by rank and position.

Any order of additions is exact on them, so that every library has the same right bits. They repeat after `PERIOD`
elements, a prime, so that filling and checking cost as much as reading memory, and a block that lies in the wrong
place is wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isobit.bench.cases import Case
from isobit.dtypes import dtype_of

Array = NDArray[Any]

PERIOD = 65521
STEP = 977


@functools.lru_cache(maxsize=64)
def table(dtype: str, ranks: int, rank: int | None) -> Array:
    """One period of a rank's numbers, or, without a rank, of the sum of all of a group."""
    if rank is not None:
        return _values(ranks, rank).astype(dtype_of(dtype))
    return np.sum([_values(ranks, each) for each in range(ranks)], axis=0, dtype=np.uint32).astype(dtype_of(dtype))


def _values(ranks: int, rank: int) -> NDArray[np.uint32]:
    index = (np.arange(PERIOD, dtype=np.uint64) + np.uint64(STEP * rank)) % np.uint64(PERIOD)
    hashed = index.astype(np.uint32) * np.uint32(2654435761)
    # With many ranks smaller numbers, so that their sum is exact in bf16 and fits into i8.
    return hashed >> np.uint32(28 if ranks <= 8 else 31)


def fill(memory: Array, period: Array, start: int = 0) -> None:
    """Writes the period into the memory, over and over, from element `start` of the pattern on."""
    for part, of_period in _parts(len(memory), start):
        memory[part] = period[of_period]


def wrong(memory: Array, period: Array, start: int = 0) -> int:
    """How many elements' bits are not those that `fill` would write."""
    found = 0
    word = f"u{memory.dtype.itemsize}"
    for part, of_period in _parts(len(memory), start):
        found += int(np.count_nonzero(memory[part].view(word) != period[of_period].view(word)))
    return found


def wrong_in(case: Case, rank: int, out: Array) -> int:
    """How many elements of what this rank got are wrong; what only others get is not looked at."""

    def of(which: int | None) -> Array:
        return table(case.dtype, case.ranks, which)

    block = case.block
    match case.collective:
        case "all_reduce":
            return wrong(out, of(None))
        case "reduce":
            return wrong(out, of(None)) if rank == 0 else 0
        case "reduce_scatter":
            return wrong(out, of(None), rank * block)
        case "scatter":
            return wrong(out, of(0), rank * block)
        case "broadcast":
            return wrong(out, of(0))
        case "send_recv":
            return wrong(out, of(1 - rank)) if rank < 2 else 0
        case "all_gather" | "gather" | "all_to_all":
            if case.collective == "gather" and rank != 0:
                return 0
            start = rank * block if case.collective == "all_to_all" else 0
            blocks = out.reshape(case.ranks, block)
            return sum(wrong(blocks[each], of(each), start) for each in range(case.ranks))
    return 0


def _parts(count: int, start: int) -> Iterator[tuple[slice, slice]]:
    done = 0
    while done < count:
        at = (start + done) % PERIOD
        some = min(PERIOD - at, count - done)
        yield slice(done, done + some), slice(at, at + some)
        done += some
