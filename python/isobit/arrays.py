"""Arrays as the native calls need them: dense, aligned, not overlapping; copies where they are not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from isobit._native import NeedsCopy

#: A numpy array of any supported dtype.
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def as_array(name: str, given: Any) -> Array:
    """`given` as a numpy array over the same memory; `TypeError` if it has none to share."""
    if isinstance(given, np.ndarray):
        return given
    if not hasattr(given, "__array_interface__"):
        try:
            given = memoryview(given)
        except TypeError:
            kind = type(given).__name__
            raise TypeError(f"{name} must be an array (numpy, or anything with a buffer), not {kind}") from None
    return np.asarray(given)


def call(native: Callable[..., None], tensor: Any, out: Any, *rest: Any) -> None:
    """`native(tensor, out, *rest)`, through dense copies if the arrays can't be used as they lie.

    Where `out` had to be copied it is written to only after the operation has succeeded.
    """
    with contextlib.suppress(NeedsCopy):
        return native(tensor, out, *rest)
    source = None if tensor is None else _dense("tensor", tensor)
    if out is None:
        return native(source, None, *rest)
    target = writable_array("out", out)
    result = source if out is tensor else np.empty(target.shape, target.dtype)
    native(source, result, *rest)
    target[...] = result
    return None


def call_in(native: Callable[..., None], tensor: Any, *rest: Any) -> None:
    """`native(tensor, *rest)`, which only reads the array, through a dense copy if need be."""
    with contextlib.suppress(NeedsCopy):
        return native(tensor, *rest)
    return native(_dense("tensor", tensor), *rest)


def call_in_place(native: Callable[..., None], tensor: Any, *rest: Any) -> None:
    """`native(tensor, *rest)`, which reads and writes the array, through a dense copy if need be."""
    with contextlib.suppress(NeedsCopy):
        return native(tensor, *rest)
    target = writable_array("tensor", tensor)
    result = _dense("tensor", target)
    native(result, *rest)
    target[...] = result
    return None


def writable_array(name: str, given: Any) -> Array:
    """`as_array`, for memory that is to be written to."""
    array = as_array(name, given)
    if isinstance(given, np.generic) or not array.flags.writeable:
        raise ValueError(f"{name} is read-only: give an array that can be written")
    return array


def _dense(name: str, given: Any) -> Array:
    return np.array(as_array(name, given), order="C", copy=True, subok=False)
