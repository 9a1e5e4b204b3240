"""The exact order: correct rounding of the exact sum, and the wide form in which it travels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isobit.reference import exact
from isobit.reference.cases import Value, tensor
from isobit.reference.contract import contract
from isobit.reference.dtype import FLOATS, Dtype
from isobit.reference.leaves import LeafMap
from isobit.reference.op import Order, ReduceOp
from isobit.reference.reduce import contents, reduce

from . import oracle

WORDS = st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=20)


@given(
    words=WORDS,
    dtype=st.sampled_from(FLOATS),
    out=st.sampled_from(FLOATS),
    divisor=st.sampled_from([None, 1, 3, 7, 10]),
)
def test_a_result_is_the_exact_one_rounded_once(
    words: list[int], dtype: Dtype, out: Dtype, divisor: int | None
) -> None:
    codes = [word & (2 * dtype.format.sign_bit - 1) for word in words]
    op = ReduceOp.MEAN if divisor else ReduceOp.SUM
    made = contract(op, len(codes), dtype, Order.EXACT, None, out, divisor)
    result = reduce(made, [np.array([code], dtype.bits) for code in codes]).view(out.bits)
    assert int(result[0]) == oracle.exact(out.value, divisor or 1, codes, dtype.value)


@pytest.mark.parametrize(("dtype", "limbs", "size"), [(Dtype.BF16, 5, 48), (Dtype.F32, 5, 48), (Dtype.F64, 34, 280)])
def test_the_wide_form_is_the_documented_one(dtype: Dtype, limbs: int, size: int) -> None:
    assert (exact.limbs(dtype), exact.wide_bytes(dtype)) == (limbs, size)
    least = exact.Wide(-3, exact.NOT_MINUS_ZERO)
    form = exact.encode([least], dtype)
    assert form == (2 ** (64 * limbs) - 3).to_bytes(8 * limbs, "little") + b"\x08" + bytes(7)
    assert exact.decode(form, dtype) == [least]


def test_the_unit_is_the_least_number() -> None:
    assert exact.of_leaf(tensor([2.0**-149, 1.0], Dtype.F32), Dtype.F32)[1].total == 1 << 149
    assert exact.of_leaf(tensor([2.0**-1074], Dtype.F64), Dtype.F64)[0].total == 1
    assert exact.of_leaf(tensor([2.0**-9], Dtype.F8E4M3FN), Dtype.F8E4M3FN)[0].total == 1 << 140


@pytest.mark.parametrize(
    ("value", "flags"), [("nan", 9), ("inf", 10), ("-inf", 12), (-0.0, 0), (0.0, 8), (1.0, 8), (-1.0, 8)]
)
def test_flags_say_what_an_integer_can_not(value: Value, flags: int) -> None:
    (wide,) = exact.of_leaf(tensor([value], Dtype.F32), Dtype.F32)
    assert wide.flags == flags
    assert isinstance(value, float) or wide.total == 0


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.F64])
def test_the_wide_form_holds_the_largest_sum(dtype: Dtype) -> None:
    top = exact.of_leaf(np.array([dtype.format.sign_bit | dtype.format.max_finite], dtype.bits), dtype)[0]
    largest = exact.Wide(top.total << 32, exact.NOT_MINUS_ZERO)
    assert exact.decode(exact.encode([largest], dtype), dtype) == [largest]


@pytest.mark.parametrize(("dtype", "most"), [(Dtype.F8E5M2, 48), (Dtype.BF16, 24), (Dtype.F32, 12), (Dtype.F64, 35)])
def test_raw_leaves_travel_while_they_are_no_larger(dtype: Dtype, most: int) -> None:
    for count in (0, 1, most, most + 1):
        made = contract(ReduceOp.SUM, most + 2, dtype, Order.EXACT)
        owners = LeafMap.of(most + 2, [range(count), range(count, most + 2)])
        expected = [f"leaf {leaf}" for leaf in range(count)] if count <= most else [f"wide {count}"]
        assert [str(content) for content in contents(made, owners, 0)] == expected


@pytest.mark.parametrize("more", [1, 3])
def test_more_f16_leaves_than_a_double_can_sum(more: int) -> None:
    # From 2^29 on a double's last bit is 2^-23, so a sum of multiples of 2^-24 has to be rounded.
    codes = [0x7BFF] * 8197 + [more]
    made = contract(ReduceOp.SUM, len(codes), Dtype.F16, Order.EXACT, None, Dtype.F64)
    result = reduce(made, [np.array([code], np.uint16) for code in codes]).view(np.uint64)
    assert int(result[0]) == oracle.exact("f64", 1, codes, "f16")
