"""What every reduction must give: computed once for each contract, by the readable reference.

The parent computes the truths and hands the ranks one file. Both know which truths there are and how long each is,
so the file has nothing but their bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isobit.dtypes import dtype_of
from isobit.reference import exact
from isobit.reference.dtype import Bits, Dtype
from isobit.reference.op import Order
from isobit.reference.reduce import reduce
from isobit.verify.cases import WORLD_SIZES, Reduction, is_accumulated, leaf_counts, reductions
from isobit.verify.data import PERIOD, leaf

#: What identifies a truth: a reduction, and over how many leaves.
Key = tuple[Reduction, int]


def keys(quick: bool) -> list[Key]:
    """All truths of a run, in their order in the file."""
    accumulated = sorted({*WORLD_SIZES, *leaf_counts(quick)})
    return [
        (reduction, leaves)
        for reduction in reductions(quick)
        for leaves in (accumulated if is_accumulated(reduction) else WORLD_SIZES)
    ]


def truth(reduction: Reduction, leaves: int) -> Bits:
    """The law's result for one period of the first leaves, as bits."""
    contract = reduction.contract(leaves)
    if contract.order is Order.EXACT:
        return exact.finish(contract, _exact_sums(reduction.dtype, leaves))
    result = reduce(contract, [leaf(number, reduction.dtype) for number in range(leaves)])
    return np.asarray(result).view(contract.dtype_out.bits)


def write(path: Path, quick: bool, progress: Callable[[int, int], None]) -> None:
    """Computes all truths, into a file."""
    todo = keys(quick)
    with path.open("wb") as file:
        for number, (reduction, leaves) in enumerate(todo):
            file.write(truth(reduction, leaves).tobytes())
            progress(number + 1, len(todo))


def read(path: Path, quick: bool) -> Mapping[Key, NDArray[Any]]:
    """The truths of `write`, as arrays of the results' dtypes."""
    everything = path.read_bytes()
    found, start = {}, 0
    for reduction, leaves in keys(quick):
        dtype = dtype_of((reduction.out_dtype or reduction.dtype).value)
        found[reduction, leaves] = np.frombuffer(everything, dtype, PERIOD, start)
        start += PERIOD * dtype.itemsize
    assert start == len(everything), "the file holds all truths and nothing else"
    return found


@functools.cache
def _exact_sums(dtype: Dtype, leaves: int) -> list[exact.Wide]:
    """Big integers are slow, and every exact contract over these leaves begins with the same sums."""
    last = exact.of_leaf(leaf(leaves - 1, dtype), dtype)
    return last if leaves == 1 else exact.add([_exact_sums(dtype, leaves - 1), last])
