"""Reductions through the Python API: every dtype, operation and order against the Python twin's bits."""

from __future__ import annotations

from typing import Any

import isobit
import numpy as np
import pytest
from isobit.dtypes import dtype_of
from ranks import Group, results
from truth import DTYPES, FLOATS, OPS, ORDERS, expected, is_defined, leaf

SHAPE = (3, 4)


def reduce_everything(comm: isobit.Communicator, dtype: str) -> dict[tuple[str, str], bytes]:
    found = {}
    for order in ORDERS:
        for op in OPS:
            if is_defined(op, order, dtype):
                tensor = leaf(comm.rank, dtype, SHAPE)
                found[op, order] = comm.all_reduce(tensor, op=op, order=order).tobytes()  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_rank_gets_the_bits_of_the_law(group: Group, dtype: str) -> None:
    found = results(group, reduce_everything, dtype)
    for (op, order), bits in found[0].items():
        assert bits == expected(group.world_size, dtype, SHAPE, op, order), (op, order)
    assert all(each == found[0] for each in found)


def reduce_to_other_dtypes(comm: isobit.Communicator, dtype: str) -> dict[tuple[str, str | None], bytes]:
    found = {}
    for out in FLOATS:
        for accumulate in (None, "f64"):
            tensor = leaf(comm.rank, dtype, SHAPE)
            result = comm.all_reduce(tensor, op="mean", accumulate=accumulate, out_dtype=out, divisor=7)
            assert result.dtype == dtype_of(out)
            assert (result is tensor) == (out == dtype)
            found[out, accumulate] = result.tobytes()
    return found


@pytest.mark.parametrize("dtype", ["f8e4m3fn", "bf16", "f32"])
def test_the_accumulator_the_result_and_the_divisor_can_be_chosen(group: Group, dtype: str) -> None:
    for (out, accumulate), bits in results(group, reduce_to_other_dtypes, dtype)[-1].items():
        law = expected(group.world_size, dtype, SHAPE, "mean", accumulate=accumulate, out_dtype=out, divisor=7)
        assert bits == law, (out, accumulate)


def identities(comm: isobit.Communicator, rows: int, op: Any, order: Any) -> None:
    n, rank = comm.world_size, comm.rank
    shape = (rows * n, 3)
    kwargs: dict[str, Any] = {"op": op, "order": order}

    def mine() -> Any:
        return leaf(rank, "f32", shape, seed=1)

    whole = comm.all_reduce(mine(), **kwargs).tobytes()
    assert comm.all_gather(comm.reduce_scatter(mine(), **kwargs)).tobytes() == whole
    root = n - 1
    reduced = comm.reduce(mine(), root=root, **kwargs)
    assert (reduced is None) == (rank != root)
    assert comm.broadcast(np.zeros(shape, np.float32) if reduced is None else reduced, root=root).tobytes() == whole
    parts = [comm.all_reduce(part.copy(), **kwargs) for part in np.array_split(mine(), 3)]
    assert np.concatenate(parts).tobytes() == whole
    counts = [0] * n
    counts[-1] = rows * n
    scattered = comm.reduce_scatter(mine(), counts=counts, **kwargs)
    assert comm.all_gather(scattered, counts=counts).tobytes() == whole


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_one_reduction_has_the_same_bits_whatever_the_collectives(group: Group, rows: int, order: str) -> None:
    results(group, identities, rows, "sum", order)
    results(group, identities, rows, "mean", order)


def reduce_sizes(comm: isobit.Communicator, sizes: list[int]) -> list[bytes]:
    return [comm.all_reduce(leaf(comm.rank, "bf16", (size,), seed=2), op="sum").tobytes() for size in sizes]


def test_an_element_does_not_depend_on_the_size_of_its_message(group: Group) -> None:
    sizes = [0, 1, 2, 31, 4096, 70_001]
    everything = np.stack([leaf(rank, "bf16", (sizes[-1],), seed=2) for rank in range(group.world_size)])
    found = results(group, reduce_sizes, sizes)[0]
    for size, bits in zip(sizes, found, strict=True):
        # Each size draws its own leaves; only the first elements are the same, so compare with the law.
        few = min(size, 16)
        leaves = [leaf(rank, "bf16", (size,), seed=2)[:few] for rank in range(group.world_size)]
        assert bits[: 2 * few] == _law_of(leaves), size
    assert len(found[-1]) == 2 * everything.shape[1]


def _law_of(leaves: list[Any]) -> bytes:
    from isobit.reference.contract import contract
    from isobit.reference.dtype import Dtype
    from isobit.reference.op import ReduceOp
    from isobit.reference.reduce import reduce

    if leaves[0].size == 0:
        return b""
    result: bytes = reduce(contract(ReduceOp.SUM, len(leaves), Dtype.BF16), leaves).tobytes()
    return result
