"""Ranks that call different things (items 1 to 10 of the bad inputs): an error on all of them, and then they go on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import isobit
import numpy as np
import pytest
from calls import CALLS, joined, values
from ranks import Processes, launch, results

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


class Outcome(NamedTuple):
    """What a rank saw."""

    error: BaseException | None
    #: Whether the tensor and `out` hold their old bits.
    unchanged: bool


def mismatch(comm: isobit.Communicator, name: str, odd: str, shape: tuple[int, int], root: int) -> Outcome:
    """One rank's call differs."""
    call, is_odd, dtype = CALLS[name], comm.rank == ODD, np.float32
    if is_odd:
        rows, columns = shape
        changed = {"shape": (rows + WORLD, columns), "transposed": (columns, rows), "no elements": (0, columns)}
        shape = changed.get(odd, shape)
        dtype = np.int32 if odd == "dtype" else np.float32  # type: ignore[assignment]
    tensor = values(shape, dtype, comm.rank)
    out = np.full(call.out(shape, WORLD), 7, dtype)
    before = tensor.tobytes(), out.tobytes()
    try:
        if is_odd and odd == "another collective":
            other = comm.all_gather if call.reduces else comm.all_reduce
            other(tensor.copy())
        elif is_odd and odd == "a barrier":
            comm.barrier()
        else:
            call.make(comm, tensor, out, (root + is_odd) % WORLD if odd == "root" else root)
    except isobit.Error as error:
        return Outcome(error, (tensor.tobytes(), out.tobytes()) == before)
    return Outcome(None, False)


#: What an error says of a mismatch: both calls, where they differ, and where both were made.
SAID = re.compile(
    r"rank (?P<one>\d) is in operation \d+ [\w/]+\(.*?\), rank (?P<other>\d) sent a message of operation \d+ "
    r"[\w/]+\(.*?\): (?P<field>[\w ]+) is (?P<ours>.+) on rank \d and (?P<theirs>.+?) on rank \d; .*"
    r"; called at (?P<here>\S+:\d+) on rank (?P=one) and at (?P<there>\S+:\d+) on rank (?P=other)"
)


def said(rank: int, error: BaseException | None) -> re.Match[str]:
    """What an error about a mismatch says, which must name everything that its reader needs."""
    assert isinstance(error, isobit.Desync), (rank, error)
    assert error.rank == rank
    assert error.sequence is not None
    assert error.operation is not None
    assert error.flight_recorder, "the flight record is attached"
    found = SAID.search(str(error))
    assert found, str(error)
    assert str(ODD) in (found["one"], found["other"]), str(error)
    assert {Path(found[place].rpartition(":")[0]).name for place in ("here", "there")} <= {
        "calls.py",
        Path(__file__).name,
    }
    return found


#: One message a pair, and several.
SIZES = {"small": (20, 40), "large": (400, 1600)}


def check(group: Processes, name: str, odd: str, size: str, root: int = 0) -> list[re.Match[str]]:
    """Makes the calls; what each rank was told."""
    outcomes = results(group, mismatch, name, odd, SIZES[size], root)
    found = [said(rank, error) for rank, (error, _) in enumerate(outcomes)]
    assert [unchanged for _, unchanged in outcomes] == [True] * WORLD
    return found


every_call = pytest.mark.parametrize("name", CALLS)
every_size = pytest.mark.parametrize("size", SIZES)


@every_size
@every_call
def test_item_1_a_different_shape_is_named_on_every_rank(group: Processes, name: str, size: str) -> None:
    for found in check(group, name, "shape", size):
        assert found["field"] == "count"
        (rows, columns), n = SIZES[size], WORLD
        one, other = (rows, columns), (rows + n, columns)
        if CALLS[name].out is joined:
            one, other = joined(one, n), joined(other, n)  # type: ignore[assignment]
        shapes = {found["one"]: one, found["other"]: one, str(ODD): other}
        text = f"the shapes are {shapes[found['one']]} on rank {found['one']} and {shapes[found['other']]} on rank"
        assert text in found.string


