"""DLPack: another library's tensor as a numpy array over the same memory.

numpy's own `from_dlpack` takes neither bfloat16 nor the 8-bit floats. The capsule is read and kept, never
consumed, so its own destructor gives the memory back.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, ClassVar

import numpy as np

from isobit.dtypes import NAMES, dtype_of
from isobit.tensors import Array, adopt

_CPU = 1
_READ_ONLY = 1
_IS_COPY = 2
_DEVICES = {
    2: "CUDA",
    3: "CUDA host memory",
    7: "Vulkan",
    8: "Metal",
    10: "ROCm",
    13: "CUDA managed memory",
    14: "oneAPI",
}
_NAMES = {
    (0, 8): "i8",
    (0, 16): "i16",
    (0, 32): "i32",
    (0, 64): "i64",
    (1, 8): "u8",
    (1, 16): "u16",
    (1, 32): "u32",
    (1, 64): "u64",
    (2, 16): "f16",
    (2, 32): "f32",
    (2, 64): "f64",
    (4, 16): "bf16",
    (6, 8): "bool",
    (10, 8): "f8e4m3fn",
    (12, 8): "f8e5m2",
}


class _Tensor(ctypes.Structure):
    _fields_: ClassVar = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):
    _fields_: ClassVar = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_pointer.restype = ctypes.c_void_p
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_is_valid.restype = ctypes.c_int


def as_array(name: str, given: Any) -> Array:
    """An array over the memory of what has `__dlpack__`.

    Read-only where DLPack says so, and where it can't say: before version 1 of the protocol.
    """
    device = given.__dlpack_device__()[0]
    if device != _CPU:
        where = _DEVICES.get(int(device), f"DLPack device {int(device)}")
        raise TypeError(f"{name} is in {where}: isobit moves CPU memory, copy it there first")
    try:
        capsule = given.__dlpack__(max_version=(1, 1))
    except TypeError:
        capsule = given.__dlpack__()
    if _is_valid(capsule, b"dltensor_versioned"):
        versioned = _Versioned.from_address(_pointer(capsule, b"dltensor_versioned"))
        if versioned.major != 1:
            raise TypeError(f"{name} speaks DLPack {versioned.major}.{versioned.minor}: isobit knows version 1")
        tensor, readonly = versioned.tensor, bool(versioned.flags & (_READ_ONLY | _IS_COPY))
    else:
        tensor, readonly = _Tensor.from_address(_pointer(capsule, b"dltensor")), True
    dtype = _dtype(name, tensor)
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides[: tensor.ndim])
    else:
        strides = tuple(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    address = (tensor.data or 0) + tensor.byte_offset
    return adopt((given, capsule), address, shape, strides, dtype, readonly=readonly)


def _dtype(name: str, tensor: _Tensor) -> np.dtype[Any]:
    found = _NAMES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if found is None:
        raise TypeError(
            f"{name} has elements of DLPack type {tensor.code} with {tensor.bits} bits in {tensor.lanes} lanes; "
            f"supported: {', '.join(NAMES)}"
        )
    return dtype_of(found)
