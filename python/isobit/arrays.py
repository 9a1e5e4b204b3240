"""Arrays as the native calls need them: dense, aligned, not overlapping; copies where they are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from isobit import mapped
from isobit._native import NeedsCopy
from isobit._native import Work as NativeWork
from isobit.tensors import Array, as_array, note_written
from isobit.work import Work

__all__ = ["Array", "as_array", "call", "call_in", "call_in_place", "check_out", "finish", "writable_array"]

#: How many steps numpy may take to see whether two strided arrays have an element in common.
_OVERLAP_WORK_MAX = 100_000


def call(
    native: Callable[..., NativeWork | None],
    tensor: Any,
    out: Any,
    *rest: Any,
    result: Any = None,
    own: slice | None = None,
    apart: bool = False,
    absent: bool = False,
) -> Any:
    """`native(tensor, out, *rest)`, through dense copies if the arrays can't be used as they lie.

    Returns `result`, or an `isobit.Work` that has it. Where `out` had to be copied it is written to only after
    the operation has succeeded. `own` is this rank's block of rows in the larger of the two, which the smaller
    one may be; unless `apart`, both may be the same. A call that reads nothing on this rank is `absent`.
    """
    try:
        return finish(native(tensor, out, *rest), result)
    except NeedsCopy:
        pass
    if out is None:
        return finish(native(dense("tensor", as_array("tensor", tensor)), None, *rest), result)
    target = writable_array("tensor" if out is tensor else "out", out)
    check_out("out", target)
    if absent:
        source = None
    elif out is tensor and not apart:
        source = target
    else:
        source = as_array("tensor", tensor)
        if _overlap(source, target):
            if not (_same(source, target) or _is_own(source, target, own)):
                raise ValueError(
                    "out overlaps tensor, but is not the same memory element for element: give an out of its own"
                )
            source = target if _same(source, target) and not apart else np.array(source, order="C", copy=True)
    if source is target:
        both = dense("tensor", target)
        return finish(native(both, both, *rest), result, target, both, out)
    given = None if source is None else dense("tensor", source)
    memory = target if _usable(target) else np.empty(target.shape, target.dtype)
    return finish(native(given, memory, *rest), result, target, memory, out)


def call_in(native: Callable[..., NativeWork | None], tensor: Any, *rest: Any, result: Any = None) -> Any:
    """`native(tensor, *rest)`, which only reads the array, through a dense copy if need be."""
    try:
        return finish(native(tensor, *rest), result)
    except NeedsCopy:
        return finish(native(dense("tensor", as_array("tensor", tensor)), *rest), result)


def call_in_place(native: Callable[..., NativeWork | None], tensor: Any, *rest: Any, result: Any = None) -> Any:
    """`native(tensor, *rest)`, which reads and writes the array, through a dense copy if need be."""
    try:
        return finish(native(tensor, *rest), result)
    except NeedsCopy:
        pass
    target = writable_array("tensor", tensor)
    check_out("tensor", target)
    memory = dense("tensor", target)
    return finish(native(memory, *rest), result, target, memory, tensor)


def finish(
    work: NativeWork | None, result: Any, target: Array | None = None, memory: Array | None = None, owner: Any = None
) -> Any:
    """The result, with `memory` written back to `target` where it is another, now or when the work is done."""

    def write_back() -> None:
        if target is not None and memory is not None and memory is not target:
            if isinstance(target, np.memmap):
                mapped.write("out", target, memory)
            else:
                target[...] = memory
        note_written(owner)

    if work is None:
        if target is not None:
            write_back()
        return result
    return Work([work], result, None if target is None else write_back)


def writable_array(name: str, given: Any) -> Array:
    """`as_array`, for memory that is to be written to."""
    return as_array(name, given, writable=True)


def dense(name: str, array: Array) -> Array:
    """The array itself if the native calls can use it as it lies, else a copy that they can."""
    if _usable(array):
        return array
    if isinstance(array, np.memmap):
        return mapped.read(name, array)
    return np.array(array, order="C", copy=True, subok=False)


def check_out(name: str, array: Array) -> None:
    """Raises `ValueError` if two elements of the array are the same memory."""
    spans = sorted(
        (abs(stride), length) for stride, length in zip(array.strides, array.shape, strict=True) if length > 1
    )
    reach = array.itemsize
    for stride, length in spans:
        if stride < reach:
            break
        reach += stride * (length - 1)
    else:
        return
    if array.size and (spans[0][0] == 0 or _repeats(array)):
        raise ValueError(
            f"{name} has elements that share memory (shape {array.shape}, strides {array.strides}): "
            "it can be read, not written to; give a copy"
        )


def _repeats(array: Array) -> bool:
    offsets = np.zeros((), np.int64)
    for stride, length in zip(array.strides, array.shape, strict=True):
        offsets = np.add.outer(offsets, np.arange(length, dtype=np.int64) * stride).ravel()
    offsets = np.sort(offsets, axis=None)
    return bool((np.diff(offsets) < array.itemsize).any())


def _usable(array: Array) -> bool:
    return array.flags.c_contiguous and array.flags.aligned and not isinstance(array, np.memmap)


def _overlap(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=_OVERLAP_WORK_MAX)  # type: ignore[arg-type]
    except RuntimeError:
        # Too hard to say, and so no layout that anybody uses on purpose.
        return True


def _same(a: Array, b: Array) -> bool:
    """Whether both are the same memory, element for element."""
    addresses = a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
    return addresses and (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)


def _is_own(source: Array, target: Array, own: slice | None) -> bool:
    if own is None:
        return False
    if source.size < target.size:
        return _same(source.reshape(source.shape or (1,)), target[own])
    return _same(source[own], target)
