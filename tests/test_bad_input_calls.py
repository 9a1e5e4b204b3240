"""Ranks that call different things (items 1 to 10 of the bad inputs): an error on all of them, and then they go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import isobit
import numpy as np
import pytest
from ranks import Processes, results

WORLD = 4
ODD = 2


@pytest.fixture(scope="module")
def shared() -> Iterator[Processes]:
    group = Processes(WORLD, timeout=10)
    yield group
    group.close()


@pytest.fixture
def group(shared: Processes) -> Iterator[Processes]:
    yield shared
    assert shared.outcomes(goes_on) == [float(WORLD)] * WORLD, "the group goes on with the next call"


def goes_on(comm: isobit.Communicator) -> float:
    return float(comm.all_reduce(np.ones(1, np.float32))[0])


def mismatch(comm: isobit.Communicator, odd: str) -> tuple[BaseException | None, bool]:
    """One rank's call differs: what this rank raised, and whether its tensor holds its old bits."""
    is_odd = comm.rank == ODD
    shape, dtype = (20, 10), np.float32
    if is_odd and odd == "shape":
        shape = (20, 11)
    if is_odd and odd == "transposed shape":
        shape = (10, 20)
    if is_odd and odd == "no elements":
        shape = (0, 10)
    if is_odd and odd == "dtype":
        dtype = np.int32  # type: ignore[assignment]
    tensor = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    before = tensor.tobytes()
    out = np.full((WORLD * shape[0], shape[1]), 7, dtype)
    try:
        if odd == "root":
            comm.broadcast(tensor, root=int(is_odd))
            # A rank that got what it expects is told at its next call.
            comm.barrier()
        elif odd == "collective" and is_odd:
            comm.all_gather(tensor, out)
        elif odd == "order of calls":
            calls: list[Callable[[], Any]] = [lambda: comm.barrier(), lambda: comm.all_reduce(tensor)]
            for call in calls[::-1] if is_odd else calls:
                call()
        else:
            comm.all_reduce(tensor, op="max" if is_odd and odd == "op" else "sum")
    except isobit.Error as error:
        return error, tensor.tobytes() == before
    return None, False


def check(group: Processes, odd: str, *words: str, blamed: int = ODD) -> list[isobit.Desync]:
    found = []
    for rank, (error, unchanged) in enumerate(group.outcomes(mismatch, odd)):
        assert isinstance(error, isobit.Desync), (rank, error)
        assert error.rank == rank
        assert error.sequence is not None
        assert error.operation is not None
        assert f"rank {blamed}" in str(error)
        for word in words:
            assert word in str(error), (word, str(error))
        assert unchanged, "the tensor holds its old bits"
        found.append(error)
    return found


def test_item_1_a_different_shape_is_named_on_every_rank(group: Processes) -> None:
    check(group, "shape", "count", "200", "220", "all_reduce")


def test_item_2_a_different_dtype_is_named_on_every_rank(group: Processes) -> None:
    check(group, "dtype", "dtype", "f32", "i32")


def test_item_3_a_different_operation_of_the_reduction_is_named_on_every_rank(group: Processes) -> None:
    for error in check(group, "op", "op", "sum", "max"):
        assert isinstance(error, isobit.ContractMismatch)


def test_item_4_a_different_collective_is_named_on_every_rank(group: Processes) -> None:
    check(group, "collective", "all_gather", "all_reduce")


def test_item_5_the_same_calls_in_another_order_differ_at_the_first(group: Processes) -> None:
    first = check(group, "order of calls", "barrier", "all_reduce")
    assert len({error.sequence for error in first}) == 1


def one_call_less(comm: isobit.Communicator) -> str:
    try:
        comm.barrier()
        if comm.rank == ODD:
            comm.close()
            return "left"
        comm.all_reduce(np.ones(3))
    except isobit.PeerLost as error:
        return str(error)
    return "nothing"


def test_item_6_a_rank_that_leaves_one_call_early_is_lost_with_the_call_named() -> None:
    group = Processes(WORLD, timeout=10)
    for rank, outcome in enumerate(results(group, one_call_less)):
        if rank == ODD:
            assert outcome == "left"
        else:
            assert f"rank {ODD} is lost: it closed its communicator" in outcome
            assert "all_reduce(3 x f64" in outcome
    group.close()


def test_item_7_a_different_root_is_named_on_every_rank(group: Processes) -> None:
    check(group, "root", "root")


def different_tags(comm: isobit.Communicator) -> BaseException | None:
    try:
        if comm.rank == 0:
            comm.send(np.ones(2), 1, tag=4)
        elif comm.rank == 1:
            comm.recv(np.ones(2), 0, tag=5)
        # A send is done when its bytes have arrived: the sender is told at its next call.
        comm.barrier()
    except isobit.Error as error:
        return error
    return None


def test_item_7_a_different_tag_is_named_on_every_rank(group: Processes) -> None:
    for error in group.outcomes(different_tags):
        assert isinstance(error, isobit.Desync)
        assert "tag" in str(error)
        assert "4" in str(error)
        assert "5" in str(error)


def test_item_8_as_many_bytes_in_another_shape_are_named_on_every_rank(group: Processes) -> None:
    check(group, "transposed shape", "shape")


def empty(comm: isobit.Communicator) -> tuple[int, ...]:
    found = [
        comm.all_reduce(np.ones((0, 3))).shape,
        comm.broadcast(np.ones(0)).shape,
        comm.all_gather(np.ones((0, 2))).shape,
        comm.reduce_scatter(np.ones((0, 2))).shape,
        comm.all_gather(np.ones(int(comm.rank == 0), int), counts=[1] + [0] * (WORLD - 1)).shape,
    ]
    assert found == [(0, 3), (0,), (0, 2), (0, 2), (1,)]
    return tuple(found[0])


def test_item_9_arrays_without_elements_are_arrays(group: Processes) -> None:
    assert group.outcomes(empty) == [(0, 3)] * WORLD


def test_item_10_no_elements_on_one_rank_only_is_named_on_every_rank(group: Processes) -> None:
    check(group, "no elements", "count", "200", "0")
