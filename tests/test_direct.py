"""The shortest way from Python to the runtime: what takes it, what is left to the methods, and that nobody can tell."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import isobit
import ml_dtypes
import numpy as np
import pytest
from isobit import _native
from isobit.arrays import Array
from isobit.dtypes import NAMES, dtype_of
from ranks import Processes, results, wait_until


class Subclass(np.ndarray[Any, Any]):
    """Not numpy's own class."""


DENSE = np.arange(12, dtype=np.float32).reshape(3, 4)
READONLY = DENSE.copy()
READONLY.flags.writeable = False
MISALIGNED = np.zeros(9, np.uint8)[1:].view(np.float32)
UNUSUAL = {
    "list": [1.0, 2.0],
    "number": 1.0,
    "scalar of numpy": np.float32(1),
    "strided": DENSE[:, ::2],
    "transposed": DENSE.T,
    "read-only": READONLY,
    "misaligned": MISALIGNED,
    "big-endian": DENSE.astype(">f4"),
    "complex": DENSE.astype(np.complex64),
    "subclass": DENSE.view(Subclass),
    "bytearray": bytearray(8),
}
UNUSUAL_CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((DENSE, DENSE, DENSE), {}),
    ((DENSE,), {"op": "som"}),
    ((DENSE,), {"op": 1}),
    ((DENSE,), {"order": None}),
    ((DENSE,), {"timeout": 0.0}),
    ((DENSE,), {"timeout": "soon"}),
    ((DENSE,), {"async_op": True}),
    ((DENSE,), {"out_dtype": "f64"}),
    ((DENSE,), {"root": 0}),
    ((DENSE,), {"speed": "high"}),
    ((DENSE, DENSE), {"out": DENSE}),
    ((DENSE, DENSE[:2]), {}),
    ((DENSE[:2], DENSE[1:]), {}),
    ((DENSE.reshape(-1), DENSE), {}),
    ((DENSE,), {"tensor": DENSE}),
    ((NotImplemented,), {}),
    ((None,), {}),
]


LEFT = object()


def _left(*_: object, **__: object) -> object:
    return LEFT


def direct(name: str) -> Callable[..., Any]:
    """The method of that name, of which only the short way is there."""
    return _native.shortcut(name, _left)


all_reduce, broadcast, reduce = direct("all_reduce"), direct("broadcast"), direct("reduce")
all_gather, all_to_all, reduce_scatter = direct("all_gather"), direct("all_to_all"), direct("reduce_scatter")


@pytest.fixture(name="comm")
def _comm() -> isobit.Communicator:
    return isobit.init()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (1,) * 9])
def test_an_array_of_any_dtype_and_shape_goes_the_short_way(
    comm: isobit.Communicator, name: str, shape: tuple[int, ...]
) -> None:
    tensor = np.ones(shape, dtype_of(name))
    # An object of ml_dtypes is known from the first time on that it was seen.
    comm.broadcast(tensor.copy())
    out = np.zeros_like(tensor)
    assert all_reduce(comm, tensor, out, op="max") is out
    assert out.tobytes() == tensor.tobytes()
    assert broadcast(comm, tensor, root=0) is tensor


def test_every_call_of_one_array_goes_the_short_way(comm: isobit.Communicator) -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert reduce(comm, tensor, root=0) is tensor
    for method in (all_gather, reduce_scatter, all_to_all):
        found = method(comm, tensor)
        assert found is not tensor
        assert (found.shape, found.dtype, found.tobytes()) == (tensor.shape, tensor.dtype, tensor.tobytes())
        out = np.zeros_like(tensor)
        assert method(comm, tensor, out=out) is out
        assert out.tobytes() == tensor.tobytes()
        for unusual in (out[:2], out.reshape(-1), out[:, ::2], out.tolist(), READONLY):
            assert method(comm, tensor, unusual) is LEFT
        assert method(comm, tensor.T) is LEFT
        assert method(comm, tensor, counts=[3]) is LEFT
    assert all_gather(comm, np.array(3.5)).tolist() == [3.5]
    for method in (reduce_scatter, all_to_all):
        assert method(comm, np.array(3.5)) is LEFT
    assert all_to_all(comm, tensor, tensor) is LEFT
    assert reduce(comm, tensor, root=1) is LEFT


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_array_is_left_to_the_method(comm: isobit.Communicator, kind: str) -> None:
    for arguments in [(UNUSUAL[kind],), (DENSE, UNUSUAL[kind])]:
        assert all_reduce(comm, *arguments) is LEFT
    assert broadcast(comm, UNUSUAL[kind]) is LEFT


