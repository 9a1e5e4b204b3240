"""Conversions between floating-point formats, on bits, with integers only.

No float instruction is used here, so neither the thread's rounding mode nor a flush-to-zero flag
can reach a conversion. Every conversion leaves the canonical NaN.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .dtype import Bits, Dtype

Mask = NDArray[np.bool_]

# Every format's numbers are binary64 numbers, so binary64 is the half-way house of all conversions.
_WIDE = Dtype.F64.format


def is_nan(bits: Bits, dtype: Dtype) -> Mask:
    """Which elements are NaNs, of any sign and payload."""
    fmt = dtype.format
    magnitude = bits & bits.dtype.type(fmt.sign_bit - 1)
    return np.asarray(magnitude > fmt.max_non_nan)


def convert(bits: Bits, source: Dtype, target: Dtype) -> Bits:
    """``source`` to ``target``: one rounding to nearest, ties to even; any NaN becomes the canonical one."""
    result = _round(_widen(bits, source), target)
    return np.where(is_nan(bits, source), target.bits.type(target.format.nan), result)


def _widen(bits: Bits, dtype: Dtype) -> Bits:
    """The binary64 bits of each element, exactly. What becomes of NaNs does not matter."""
    fmt = dtype.format
    word = bits.astype(np.uint64)
    sign = (word & np.uint64(fmt.sign_bit)) != 0
    mantissa = (word & np.uint64(fmt.mantissa_mask)).astype(np.int64)
    field = ((word >> np.uint64(fmt.mantissa_bits)) & np.uint64(fmt.exponent_mask)).astype(np.int64)

    significand = np.where(field == 0, mantissa, mantissa | (1 << fmt.mantissa_bits))
    exponent = np.maximum(field, 1) - fmt.bias - fmt.mantissa_bits
    if dtype is Dtype.F64:
        return word
    top = np.zeros_like(significand)
    for position in range(fmt.mantissa_bits + 1):
        top = np.where(significand >> position != 0, position, top)
    fraction = (significand << (_WIDE.mantissa_bits - top)) & _WIDE.mantissa_mask
    magnitude = ((exponent + top + _WIDE.bias) << _WIDE.mantissa_bits) | fraction
    magnitude = np.where(significand == 0, 0, magnitude)
    if fmt.has_infinity:
        magnitude = np.where((field == fmt.exponent_mask) & (mantissa == 0), _WIDE.infinity, magnitude)
    return magnitude.astype(np.uint64) | np.where(sign, np.uint64(_WIDE.sign_bit), np.uint64(0))


def _round(word: Bits, dtype: Dtype) -> Bits:
    """Binary64 numbers, none of them a NaN, to the nearest of ``dtype``, ties to even."""
    fmt = dtype.format
    if dtype is Dtype.F64:
        return word.astype(dtype.bits)
    negative = (word & np.uint64(_WIDE.sign_bit)) != 0
    mantissa = (word & np.uint64(_WIDE.mantissa_mask)).astype(np.int64)
    field = ((word >> np.uint64(_WIDE.mantissa_bits)) & np.uint64(_WIDE.exponent_mask)).astype(np.int64)

    # A binary64 subnormal is far below half of any target's least number: significand 0 will do.
    significand = np.where(field == 0, 0, mantissa | (1 << _WIDE.mantissa_bits))
    exponent = np.maximum(field - _WIDE.bias, fmt.min_exponent)
    dropped = _WIDE.mantissa_bits - fmt.mantissa_bits + exponent - (field - _WIDE.bias)
    # Dropping one bit more than there are leaves a remainder below half, as dropping more would.
    dropped = np.minimum(dropped, _WIDE.mantissa_bits + 2)

    kept = significand >> dropped
    remainder = significand - (kept << dropped)
    half = np.int64(1) << (dropped - 1)
    kept += (remainder > half) | ((remainder == half) & (kept & 1 == 1))
    # A normal significand brings its leading 1, which counts the exponent field up by one; so does
    # a carry out of the rounding, from subnormal to normal as from one binade to the next.
    magnitude = ((exponent - fmt.min_exponent) << fmt.mantissa_bits) + kept
    sign = np.where(negative, fmt.sign_bit, 0)
    overflow = (magnitude > fmt.max_finite) | (field == _WIDE.exponent_mask)
    beyond = sign | fmt.infinity if fmt.has_infinity else np.full_like(sign, fmt.nan)
    return np.where(overflow, beyond, sign | magnitude).astype(dtype.bits)


def finite_value(bits: int, dtype: Dtype) -> Fraction:
    """The value of a finite number."""
    fmt = dtype.format
    field = (bits >> fmt.mantissa_bits) & fmt.exponent_mask
    significand = bits & fmt.mantissa_mask
    if field:
        significand += 1 << fmt.mantissa_bits
    magnitude = Fraction(significand) * Fraction(2) ** (max(field, 1) - 1 + fmt.least_exponent)
    return -magnitude if bits & fmt.sign_bit else magnitude


def round_rational(value: Fraction, dtype: Dtype) -> int:
    """The bits of the number of ``dtype`` nearest to ``value``, ties to even; zero gives +0."""
    fmt = dtype.format
    size = abs(value)
    if size == 0:
        return 0
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    exponent = max(exponent, fmt.min_exponent)
    # Python rounds a Fraction to the nearest integer, ties to even.
    kept = round(size / Fraction(2) ** (exponent - fmt.mantissa_bits))
    magnitude = ((exponent - fmt.min_exponent) << fmt.mantissa_bits) + kept
    if magnitude > fmt.max_finite:
        return infinity(value < 0, dtype)
    return magnitude | (fmt.sign_bit if value < 0 else 0)


def infinity(negative: bool, dtype: Dtype) -> int:
    """The bits of an infinity, or the canonical NaN of a format without one."""
    fmt = dtype.format
    if not fmt.has_infinity:
        return fmt.nan
    return fmt.infinity | (fmt.sign_bit if negative else 0)
