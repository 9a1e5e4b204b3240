"""Tensors of every kind go in and come out: torch's, DLPack's, buffers, strided ones; and what can't is refused."""

from __future__ import annotations

import array
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import isobit
import numpy as np
import pytest
from isobit.tensors import as_array

ml_dtypes = pytest.importorskip("ml_dtypes")


@pytest.fixture
def comm() -> Iterator[isobit.Communicator]:
    with isobit.init() as made:
        yield made


class Tensor:
    """What isobit uses of a torch tensor, over numpy's memory."""

    def __init__(self, values: Any, **said: Any) -> None:
        self._values = values
        self.device = said.get("device", Device("cpu"))
        self.layout = said.get("layout", "torch.strided")
        self.dtype = said.get("dtype", f"torch.{values.dtype.name}")
        self.requires_grad = said.get("requires_grad", False)
        self._negated = said.get("negated", False)
        self.shape = values.shape

    def data_ptr(self) -> int:
        return int(self._values.__array_interface__["data"][0])

    def stride(self) -> tuple[int, ...]:
        return tuple(stride // self._values.itemsize for stride in self._values.strides)

    def is_neg(self) -> bool:
        return bool(self._negated)

    def is_conj(self) -> bool:
        return False


Tensor.__module__ = "torch"


class Parameter(Tensor):
    """A subclass, as torch's parameters are."""


class Device(str):
    """A device, by its name."""

    @property
    def type(self) -> str:
        return self.partition(":")[0]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "float32", "float64"])
def test_a_torch_tensor_is_reduced_in_place(comm: isobit.Communicator, dtype: str) -> None:
    values = np.array([[1, 2, 3], [4, 5, 6]], getattr(ml_dtypes, dtype, dtype))
    tensor = Parameter(values)
    assert comm.all_reduce(tensor, op="mean", divisor=2) is tensor
    assert np.array_equal(values.astype(float), [[0.5, 1, 1.5], [2, 2.5, 3]])


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_a_torch_tensor_of_integers_is_reduced_in_place(comm: isobit.Communicator, dtype: str) -> None:
    values = np.array([0, 1, 1], dtype)
    out = np.zeros(3, dtype)
    assert comm.all_reduce(Tensor(values), out, op="max") is out
    assert np.array_equal(out, values)


def test_a_strided_torch_tensor_gets_its_values_where_its_elements_are(comm: isobit.Communicator) -> None:
    base = np.zeros((4, 6), ml_dtypes.bfloat16)
    tensor = Tensor(base.T[1::2, ::3])
    comm.all_reduce(np.ones((3, 2), ml_dtypes.bfloat16), tensor)
    expected = np.zeros((4, 6))
    expected[::3, 1::2] = 1
    assert np.array_equal(base.astype(float), expected)


