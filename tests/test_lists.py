"""Lists of tensors as one exchange: their bits are those of one call each, whichever way the call takes."""

from __future__ import annotations

from typing import Any, Literal

import isobit
import numpy as np
import pytest
from isobit.dtypes import NAMES, dtype_of
from ranks import Group, Threads, results

SHAPES: list[tuple[int, ...]] = [(3, 4), (), (0,), (257,), (2, 0, 3), (1,) * 8, (5, 7)]
ORDERS: list[Literal["tree", "exact"]] = ["tree", "exact"]


def fresh(rank: int) -> list[Any]:
    """Every shape in every dtype, so mixed that the arrays of one dtype are never neighbours."""
    random = np.random.default_rng(rank)

    def values(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        real = np.asarray(random.standard_normal(shape) * 50)
        return (real.astype(np.int64) if dtype.kind in "iu" else real).astype(dtype)

    return [values(shape, dtype_of(name)) for shape in SHAPES for name in NAMES]


def same(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())


def bits(comm: isobit.Communicator) -> None:
    for order in ORDERS:
        # Not every op is there for every dtype, and in the exact order there are sums and means only.
        names = {"f16", "bf16", "f32", "f64"} if order == "exact" else set(NAMES) - {"bool"}
        dtypes = {dtype_of(name) for name in names}
        tensors = [tensor for tensor in fresh(comm.rank) if tensor.dtype in dtypes]
        alone = [comm.all_reduce(tensor.copy(), order=order) for tensor in tensors]
        outs = [np.zeros_like(tensor) for tensor in tensors]
        found = comm.all_reduce(tuple(tensors), out=outs, order=order)
        assert all(one is out for one, out in zip(found, outs, strict=True))
        same(found, alone)
        found = comm.all_reduce(tensors, order=order)
        assert all(one is tensor for one, tensor in zip(found, tensors, strict=True)), "in place"
        same(found, alone)
    root = comm.world_size - 1
    tensors = fresh(comm.rank)
    comm.broadcast(tensors, root=root)
    same(tensors, fresh(root))
    same(comm.all_gather(fresh(comm.rank)), [comm.all_gather(tensor) for tensor in fresh(comm.rank)])


def test_a_list_of_every_dtype_and_shape_has_the_bits_of_one_call_each(group: Group) -> None:
    results(group, bits)


def two_ways(comm: isobit.Communicator) -> list[Any]:
    """One rank's arrays lie as the native layer takes them, the other's do not."""
    tensors: list[Any] = [np.arange(6.0).reshape(2, 3), np.arange(4.0)]
    if comm.rank:
        tensors[0] = np.asfortranarray(tensors[0])
    comm.all_reduce(tensors)
    return [tensor.tolist() for tensor in tensors]


def test_ranks_whose_lists_go_different_ways_agree() -> None:
    group = Threads(2)
    expected = [[[0, 2, 4], [6, 8, 10]], [0, 2, 4, 6]]
    assert results(group, two_ways) == [expected] * 2
    group.close()


def test_one_array_may_be_in_a_list_twice_and_is_read_before_any_is_written() -> None:
    comm = isobit.init()
    a, b = np.array([1.0, 2.0]), np.zeros(2)
    assert [tensor.tolist() for tensor in comm.all_reduce([a, b], [b, a])] == [[1, 2], [0, 0]]
    assert [tensor.tolist() for tensor in comm.all_reduce([b, b])] == [[1, 2], [1, 2]]


def test_a_list_of_which_one_exchange_fails_changes_nothing() -> None:
    comm = isobit.init()
    tensors = [np.full(2, 5, np.float32), np.array([True])]
    outs = [np.zeros(2, np.float32), np.array([False])]
    with pytest.raises(ValueError, match="sum"):
        comm.all_reduce(tensors, outs)
    assert [out.tolist() for out in outs] == [[0, 0], [False]]