@every_size
@every_call
def test_item_2_a_different_dtype_is_named_on_every_rank(group: Processes, name: str, size: str) -> None:
    for found in check(group, name, "dtype", size):
        assert found["field"] == "dtype"
        assert {found["ours"], found["theirs"]} == {"f32", "i32"}


def other_operation(comm: isobit.Communicator, name: str, key: str, value: str) -> Outcome:
    tensor, out = np.ones((WORLD, 2), np.float32), np.full((WORLD, 2), 7, np.float32)
    chosen: dict[str, Any] = {key: value} if comm.rank == ODD else {}
    if key == "out_dtype" and comm.rank == ODD:
        out = out.astype(np.float64)
    block = out[: len(out) // WORLD] if name == "reduce_scatter" else out
    try:
        getattr(comm, name)(tensor, block, **chosen)
    except isobit.Error as error:
        return Outcome(error, bool((tensor == 1).all() and (out == 7).all()))
    return Outcome(None, False)


@pytest.mark.parametrize("name", ["all_reduce", "reduce", "reduce_scatter"])
@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("op", "max", "op"),
        ("order", "exact", "order"),
        ("accumulate", "f32", "accumulate"),
        ("out_dtype", "f64", "out_dtype"),
        ("op", "mean", "op"),
    ],
)
def test_item_3_a_different_contract_is_named_on_every_rank(
    group: Processes, name: str, key: str, value: str, field: str
) -> None:
    for rank, (error, unchanged) in enumerate(results(group, other_operation, name, key, value)):
        assert said(rank, error)["field"] == field
        assert isinstance(error, isobit.ContractMismatch)
        assert unchanged


@every_size
@every_call
@pytest.mark.parametrize("other", ["another collective", "a barrier"])
def test_item_4_a_different_collective_is_named_on_every_rank(
    group: Processes, name: str, other: str, size: str
) -> None:
    for found in check(group, name, other, size):
        assert found["field"] == "collective"
        assert name.split()[0] in (found["ours"], found["theirs"])


def another_order(comm: isobit.Communicator) -> BaseException | None:
    tensor = np.ones(3)
    calls: list[Callable[[], Any]] = [lambda: comm.barrier(), lambda: comm.all_reduce(tensor)]
    try:
        for call in calls[::-1] if comm.rank == ODD else calls:
            call()
    except isobit.Error as error:
        return error if (tensor == 1).all() else None
    return None


def test_item_5_the_same_calls_in_another_order_differ_at_the_first(group: Processes) -> None:
    errors = group.outcomes(another_order)
    for rank, error in enumerate(errors):
        found = said(rank, error)
        assert {found["ours"], found["theirs"]} == {"barrier", "all_reduce"}
    assert len({error.sequence for error in errors}) == 1


def one_call_less(comm: isobit.Communicator, name: str) -> str:
    tensor = values((WORLD, 2), np.float32, comm.rank)
    try:
        comm.barrier()
        if comm.rank == ODD:
            comm.close()
            return "left"
        CALLS[name].make(comm, tensor, np.zeros(CALLS[name].out(tensor.shape, WORLD), np.float32), ODD)
    except isobit.PeerLost as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize("name", ["all_reduce", "reduce", "all_gather", "scatter", "broadcast", "all_to_all"])
def test_item_6_a_rank_that_leaves_one_call_early_is_lost_with_the_call_named(name: str) -> None:
    group = Processes(WORLD, timeout=10)
    for rank, outcome in enumerate(results(group, one_call_less, name)):
        if rank == ODD:
            assert outcome == "left"
        else:
            assert f"rank {ODD} is lost: it closed its communicator" in outcome
            # The first that noticed may have been ahead of those that were about to leave the barrier.
            assert re.search(rf"\b{name}\(\d+ x f32", outcome), outcome
            assert f"the last call of rank {ODD} was operation 0 at " in outcome
    group.close()


