"""The named reductions of the golden vectors: each is a trap, and its name says which.

Leaves are written as values (``-0.0``, ``2**-24``, ``"nan"``) or, where only bits say it, as
``Raw``; each leaf of a case has one element, unless a case lists several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations

import numpy as np

from .contract import Contract, contract
from .dtype import FLOATS, Bits, Dtype
from .op import Order, ReduceOp
from .rounding import finite_value, infinity, round_rational

SUM, MEAN, PROD, MIN, MAX = ReduceOp.SUM, ReduceOp.MEAN, ReduceOp.PROD, ReduceOp.MIN, ReduceOp.MAX
F16, BF16, F32, F64 = Dtype.F16, Dtype.BF16, Dtype.F32, Dtype.F64


@dataclass(frozen=True)
class Raw:
    """An element given by its bits."""

    bits: int


Value = float | Fraction | str | Raw


@dataclass(frozen=True)
class Case:
    """A contract and its leaves."""

    name: str
    contract: Contract
    leaves: tuple[Bits, ...]


def element(value: Value, dtype: Dtype) -> int:
    """The bits of one element. A number must be one of the dtype's own."""
    if isinstance(value, Raw):
        return value.bits
    if not dtype.is_float:
        return int(value) % (1 << 8 * dtype.size)
    if isinstance(value, str):
        return {"nan": dtype.format.nan, "inf": infinity(False, dtype), "-inf": infinity(True, dtype)}[value]
    if value == 0 and str(value) == "-0.0":
        return dtype.format.sign_bit
    bits = round_rational(Fraction(value), dtype)
    assert finite_value(bits, dtype) == Fraction(value), f"{value} is no {dtype.value}"
    return bits


def tensor(values: Sequence[Value], dtype: Dtype) -> Bits:
    return np.array([element(value, dtype) for value in values], dtype.bits)


def _case(
    name: str,
    dtype: Dtype,
    leaves: Sequence[Value],
    op: ReduceOp = SUM,
    order: Order = Order.TREE,
    *,
    acc: Dtype | None = None,
    out: Dtype | None = None,
    divisor: int | None = None,
) -> Case:
    made = contract(op, len(leaves), dtype, order, acc, out, divisor)
    words = [made.order.value, op.value, dtype.value]
    words += [f"in {acc.value}"] if acc else []
    words += [f"to {out.value}"] if out else []
    words += [f"by {divisor}"] if divisor is not None else []
    return Case(f"{name}: {' '.join(words)}", made, tuple(tensor([leaf], dtype) for leaf in leaves))


def _both(name: str, dtype: Dtype, leaves: Sequence[Value], op: ReduceOp = SUM) -> Iterator[Case]:
    """The tree in each accumulator, and the exact order."""
    for acc in (F32, F64) if dtype is not F64 else (F64,):
        yield _case(name, dtype, leaves, op, acc=acc)
    yield _case(name, dtype, leaves, op, Order.EXACT)


def _orders() -> Iterator[Case]:
    for number, leaves in enumerate(permutations([1e8, 1.0, -1e8, 1.0])):
        yield from _both(f"order probe 1e8, 1, -1e8, 1 permuted ({number})", F32, leaves)
    for number, leaves in enumerate(permutations([2.0**60, 1.0, -(2.0**60)])):
        yield from _both(f"order probe 2^60, 1, -2^60 permuted ({number})", F64, leaves)
    for number, leaves in enumerate(permutations([1.0, 2.0**-53, 2.0**-53])):
        yield from _both(f"order probe 1, 2^-53, 2^-53 permuted ({number})", F64, leaves)


