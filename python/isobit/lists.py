"""A list of tensors as one call: those of one dtype travel together, and the bits are those of one call each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np

from isobit._native import SEVERAL_TENSORS
from isobit._native import Work as NativeWork
from isobit.arrays import check_out, dense
from isobit.blocks import check_shape
from isobit.tensors import Array, as_array, note_written
from isobit.work import Work

#: Makes the call on one flat array and another for its result, which may be the same; and the shape to agree on.
FlatCall = Callable[[Array, Array, list[int]], NativeWork | None]


def is_list(given: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a call is made on several tensors."""
    return isinstance(given, list | tuple)


def each(
    native: FlatCall,
    tensors: Sequence[Any],
    outs: Sequence[Any] | None,
    *,
    joined: int | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Any:
    """Makes `native` once for each dtype among `tensors`; returns the list of results, or a `Work` that has it.

    The results are of `joined` ranks' rows each, if given, and of `dtype`, the tensors' own unless given. Without
    `outs` they are the tensors themselves where they fit, else new arrays.
    """
    if not tensors:
        raise ValueError("an empty list of tensors: give one at least")
    if outs is not None and (not is_list(outs) or len(outs) != len(tensors)):
        raise ValueError(f"out must be a list of {len(tensors)} arrays, one a tensor")
    copies = 1 if joined is None else joined
    in_place = outs is None and joined is None
    arrays = [
        as_array(f"tensor[{i}]", given, writable=in_place and dtype in (None, _dtype(given)))
        for i, given in enumerate(tensors)
    ]
    results: list[Any] = []
    targets: list[Array] = []
    for i, array in enumerate(arrays):
        shape = array.shape if joined is None else (copies * (array.shape or (1,))[0], *array.shape[1:])
        to = array.dtype if dtype is None else dtype
        if outs is not None:
            target = as_array(f"out[{i}]", outs[i], writable=True)
            check_shape(f"out[{i}]", target, shape)
            if target.dtype != to:
                raise TypeError(f"out[{i}] is {target.dtype}, but the result is {to}")
            results.append(outs[i])
        elif in_place and to == array.dtype:
            target = array
            results.append(tensors[i])
        else:
            target = np.empty(shape, to)
            results.append(target)
        check_out(f"out[{i}]", target)
        targets.append(target)
    works: list[NativeWork] = []
    pending: list[tuple[Array, list[int]]] = []
    by_dtype: dict[np.dtype[Any], list[int]] = {}
    for i, array in enumerate(arrays):
        by_dtype.setdefault(array.dtype, []).append(i)
    for own, members in by_dtype.items():
        flat = np.concatenate([dense("tensor", arrays[i]).reshape(-1) for i in members])
        to = own if dtype is None else dtype
        memory = flat if joined is None and to == own else np.empty(copies * flat.size, to)
        work = native(flat, memory, _shapes([arrays[i].shape for i in members]))
        if work is not None:
            works.append(work)
        pending.append((memory, members))

    def write_back() -> None:
        for memory, members in pending:
            start = 0
            rows = memory.reshape(copies, -1)
            for i in members:
                end = start + arrays[i].size
                targets[i][...] = rows[:, start:end].reshape(targets[i].shape)
                note_written(results[i])
                start = end

    if works:
        return Work(works, results, write_back)
    write_back()
    return results


def _dtype(given: Any) -> Any:
    return given.dtype if isinstance(given, np.ndarray) else None


def _shapes(shapes: list[tuple[int, ...]]) -> list[int]:
    """What the ranks must agree on, as native code has it."""
    return [SEVERAL_TENSORS, len(shapes), *(word for shape in shapes for word in (len(shape), *shape))]
