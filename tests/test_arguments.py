"""What is wrong in an argument is said before anything is sent, and nothing is broken by it."""

from __future__ import annotations

import array
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import isobit
import numpy as np
import pytest
from ranks import wait_until

READ_ONLY = np.ones(4)
READ_ONLY.flags.writeable = False


@pytest.fixture
def comm() -> isobit.Communicator:
    return isobit.init()


@pytest.mark.parametrize(
    "tensor",
    [
        [1.0, 2.0],
        3,
        None,
        "text",
        np.ones(2, object),
        np.ones(2, ">f4"),
        np.ones(2, ">i8"),
        np.ones(2, complex),
        np.ones(2, np.longdouble),
        np.array(["a"]),
        np.array([b"a"]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "i4,f4"),
    ],
    ids=lambda tensor: str(getattr(tensor, "dtype", type(tensor).__name__)),
)
def test_what_is_no_supported_array_is_a_type_error(comm: isobit.Communicator, tensor: Any) -> None:
    calls: list[Callable[[Any], Any]] = [
        comm.all_reduce,
        comm.reduce,
        comm.reduce_scatter,
        comm.all_gather,
        comm.gather,
        comm.scatter if tensor is not None else comm.gather,
        comm.broadcast,
        comm.all_to_all,
        lambda given: comm.accumulate(1).add(0, given),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"supported|must be an array"):
            call(tensor)
    assert comm.all_reduce(np.ones(1)) == 1


@pytest.mark.parametrize(
    ("kind", "message", "call"),
    [
        (ValueError, "op=.*none of sum", lambda c: c.all_reduce(np.ones(2), op="avg")),
        (ValueError, "order=.*none of tree", lambda c: c.all_reduce(np.ones(2), order="fast")),
        (TypeError, "str", lambda c: c.all_reduce(np.ones(2), op=3)),
        (ValueError, "mean", lambda c: c.all_reduce(np.ones(2, int), op="mean")),
        (ValueError, "band", lambda c: c.all_reduce(np.ones(2), op="band")),
        (ValueError, "accumulate=f32", lambda c: c.all_reduce(np.ones(2), accumulate="f32")),
        (TypeError, "f31", lambda c: c.all_reduce(np.ones(2), accumulate="f31")),
        (ValueError, "accumulator", lambda c: c.all_reduce(np.ones(2), accumulate="f64", order="exact")),
        (ValueError, "divisor", lambda c: c.all_reduce(np.ones(2), divisor=2)),
        (ValueError, "divisor=0", lambda c: c.all_reduce(np.ones(2), op="mean", divisor=0)),
        (ValueError, "divisor=-3", lambda c: c.all_reduce(np.ones(2), op="mean", divisor=-3)),
        (TypeError, "divisor", lambda c: c.all_reduce(np.ones(2), op="mean", divisor=1.5)),
        (ValueError, "out_dtype=i32", lambda c: c.all_reduce(np.ones(2), out_dtype="i32")),
        (TypeError, "complex", lambda c: c.all_reduce(np.ones(2), out_dtype=complex)),
        (TypeError, "out_dtype asks", lambda c: c.all_reduce(np.ones(2), np.ones(2), out_dtype="f32")),
        (ValueError, "out has shape", lambda c: c.all_reduce(np.ones(2), np.ones(3))),
        (ValueError, "out has shape", lambda c: c.all_reduce(np.ones((2, 3)), np.ones((3, 2)))),
        (TypeError, "read-only", lambda c: c.all_reduce(READ_ONLY)),
        (TypeError, "read-only", lambda c: c.all_reduce(READ_ONLY[::2])),
        (TypeError, "read-only", lambda c: c.all_reduce(np.ones(2), READ_ONLY[::2])),
        (TypeError, "read-only", lambda c: c.all_reduce(np.float32(1))),
        (TypeError, "read-only", lambda c: c.all_reduce(b"bytes")),
        (TypeError, "read-only", lambda c: c.recv(READ_ONLY, 0)),
        (ValueError, "root=1 is no rank", lambda c: c.broadcast(np.ones(2), root=1)),
        (ValueError, "root=-1", lambda c: c.broadcast(np.ones(2), root=-1)),
        (TypeError, "root", lambda c: c.broadcast(np.ones(2), root="0")),
        (ValueError, "dst=7", lambda c: c.send(np.ones(2), 7)),
        (ValueError, "src=7", lambda c: c.recv(np.ones(2), 7)),
        (ValueError, "tag=-1", lambda c: c.send(np.ones(2), 0, tag=-1)),
        (ValueError, "no dimension", lambda c: c.reduce_scatter(np.array(1.0))),
        (ValueError, "counts has 2 entries", lambda c: c.all_gather(np.ones(2), counts=[1, 1])),
        (ValueError, "give rank 0 1 rows", lambda c: c.all_gather(np.ones(2), counts=[1])),
        (ValueError, "sum to 3", lambda c: c.reduce_scatter(np.ones(2), counts=[3])),
        (ValueError, "fewer than 0", lambda c: c.reduce_scatter(np.ones(2), counts=[-2])),
        (TypeError, "sequence of integers", lambda c: c.all_gather(np.ones(2), counts=[1.5])),
        (ValueError, "both send_counts", lambda c: c.all_to_all(np.ones(2), send_counts=[2])),
        (ValueError, "out has shape", lambda c: c.all_gather(np.ones(2), np.ones(3))),
        (ValueError, "they must be equal", lambda c: c.all_gather(np.ones(2), np.ones(2, int))),
        (ValueError, "must give tensor", lambda c: c.scatter()),
        (ValueError, "timeout=0", lambda c: c.barrier(timeout=0)),
        (ValueError, "timeout=NaN", lambda c: c.barrier(timeout=float("nan"))),
        (ValueError, "timeout=inf", lambda c: c.barrier(timeout=float("inf"))),
        (ValueError, "timeout=-1", lambda c: c.all_reduce(np.ones(2), timeout=-1)),
        (TypeError, "real number", lambda c: c.barrier(timeout="1")),
    ],
)
def test_a_wrong_argument_says_what_is_wrong(
    comm: isobit.Communicator, kind: type[Exception], message: str, call: Callable[[isobit.Communicator], Any]
) -> None:
    with pytest.raises(kind, match=message):
        call(comm)
    assert comm.all_reduce(np.ones(1)) == 1


