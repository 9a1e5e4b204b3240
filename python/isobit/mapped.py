"""Arrays over mapped files: the kernel copies them.

Memory of a mapped file ends the process with SIGBUS when it is touched after another process has truncated the
file. A system call that touches it fails instead, so that the other ranks learn why.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np

from isobit.tensors import Array, adopt

_CHUNK_BYTES = 1 << 20


def read(name: str, array: Array) -> Array:
    """A dense copy of an array over a mapped file."""
    if array.size == 0:
        return np.empty(array.shape, array.dtype)
    raw, offset = _raw(array)
    copy = np.empty(raw.shape, np.uint8)
    _copy(name, raw, copy)
    return np.ndarray(array.shape, array.dtype, copy.data, offset, array.strides).copy(order="C")


def write(name: str, array: Array, values: Array) -> None:
    """Writes to an array over a mapped file."""
    if array.size == 0:
        return
    raw, offset = _raw(array)
    copy = np.empty(raw.shape, np.uint8)
    if not array.flags.c_contiguous:
        _copy(name, raw, copy)
    np.ndarray(array.shape, array.dtype, copy.data, offset, array.strides)[...] = values
    _copy(name, copy, raw)


def _raw(array: Array) -> tuple[Array, int]:
    """The bytes from the array's first to its last, and where in them its first element is."""
    spans = [stride * (length - 1) for stride, length in zip(array.strides, array.shape, strict=True)]
    before = sum(span for span in spans if span < 0)
    length = sum(abs(span) for span in spans) + array.itemsize
    address = array.__array_interface__["data"][0] + before
    readonly = not array.flags.writeable
    return adopt(array, address, (length,), (1,), np.dtype(np.uint8), readonly=readonly), -before


def _copy(name: str, source: Array, target: Array) -> None:
    with _scratch() as scratch:
        for start in range(0, len(source), _CHUNK_BYTES):
            end = min(start + _CHUNK_BYTES, len(source))
            try:
                moved = os.pwrite(scratch, source[start:end].data, 0)
                moved = min(moved, os.preadv(scratch, [target[start:end].data], 0))
            except OSError:
                moved = 0
            if moved < end - start:
                raise ValueError(
                    f"{name} is an array over a mapped file that can't be read or written to its end: "
                    "another process has made the file shorter"
                )


@contextlib.contextmanager
def _scratch() -> Iterator[int]:
    descriptor = os.memfd_create("isobit-copy")
    try:
        yield descriptor
    finally:
        os.close(descriptor)