PLACES: dict[str, Callable[[isobit.Communicator, Array], object]] = {
    "lambda": lambda comm, x: comm.all_reduce(x),
    "comprehension": lambda comm, x: [comm.all_reduce(y) for y in [x]],
    "generator": lambda comm, x: next(comm.all_reduce(y) for y in [x]),
    "function in C": lambda comm, x: [*map(comm.all_reduce, [x])],
    "unbound": lambda comm, x: isobit.Communicator.all_reduce(comm, tensor=x),
    "compiled late": lambda comm, x: eval(compile("comm.all_reduce(x)", __file__, "eval"), {"comm": comm, "x": x}),
}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("watched", [False, True])
def test_a_call_names_its_line_each_time(kind: str, watched: bool) -> None:
    comm, call = isobit.init(), PLACES[kind]
    line = 1 if kind == "compiled late" else call.__code__.co_firstlineno
    before = sys.getprofile()
    if watched:
        sys.setprofile(lambda *_: None)
    try:
        for _ in range(4):
            call(comm, DENSE.copy())
    finally:
        sys.setprofile(before)
    assert [record["site"] for record in comm.flight_recorder] == [f"{__file__}:{line}"] * 4


def test_two_calls_on_two_lines_in_a_loop_are_told_apart() -> None:
    comm = isobit.init()
    line = inspect.currentframe().f_lineno  # type: ignore[union-attr]
    for _ in range(3):
        comm.all_reduce(DENSE.copy())
        comm.all_reduce(DENSE.copy())
    sites = [record["site"] for record in comm.flight_recorder]
    assert sites == [f"{__file__}:{line + 2}", f"{__file__}:{line + 3}"] * 3


@pytest.mark.parametrize(("arguments", "options"), UNUSUAL_CALLS)
def test_an_unusual_call_is_left_to_the_method(
    comm: isobit.Communicator, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    assert all_reduce(comm, *arguments, **options) is LEFT


def test_what_is_left_to_the_method_was_not_made() -> None:
    comm = isobit.init()
    comm.all_reduce(DENSE[:, ::2].copy(), op="max")
    comm.all_reduce(UNUSUAL["strided"], op="max")
    with pytest.raises(ValueError, match="op"):
        comm.all_reduce(DENSE, op="som")  # type: ignore[arg-type]
    assert [record["state"] for record in comm.flight_recorder] == ["completed"] * 2


def test_both_ways_name_the_same_line() -> None:
    comm = isobit.init()
    for _ in range(2):
        comm.all_reduce(DENSE.copy()), comm.all_reduce(DENSE.copy()[:, ::2])
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    assert [record["site"] for record in comm.flight_recorder] == [f"{__file__}:{line}"] * 4


def test_an_array_in_use_is_not_resized() -> None:
    comm = isobit.init()
    tensor = np.ones(4, ml_dtypes.bfloat16)
    work = comm.all_reduce(tensor, async_op=True)
    with pytest.raises(ValueError, match="resize"):
        tensor.resize(1 << 20)
    work.wait()


@pytest.mark.parametrize("name", ["all_reduce", "reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast"])
def test_a_method_with_a_short_way_is_called_and_described_as_any_other(name: str) -> None:
    comm = isobit.init()
    method, bound = getattr(isobit.Communicator, name), getattr(comm, name)
    tensor = np.arange(6, dtype=np.float32)
    for found in (
        method(comm, tensor.copy()),
        bound(tensor.copy()),
        bound(tensor=tensor.copy()),
        bound(**{"".join(["ten", "sor"]): tensor.copy()}),
        functools.partial(method, comm)(tensor.copy()),
        bound(*[tensor.copy()], **{"timeout": None}),
    ):
        assert found.tobytes() == tensor.tobytes()
    assert (bound.__self__, bound.__func__) == (comm, method)
    assert method.__doc__.splitlines()[0].endswith(".")
    assert method.__name__ == name
    assert [*inspect.signature(method).parameters][:2] == ["self", "tensor"]
    assert next(iter(inspect.signature(bound).parameters)) == "tensor"
    assert inspect.signature(method).parameters["timeout"].annotation == "float | None"
    with pytest.raises(TypeError, match="speed"):
        bound(tensor, speed="high")
    with pytest.raises(TypeError, match="tensor"):
        bound()
    with pytest.raises(TypeError):
        method()
    with pytest.raises(AttributeError):
        method(tensor, tensor)


def test_a_call_that_fails_on_the_short_way_is_told_to_the_others_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, BaseException]] = []
    monkeypatch.setattr(isobit.Communicator, "_refuse", lambda _, name, error: told.append((name, error)))
    comm = isobit.init()
    comm.close()
    with pytest.raises(isobit.Error, match="closed") as raised:
        comm.all_reduce(DENSE.copy())
    assert told == [("all_reduce", raised.value)]


def _reduce_once_told(comm: isobit.Communicator, folder: Path) -> float:
    tensor, told = np.ones(2), folder / "told"
    if comm.rank == 0:
        calls = threading.Event()

        def tell() -> None:
            calls.wait()
            told.touch()

        threading.Thread(target=tell).start()
        calls.set()
    else:
        wait_until(told.exists, "the thread beside the call of rank 0 ran")
    comm.all_reduce(tensor)
    return float(tensor[0])


def test_other_threads_run_while_a_small_call_waits_for_another_process(tmp_path: Path) -> None:
    group = Processes(2, timeout=10.0)
    try:
        assert results(group, _reduce_once_told, tmp_path) == [2.0, 2.0]
    finally:
        group.close()