def test_a_torch_tensor_that_requires_grad_is_read_and_not_written(comm: isobit.Communicator) -> None:
    leaf = Tensor(np.ones(2, np.float32), requires_grad=True)
    assert np.array_equal(comm.all_reduce(leaf, np.zeros(2, np.float32)), [1, 1])
    calls: list[Callable[[Any], Any]] = [comm.all_reduce, comm.broadcast]
    calls.append(lambda given: comm.all_gather(np.ones(2, np.float32), given))
    for call in calls:
        with pytest.raises(TypeError, match="requires grad"):
            call(leaf)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"device": Device("cuda:1")}, "on cuda:1: isobit moves CPU memory"),
        ({"device": Device("meta")}, "on meta"),
        ({"layout": "torch.sparse_coo"}, "sparse_coo"),
        ({"dtype": "torch.complex64"}, "not supported"),
        ({"dtype": "torch.quint8"}, "not supported"),
        ({"negated": True}, "resolve_neg"),
    ],
)
def test_a_torch_tensor_without_plain_cpu_memory_is_a_type_error(
    comm: isobit.Communicator, said: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        comm.all_reduce(Tensor(np.ones(2, np.float32), **said))
    assert comm.all_reduce(np.ones(1)) == 1


def test_torch_is_not_imported_for_tensors_of_others() -> None:
    code = (
        "import sys, numpy, isobit; comm = isobit.init(); comm.all_reduce(numpy.ones(4)[::2]); "
        "comm.all_reduce([numpy.ones(2)]); comm.broadcast_object([1]); "
        "print('torch' in sys.modules, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


class Exporter:
    """Something with DLPack and nothing else."""

    def __init__(self, values: Any, device: int = 1, *, versioned: bool = True) -> None:
        self._values = values
        self._device = device
        self._versioned = versioned

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self._device, 0)

    def __dlpack__(self, **kwargs: Any) -> Any:
        if not self._versioned:
            if kwargs:
                raise TypeError("max_version")
            return self._values.__dlpack__()
        return self._values.__dlpack__(**kwargs)


def test_what_has_dlpack_is_an_array(comm: isobit.Communicator) -> None:
    for dtype in ("float16", "float32", "float64", "int8", "int64", "uint8", "uint32", "bool"):
        values = np.ones((3, 4), dtype)[:, ::2]
        exporter = Exporter(values)
        assert comm.all_reduce(exporter, op="max") is exporter
        gathered = comm.all_gather(Exporter(values.T))
        assert gathered.dtype == values.dtype
        assert np.array_equal(gathered, values.T)
    values = np.arange(6.0).reshape(2, 3)[::-1, ::-1]
    comm.all_reduce(Exporter(values), op="mean", divisor=2)
    assert np.array_equal(values, [[2.5, 2, 1.5], [1, 0.5, 0]])
    assert np.array_equal(comm.all_gather(Exporter(np.zeros((0, 3)))), np.zeros((0, 3)))


def test_dlpack_memory_lives_as_long_as_its_array() -> None:
    found = as_array("tensor", Exporter(np.arange(100_000.0)))
    filler = [np.full(100_000, -1.0) for _ in range(8)]
    assert np.array_equal(found, np.arange(100_000.0))
    del filler


def test_dlpack_on_a_device_is_a_type_error_that_names_it(comm: isobit.Communicator) -> None:
    with pytest.raises(TypeError, match="tensor is in CUDA"):
        comm.all_reduce(Exporter(np.ones(2), 2))
    with pytest.raises(TypeError, match="DLPack device 99"):
        comm.all_gather(Exporter(np.ones(2), 99))


def test_dlpack_that_can_not_say_whether_it_may_be_written_is_read_only(comm: isobit.Communicator) -> None:
    values = np.ones(2)
    values.flags.writeable = False
    for exporter in (Exporter(np.ones(2), versioned=False), Exporter(values)):
        assert np.array_equal(comm.all_gather(exporter), [1, 1])
        with pytest.raises(TypeError, match="read-only"):
            comm.all_reduce(exporter)


def test_dlpack_of_an_unsupported_dtype_lists_what_is_supported(comm: isobit.Communicator) -> None:
    with pytest.raises(TypeError, match="supported: f8e4m3fn"):
        comm.all_reduce(Exporter(np.ones(2, complex)))


def test_buffers_of_the_standard_library_are_arrays(comm: isobit.Communicator) -> None:
    anonymous = mmap.mmap(-1, 16)
    assert comm.all_reduce(anonymous, op="max") is anonymous
    assert comm.all_gather(array.array("f", [1, 2])).dtype == np.float32


def views(base: Any) -> dict[str, Any]:
    return {
        "strided": base[::2, 1::3],
        "transposed": base.T,
        "sliced": base[1:3, 2:5],
        "reversed": base[::-1, ::-1],
        "one reversed": base[:, ::-2],
        "fortran": np.asfortranarray(base),
        "broadcast-like": base[:, None, :, None],
    }


@pytest.mark.parametrize("kind", views(np.zeros((4, 6))))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_views_of_any_layout_give_the_bits_of_dense_ones(comm: isobit.Communicator, kind: str, dtype: str) -> None:
    def fresh() -> Any:
        return np.arange(24.0).reshape(4, 6).astype(getattr(ml_dtypes, dtype, dtype))

    base, other = fresh(), fresh() * 0
    view, target = views(base)[kind], views(other)[kind]
    assert comm.all_reduce(view, target, op="mean", divisor=3) is target
    expected = comm.all_reduce(np.ascontiguousarray(view), op="mean", divisor=3)
    assert target.tobytes() == expected.tobytes()
    comm.all_reduce(view, op="mean", divisor=3)
    assert view.tobytes() == expected.tobytes()
    outside = views(fresh())[kind]
    untouched = fresh()
    views(untouched)[kind][...] = expected
    assert base.tobytes() == untouched.tobytes() or kind == "fortran", "only the view's elements are written"
    assert comm.all_gather(outside).tobytes() == np.ascontiguousarray(outside).tobytes()


def test_arrays_over_mapped_files_are_read_and_written(comm: isobit.Communicator, tmp_path: Path) -> None:
    file = tmp_path / "values"
    mapped = np.memmap(file, np.float64, "w+", shape=(400, 1000))
    mapped[...] = np.arange(400_000.0).reshape(400, 1000)
    comm.all_reduce(mapped, op="mean", divisor=2)
    assert np.array_equal(mapped, np.arange(400_000.0).reshape(400, 1000) / 2)
    part = mapped[::-2, 10:20]
    expected = np.array(part) / 2
    comm.all_reduce(part, op="mean", divisor=2)
    assert np.array_equal(part, expected)
    assert mapped[398, 9] == 398_009 / 2, "its neighbours are as they were"


def test_an_array_over_a_file_that_was_truncated_is_an_error_and_no_bus_error(
    comm: isobit.Communicator, tmp_path: Path
) -> None:
    file = tmp_path / "values"
    mapped = np.memmap(file, np.float64, "w+", shape=(1000, 100))
    os.truncate(file, 4096)
    with pytest.raises(ValueError, match="made the file shorter"):
        comm.all_gather(mapped)
    with pytest.raises(ValueError, match="made the file shorter"):
        comm.all_reduce(np.ones((1000, 100)), mapped)
    assert comm.all_reduce(np.ones(1)) == 1
