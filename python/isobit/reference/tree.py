"""The tree order: the value of every node of the left-full dyadic tree.

Values are arrays of raw bits in the contract's accumulator type. Floats are added, multiplied
and divided element by element in the accumulator itself, never by numpy's own reductions, whose
pairwise summation is another tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .contract import Contract
from .dtype import Bits, Dtype
from .node import Interval, Node
from .op import ReduceOp
from .rounding import convert, is_nan


def load(contract: Contract, leaf: Bits) -> Bits:
    """A leaf's value, widened exactly to the accumulator; truth values become 0 or 1."""
    if contract.dtype_in is Dtype.BOOL:
        return np.asarray(leaf != 0).astype(np.uint8)
    if contract.dtype_acc is contract.dtype_in:
        return leaf
    assert contract.dtype_acc is not None, "the exact order has no tree"
    return convert(leaf, contract.dtype_in, contract.dtype_acc)


def value(contract: Contract, node: Node, leaf: Callable[[int], Bits], known: Mapping[Interval, Bits]) -> Bits:
    """The value of ``node``: as given in ``known``, else a leaf's, else combined from its halves."""
    interval = node.interval(contract.leaves)
    if interval in known:
        return known[interval]
    if node.j == 0:
        return load(contract, leaf(node.k))
    if node.right.is_empty(contract.leaves):
        return value(contract, node.left, leaf, known)
    left = value(contract, node.left, leaf, known)
    right = value(contract, node.right, leaf, known)
    return combine(contract, left, right)


def combine(contract: Contract, left: Bits, right: Bits) -> Bits:
    """One operation, rounded to the accumulator."""
    dtype, op = contract.dtype_acc, contract.op
    assert dtype is not None, "the exact order has no tree"
    if op in (ReduceOp.MIN, ReduceOp.MAX):
        return _choose(op, dtype, left, right)
    if op is ReduceOp.BAND:
        return left & right
    if op is ReduceOp.BOR:
        return left | right
    if op is ReduceOp.BXOR:
        return left ^ right
    # Two's complement sums and products are the unsigned ones, modulo the type's size.
    number = dtype.native if dtype.is_float else dtype.bits
    a, b = left.view(number), right.view(number)
    with np.errstate(all="ignore"):
        result = a * b if op is ReduceOp.PROD else a + b
    return np.asarray(result, number).view(dtype.bits)


def finish(contract: Contract, root: Bits) -> Bits:
    """The root's value to the result: one division, one rounding, the canonical NaN."""
    acc, out = contract.dtype_acc, contract.dtype_out
    assert acc is not None, "the exact order has no tree"
    if not acc.is_float:
        return root
    if contract.op is ReduceOp.MEAN:
        divisor = np.full(1, contract.divisor, acc.native)
        with np.errstate(all="ignore"):
            root = np.asarray(root.view(acc.native) / divisor, acc.native).view(acc.bits)
    return convert(root, acc, out)


def _choose(op: ReduceOp, dtype: Dtype, left: Bits, right: Bits) -> Bits:
    """IEEE 754-2019 minimum or maximum for floats: a NaN wins, and -0 is below +0."""
    a, b = _key(left, dtype), _key(right, dtype)
    chosen = np.where((a <= b) == (op is ReduceOp.MIN), left, right)
    if dtype.is_float:
        either = is_nan(left, dtype) | is_nan(right, dtype)
        chosen = np.where(either, dtype.bits.type(dtype.format.nan), chosen)
    return chosen


def _key(bits: Bits, dtype: Dtype) -> Bits:
    """Integers in the order of the values: for floats the magnitude, counted down from -1 if negative."""
    if not dtype.is_float:
        return bits.view(dtype.native)
    sign = dtype.format.sign_bit
    magnitude = (bits & dtype.bits.type(sign - 1)).astype(np.int64)
    negative = np.asarray(bits & dtype.bits.type(sign)) != 0
    return np.asarray(np.where(negative, -1 - magnitude, magnitude))


def check_arithmetic() -> None:
    """Refuses a thread whose float instructions flush subnormals or do not round to nearest.

    numpy computes with whatever state the thread has, and some libraries change it when loaded.
    """
    for dtype in (Dtype.F32, Dtype.F64):
        one = dtype.format.bias << dtype.format.mantissa_bits
        half_step = (dtype.format.bias - dtype.format.mantissa_bits - 1) << dtype.format.mantissa_bits
        minus = dtype.format.sign_bit
        # Least number + itself; 1 + half a step, a tie to even, below and above; the same below 0.
        left = np.array([1, one, one + 1, minus + one], dtype.bits)
        right = np.array([1, half_step, half_step, minus + half_step], dtype.bits)
        expected = np.array([2, one, one + 2, minus + one], dtype.bits)
        found = (left.view(dtype.native) + right.view(dtype.native)).view(dtype.bits)
        if not np.array_equal(found, expected):
            raise RuntimeError(
                f"this thread does not compute {dtype.value} by IEEE 754 (a library may have switched on"
                " flush-to-zero, or changed the rounding mode): reduce in a fresh process"
            )