def _overflows() -> Iterator[Case]:
    for dtype in (F16, BF16, F32, F64, Dtype.F8E5M2, Dtype.F8E4M3FN):
        top = finite_value(dtype.format.max_finite, dtype)
        yield from _both("the left half overflows, the sum does not", dtype, [top, top, -top, -top])
        yield from _both("no half overflows", dtype, [top, -top, top, -top])
        yield from _both("the result overflows", dtype, [top, top])
        yield from _both("the result overflows below", dtype, [-top, -top, -top])
        yield from _both("the sum overflows the result's type, the mean does not", dtype, [top] * 3, MEAN)
        ulp = finite_value(dtype.format.max_finite, dtype) - finite_value(dtype.format.max_finite - 1, dtype)
        yield from _both("half a step above the largest number", dtype, [top, ulp / 2])
        yield from _both("less than half a step above the largest number", dtype, [top, ulp / 4])
        yield from _both("more than half a step above the largest number", dtype, [top, ulp / 2, ulp / 4])


def _ties() -> Iterator[Case]:
    for dtype in FLOATS:
        half = Fraction(1, 2 << dtype.format.mantissa_bits)
        least = Fraction(2) ** dtype.format.least_exponent
        yield from _both("a tie goes down to even", dtype, [1.0, half])
        yield from _both("a tie goes up to even", dtype, [1.0, 2 * half, half])
        yield from _both("a tie and a little more goes up", dtype, [1.0, half, least])
        yield from _both("a tie and a little less goes down", dtype, [1.0, half, -least])
        yield from _both("subnormals add up", dtype, [least, least, least])
        yield from _both("half of the least number goes to zero, with its sign", dtype, [-least, 0.0], MEAN)
        yield from _both("three quarters of the least number go to it", dtype, [least, least, least, 0.0], MEAN)
    name = "rounding twice, through f32, would go down"
    for acc in (F32, F64):
        yield _case(name, BF16, [1.0, 2.0**-8, 2.0**-40], acc=acc)
        yield _case(name, F32, [1.0, 2.0**-8, 2.0**-40], acc=acc, out=BF16)
        yield _case(name, F32, [1.0, 2.0**-11, 2.0**-40], acc=acc, out=F16)
    yield _case(name, BF16, [1.0, 2.0**-8, 2.0**-40], order=Order.EXACT)
    yield _case(name, F32, [1.0, 2.0**-11, 2.0**-40], order=Order.EXACT, out=F16)
    yield _case(name, F64, [1.0, 2.0**-8, 2.0**-40], out=BF16)
    yield _case(name, F64, [1.0, 2.0**-4, 2.0**-40], out=Dtype.F8E4M3FN)
    yield from _both("rounding twice, through f64, would go down", F32, [2.0**24, 1.0, 2.0**-30])
    yield from _both("rounding twice, through f64, would go up", F32, [-(2.0**24), -1.0, -(2.0**-30)])
    yield _case("rounding twice would go down", F64, [1.0, 2.0**-24, 2.0**-60], order=Order.EXACT, out=F32)
    thirds = [3 * 2.0**24, 3.0, 2.0**-40]
    yield _case("a quotient a third of 2^-40 above a tie", F32, thirds, MEAN, Order.EXACT, divisor=3)
    yield _case("a quotient a third of 2^-40 above a tie", F32, thirds, MEAN, divisor=3)
    tiny = [2.0**-149, 2.0**-149, 2.0**-149]
    yield _case("a subnormal quotient on a tie", F32, tiny, MEAN, Order.EXACT, divisor=2)
    yield _case("a subnormal quotient below a tie", F32, tiny, MEAN, Order.EXACT, divisor=7)
    yield _case("f64 holds the sum, its last bit decides", F32, [2.0**127, 2.0**-149, -(2.0**127)], order=Order.EXACT)
    yield _case("the whole range cancels", F64, [2.0**1023, 2.0**-1074, -(2.0**1023)], order=Order.EXACT)


