"""Contracts: defaults, refusals, the encoding and the digest."""

from __future__ import annotations

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from isobit.reference.contract import CONTRACT_BYTES, Contract, ContractError, contract
from isobit.reference.dtype import Dtype
from isobit.reference.op import Order, ReduceOp


def test_codes_and_sizes_are_the_documented_ones() -> None:
    assert [dtype.code for dtype in Dtype] == [1, 2, 3, 4, 5, 6, 16, 17, 18, 19, 24, 25, 26, 27, 32]
    assert [dtype.size for dtype in Dtype] == [1, 1, 2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1]
    assert [op.code for op in ReduceOp] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [order.code for order in Order] == [1, 2]


def test_the_encoding_is_the_documented_one() -> None:
    made = contract(ReduceOp.MEAN, 0x01020304, Dtype.BF16, out_dtype=Dtype.F32, divisor=3 << 40)
    expected = "0201040505010000" + "04030201" + "00000000" + "0000000000030000"
    assert made.encode().hex() == expected
    assert made.digest() == xxhash.xxh3_64_intdigest(bytes.fromhex(expected))


@pytest.mark.parametrize(
    ("dtype", "accumulator"),
    [
        (Dtype.F8E4M3FN, Dtype.F32),
        (Dtype.F8E5M2, Dtype.F32),
        (Dtype.F16, Dtype.F32),
        (Dtype.BF16, Dtype.F32),
        (Dtype.F32, Dtype.F64),
        (Dtype.F64, Dtype.F64),
        (Dtype.I16, Dtype.I16),
    ],
)
def test_default_accumulators(dtype: Dtype, accumulator: Dtype) -> None:
    assert contract(ReduceOp.SUM, 2, dtype).dtype_acc is accumulator


def test_where_nothing_rounds_the_two_orders_are_one() -> None:
    for op, dtype in ((ReduceOp.MIN, Dtype.F32), (ReduceOp.SUM, Dtype.I8), (ReduceOp.BOR, Dtype.BOOL)):
        made = contract(op, 3, dtype, Order.EXACT)
        assert made == contract(op, 3, dtype, Order.TREE)
        assert (made.order, made.dtype_acc) == (Order.TREE, dtype)


def test_a_mean_divides_by_the_leaves_unless_told() -> None:
    assert contract(ReduceOp.MEAN, 7, Dtype.F32).divisor == 7
    assert contract(ReduceOp.MEAN, 7, Dtype.F32, divisor=3).divisor == 3
    assert contract(ReduceOp.SUM, 7, Dtype.F32).divisor == 1


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("NoLeaves", (ReduceOp.SUM, 0, Dtype.F32)),
        ("OpNotDefined", (ReduceOp.BOR, 1, Dtype.F32)),
        ("OpNotDefined", (ReduceOp.MEAN, 1, Dtype.I32)),
        ("OpNotDefined", (ReduceOp.SUM, 1, Dtype.BOOL)),
        ("OrderNotDefined", (ReduceOp.PROD, 1, Dtype.F32, Order.EXACT)),
        ("AccumulatorTooNarrow", (ReduceOp.SUM, 1, Dtype.F64, Order.TREE, Dtype.F32)),
        ("AccumulatorTooNarrow", (ReduceOp.SUM, 1, Dtype.F16, Order.TREE, Dtype.F16)),
        ("AccumulatorTooNarrow", (ReduceOp.SUM, 1, Dtype.I8, Order.TREE, Dtype.F64)),
        ("AccumulatorWithExact", (ReduceOp.SUM, 1, Dtype.F32, Order.EXACT, Dtype.F64)),
        ("OutDtype", (ReduceOp.SUM, 1, Dtype.I8, Order.TREE, None, Dtype.I16)),
        ("OutDtype", (ReduceOp.SUM, 1, Dtype.F32, Order.TREE, None, Dtype.I16)),
        ("DivisorWithoutMean", (ReduceOp.SUM, 1, Dtype.F32, Order.TREE, None, None, 2)),
        ("Divisor", (ReduceOp.MEAN, 1, Dtype.F32, Order.TREE, None, None, 0)),
        ("Divisor", (ReduceOp.MEAN, 1, Dtype.BF16, Order.TREE, None, None, (1 << 24) + 1)),
        ("Divisor", (ReduceOp.MEAN, 1, Dtype.F32, Order.EXACT, None, None, (1 << 53) + 1)),
    ],
)
def test_what_can_not_be_is_refused(kind: str, asked: tuple[object, ...]) -> None:
    with pytest.raises(ContractError) as caught:
        contract(*asked)  # type: ignore[arg-type]
    assert caught.value.kind == kind


def test_a_divisor_needs_few_digits_not_a_small_value() -> None:
    assert contract(ReduceOp.MEAN, 1, Dtype.BF16, divisor=1 << 63).divisor == 1 << 63
    assert contract(ReduceOp.MEAN, 1, Dtype.BF16, accumulate=Dtype.F64, divisor=(1 << 24) + 1)


OPTIONAL = st.one_of(st.none(), st.sampled_from(Dtype))


@given(
    op=st.sampled_from(ReduceOp),
    leaves=st.integers(1, (1 << 32) - 1),
    dtype=st.sampled_from(Dtype),
    order=st.sampled_from(Order),
    accumulate=OPTIONAL,
    out=OPTIONAL,
    divisor=st.one_of(st.none(), st.integers(0, 1 << 30)),
)
def test_every_contract_survives_its_encoding(
    op: ReduceOp,
    leaves: int,
    dtype: Dtype,
    order: Order,
    accumulate: Dtype | None,
    out: Dtype | None,
    divisor: int | None,
) -> None:
    try:
        made = contract(op, leaves, dtype, order, accumulate, out, divisor)
    except ContractError:
        return
    encoding = made.encode()
    assert len(encoding) == CONTRACT_BYTES
    assert Contract.decode(encoding) == made


def test_a_foreign_law_version_is_kept_and_nonsense_is_not() -> None:
    encoding = contract(ReduceOp.SUM, 4, Dtype.F32).encode()
    foreign = Contract.decode(encoding[:5] + b"\x09" + encoding[6:])
    assert foreign is not None
    assert foreign.law_version == 9
    for at, byte in [(0, 99), (1, 0), (2, 7), (3, Dtype.BF16.code), (4, 16), (6, 1), (12, 1), (16, 2)]:
        assert Contract.decode(encoding[:at] + bytes([byte]) + encoding[at + 1 :]) is None, at