def test_a_wrong_argument_on_one_rank_is_an_error_on_the_others_and_leaves_the_group_usable() -> None:
    first, second = isobit.memory_group(2, timeout=60)
    found: list[Any] = []

    def other_rank() -> None:
        with pytest.raises(isobit.RemoteArgumentError, match="rank 0 failed in all_reduce: ValueError: op=") as caught:
            second.all_reduce(np.ones(2))
        found.append(caught.value.rank)
        found.append(second.all_reduce(np.ones(2)))

    other = threading.Thread(target=other_rank)
    other.start()
    with pytest.raises(ValueError, match="op="):
        first.all_reduce(np.ones(2), op="avg")  # type: ignore[arg-type]
    assert np.array_equal(first.all_reduce(np.ones(2)), [2, 2])
    other.join()
    assert found[0] == 1
    assert np.array_equal(found[1], [2, 2])


def test_arrays_of_no_dimension_and_of_no_element_are_arrays(comm: isobit.Communicator) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (np.float32, np.bool_, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2):
        scalar = np.ones((), dtype)
        assert comm.all_reduce(scalar, op="max") is scalar
        assert scalar.shape == ()
        assert comm.all_reduce(np.ones((3, 0, 2), dtype), op="max").shape == (3, 0, 2)


def test_anything_with_a_buffer_is_an_array(comm: isobit.Communicator) -> None:
    assert comm.all_reduce(array.array("d", [1, 2])) == array.array("d", [1, 2])
    assert comm.all_reduce(bytearray(b"abc"), op="max") == b"abc"
    assert comm.all_gather(memoryview(b"abc")).tobytes() == b"abc"
    strided = memoryview(bytearray(b"abcdef"))[::2]
    assert comm.all_reduce(strided, op="max").tobytes() == b"ace"
    assert comm.all_gather(np.float64(3)) == [3]


class OnlyAnInterface:
    """An array that numpy knows how to adopt."""

    def __init__(self, inner: Any) -> None:
        self.__array_interface__ = inner.__array_interface__
        self._inner = inner


def test_an_array_that_numpy_can_adopt_is_an_array(comm: isobit.Communicator) -> None:
    inner = np.arange(3.0)
    comm.all_reduce(OnlyAnInterface(inner), op="mean", divisor=2)
    assert np.array_equal(inner, [0, 0.5, 1])


def test_a_second_thread_is_refused_while_a_call_is_in_progress() -> None:
    first, second = isobit.memory_group(2, timeout=60)
    waiting = threading.Thread(target=first.barrier)
    waiting.start()
    refusals: list[str] = []

    def is_refused() -> bool:
        try:
            _ = first.epoch
        except RuntimeError as error:
            refusals.append(str(error))
        return bool(refusals)

    wait_until(is_refused, "the other thread is inside its call")
    second.barrier()
    waiting.join()
    assert "in use by another thread" in refusals[0]
    _ = first.epoch


def test_a_forked_child_is_refused_and_does_no_harm() -> None:
    comm = isobit.init()
    comm.barrier()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            comm.barrier()
            os.write(writer, b"no error")
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        finally:
            del comm
            os._exit(0)
    os.close(writer)
    told = os.read(reader, 1000).decode()
    os.close(reader)
    os.waitpid(pid, 0)
    assert "belongs to the process that was forked" in told
    comm.barrier()


def test_a_closed_communicator_says_so() -> None:
    comm = isobit.init()
    comm.close()
    comm.close()
    with pytest.raises(isobit.Error, match="closed"):
        comm.barrier()
    assert (comm.rank, comm.world_size) == (0, 1)


def test_ctrl_c_ends_a_call() -> None:
    first, _ = isobit.memory_group(2, timeout=60)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        first.barrier()
    timer.join()
