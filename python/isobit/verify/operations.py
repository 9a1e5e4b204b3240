"""How a rank makes the call of a case, and what it must get from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isobit.communicator import Communicator
from isobit.dtypes import dtype_of
from isobit.verify.cases import ACCUMULATING, MOVING, Case, Reduction
from isobit.verify.data import repeat, tensor
from isobit.verify.truths import Key

Array = NDArray[Any]


def counts_of(count: int, world_size: int) -> list[int]:
    """Very uneven blocks: rank 0 has none, the last one most.

    >>> counts_of(61, 4), counts_of(5, 1)
    ([0, 10, 20, 31], [5])
    """
    parts = max(1, world_size * (world_size - 1) // 2)
    counts = [rank * count // parts for rank in range(world_size)]
    counts[-1] += count - sum(counts)
    return counts


def blocks_of(case: Case, world_size: int) -> tuple[list[int] | None, list[slice]]:
    """The `counts` to give, `None` where all blocks are alike, and where each rank's block lies."""
    even = case.count % world_size == 0
    counts = [case.count // world_size] * world_size if even else counts_of(case.count, world_size)
    ends = np.cumsum([0, *counts]).tolist()
    return None if even else counts, [slice(*ends[rank : rank + 2]) for rank in range(world_size)]


def perform(comm: Communicator, case: Case) -> Array | None:
    """Makes the call; what this rank got, if the operation gives it anything."""
    if case.operation in MOVING:
        return _move(comm, case)
    assert case.reduction is not None
    if case.operation in ACCUMULATING:
        return _accumulate(comm, case, case.reduction)
    return _reduce(comm, case, case.reduction)


def expected(case: Case, rank: int, world_size: int, truths: Mapping[Key, Array]) -> Array | None:
    """What the rank must get."""
    if case.operation in MOVING:
        return _moved(case, rank, world_size)
    assert case.reduction is not None
    leaves = world_size if case.leaves is None else case.leaves
    if case.operation == "reduce" and rank != case.root:
        return None
    whole = repeat(truths[case.reduction, leaves], case.count)
    return whole[blocks_of(case, world_size)[1][rank]] if case.operation == "reduce_scatter" else whole


def _reduce(comm: Communicator, case: Case, reduction: Reduction) -> Array | None:
    mine = tensor(comm.rank, case.dtype.value, case.count).copy()
    asked: dict[str, Any] = {
        "op": reduction.op.value,
        "order": reduction.order.value,
        "accumulate": None if reduction.accumulate is None else reduction.accumulate.value,
        "out_dtype": None if reduction.out_dtype is None else reduction.out_dtype.value,
        "divisor": reduction.divisor,
    }
    if case.operation == "reduce_scatter":
        return comm.reduce_scatter(mine, counts=blocks_of(case, comm.world_size)[0], **asked)
    out = None if case.in_place else np.empty(case.count, dtype_of((reduction.out_dtype or case.dtype).value))
    found: Array | None
    if case.operation == "all_reduce":
        found = comm.all_reduce(mine, out, **asked)
    else:
        found = comm.reduce(mine, out, root=case.root, **asked)
    return found


def _accumulate(comm: Communicator, case: Case, reduction: Reduction) -> Array:
    assert case.leaves is not None
    with comm.accumulate(
        case.leaves,
        order=reduction.order.value,
        accumulate=None if reduction.accumulate is None else reduction.accumulate.value,
        out_dtype=None if reduction.out_dtype is None else reduction.out_dtype.value,
        shape=(case.count,),
        dtype=case.dtype.value,
    ) as accumulation:
        for number in accumulation.leaves[:: -1 if case.in_place else 1]:
            accumulation.add(number, tensor(number, case.dtype.value, case.count))
        if case.operation == "accumulate + all_reduce":
            return accumulation.all_reduce(reduction.op.value, divisor=reduction.divisor)
        counts, _ = blocks_of(case, comm.world_size)
        block = accumulation.reduce_scatter(reduction.op.value, divisor=reduction.divisor, counts=counts)
    # Joined, so that every world size shows the same bits.
    return comm.all_gather(block, counts=counts)


def _move(comm: Communicator, case: Case) -> Array | None:
    n, rank, root = comm.world_size, comm.rank, case.root
    counts, blocks = blocks_of(case, n)
    if case.operation == "broadcast":
        whole: Array = comm.broadcast(_whole(case, rank).copy(), root=root)
        return whole
    if case.operation == "scatter":
        mine = _whole(case, root).copy() if rank == root else None
        out = None if rank == root else np.empty(blocks[rank].stop - blocks[rank].start, dtype_of(case.dtype.value))
        return comm.scatter(mine, out, root=root, counts=counts)
    if case.operation == "all_to_all":
        if counts is None:
            return comm.all_to_all(_whole(case, rank).copy())
        receives = [counts[rank]] * n
        return comm.all_to_all(_whole(case, rank).copy(), send_counts=counts, recv_counts=receives)
    mine = _whole(case, rank)[blocks[rank]].copy()
    if case.operation == "gather":
        return comm.gather(mine, root=root, counts=counts)
    return comm.all_gather(mine, counts=counts)


def _moved(case: Case, rank: int, world_size: int) -> Array | None:
    _, blocks = blocks_of(case, world_size)
    ranks = range(world_size)
    if case.operation == "broadcast":
        return _whole(case, case.root)
    if case.operation == "scatter":
        return _whole(case, case.root)[blocks[rank]]
    if case.operation == "all_to_all":
        return np.concatenate([_whole(case, other)[blocks[rank]] for other in ranks])
    if case.operation == "gather" and rank != case.root:
        return None
    return np.concatenate([_whole(case, other)[blocks[other]] for other in ranks])


def _whole(case: Case, rank: int) -> Array:
    return tensor(rank, case.dtype.value, case.count)
