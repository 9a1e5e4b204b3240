"""What the reference is held against: other arithmetic, other formulations, other libraries.

Numbers come from ml_dtypes and the host's floats, roundings from comparing neighbours as
fractions, and the tree from a binary counter. Nothing here uses the reference's numerics.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

NUMPY: dict[str, Any] = {
    "f8e4m3fn": ml_dtypes.float8_e4m3fn,
    "f8e5m2": ml_dtypes.float8_e5m2,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f32": np.float32,
    "f64": np.float64,
}
SIZE = {"f8e4m3fn": 1, "f8e5m2": 1, "f16": 2, "bf16": 2, "f32": 4, "f64": 8}
NAN = {
    "f8e4m3fn": 0x7F,
    "f8e5m2": 0x7E,
    "f16": 0x7E00,
    "bf16": 0x7FC0,
    "f32": 0x7FC00000,
    "f64": 0x7FF8000000000000,
}


def number(bits: int, dtype: str) -> float:
    """The value of a bit pattern, as a Python float, which holds them all."""
    if dtype == "f64":
        return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])
    if dtype == "f32":
        return float(struct.unpack("<f", bits.to_bytes(4, "little"))[0])
    with np.errstate(invalid="ignore"):  # a signalling NaN is no news
        return float(np.array([bits], f"<u{SIZE[dtype]}").view(NUMPY[dtype]).astype(np.float64)[0])


@cache
def _ladder(dtype: str) -> list[Fraction]:
    """The values of the codes 0, 1, 2, ... of a small type up to the largest finite one."""
    values: list[Fraction] = []
    for code in range(1 << (8 * SIZE[dtype] - 1)):
        value = number(code, dtype)
        if not math.isfinite(value):
            break
        values.append(Fraction(value))
    return values


def _step(code: int, dtype: str) -> Fraction:
    """The value of a non-negative code; that of the first overflowing code as if it were finite."""
    value = number(code, dtype)
    if math.isfinite(value):
        return Fraction(value)
    below, further = Fraction(number(code - 1, dtype)), Fraction(number(code - 2, dtype))
    return 2 * below - further


def nearest(value: Fraction, dtype: str) -> int:
    """The code nearest to a rational number, ties to the even code; of zero, +0."""
    size = abs(value)
    sign = 1 << (8 * SIZE[dtype] - 1) if value < 0 else 0
    if dtype in ("f32", "f64"):
        top = {"f32": 0x7F7FFFFF, "f64": 0x7FEFFFFFFFFFFFFF}[dtype]
        low, high = 0, top
        while low < high:  # the last code whose value is not above
            middle = (low + high + 1) // 2
            low, high = (middle, high) if Fraction(number(middle, dtype)) <= size else (low, middle - 1)
        guess = low
    else:
        top = len(_ladder(dtype)) - 1
        guess = bisect_right(_ladder(dtype), size) - 1
    best = min((guess, guess + 1), key=lambda code: (abs(_step(code, dtype) - size), code & 1))
    if best > top:
        return NAN[dtype] if dtype == "f8e4m3fn" else sign | best
    return sign | best


def encode(value: float, dtype: str) -> int:
    """A Python float to the nearest code, with the canonical NaN."""
    if math.isnan(value) or (math.isinf(value) and dtype == "f8e4m3fn"):
        return NAN[dtype]
    negative = math.copysign(1.0, value) < 0
    sign = 1 << (8 * SIZE[dtype] - 1) if negative else 0
    if value == 0:
        return sign
    if math.isinf(value):
        return sign | {"f8e5m2": 0x7C, "f16": 0x7C00, "bf16": 0x7F80, "f32": 0x7F800000, "f64": 0x7FF << 52}[dtype]
    return nearest(Fraction(value), dtype)


def to_f32(value: float) -> float:
    """A Python float rounded to binary32; innocuous after one +, *, / of binary32 numbers."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def counter(leaves: Sequence[Any], combine: Callable[[Any, Any], Any]) -> Any:
    """The left-full dyadic tree as a streaming binary counter: equal sizes merge, the rest from the right."""
    stack: list[tuple[int, Any]] = []
    for leaf in leaves:
        stack.append((1, leaf))
        while len(stack) > 1 and stack[-2][0] == stack[-1][0]:
            (size, left), (_, right) = stack[-2:]
            stack[-2:] = [(2 * size, combine(left, right))]
    while len(stack) > 1:
        (size, left), (more, right) = stack[-2:]
        stack[-2:] = [(size + more, combine(left, right))]
    return stack[0][1]


def _sum(a: float, b: float) -> float:
    return a + b


def _product(a: float, b: float) -> float:
    return a * b


def _lower(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return math.nan
    return a if (a, math.copysign(1.0, a)) < (b, math.copysign(1.0, b)) else b


def _upper(a: float, b: float) -> float:
    return -_lower(-a, -b)


def tree(op: str, acc: str, out: str, divisor: int, codes: Sequence[int], dtype: str) -> int:
    """The tree order for one element of floats."""
    fix = to_f32 if acc == "f32" and op in ("sum", "mean", "prod") else float
    plain: dict[str, Callable[[float, float], float]] = {"prod": _product, "min": _lower, "max": _upper}
    operation = plain.get(op, _sum)
    root = counter([number(code, dtype) for code in codes], lambda a, b: fix(operation(a, b)))
    return encode(fix(root / divisor) if op == "mean" else root, out)


def exact(out: str, divisor: int, codes: Sequence[int], dtype: str) -> int:
    """The exact order for one element of floats."""
    values = [number(code, dtype) for code in codes]
    if not all(map(math.isfinite, values)):
        return encode(sum(value for value in values if not math.isfinite(value)), out)
    total = sum(map(Fraction, values)) / divisor
    if total == 0 and all(value == 0 and math.copysign(1.0, value) < 0 for value in values):
        return encode(-0.0, out)
    return nearest(Fraction(total), out)
