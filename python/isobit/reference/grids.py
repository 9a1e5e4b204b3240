"""The golden vectors' grids: the same pools of leaves under every contract, and conversion tables."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import xxhash

from .cases import Value, cases, tensor
from .contract import Contract, contract
from .dtype import FLOATS, Bits, Dtype
from .leaves import LeafMap, runs
from .op import Order, ReduceOp
from .reduce import contribute, reduce
from .rounding import convert, round_rational

Json = dict[str, Any]

LEAF_COUNTS = (1, 2, 3, 5, 7, 8, 12, 24, 48, 60, 64, 97)
INFINITE_LEAF, NAN_LEAF = 66, 90
"""In which leaf of a float pool the last element is infinite, and in which a NaN."""


def random_words(label: str) -> Iterator[int]:
    """An endless sequence of 64-bit words, the same on every platform."""
    number = 0
    while True:
        yield xxhash.xxh3_64_intdigest(label.encode() + struct.pack("<Q", number))
        number += 1


def pool(dtype: Dtype) -> list[Bits]:
    """As many leaves as the largest grid needs; each element is a column of its own character."""
    words = random_words(f"pool {dtype.value}")
    columns = _float_columns if dtype.is_float else _integer_columns
    return [np.array(columns(dtype, leaf, words), dtype.bits) for leaf in range(max(LEAF_COUNTS))]


def _float_columns(dtype: Dtype, leaf: int, words: Iterator[int]) -> list[int]:
    fmt = dtype.format
    sign = fmt.sign_bit * (next(words) % 2)
    near_one = (fmt.bias - 3 + next(words) % 6) << fmt.mantissa_bits | next(words) & fmt.mantissa_mask
    any_finite = next(words) % (fmt.max_finite + 1)
    subnormal = next(words) % (4 << fmt.mantissa_bits)
    cancelling = round_rational(Fraction(leaf + 1, 7) * (-1) ** leaf, dtype)
    ties = [
        Fraction(1),
        Fraction(1, 2 << fmt.mantissa_bits),
        Fraction(3, 2),
        Fraction(1, 1 << fmt.mantissa_bits),
    ]
    tie = round_rational(ties[next(words) % 4], dtype)
    special = fmt.sign_bit * (leaf % 3 > 0)
    if leaf == INFINITE_LEAF:
        special = fmt.sign_bit | fmt.max_non_nan
    if leaf == NAN_LEAF:
        special = fmt.sign_bit | (2 * fmt.sign_bit - 1 & fmt.nan)
    return [sign | near_one, sign | any_finite, sign | subnormal, cancelling, sign | tie, special]


def _integer_columns(dtype: Dtype, leaf: int, words: Iterator[int]) -> list[int]:
    every = (1 << 8 * dtype.size) - 1
    return [next(words) & every, 1 + next(words) % 3, every - leaf, (next(words) & every) | 1]


def spec(made: Contract) -> Json:
    """A contract as a caller would ask for it."""
    rounds = made.op.is_arithmetic and made.dtype_in.is_float and made.order is Order.TREE
    return {
        "op": made.op.value,
        "order": made.order.value,
        "leaves": made.leaves,
        "dtype": made.dtype_in.value,
        "accumulate": made.dtype_acc.value if rounds and made.dtype_acc else None,
        "out_dtype": made.dtype_out.value,
        "divisor": made.divisor if made.op is ReduceOp.MEAN else None,
    }


def reductions() -> Iterator[Json]:
    """The named cases, their leaves in full."""
    for case in cases():
        result = reduce(case.contract, case.leaves)
        yield {
            "name": case.name,
            "contract": spec(case.contract),
            "leaves": [leaf.tobytes().hex() for leaf in case.leaves],
            "result": result.tobytes().hex(),
        }


def pools() -> Iterator[Json]:
    """The leaves of the grid."""
    for dtype in Dtype:
        yield {"name": dtype.value, "leaves": [leaf.tobytes().hex() for leaf in pool(dtype)]}


def grid() -> Iterator[Json]:
    """Every contract over the first L leaves of its dtype's pool, for every L."""
    for dtype in Dtype:
        leaves = pool(dtype)
        for op, order, accumulate, out, divisor in _asked(dtype):
            words = [order.value, op.value, "of", dtype.value]
            words += ["in", accumulate.value] if accumulate else []
            words += ["to", out.value] if out else []
            words += ["by", str(divisor)] if divisor else []
            yield {
                "name": " ".join(words),
                "op": op.value,
                "order": order.value,
                "dtype": dtype.value,
                "accumulate": accumulate.value if accumulate else None,
                "out_dtype": out.value if out else None,
                "divisor": divisor,
                "results": {
                    str(count): reduce(contract(op, count, dtype, order, accumulate, out, divisor), leaves[:count])
                    .tobytes()
                    .hex()
                    for count in LEAF_COUNTS
                },
            }


