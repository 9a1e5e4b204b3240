"""Arrays for results: the caller's, if they fit, or new ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from isobit.arrays import as_array, writable_array
from isobit.blocks import check_shape
from isobit.dtypes import DtypeLike, dtype_of


def result_array(name: str, tensor: Any, out: Any, out_dtype: DtypeLike) -> Any:
    """The array for a result of the tensor's shape in `out_dtype`: `out`, the tensor, or a new one."""
    array, dtype = as_array("tensor", tensor), dtype_of(out_dtype)
    if out is not None:
        return output_array(name, out, array.shape, dtype, checked=True)
    return tensor if array.dtype == dtype else np.empty(array.shape, dtype)


def output_array(name: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *, checked: bool = False) -> Any:
    """`out` if it fits, a new array if there is none."""
    if out is None:
        return np.empty(shape, dtype)
    array = writable_array(name, out)
    check_shape(name, array, shape)
    if checked and array.dtype != dtype:
        raise TypeError(f"{name} is {array.dtype}, but out_dtype asks for {dtype}")
    return out
