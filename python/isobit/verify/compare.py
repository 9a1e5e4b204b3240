"""The first differing element of two arrays: its index, both bit patterns, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isobit.reference.dtype import Dtype
from isobit.reference.rounding import finite_value


@dataclass(frozen=True)
class Difference:
    """Where two arrays differ first, and how."""

    index: int
    found: int
    expected: int
    #: How many elements differ.
    elements: int


def difference(found: NDArray[Any] | None, expected: NDArray[Any] | None) -> Difference | None:
    """The first difference in bits; `None` if there is none. A wrong shape or dtype is a `ValueError`."""
    if found is None or expected is None:
        if found is not expected:
            raise ValueError(f"a result was {'missing' if found is None else 'not expected'}")
        return None
    if found.dtype != expected.dtype or found.shape != expected.shape:
        raise ValueError(f"the result is {found.dtype}{list(found.shape)}, not {expected.dtype}{list(expected.shape)}")
    bits = np.dtype(f"<u{found.dtype.itemsize}")
    ours, law = (np.ascontiguousarray(array).view(bits) for array in (found, expected))
    where = np.flatnonzero(ours != law)
    if not where.size:
        return None
    first = int(where[0])
    return Difference(first, int(ours[first]), int(law[first]), int(where.size))


def ulps(one: int, other: int, dtype: Dtype) -> int | None:
    """How many steps of the dtype lie between two patterns; `None` if one of them is a NaN and so has no place.

    >>> ulps(0x80000001, 0x00000001, Dtype.F32), ulps(0xFF, 0x01, Dtype.I8), ulps(0x7FC0, 0, Dtype.BF16)
    (3, 2, None)
    """
    places = _place(one, dtype), _place(other, dtype)
    return None if None in places else abs(places[0] - places[1])  # type: ignore[operator]


def _place(bits: int, dtype: Dtype) -> int | None:
    """Consecutive numbers in the order of the values. -0 is a step below +0."""
    if not dtype.is_float:
        signed = dtype.value[0] == "i" and bits >> (8 * dtype.size - 1)
        return bits - (1 << 8 * dtype.size) if signed else bits
    magnitude = bits & (dtype.format.sign_bit - 1)
    if magnitude > dtype.format.max_non_nan:
        return None
    return -1 - magnitude if bits & dtype.format.sign_bit else magnitude


def shown(bits: int, dtype: Dtype) -> str:
    """A pattern in hexadecimal, and what it means.

    >>> shown(0x3F800001, Dtype.F32), shown(0x80, Dtype.I8), shown(0xFC00, Dtype.F16)
    ('0x3f800001 (1.0000001192092896)', '0x80 (-128)', '0xfc00 (-inf)')
    """
    return f"0x{bits:0{2 * dtype.size}x} ({_meaning(bits, dtype)})"


def _meaning(bits: int, dtype: Dtype) -> str:
    if not dtype.is_float:
        return str(_place(bits, dtype))
    fmt = dtype.format
    sign, magnitude = "-" if bits & fmt.sign_bit else "", bits & (fmt.sign_bit - 1)
    if magnitude > fmt.max_non_nan:
        return "NaN"
    if magnitude > fmt.max_finite:
        return f"{sign}inf"
    return f"{sign}{float(finite_value(magnitude, dtype))!r}"