ENDS_EARLY = """
import pathlib, sys, time
import numpy as np, isobit
comm = isobit.init(timeout=30)
comm.barrier()
# A rank that is still in the barrier would meet the loss there.
behind = [pathlib.Path(sys.argv[1], str(rank)) for rank in range(comm.world_size)]
behind[comm.rank].touch()
while comm.rank == 1 and not all(path.exists() for path in behind):
    time.sleep(0.01)
if comm.rank != 1:
    try:
        comm.all_reduce(np.ones(4, np.float32))
    except isobit.Error as error:
        print(f"{type(error).__name__} of {error.peer}: {error}")
"""


def test_item_6_a_program_that_ends_one_call_early_is_lost_with_the_call_named(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(ENDS_EARLY)
    done = launch(str(program), str(tmp_path), ranks=3)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if "PeerLost of 1: " in line]
    assert len(told) == 2, done.stdout
    for line in told:
        assert "rank 1 is lost" in line
        assert "all_reduce(4 x f32" in line
        assert "the last call of rank 1 was operation 0 at " in line


@every_size
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.rooted])
def test_item_7_a_different_root_is_named_on_every_rank(group: Processes, name: str, size: str) -> None:
    for found in check(group, name, "root", size):
        assert found["field"] == "root"
        assert {found["ours"], found["theirs"]} == {"0", "1"}


def roots_that_wait(comm: isobit.Communicator) -> BaseException | None:
    try:
        # Two ranks wait for all others before they say a word, as roots; the others wait for theirs, as leaves, whether
        # the root waits for each itself, as where ranks share cores, or along a tree.
        comm.broadcast(np.ones(3), root=comm.rank if comm.rank >= 2 else 0)
    except isobit.Error as error:
        return error
    return None


def test_item_7_a_different_root_is_named_though_nobody_has_said_a_word_to_it(group: Processes) -> None:
    for error in group.outcomes(roots_that_wait):
        assert isinstance(error, isobit.Desync), error
        assert "root is " in str(error)


def different_tags(comm: isobit.Communicator) -> BaseException | None:
    try:
        if comm.rank == 0:
            comm.send(np.ones(2), 1, tag=4)
        elif comm.rank == 1:
            comm.recv(np.ones(2), 0, tag=5)
        else:
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


def different_groups(comm: isobit.Communicator) -> BaseException | None:
    try:
        comm.new_group([0, 1] if comm.rank == ODD else [0, 1, 3])
        comm.barrier()
    except isobit.Error as error:
        return error
    return None


def test_item_7_a_different_group_is_named_on_every_rank(group: Processes) -> None:
    for error in group.outcomes(different_groups):
        assert isinstance(error, isobit.Desync)
        assert "the group [0, 1, 3] on rank " in str(error)
        assert f"the group [0, 1] on rank {ODD}" in str(error)


@every_size
@every_call
def test_item_8_as_many_bytes_in_another_shape_are_named_on_every_rank(group: Processes, name: str, size: str) -> None:
    for found in check(group, name, "transposed", size):
        assert found["field"] in ("shape", "count")
        if found["field"] == "shape":
            assert re.fullmatch(r"\(\d+, \d+\)", found["ours"])
            assert re.fullmatch(r"\(\d+, \d+\)", found["theirs"])


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


@every_size
@every_call
def test_item_10_no_elements_on_one_rank_only_is_named_on_every_rank(group: Processes, name: str, size: str) -> None:
    for found in check(group, name, "no elements", size):
        assert found["field"] == "count"
        assert "0" in (found["ours"], found["theirs"])


@pytest.mark.parametrize("root", [ODD, WORLD - 1])
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.rooted])
@pytest.mark.parametrize("odd", ["shape", "dtype", "a barrier"])
def test_a_call_that_differs_is_named_whoever_is_the_root(group: Processes, name: str, odd: str, root: int) -> None:
    check(group, name, odd, "small", root)


