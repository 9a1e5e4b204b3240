"""The exact order: the correctly rounded sum or mean of the leaves, however grouped.

Each element is summed as one Python integer that counts the least positive number of the widest
leaf type it may meet, beside flags for what an integer can't say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .contract import Contract
from .dtype import Bits, Dtype
from .rounding import finite_value, infinity, round_rational

NAN, PLUS_INFINITY, MINUS_INFINITY, NOT_MINUS_ZERO = 1, 2, 4, 8
"""Flags: seen in some leaf."""


@dataclass(frozen=True)
class Wide:
    """The exact sum of some leaves of one element."""

    total: int = 0
    """The finite leaves' sum, in units of ``2 ** unit_exponent``."""
    flags: int = 0

    def __add__(self, other: Wide) -> Wide:
        return Wide(self.total + other.total, self.flags | other.flags)


def unit_exponent(dtype: Dtype) -> int:
    """The exponent of the unit: binary64's least number for f64 leaves, binary32's for all others."""
    return (Dtype.F64 if dtype is Dtype.F64 else Dtype.F32).format.least_exponent


def limbs(dtype: Dtype) -> int:
    """64-bit limbs of the integer, enough for 2^32 leaves of the largest magnitude and a sign."""
    return 34 if dtype is Dtype.F64 else 5


def wide_bytes(dtype: Dtype) -> int:
    """Bytes of one element in the wide form: the limbs and a word of flags."""
    return 8 * limbs(dtype) + 8


def of_leaf(leaf: Bits, dtype: Dtype) -> list[Wide]:
    """Each element of a leaf as a sum of one."""
    return [_of_element(int(bits), dtype) for bits in leaf]


def _of_element(bits: int, dtype: Dtype) -> Wide:
    fmt = dtype.format
    magnitude, negative = bits & (fmt.sign_bit - 1), bool(bits & fmt.sign_bit)
    if magnitude > fmt.max_non_nan:
        return Wide(flags=NAN | NOT_MINUS_ZERO)
    if magnitude > fmt.max_finite:
        return Wide(flags=(MINUS_INFINITY if negative else PLUS_INFINITY) | NOT_MINUS_ZERO)
    if negative and magnitude == 0:
        return Wide()
    units = finite_value(bits, dtype) / Fraction(2) ** unit_exponent(dtype)
    assert units.denominator == 1, "the unit divides every leaf"
    return Wide(units.numerator, NOT_MINUS_ZERO)


def add(parts: Sequence[Sequence[Wide]]) -> list[Wide]:
    """The sum of parts, element by element."""
    return [sum(elements, Wide()) for elements in zip(*parts, strict=True)]


def encode(sums: Sequence[Wide], dtype: Dtype) -> bytes:
    """The wide form: two's complement little-endian limbs, then the flags, for each element."""
    size = 8 * limbs(dtype)
    return b"".join(
        wide.total.to_bytes(size, "little", signed=True) + wide.flags.to_bytes(8, "little") for wide in sums
    )


def decode(form: bytes, dtype: Dtype) -> list[Wide]:
    """Reads the wide form back."""
    size, step = 8 * limbs(dtype), wide_bytes(dtype)
    return [
        Wide(
            int.from_bytes(form[at : at + size], "little", signed=True),
            int.from_bytes(form[at + size : at + step], "little"),
        )
        for at in range(0, len(form), step)
    ]


def finish(contract: Contract, sums: Sequence[Wide]) -> Bits:
    """The sums of all leaves to the result: one rounding of the exact quotient."""
    return np.array([_finish_element(contract, wide) for wide in sums], contract.dtype_out.bits)


def _finish_element(contract: Contract, wide: Wide) -> int:
    out = contract.dtype_out
    both = PLUS_INFINITY | MINUS_INFINITY
    if wide.flags & NAN or wide.flags & both == both:
        return out.format.nan
    if wide.flags & both:
        return infinity(bool(wide.flags & MINUS_INFINITY), out)
    if wide.total == 0:
        return 0 if wide.flags & NOT_MINUS_ZERO else out.format.sign_bit
    exact = Fraction(wide.total, contract.divisor) * Fraction(2) ** unit_exponent(contract.dtype_in)
    return round_rational(exact, out)
