"""When ranks disagree, stop or die: a typed error on every rank, that names who is to blame."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import isobit
import numpy as np
import pytest
from ranks import Processes, Threads, is_state, wait_until

Call = Callable[[isobit.Communicator], Any]


def disagree(comm: isobit.Communicator, odd: str) -> None:
    tensor = np.ones(6, np.float32)
    kwargs: dict[str, Any] = {"op": "sum"}
    if comm.rank == comm.world_size - 1:
        if odd == "op":
            kwargs["op"] = "max"
        elif odd == "order":
            kwargs["order"] = "exact"
        elif odd == "dtype":
            tensor = np.ones(6, np.int32)
        elif odd == "count":
            tensor = np.ones(7, np.float32)
        elif odd == "shape":
            tensor = np.ones((2, 3), np.float32)
        elif odd == "accumulate":
            kwargs["accumulate"] = "f32"
        elif odd == "out_dtype":
            kwargs["out_dtype"] = "f64"
        elif odd == "collective":
            comm.broadcast(tensor)
            return
    comm.all_reduce(tensor, **kwargs)


def roots(comm: isobit.Communicator) -> None:
    comm.reduce(np.ones(2), root=comm.rank % 2)


def check_desync(outcomes: list[Any], field: str) -> None:
    for rank, error in enumerate(outcomes):
        assert isinstance(error, isobit.Desync), (rank, error)
        assert field in str(error)
        assert error.rank == rank
        assert error.operation is not None
        assert error.sequence is not None
        assert error.epoch == 0
        assert "rank" in str(error)
    last = len(outcomes) - 1
    assert all(f"rank {last}" in str(error) for error in outcomes)


@pytest.mark.parametrize(
    ("odd", "field"),
    [
        ("op", "op"),
        ("order", "order"),
        ("dtype", "dtype"),
        ("count", "count"),
        ("shape", "shape"),
        ("accumulate", "accumulate"),
        ("out_dtype", "out_dtype"),
        ("collective", "all_reduce"),
    ],
)
def test_a_mismatch_is_named_on_every_rank(odd: str, field: str) -> None:
    for world_size in (2, 3, 5):
        group = Threads(world_size)
        check_desync(group.outcomes(disagree, odd), field)
        group.close()


def test_a_mismatch_is_named_on_every_process() -> None:
    group = Processes(3)
    check_desync(group.outcomes(disagree, "op"), "op")
    assert group.outcomes(reduce_once) == [3.0, 3.0, 3.0], "the group goes on"
    group.close()


def test_different_roots_are_named() -> None:
    group = Threads(2)
    check_desync(group.outcomes(roots), "root")
    group.close()


@pytest.fixture
def three() -> Iterator[Processes]:
    group = Processes(3)
    assert group.outcomes(reduce_once) == [3.0, 3.0, 3.0]
    yield group
    group.close()


def reduce_once(comm: isobit.Communicator, timeout: float | None = None) -> float:
    return float(comm.all_reduce(np.ones(1), timeout=timeout)[0])


def reduce_much(comm: isobit.Communicator) -> None:
    tensor = np.ones(50_000)
    while True:
        comm.all_reduce(tensor)


def test_a_rank_that_is_killed_is_named(three: Processes) -> None:
    three.start(reduce_much)
    os.kill(three.pid(1), signal.SIGKILL)
    for rank in (0, 2):
        error = three.outcome(rank)
        assert isinstance(error, isobit.PeerLost), error
        assert error.peer == 1
        assert "rank 1" in str(error)


def test_a_rank_that_is_killed_while_others_wait_for_it_is_named(three: Processes) -> None:
    three.start(reduce_once, ranks=[0, 2])
    os.kill(three.pid(1), signal.SIGKILL)
    for rank in (0, 2):
        error = three.outcome(rank)
        assert isinstance(error, isobit.PeerLost), error
        assert error.peer == 1


def test_a_rank_that_is_stopped_is_a_timeout_that_names_it(three: Processes) -> None:
    os.kill(three.pid(2), signal.SIGSTOP)
    wait_until(lambda: is_state(three.pid(2), "T"), "rank 2 is stopped")
    try:
        three.start(reduce_once, 1.0, ranks=[0, 1])
        errors = [three.outcome(rank) for rank in (0, 1)]
    finally:
        os.kill(three.pid(2), signal.SIGCONT)
    for error in errors:
        assert isinstance(error, isobit.Timeout), error
        assert isinstance(error, TimeoutError)
        assert error.peer == 2
        assert "rank 2" in str(error)


def close(comm: isobit.Communicator) -> None:
    comm.close()


def test_a_rank_that_closed_its_communicator_is_lost(three: Processes) -> None:
    three.start(close, ranks=[0])
    assert three.outcome(0) is None
    three.start(reduce_once, ranks=[1, 2])
    for rank in (1, 2):
        error = three.outcome(rank)
        assert isinstance(error, isobit.PeerLost), error
        assert error.peer == 0


def abort(comm: isobit.Communicator) -> None:
    comm.abort("the loss is NaN")


def test_an_abort_reaches_every_rank_with_its_reason(three: Processes) -> None:
    three.start(reduce_once, ranks=[0, 1])
    three.start(abort, ranks=[2])
    for rank in (0, 1):
        error = three.outcome(rank)
        assert isinstance(error, isobit.Aborted), error
        assert "the loss is NaN" in str(error)
        assert "rank 2" in str(error)


def reduce_and_say_so(comm: isobit.Communicator, begun: Path) -> None:
    begun.touch()
    comm.all_reduce(np.ones(1))


def test_ctrl_c_in_one_rank_is_an_abort_for_the_others(three: Processes, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    three.start(reduce_and_say_so, begun, ranks=[0])
    three.start(reduce_once, ranks=[1])
    wait_until(lambda: begun.exists() and is_state(three.pid(0), "S"), "rank 0 waits for rank 2")
    os.kill(three.pid(0), signal.SIGINT)
    assert isinstance(three.outcome(0), KeyboardInterrupt)
    assert isinstance(three.outcome(1), isobit.Aborted)
    three.start(reduce_once, ranks=[2])
    assert isinstance(three.outcome(2), isobit.Aborted)


def test_a_rank_that_never_comes_is_a_timeout_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ISOBIT_JOB": f"lonely-{os.getpid()}", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(isobit.Timeout, match="rank 1"):
        isobit.init(timeout=0.5)


def test_an_error_survives_pickling() -> None:
    error = isobit.PeerLost("gone", rank=0, peer=1, operation="barrier", sequence=3, epoch=0)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is isobit.PeerLost
    assert (str(copy), copy.rank, copy.peer, copy.operation, copy.sequence, copy.epoch) == (
        "gone",
        0,
        1,
        "barrier",
        3,
        0,
    )