Asked = tuple[ReduceOp, Order, Dtype | None, Dtype | None, int | None]


def _asked(dtype: Dtype) -> Iterator[Asked]:
    tree, exact = Order.TREE, Order.EXACT
    if not dtype.is_float:
        for op in ReduceOp:
            if op is ReduceOp.MEAN or (dtype is Dtype.BOOL and op.is_arithmetic):
                continue
            yield op, tree, None, None, None
        return
    for accumulate in (Dtype.F64,) if dtype is Dtype.F64 else (Dtype.F32, Dtype.F64):
        yield ReduceOp.PROD, tree, accumulate, None, None
        for op in (ReduceOp.SUM, ReduceOp.MEAN):
            for out in FLOATS:
                yield op, tree, accumulate, out, None
        for divisor in (3, 7, 10):
            yield ReduceOp.MEAN, tree, accumulate, None, divisor
    for op in (ReduceOp.SUM, ReduceOp.MEAN):
        yield op, tree, None, None, None
        for out in FLOATS:
            yield op, exact, None, out, None
    for divisor in (3, 7, 10):
        yield ReduceOp.MEAN, exact, None, None, divisor
    for op in (ReduceOp.MIN, ReduceOp.MAX):
        for out in dict.fromkeys((dtype, Dtype.F32, Dtype.BF16)):
            yield op, tree, None, out, None


def contributions() -> Iterator[Json]:
    """What each rank sends under a contract and an ownership, and the result that follows."""
    for dtype, out in ((Dtype.BF16, Dtype.F32), (Dtype.F32, Dtype.F32), (Dtype.F64, Dtype.F64)):
        # Columns without NaNs: the payload of an inner node's NaN is nobody's promise.
        leaves = [leaf[[1, 3]] for leaf in pool(dtype)]
        for count, world_size in ((5, 2), (24, 5), (48, 5), (60, 3), (64, 3)):
            for order in Order:
                made = contract(ReduceOp.MEAN, count, dtype, order, None, out)
                yield _contribution(made, LeafMap.even(count, world_size), leaves[:count])
    interleaved = LeafMap.of(12, [range(0, 12, 2), [], range(1, 12, 2)])
    for op, dtype in ((ReduceOp.PROD, Dtype.F16), (ReduceOp.MIN, Dtype.F8E5M2), (ReduceOp.SUM, Dtype.I16)):
        leaves = [leaf[[0, 3]] for leaf in pool(dtype)][:12]
        yield _contribution(contract(op, 12, dtype), interleaved, leaves)
        yield _contribution(contract(op, 12, dtype), LeafMap.even(12, 2), leaves)
    flagged: dict[str, list[Value]] = {
        "all flags": ["nan", "inf", "-inf"],
        "no flag": [],
        "one flag": ["-inf"],
    }
    for name, values in flagged.items():
        padded: list[Value] = [*values, *[-0.0] * (16 - len(values))]
        made = contract(ReduceOp.SUM, 16, Dtype.F32, Order.EXACT)
        leaves = [tensor([value], Dtype.F32) for value in padded]
        entry = _contribution(made, LeafMap.of(16, [range(16), []]), leaves)
        yield entry | {"name": f"{name} in a wide sum padded with -0"}


def _contribution(made: Contract, owners: LeafMap, leaves: list[Bits]) -> Json:
    ranks = range(len(owners.ranks))
    parts = [contribute(made, owners, rank, dict(enumerate(leaves))) for rank in ranks]
    what = f"{made.order.value} {made.op.value} of {made.leaves} {made.dtype_in.value}"
    return {
        "name": f"{what} over {len(ranks)} ranks, {[len(rank) for rank in owners.ranks]}",
        "contract": spec(made),
        "ranks": [runs(rank) for rank in owners.ranks],
        "leaves": [leaf.tobytes().hex() for leaf in leaves],
        "parts": [[{"content": str(part.content), "bytes": part.payload.hex()} for part in rank] for rank in parts],
        "result": reduce(made, leaves).tobytes().hex(),
    }