def _zeros() -> Iterator[Case]:
    for dtype in FLOATS:
        for op in (SUM, MEAN, MIN, MAX):
            for name, leaves in {
                "one leaf of -0": [-0.0],
                "one leaf of +0": [0.0],
                "-0 only": [-0.0, -0.0, -0.0],
                "-0 then +0": [-0.0, 0.0],
                "+0 then -0": [0.0, -0.0],
                "one +0 among -0": [-0.0, -0.0, 0.0, -0.0, -0.0],
            }.items():
                yield _case(name, dtype, leaves, op)
                if op in (SUM, MEAN):
                    yield _case(name, dtype, leaves, op, Order.EXACT)
        yield from _both("x - x - 0 is +0", dtype, [1.5, -1.5, -0.0])
        yield from _both("-0 + x - x is +0", dtype, [-0.0, 1.5, -1.5])
        least = Fraction(2) ** dtype.format.least_exponent
        yield _case("a negative quotient underflows to -0", dtype, [-least], MEAN, divisor=10)
        yield _case("a negative quotient underflows to -0", dtype, [-least], MEAN, Order.EXACT, divisor=10)
        yield _case("a product of signed zeros", dtype, [-0.0, 1.5, 0.0, -1.5], PROD)
        yield _case("a negative product underflows to -0", dtype, [least, -least, least, least, least, least], PROD)


def _specials() -> Iterator[Case]:
    for dtype in FLOATS:
        fmt = dtype.format
        sign = fmt.sign_bit
        quiet, signalling = fmt.nan, fmt.infinity if not fmt.has_infinity else fmt.infinity + 1
        payload = quiet | 1
        nans: dict[str, list[Value]] = {
            "a quiet NaN alone": [Raw(quiet)],
            "a negative quiet NaN alone": [Raw(sign | quiet)],
            "a signalling NaN alone": [Raw(signalling)],
            "a NaN with every bit set": [Raw(2 * sign - 1)],
            "a NaN with a payload, first": [Raw(payload), 1.0],
            "a NaN with a payload, last": [1.0, 2.0, Raw(sign | payload)],
            "two NaNs of different payload and sign": [Raw(sign | payload), 1.0, Raw(signalling)],
            "a NaN and a zero": [-0.0, Raw(payload), 0.0],
        }
        if fmt.has_infinity:
            nans |= {
                "+infinity alone": ["inf"],
                "-infinity and a number": ["-inf", 1.5],
                "infinities of one sign": ["inf", "inf", 1.5],
                "infinities of both signs": ["inf", 1.5, "-inf"],
                "an infinity and a NaN": ["inf", Raw(sign | payload)],
                "an infinity and a zero": ["inf", -0.0],
            }
        for name, leaves in nans.items():
            for op in (SUM, MEAN, PROD, MIN, MAX):
                yield _case(name, dtype, leaves, op)
                if op in (SUM, MEAN):
                    yield _case(name, dtype, leaves, op, Order.EXACT)
        for out in FLOATS:
            yield _case("a NaN's sign and payload do not cross over", dtype, [Raw(sign | payload)], out=out)
            if fmt.has_infinity:
                yield _case("-infinity to another type", dtype, ["-inf"], out=out)
                yield _case("-infinity to another type", dtype, ["-inf"], MIN, out=out)


def _integers() -> Iterator[Case]:
    for dtype in Dtype:
        if dtype.is_float or dtype is Dtype.BOOL:
            continue
        ones = (1 << 8 * dtype.size) - 1
        high = 1 << (8 * dtype.size - 1)
        for op in (SUM, PROD, MIN, MAX, ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR):
            yield _case("the largest and 1", dtype, [Raw(high - 1), Raw(1)], op)
            yield _case("all ones and the top bit", dtype, [Raw(ones), Raw(high), Raw(3)], op)
            yield _case("one leaf passes through", dtype, [Raw(high | 5)], op)
            yield _case("five leaves", dtype, [Raw(ones - n * (n + 89) % ones) for n in range(5)], op)
    for op in (MIN, MAX, ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR):
        for bits in ([5], [0], [1, 2], [2, 2], [0, 0x80], [0xFF, 0, 1], [3, 1, 2, 4, 0xFE]):
            yield _case(f"any byte but 0 is true {bits}", Dtype.BOOL, [Raw(byte) for byte in bits], op)


def cases() -> list[Case]:
    """All of them, each name once."""
    made = [*_orders(), *_overflows(), *_ties(), *_zeros(), *_specials(), *_integers()]
    return made
