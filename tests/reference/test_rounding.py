"""Conversions: against ml_dtypes, against fractions, and at every named trap."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isobit.reference.dtype import FLOATS, Bits, Dtype
from isobit.reference.rounding import convert, finite_value, infinity, is_nan, round_rational

from . import oracle

SMALL = [dtype for dtype in FLOATS if dtype.size <= 2]
WORDS = st.integers(0, (1 << 64) - 1)


def one(bits: int, source: Dtype, target: Dtype) -> int:
    return int(convert(np.array([bits], source.bits), source, target)[0])


def samples(dtype: Dtype) -> Bits:
    """All patterns of a small type; of a large one a stride, and the neighbourhoods of all its exponents."""
    if dtype.size <= 2:
        return np.arange(1 << 8 * dtype.size, dtype=np.uint64).astype(dtype.bits)
    stride = {4: 0x4FF1, 8: 0x4FFFFFF10001}[dtype.size]
    # Patterns whose low bits are a tie, or next to one, of each smaller type.
    fmt = dtype.format
    exponents = [field << fmt.mantissa_bits for field in range(fmt.exponent_mask)]
    lows = [
        (number << (fmt.mantissa_bits - digits)) + away
        for digits in (3, 4, 8, 11, 24)
        if digits < fmt.mantissa_bits
        for number in (0, 1, 2, 3, (1 << digits) - 1)
        for away in (-1, 0, 1)
    ]
    drawn = np.arange(100_000, dtype=np.uint64) * np.uint64(stride)
    edges = np.array([max(top + low, 0) for top in exponents for low in lows], np.uint64)
    return np.concatenate([drawn, edges]).astype(dtype.bits)


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("source", FLOATS)
def test_conversions_equal_ml_dtypes_but_for_nan(source: Dtype, target: Dtype) -> None:
    bits = samples(source)
    found = convert(bits, source, target)
    with np.errstate(all="ignore"):
        numbers = bits.view(oracle.NUMPY[source.value])
        nan = np.isnan(numbers.astype(np.float64))
        if source is Dtype.F64 and target in (Dtype.BF16, Dtype.F8E4M3FN, Dtype.F8E5M2):
            # ml_dtypes rounds twice here, through f32: keep to the doubles that are f32 numbers.
            numbers = numbers.astype(np.float32)
            found = convert(numbers.astype(np.float64).view(np.uint64), source, target)
        theirs = numbers.astype(oracle.NUMPY[target.value]).view(target.bits)
    overflow = is_nan(theirs, target)
    assert np.array_equal(found[~overflow], theirs[~overflow])
    assert np.all(found[nan | overflow] == target.format.nan)


@given(word=WORDS, source=st.sampled_from(FLOATS), target=st.sampled_from(FLOATS))
def test_a_conversion_gives_the_nearest_number(word: int, source: Dtype, target: Dtype) -> None:
    bits = word & (2 * source.format.sign_bit - 1)
    expected = oracle.encode(oracle.number(bits, source.value), target.value)
    assert one(bits, source, target) == expected


@given(
    numerator=st.integers(-(2**70), 2**70),
    denominator=st.integers(1, 2**40),
    scale=st.integers(-160, 160),
    dtype=st.sampled_from(FLOATS),
)
def test_a_rational_rounds_to_the_nearest_number(numerator: int, denominator: int, scale: int, dtype: Dtype) -> None:
    value = Fraction(numerator, denominator) * Fraction(2) ** scale
    assert round_rational(value, dtype) == oracle.nearest(value, dtype.value)


@given(
    code=WORDS,
    away=st.sampled_from([Fraction(-1, 9**60), 0, Fraction(1, 9**60)]),
    dtype=st.sampled_from(FLOATS),
)
def test_the_middle_between_two_numbers_goes_to_the_even_one(code: int, away: Fraction, dtype: Dtype) -> None:
    code %= dtype.format.max_finite
    low, high = finite_value(code, dtype), finite_value(code + 1, dtype)
    away *= high - low
    expected = code + int(away > 0 or (away == 0 and code % 2 == 1))
    assert round_rational((low + high) / 2 + away, dtype) == expected


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_finite_number_rounds_to_itself(dtype: Dtype) -> None:
    for bits in samples(dtype)[:: 1 if dtype.size <= 2 else 97]:
        if int(bits) & (dtype.format.sign_bit - 1) <= dtype.format.max_finite:
            value = finite_value(int(bits), dtype)
            zero = dtype.format.sign_bit if value == 0 and int(bits) else 0
            assert round_rational(value, dtype) | zero == int(bits)
            assert value == Fraction(oracle.number(int(bits), dtype.value))


@pytest.mark.parametrize(
    ("source", "target", "before", "after"),
    [
        (Dtype.F32, Dtype.BF16, 0x7F7FFFFF, 0x7F80),
        (Dtype.F32, Dtype.BF16, 0x7F800001, 0x7FC0),
        (Dtype.F32, Dtype.BF16, 0x00018000, 0x0002),
        (Dtype.F32, Dtype.BF16, 0x000116C2, 0x0001),
        (Dtype.F32, Dtype.BF16, 0x3F808000, 0x3F80),
        (Dtype.F32, Dtype.BF16, 0x3F818000, 0x3F82),
        (Dtype.F32, Dtype.F16, 0x477FEFFF, 0x7BFF),
        (Dtype.F32, Dtype.F16, 0x477FF000, 0x7C00),
        (Dtype.F32, Dtype.F16, 0x33000000, 0x0000),
        (Dtype.F32, Dtype.F16, 0x33000001, 0x0001),
        (Dtype.F32, Dtype.F8E4M3FN, 0x43E80000, 0x7E),
        (Dtype.F32, Dtype.F8E4M3FN, 0x43E80001, 0x7F),
        (Dtype.F32, Dtype.F8E4M3FN, 0x7F800000, 0x7F),
        (Dtype.F64, Dtype.BF16, 0x3FF0100000000001, 0x3F81),
        (Dtype.F64, Dtype.F32, 0x8000000000000001, 0x80000000),
    ],
)
def test_conformance_vectors(source: Dtype, target: Dtype, before: int, after: int) -> None:
    assert one(before, source, target) == after


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_canonical_nan_is_the_documented_one(dtype: Dtype) -> None:
    assert dtype.format.nan == oracle.NAN[dtype.value]
    assert one(0xFFC12345, Dtype.F32, dtype) == oracle.NAN[dtype.value]


def test_e4m3fn_has_nan_where_others_have_infinity() -> None:
    assert infinity(True, Dtype.F8E4M3FN) == 0x7F
    assert infinity(True, Dtype.F8E5M2) == 0xFC
