"""Calls in the background, lists of tensors, groups within groups, and what a call would do."""

from __future__ import annotations

from typing import Any

import isobit
import numpy as np
import pytest
from ranks import Group, Threads, results


def in_flight(comm: isobit.Communicator) -> None:
    n, rank = comm.world_size, comm.rank
    tensors = [np.full(size, rank + 1.0) for size in (1, 1000, 100_000, 7)]
    strided = np.zeros((8, 2))
    strided[:, 0] = rank
    works = [comm.all_reduce(tensor, async_op=True) for tensor in tensors]
    works.append(comm.all_reduce(strided[:, 0], async_op=True))
    works.append(comm.all_gather(np.array([rank]), async_op=True))
    works.append(comm.barrier(async_op=True))
    # A blocking call waits for its turn, so all before it are done.
    comm.all_reduce(np.ones(3))
    assert all(work.is_completed() for work in works)
    total = n * (n + 1) / 2
    assert all((tensor == total).all() for tensor in tensors)
    assert strided[:, 0].tolist() == [n * (n - 1) / 2] * 8
    assert not strided[:, 1].any()
    assert works[5].wait().tolist() == list(range(n))
    assert works[6].wait() is None
    with comm.accumulate(num_leaves=n) as sums:
        for leaf in sums.leaves:
            sums.add(leaf, np.ones(5))
        work = sums.all_reduce(op="mean", async_op=True)
    assert work.result().tolist() == [1.0] * 5


def test_calls_in_the_background_are_carried_out_in_their_order(group: Group) -> None:
    results(group, in_flight)


def test_a_call_in_the_background_that_fails_says_so_when_asked() -> None:
    first, second = isobit.memory_group(2, timeout=60)
    good, bad = (first.all_reduce(np.ones(size), async_op=True) for size in (2, 3))
    with pytest.raises(isobit.Timeout, match="waited for again"):
        good.wait(0.05)
    assert not good.is_completed()
    assert good.exception() is None
    second.all_reduce(np.ones(2))
    with pytest.raises(isobit.Desync):
        second.all_reduce(np.ones(4))
    for _ in range(2):
        with pytest.raises(isobit.Desync, match="count"):
            bad.wait()
    assert isinstance(bad.exception(), isobit.Desync)
    assert bad.is_completed()
    assert good.wait().tolist() == [2, 2]


def test_a_call_in_the_background_is_aborted_by_close() -> None:
    first, _ = isobit.memory_group(2, timeout=60)
    work = first.all_reduce(np.ones(2), async_op=True)
    first.close()
    with pytest.raises(isobit.Aborted):
        work.wait()


def lists(comm: isobit.Communicator) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    random = np.random.default_rng(comm.rank)

    def fresh() -> list[Any]:
        shapes = [((3, 4), np.float32), ((5,), np.float64), ((), np.float32), ((2, 0), np.float32), ((7,), np.float32)]
        made = [random.standard_normal(shape).astype(dtype) for shape, dtype in shapes]
        made.append(random.standard_normal((4, 6)).astype(ml_dtypes.bfloat16)[:, ::2])
        return made

    tensors = fresh()
    alone = [comm.all_reduce(tensor.copy(), op="mean") for tensor in tensors]
    wide = [comm.all_reduce(tensor.copy(), out_dtype="f64") for tensor in tensors]
    gathered = [comm.all_gather(tensor) for tensor in tensors]
    sent = [comm.broadcast(tensor.copy(), root=comm.world_size - 1) for tensor in tensors]

    def equal(found: list[Any], expected: list[Any]) -> None:
        for one, other in zip(found, expected, strict=True):
            assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())

    equal(comm.all_reduce(tensors, [np.empty_like(tensor) for tensor in tensors], op="mean"), alone)
    equal(comm.all_reduce([tensor.copy() for tensor in tensors], out_dtype="f64"), wide)
    equal(comm.all_gather(tensors), gathered)
    equal(comm.all_gather(tensors, async_op=True).wait(), gathered)
    equal(comm.broadcast([tensor.copy() for tensor in tensors], root=comm.world_size - 1), sent)
    found = comm.all_reduce(tensors, op="mean", async_op=True).wait()
    assert all(one is tensor for one, tensor in zip(found, tensors, strict=True)), "in place"
    equal(tensors, alone)


def test_a_list_of_tensors_gives_the_bits_of_one_call_each(group: Group) -> None:
    results(group, lists)


def differently_divided(comm: isobit.Communicator) -> None:
    comm.all_reduce([np.ones(2), np.ones(3)] if comm.rank else [np.ones(3), np.ones(2)])


def test_lists_that_are_divided_differently_are_an_error() -> None:
    group = Threads(2)
    assert all(isinstance(error, isobit.Desync) for error in group.outcomes(differently_divided))
    group.close()


def groups_at_once(comm: isobit.Communicator) -> None:
    n, rank = comm.world_size, comm.rank
    rows = comm.split(color=rank % 2, key=-rank)
    columns = comm.new_group(list(range(0, n, 2)))
    assert rows is not None
    assert rows.rank == len(range(rank % 2, n, 2)) - 1 - rank // 2
    assert (columns is None) == (rank % 2 == 1)
    works = [rows.all_reduce(np.array([rank]), async_op=True), comm.all_reduce(np.array([rank]), async_op=True)]
    if columns is not None:
        works.append(columns.all_reduce(np.array([rank]), async_op=True))
    assert works[0].wait().tolist() == [sum(range(rank % 2, n, 2))]
    assert works[1].wait().tolist() == [sum(range(n))]
    if columns is not None:
        assert works[2].wait().tolist() == [sum(range(0, n, 2))]
    assert comm.split(None if rank else 5, timeout=30) is None or rank == 0


def test_groups_that_overlap_are_used_at_the_same_time(group: Group) -> None:
    results(group, groups_at_once)


def test_explain_says_what_leaves_cost_and_what_would_cost_less() -> None:
    third = isobit.memory_group(3)[2]
    told = third.explain("all_reduce", (1024, 1024), "f32", num_leaves=64)
    assert (told.algorithm, told.elements, told.num_leaves) == ("direct", 1 << 20, 64)
    assert told.multiplier == pytest.approx(11 / 3)
    assert (told.nearest_ranks, told.nearest_ranks_multiplier, told.nearest_leaves) == (2, 1, 48)
    assert "64 leaves            3.67 contributions a rank" in str(told)
    assert "cheaper              48 leaves at 1, or 2 ranks at 1" in str(told)
    plain = third.explain("all_gather", 1000, "bf16")
    assert (plain.bytes_sent, plain.bytes_received, plain.num_leaves) == (4000, 4000, None)
    with pytest.raises(ValueError, match="is none of all_reduce"):
        third.explain("all_ruduce", 5)
    with pytest.raises(ValueError, match="evenly"):
        third.explain("reduce_scatter", 5)
