"""Names of dtypes: isobit's own, and what numpy calls the same."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

#: An isobit name (`"bf16"`), a numpy name, or anything that `numpy.dtype` takes.
DtypeLike: TypeAlias = Any

#: isobit's names, each with numpy's (or ml_dtypes') name for it.
NAMES = {
    "f8e4m3fn": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "bool": "bool",
}
_ISOBIT_NAMES = {numpy_name: name for name, numpy_name in NAMES.items()}
_FROM_ML_DTYPES = ("float8_e4m3fn", "float8_e5m2", "bfloat16")


def dtype_of(wanted: DtypeLike) -> np.dtype[Any]:
    """The numpy dtype that `wanted` means; `TypeError` if isobit does not support it.

    >>> dtype_of("f32"), dtype_of(np.int8)
    (dtype('float32'), dtype('int8'))
    """
    name = NAMES.get(wanted, wanted) if isinstance(wanted, str) else wanted
    if isinstance(name, str) and name in _FROM_ML_DTYPES:
        return _from_ml_dtypes(name)
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise _unsupported(wanted) from None
    if dtype.name not in _ISOBIT_NAMES or not dtype.isnative:
        raise _unsupported(wanted)
    return dtype


def name_of(wanted: DtypeLike) -> str:
    """isobit's name of the dtype that `wanted` means.

    >>> name_of(np.float64), name_of("bfloat16")
    ('f64', 'bf16')
    """
    if isinstance(wanted, str) and wanted in NAMES:
        return wanted
    if isinstance(wanted, str) and wanted in _ISOBIT_NAMES:
        return _ISOBIT_NAMES[wanted]
    return _ISOBIT_NAMES[dtype_of(wanted).name]


def _from_ml_dtypes(name: str) -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        raise TypeError(f"numpy has no {name} of its own: pip install ml_dtypes") from None
    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return found


def _unsupported(wanted: DtypeLike) -> TypeError:
    return TypeError(f"dtype {wanted!r} is not supported, in little-endian byte order: {', '.join(NAMES)} are")
