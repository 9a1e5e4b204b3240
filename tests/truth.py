"""Leaves for tests, as functions of their number, and what the law makes of them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from isobit.dtypes import NAMES, dtype_of
from isobit.reference import op as reference_op
from isobit.reference.contract import contract
from isobit.reference.dtype import Dtype
from isobit.reference.reduce import reduce
from numpy.typing import NDArray

Array = NDArray[Any]

FLOATS = ("f8e4m3fn", "f8e5m2", "f16", "bf16", "f32", "f64")
DTYPES = tuple(NAMES)


def leaf(number: int, dtype: str, shape: tuple[int, ...], seed: int = 0, kind: str = "any bits") -> Array:
    """Leaf `number`: any bit patterns, NaNs and subnormals among them, or everyday values."""
    random = np.random.default_rng([seed, number, *dtype.encode()])
    numpy_dtype = dtype_of(dtype)
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if kind == "any bits":
        bits = random.bytes(int(np.prod(shape)) * numpy_dtype.itemsize)
        return np.frombuffer(bits, numpy_dtype).reshape(shape).copy()
    return (random.standard_normal(shape) * 8).astype(numpy_dtype)


@functools.lru_cache(maxsize=4096)
def expected(
    leaves: int,
    dtype: str,
    shape: tuple[int, ...],
    op: str = "sum",
    order: str = "tree",
    seed: int = 0,
    kind: str = "any bits",
    accumulate: str | None = None,
    out_dtype: str | None = None,
    divisor: int | None = None,
) -> bytes:
    """The bytes of the reduction of the first `leaves` leaves, by the Python twin."""
    made = contract(
        reference_op.ReduceOp(op),
        leaves,
        Dtype(dtype),
        reference_op.Order(order),
        None if accumulate is None else Dtype(accumulate),
        None if out_dtype is None else Dtype(out_dtype),
        divisor,
    )
    result: bytes = reduce(made, [leaf(number, dtype, shape, seed, kind) for number in range(leaves)]).tobytes()
    return result


def is_defined(op: str, order: str, dtype: str) -> bool:
    """Whether the operation exists for the dtype."""
    floats = dtype in FLOATS
    if op in ("band", "bor", "bxor"):
        return not floats
    if op == "mean" and not floats:
        return False
    if dtype == "bool" and op in ("sum", "prod"):
        return False
    return not (op == "prod" and order == "exact" and floats)


OPS = ("sum", "mean", "prod", "min", "max", "band", "bor", "bxor")
ORDERS = ("tree", "exact")