#: Two calls that differ in how their tensors are divided, and how an error describes both, for ranks 0 and 1 of a
#: pair of which the first is right.
LISTS: dict[str, tuple[list[Any], list[Any], str, str, str]] = {
    "another shape": (
        [(3,), (2, 4), (5,)],
        [(3,), (4, 2), (5,)],
        "shape",
        "a list of 3 tensors, [1] of shape (2, 4)",
        "a list of 3 tensors, [1] of shape (4, 2)",
    ),
    "another division": (
        [(3,), (5,)],
        [(3,), (2,), (3,)],
        "shape",
        "a list of 2 tensors, [1] of shape (5,)",
        "a list of 3 tensors, [1] of shape (2,)",
    ),
    "one more": (
        [(3,), (5,)],
        [(3,), (5,), (1,)],
        "count",
        "a list of 2 tensors",
        "a list of 3 tensors, [2] of shape (1,)",
    ),
    "a thousand": (
        [(2, 3)] * 1000,
        [(2, 3)] * 998 + [(3, 2), (2, 3)],
        "shape",
        "a list of 1000 tensors, [998] of shape (2, 3)",
        "a list of 1000 tensors, [998] of shape (3, 2)",
    ),
    "no list": ([(3,), (5,)], [], "shape", "a list of 2 tensors, [0] of shape (3,)", "(8,)"),
}


def lists(comm: isobit.Communicator, which: str, way: str) -> str:
    """One rank's list differs; what the error says."""
    right, odd, *_ = LISTS[which]
    shapes = odd if comm.rank == ODD else right
    # Native code takes usual arrays as they are; Python joins others.
    order: Any = "F" if way == "joined" else "C"
    tensors: Any = [np.zeros(shape, np.float32, order) for shape in shapes] or np.zeros(8, np.float32)
    # With another list before it, so that an earlier one does not hide the present one.
    comm.all_reduce([np.zeros((1, 2), np.float32)] * 600)
    try:
        comm.all_reduce(tensors)
        comm.barrier()
    except isobit.Desync as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize("way", ["as they are", "joined"])
@pytest.mark.parametrize("which", LISTS)
def test_lists_of_tensors_that_differ_are_described_by_their_first_difference(
    group: Processes, which: str, way: str
) -> None:
    *_, field, right, odd = LISTS[which]
    for rank, text in enumerate(results(group, lists, which, way)):
        assert f"{field} is " in text, (rank, text)
        both = [f"{right} on rank ", f"{odd} on rank {ODD}"]
        assert all(each in text for each in both), (rank, text)
        assert "digest" not in text


def accumulates(comm: isobit.Communicator, odd: str) -> str:
    """One rank's reduction of leaves is cut otherwise, or is no accumulation; what the error says."""
    is_odd = comm.rank == ODD
    out = np.zeros(1, np.float32)
    try:
        if is_odd and odd == "plain":
            comm.reduce_scatter(np.zeros(WORLD, np.float32), out)
        else:
            with comm.accumulate(num_leaves=WORLD) as acc:
                acc.add(comm.rank, np.zeros(WORLD, np.float32))
                if odd == "counts":
                    acc.reduce_scatter(counts=[0, 1, 2, 1] if is_odd else [2, 1, 0, 1])
                elif odd == "equal counts":
                    acc.reduce_scatter(counts=None if is_odd else [0, 1, 2, 1])
                else:
                    acc.reduce_scatter()
        comm.barrier()
    except isobit.Desync as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        (
            "counts",
            {"layout is ", "[2, 1, 0, 1] elements a rank on rank", f"[0, 1, 2, 1] elements a rank on rank {ODD}"},
        ),
        ("plain", {"layout is ", "leaves that were accumulated on rank", f"a tensor of each rank on rank {ODD}"}),
        (
            "equal counts",
            {
                "the layouts are ",
                "[0, 1, 2, 1] elements a rank on rank",
                f"equally many elements a rank on rank {ODD}",
            },
        ),
    ],
)
def test_leaves_and_counts_that_differ_are_said(group: Processes, odd: str, expected: set[str]) -> None:
    for text in results(group, accumulates, odd):
        assert "digest" not in text
        assert all(each in text for each in expected), text
