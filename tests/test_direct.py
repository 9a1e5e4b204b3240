"""The shortest way from Python to the runtime: what takes it, what is left to the methods, and that nobody can tell."""

from __future__ import annotations

import inspect
from typing import Any

import isobit
import ml_dtypes
import numpy as np
import pytest
from isobit import _native
from isobit.dtypes import NAMES, dtype_of


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
]


@pytest.fixture(name="native")
def _native_of_one() -> _native.Communicator:
    return _native.Communicator.solo()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (1,) * 9])
def test_an_array_of_any_dtype_and_shape_goes_the_short_way(
    native: _native.Communicator, name: str, shape: tuple[int, ...]
) -> None:
    tensor = np.ones(shape, dtype_of(name))
    # An object of ml_dtypes is known from the first time on that it was seen.
    isobit.init().broadcast(tensor.copy())
    out = np.zeros_like(tensor)
    assert _native.direct_all_reduce(native, (tensor, out), {"op": "max"}) is out
    assert out.tobytes() == tensor.tobytes()
    assert _native.direct_broadcast(native, (tensor,), {"root": 0}) is tensor


def test_every_call_of_one_array_goes_the_short_way(native: _native.Communicator) -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert _native.direct_reduce(native, (tensor,), {"root": 0}) is tensor
    for direct in (_native.direct_all_gather, _native.direct_reduce_scatter, _native.direct_all_to_all):
        found = direct(native, (tensor,), {})
        assert found is not tensor
        assert (found.shape, found.dtype, found.tobytes()) == (tensor.shape, tensor.dtype, tensor.tobytes())
        out = np.zeros_like(tensor)
        assert direct(native, (tensor,), {"out": out}) is out
        assert out.tobytes() == tensor.tobytes()
        for unusual in (out[:2], out.reshape(-1), out[:, ::2], out.tolist(), READONLY):
            assert direct(native, (tensor, unusual), {}) is NotImplemented
        assert direct(native, (tensor.T,), {}) is NotImplemented
        assert direct(native, (tensor,), {"counts": [3]}) is NotImplemented
    assert _native.direct_all_gather(native, (np.array(3.5),), {}).tolist() == [3.5]
    for direct in (_native.direct_reduce_scatter, _native.direct_all_to_all):
        assert direct(native, (np.array(3.5),), {}) is NotImplemented
    assert _native.direct_all_to_all(native, (tensor, tensor), {}) is NotImplemented
    assert _native.direct_reduce(native, (tensor,), {"root": 1}) is NotImplemented


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_array_is_left_to_the_method(native: _native.Communicator, kind: str) -> None:
    for arguments in [(UNUSUAL[kind],), (DENSE, UNUSUAL[kind])]:
        assert _native.direct_all_reduce(native, arguments, {}) is NotImplemented
    assert _native.direct_broadcast(native, (UNUSUAL[kind],), {}) is NotImplemented


@pytest.mark.parametrize(("arguments", "options"), UNUSUAL_CALLS)
def test_an_unusual_call_is_left_to_the_method(
    native: _native.Communicator, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    assert _native.direct_all_reduce(native, arguments, options) is NotImplemented


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
