"""The contract of a reduction: everything that decides its bits, its encoding and its digest."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import xxhash

from .dtype import Dtype
from .op import Order, ReduceOp

LAW_VERSION = 1
CONTRACT_BYTES = 24

# op, order, in, acc, out, law version, 2 zero bytes, leaves, 4 zero bytes, divisor.
_LAYOUT = struct.Struct("<BBBBBB2xI4xQ")


class ContractError(ValueError):
    """Why a contract can't be; ``kind`` is the word that golden vectors and Rust use."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Contract:
    """A checked contract; make one with :func:`contract`."""

    op: ReduceOp
    order: Order
    leaves: int
    dtype_in: Dtype
    dtype_acc: Dtype | None
    """What inner nodes are rounded to; None in the exact order, which has no inner nodes."""
    dtype_out: Dtype
    divisor: int
    law_version: int = LAW_VERSION

    def encode(self) -> bytes:
        acc = 0 if self.dtype_acc is None else self.dtype_acc.code
        codes = (self.op.code, self.order.code, self.dtype_in.code, acc, self.dtype_out.code)
        return _LAYOUT.pack(*codes, self.law_version, self.leaves, self.divisor)

    @classmethod
    def decode(cls, encoding: bytes) -> Contract | None:
        """Reads an encoding back; None if :func:`contract` could not have made it.

        A foreign law version is kept, so that an error can name it.
        """
        op_code, order_code, in_code, acc_code, out_code, version, leaves, divisor = _LAYOUT.unpack(encoding)
        op, order = ReduceOp.from_code(op_code), Order.from_code(order_code)
        dtype, acc, out = map(Dtype.from_code, (in_code, acc_code, out_code))
        if op is None or order is None or dtype is None or out is None:
            return None
        for accumulate in (None, acc):
            try:
                made = contract(op, leaves, dtype, order, accumulate, out, divisor if op is ReduceOp.MEAN else None)
            except ValueError:
                continue
            made = replace(made, law_version=version)
            if made.encode() == encoding:
                return made
        return None

    def digest(self) -> int:
        """XXH3-64 of the encoding."""
        return xxhash.xxh3_64_intdigest(self.encode())


def contract(
    op: ReduceOp,
    leaves: int,
    dtype: Dtype,
    order: Order = Order.TREE,
    accumulate: Dtype | None = None,
    out_dtype: Dtype | None = None,
    divisor: int | None = None,
) -> Contract:
    """Checks what a caller asks for and fills in what is left open."""
    if not 0 <= leaves < 1 << 32:
        raise ValueError(f"leaves={leaves} is no 32-bit count")
    if divisor is not None and not 0 <= divisor < 1 << 64:
        raise ValueError(f"divisor={divisor} is no unsigned 64-bit integer")
    if leaves == 0:
        raise ContractError("NoLeaves", "a reduction needs at least one leaf")
    _check_defined(op, dtype)
    out = dtype if out_dtype is None else out_dtype
    if out is not dtype and not (out.is_float and dtype.is_float):
        raise ContractError("OutDtype", f"leaves of {dtype.value} can't give {out.value}: only floats convert")
    rounds = dtype.is_float and op.is_arithmetic
    if order is Order.EXACT and rounds and op is ReduceOp.PROD:
        raise ContractError("OrderNotDefined", f"no exact {op.value} of {dtype.value}: use order tree")
    if accumulate is not None and accumulate not in _accumulators(dtype):
        raise ContractError("AccumulatorTooNarrow", f"accumulate={accumulate.value} does not fit {dtype.value}")
    acc: Dtype | None
    if not rounds:
        # Every grouping gives the same bits, so the two orders are one and the leaves' own type will do.
        order, acc = Order.TREE, dtype
    elif order is Order.TREE:
        acc = accumulate or (Dtype.F64 if dtype in (Dtype.F32, Dtype.F64) else Dtype.F32)
    elif accumulate is not None:
        raise ContractError("AccumulatorWithExact", "order exact rounds once: leave accumulate out")
    else:
        acc = None
    if op is ReduceOp.MEAN:
        divisor = leaves if divisor is None else divisor
        _check_divisor(divisor, acc or Dtype.F64)
    elif divisor is not None:
        raise ContractError("DivisorWithoutMean", f"divisor={divisor} goes with mean, not with {op.value}")
    return Contract(op, order, leaves, dtype, acc, out, 1 if divisor is None else divisor)


def _check_defined(op: ReduceOp, dtype: Dtype) -> None:
    defined = {
        ReduceOp.SUM: dtype is not Dtype.BOOL,
        ReduceOp.PROD: dtype is not Dtype.BOOL,
        ReduceOp.MEAN: dtype.is_float,
        ReduceOp.MIN: True,
        ReduceOp.MAX: True,
    }.get(op, not dtype.is_float)
    if not defined:
        raise ContractError("OpNotDefined", f"{op.value} is not defined on {dtype.value}")


def _accumulators(dtype: Dtype) -> tuple[Dtype, ...]:
    """The types that hold every value of ``dtype`` and in which sums may be accumulated."""
    if not dtype.is_float:
        return ()
    return (Dtype.F64,) if dtype is Dtype.F64 else (Dtype.F32, Dtype.F64)


def _check_divisor(divisor: int, acc: Dtype) -> None:
    """The division must be by exactly the divisor, so the accumulator must hold it."""
    digits = acc.format.mantissa_bits + 1
    odd = divisor
    while odd and odd % 2 == 0:
        odd //= 2
    if divisor == 0 or odd >= 1 << digits:
        raise ContractError("Divisor", f"divisor={divisor} is not a positive integer that {acc.value} holds")