def conversions() -> Iterator[Json]:
    """Single conversions, as bits written as numbers."""
    named = [
        ("the largest f32 overflows", Dtype.F32, Dtype.BF16, "7f7fffff"),
        ("a signalling NaN does not become infinity", Dtype.F32, Dtype.BF16, "7f800001"),
        ("a subnormal tie goes to even", Dtype.F32, Dtype.BF16, "00018000"),
        ("a subnormal is kept", Dtype.F32, Dtype.BF16, "000116c2"),
        ("a tie goes down to even", Dtype.F32, Dtype.BF16, "3f808000"),
        ("a tie goes up to even", Dtype.F32, Dtype.BF16, "3f818000"),
        ("just above a tie", Dtype.F32, Dtype.BF16, "3f808001"),
        ("just below a tie", Dtype.F32, Dtype.BF16, "3f817fff"),
        ("-0 keeps its sign", Dtype.F32, Dtype.BF16, "80000000"),
        ("a negative NaN", Dtype.F32, Dtype.BF16, "ffffffff"),
        ("65519.99 stays finite", Dtype.F32, Dtype.F16, "477feffd"),
        ("just below 65520", Dtype.F32, Dtype.F16, "477fefff"),
        ("65520 overflows", Dtype.F32, Dtype.F16, "477ff000"),
        ("2^-25 is a tie with zero", Dtype.F32, Dtype.F16, "33000000"),
        ("just above 2^-25", Dtype.F32, Dtype.F16, "33000001"),
        ("-2^-25 goes to -0", Dtype.F32, Dtype.F16, "b3000000"),
        ("3 * 2^-25 is a tie that goes up", Dtype.F32, Dtype.F16, "33c00000"),
        ("the largest subnormal rounds up to the least normal", Dtype.F32, Dtype.F16, "387ff000"),
        ("464 is a tie that stays 448", Dtype.F32, Dtype.F8E4M3FN, "43e80000"),
        ("just above 464 is NaN", Dtype.F32, Dtype.F8E4M3FN, "43e80001"),
        ("infinity is NaN", Dtype.F32, Dtype.F8E4M3FN, "ff800000"),
        ("2^-10 is a tie with zero", Dtype.F32, Dtype.F8E4M3FN, "3a800000"),
        ("61440 is a tie that overflows", Dtype.F32, Dtype.F8E5M2, "47700000"),
        ("just below 61440", Dtype.F32, Dtype.F8E5M2, "476fffff"),
        ("one rounding, not two", Dtype.F64, Dtype.BF16, "3ff0100000000001"),
        ("one rounding, not two", Dtype.F64, Dtype.F16, "3ff0020000000001"),
        ("one rounding, not two", Dtype.F64, Dtype.F8E4M3FN, "3ff1000000000001"),
        ("the tie itself", Dtype.F64, Dtype.BF16, "3ff0100000000000"),
        ("2^-150 is a tie with zero", Dtype.F64, Dtype.F32, "3690000000000000"),
        ("just above 2^-150", Dtype.F64, Dtype.F32, "3690000000000001"),
        ("just below -2^-150", Dtype.F64, Dtype.F32, "b690000000000001"),
        ("the least f64", Dtype.F64, Dtype.F32, "8000000000000001"),
        ("half a step above the largest f32", Dtype.F64, Dtype.F32, "47effffff0000000"),
        ("just below half a step above the largest f32", Dtype.F64, Dtype.F32, "47efffffefffffff"),
        ("a NaN whose payload is all in the low bits", Dtype.F64, Dtype.F32, "7ff0000000000001"),
    ]
    for name, source, target, bits in named:
        result = int(convert(np.array([int(bits, 16)], source.bits), source, target)[0])
        yield {
            "name": f"{name}: {bits} {source.value} to {target.value}",
            "from": source.value,
            "to": target.value,
            "input": bits,
            "output": f"{result:0{2 * target.size}x}",
        }


def tables() -> Iterator[Json]:
    """Conversions by the ten thousand: inputs ``i * step``, and the digest of the outputs' bytes."""
    for source in FLOATS:
        # Every pattern of the small types; an odd stride through the large ones.
        step = {4: 0xFFF1, 8: 0xFFFFFFF10001}.get(source.size, 1)
        count = min(1 << 8 * source.size, 1 << 16)
        inputs = np.array([number * step for number in range(count)], source.bits)
        for target in FLOATS:
            outputs = convert(inputs, source, target)
            yield {
                "name": f"{count} patterns of {source.value} to {target.value}",
                "from": source.value,
                "to": target.value,
                "step": step,
                "count": count,
                "digest": f"{xxhash.xxh3_64_intdigest(outputs.tobytes()):016x}",
            }
