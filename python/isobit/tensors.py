"""Tensors of other libraries as numpy arrays over the same memory, without importing any of them."""

from __future__ import annotations

import functools
import sys
from typing import Any, TypeAlias

import numpy as np

from isobit.dtypes import dtype_of

#: A numpy array of any supported dtype.
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Memory:
    """Memory that numpy adopts, with what keeps it there."""

    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__array_interface__ = interface
        self.owner = owner


def adopt(
    owner: Any, address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], *, readonly: bool
) -> Array:
    """An array over memory that `owner` keeps; `strides` in bytes."""
    if 0 in shape:
        empty = np.empty(shape, dtype)
        empty.flags.writeable = not readonly
        return empty
    interface = {
        "version": 3,
        "typestr": f"<u{dtype.itemsize}",
        "data": (address, readonly),
        "shape": shape,
        "strides": strides,
    }
    return np.asarray(Memory(interface, owner)).view(dtype)


def is_torch(given: Any) -> bool:
    """Whether it is a torch tensor, of a subclass too."""
    return any(base.__name__ == "Tensor" and base.__module__ == "torch" for base in type(given).__mro__)


def as_array(name: str, given: Any, *, writable: bool = False) -> Array:
    """`given` as a numpy array over the same memory; `TypeError` if it has none to share or to write to."""
    array = _view(name, given, writable=writable)
    if writable and (isinstance(given, np.generic) or not array.flags.writeable):
        raise TypeError(f"{name} is read-only: give an array that can be written")
    return array


def _view(name: str, given: Any, *, writable: bool) -> Array:
    if isinstance(given, np.ndarray):
        return given
    if is_torch(given):
        return _from_torch(name, given, writable=writable)
    if hasattr(given, "__array_interface__"):
        return np.asarray(given)
    try:
        return np.asarray(memoryview(given))
    except (TypeError, ValueError, BufferError, RuntimeError):
        if not hasattr(given, "__dlpack__"):
            raise TypeError(
                f"{name} must be an array (numpy, torch, or anything with DLPack, a buffer or __array_interface__), "
                f"not {type(given).__name__}"
            ) from None
    # Few need it, and it takes a millisecond to import what it needs.
    from isobit import dlpack

    return dlpack.as_array(name, given)


def _from_torch(name: str, tensor: Any, *, writable: bool) -> Array:
    """The tensor's values as an array, as `detach()` would give them: autograd does not see what happens to it."""
    if tensor.device.type != "cpu":
        raise TypeError(f"{name} is a torch tensor on {tensor.device}: isobit moves CPU memory, give {name}.cpu()")
    if str(tensor.layout) != "torch.strided":
        raise TypeError(f"{name} is a torch tensor of layout {tensor.layout}: give {name}.to_dense()")
    if tensor.is_neg() or tensor.is_conj():
        raise TypeError(f"{name} is a torch view that negates lazily: give {name}.resolve_neg() or .resolve_conj()")
    if writable and tensor.requires_grad and _records_gradients():
        raise TypeError(
            f"{name} requires grad, and torch would not see that it is written to: "
            f"give {name}.detach(), or call under torch.no_grad()"
        )
    dtype = _torch_dtype(str(tensor.dtype))
    strides = tuple(stride * dtype.itemsize for stride in tensor.stride())
    return adopt(tensor, tensor.data_ptr(), tuple(tensor.shape), strides, dtype, readonly=False)


@functools.cache
def _torch_dtype(name: str) -> np.dtype[Any]:
    return dtype_of(name.removeprefix("torch."))


def _records_gradients() -> bool:
    torch = sys.modules.get("torch")
    return torch is None or bool(torch.is_grad_enabled())


def note_written(given: Any) -> None:
    """Tells torch that a tensor of its was written to, so that autograd refuses stale saved values."""
    torch = sys.modules.get("torch")
    if torch is not None and is_torch(given) and isinstance(given, torch.Tensor) and not given.is_inference():
        # `torch.autograd.graph.increment_version` came with 2.1: a write to none of its elements counts as one too.
        given.detach().as_strided((0,), (1,)).zero_()
