"""Reduction operations and reduction orders."""

from __future__ import annotations

from enum import Enum


class ReduceOp(Enum):
    """What a reduction does with two values."""

    SUM = "sum"
    MEAN = "mean"
    PROD = "prod"
    MIN = "min"
    MAX = "max"
    BAND = "band"
    BOR = "bor"
    BXOR = "bxor"

    @property
    def code(self) -> int:
        """The code on the wire: sum is 1, and so on."""
        return list(ReduceOp).index(self) + 1

    @classmethod
    def from_code(cls, code: int) -> ReduceOp | None:
        return next((op for op in cls if op.code == code), None)

    @property
    def is_bitwise(self) -> bool:
        return self in (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR)

    @property
    def is_arithmetic(self) -> bool:
        """Whether it computes new values (and so rounds floats), rather than choosing one."""
        return self in (ReduceOp.SUM, ReduceOp.MEAN, ReduceOp.PROD)


class Order(Enum):
    """Which law decides the bits."""

    TREE = "tree"
    EXACT = "exact"

    @property
    def code(self) -> int:
        return list(Order).index(self) + 1

    @classmethod
    def from_code(cls, code: int) -> Order | None:
        return next((order for order in cls if order.code == code), None)
