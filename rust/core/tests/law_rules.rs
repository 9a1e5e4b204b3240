//! The floating-point rules of the law, one by one. Each is a trap that others fell into.

mod law_support;

use isobit_core::ReduceOp::{Max, Mean, Min, Prod, Sum};
use isobit_core::law::{fold, reduce_element};
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, float};
use law_support::{exact, of_f32, of_f64, spec, tree, tree_in};

const TINY: f32 = f32::from_bits(1);

fn permutations(items: &[f32]) -> Vec<Vec<f32>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for first in 0..items.len() {
        let mut rest = items.to_vec();
        let head = rest.remove(first);
        all.extend(permutations(&rest).into_iter().map(|tail| [vec![head], tail].concat()));
    }
    all
}

#[test]
fn each_of_the_24_orders_of_the_probe_has_its_own_documented_sum() {
    let narrow = tree_in(Dtype::F32, Sum, 4, Dtype::F32);
    let mut seen = Vec::new();
    for leaves in permutations(&[1e8, 1.0, -1e8, 1.0]) {
        let [a, b, c, d] = leaves[..] else { panic!("four leaves") };
        let documented = (a + b) + (c + d);
        assert_eq!(of_f32(&narrow, &leaves), documented, "{leaves:?}");
        assert_eq!(of_f32(&tree(Sum, 4, Dtype::F32), &leaves), 2.0, "f64 holds it");
        assert_eq!(of_f32(&exact(Sum, 4, Dtype::F32), &leaves), 2.0);
        seen.push(documented);
    }
    assert!(seen.contains(&0.0) && seen.contains(&2.0), "the probe tells orders apart: {seen:?}");
}

#[test]
fn every_node_rounds_once_in_the_accumulator() {
    let big = 2f64.powi(60);
    let half_unit = 2f64.powi(-53);
    assert_eq!(of_f64(&tree(Sum, 3, Dtype::F64), &[big, 1.0, -big]), 0.0);
    assert_eq!(of_f64(&exact(Sum, 3, Dtype::F64), &[big, 1.0, -big]), 1.0);
    assert_eq!(of_f64(&tree(Sum, 3, Dtype::F64), &[1.0, half_unit, half_unit]), 1.0);
    assert_eq!(of_f64(&tree(Sum, 3, Dtype::F64), &[half_unit, half_unit, 1.0]), 1.0 + 2.0 * half_unit);
    assert_eq!(of_f64(&exact(Sum, 3, Dtype::F64), &[1.0, half_unit, half_unit]), 1.0 + 2.0 * half_unit);
}

#[test]
fn a_sum_may_overflow_in_one_association_only_and_never_in_the_exact_order() {
    let x = 3e38;
    let narrow = tree_in(Dtype::F32, Sum, 4, Dtype::F32);
    assert!(of_f32(&narrow, &[x, x, -x, -x]).is_nan());
    assert_eq!(of_f32(&narrow, &[x, -x, x, -x]), 0.0);
    assert_eq!(of_f32(&tree(Sum, 4, Dtype::F32), &[x, x, -x, -x]), 0.0);
    assert_eq!(of_f32(&exact(Sum, 4, Dtype::F32), &[x, x, -x, -x]), 0.0);
    assert_eq!(of_f32(&exact(Sum, 2, Dtype::F32), &[x, x]), f32::INFINITY);
    assert_eq!(of_f32(&exact(Sum, 2, Dtype::F32), &[-x, -x]), f32::NEG_INFINITY);
    assert_eq!(of_f32(&exact(Mean, 2, Dtype::F32), &[x, x]), x, "a mean has room beyond the largest number");
}

#[test]
fn small_floats_are_not_rounded_at_every_node() {
    let leaves = [256.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0].map(|x| float::from_f32(Dtype::Bf16, x));
    let sum = reduce_element(&tree(Sum, 8, Dtype::Bf16), &leaves);
    assert_eq!(float::to_f32(Dtype::Bf16, sum), 264.0, "263 to even; node by node it would be 262");
}

#[test]
fn the_tree_rounds_twice_where_the_exact_order_rounds_once() {
    let through_f64 = [2f32.powi(24), 1.0, 2f32.powi(-30)];
    assert_eq!(of_f32(&tree(Sum, 3, Dtype::F32), &through_f64), 16_777_216.0);
    assert_eq!(of_f32(&exact(Sum, 3, Dtype::F32), &through_f64), 16_777_218.0);
    let through_f32 = [1.0, 2f32.powi(-8), 2f32.powi(-40)].map(|x| float::from_f32(Dtype::Bf16, x));
    assert_eq!(reduce_element(&tree(Sum, 3, Dtype::Bf16), &through_f32), 0x3f80);
    assert_eq!(reduce_element(&exact(Sum, 3, Dtype::Bf16), &through_f32), 0x3f81);
}

#[test]
fn the_last_rounding_goes_straight_from_the_accumulator_to_the_result() {
    let leaves = [1.0, 2f64.powi(-11), 2f64.powi(-24)].map(|x| float::from_f64(Dtype::F16, x));
    let by_way_of_f32 = tree(Sum, 3, Dtype::F16);
    assert_eq!(reduce_element(&by_way_of_f32, &leaves), 0x3c00, "f32 loses the 2^-24, and a tie is left");
    let in_f64 = tree_in(Dtype::F64, Sum, 3, Dtype::F16);
    assert_eq!(reduce_element(&in_f64, &leaves), 0x3c01);
}

#[test]
fn the_result_may_be_had_wider_than_the_leaves() {
    let leaves = [256.0, 1.0].map(|x| float::from_f32(Dtype::Bf16, x));
    for order in [Order::Tree, Order::Exact] {
        let spec = ContractSpec { order, out_dtype: Some(Dtype::F32), ..spec(Sum, 2, Dtype::Bf16) };
        let sum = reduce_element(&Contract::new(spec).unwrap(), &leaves);
        assert_eq!(f32::from_bits(sum as u32), 257.0);
    }
}

#[test]
fn an_empty_right_half_passes_the_left_through_without_adding_zero() {
    for leaves in 1..=9 {
        for dtype in Dtype::FLOATS {
            let minus_zero = float::Format::of(dtype).sign_bit();
            for contract in [tree(Sum, leaves, dtype), tree(Mean, leaves, dtype), exact(Sum, leaves, dtype)] {
                assert_eq!(reduce_element(&contract, &vec![minus_zero; leaves]), minus_zero, "{contract}");
            }
        }
    }
}

#[test]
fn a_zero_sum_is_plus_zero_unless_every_leaf_is_minus_zero() {
    let zero = 0f32.to_bits();
    for leaves in [[1.5, -1.5, -0.0], [-0.0, 0.0, -0.0], [-0.0, -0.0, 0.0], [-1.5, 1.5, 0.0]] {
        for contract in [tree(Sum, 3, Dtype::F32), exact(Sum, 3, Dtype::F32), exact(Mean, 3, Dtype::F32)] {
            assert_eq!(of_f32(&contract, &leaves).to_bits(), zero, "{contract} of {leaves:?}");
        }
    }
    for contract in [tree(Sum, 2, Dtype::F32), exact(Sum, 2, Dtype::F32), exact(Mean, 2, Dtype::F32)] {
        assert_eq!(of_f32(&contract, &[-0.0, -0.0]).to_bits(), (-0f32).to_bits(), "{contract}");
    }
}

#[test]
fn a_negative_result_that_underflows_in_the_last_rounding_is_minus_zero() {
    for order in [Order::Tree, Order::Exact] {
        let mean = Contract::new(ContractSpec { order, ..spec(Mean, 3, Dtype::F32) }).unwrap();
        assert_eq!(of_f32(&mean, &[-TINY, 0.0, 0.0]).to_bits(), (-0f32).to_bits(), "{mean}");
        assert_eq!(of_f32(&mean, &[-TINY, -TINY, 0.0]), -TINY, "two thirds of it round up: {mean}");
        let narrowing = ContractSpec { order, out_dtype: Some(Dtype::F16), ..spec(Sum, 2, Dtype::F32) };
        let narrowing = Contract::new(narrowing).unwrap();
        let leaves = [-(2f32.powi(-30)), 0.0].map(|leaf| u64::from(leaf.to_bits()));
        assert_eq!(reduce_element(&narrowing, &leaves), 0x8000, "{narrowing}");
    }
}

#[test]
fn subnormals_are_numbers_like_any_other() {
    for dtype in Dtype::FLOATS {
        for order in [Order::Tree, Order::Exact] {
            let sum = Contract::new(ContractSpec { order, ..spec(Sum, 5, dtype) }).unwrap();
            assert_eq!(reduce_element(&sum, &[1, 1, 1, 1, 1]), 5, "{sum}");
            let mean = Contract::new(ContractSpec { order, ..spec(Mean, 5, dtype) }).unwrap();
            assert_eq!(reduce_element(&mean, &[3, 2, 4, 3, 3]), 3, "{mean}");
        }
    }
    let narrow = tree_in(Dtype::F32, Sum, 2, Dtype::F32);
    assert_eq!(of_f32(&narrow, &[f32::MIN_POSITIVE, -TINY]).to_bits(), 0x007f_ffff);
}

#[test]
fn every_nan_leaves_as_the_canonical_one() {
    for dtype in Dtype::FLOATS {
        let format = float::Format::of(dtype);
        let (sign, canonical) = (format.sign_bit(), format.nan());
        let all_ones = sign - 1;
        let infinity = float::from_f64(dtype, f64::INFINITY);
        let signalling = if dtype == Dtype::F8E4m3fn { canonical } else { infinity + 1 };
        let nans = [canonical, all_ones, signalling].into_iter().flat_map(|nan| [nan, nan | sign]);
        for nan in nans {
            for (op, order) in
                [(Sum, Order::Tree), (Mean, Order::Tree), (Prod, Order::Tree), (Min, Order::Tree)]
                    .into_iter()
                    .chain([(Max, Order::Tree), (Sum, Order::Exact), (Mean, Order::Exact)])
            {
                let of = |leaves: &[u64]| {
                    let spec = ContractSpec { order, ..spec(op, leaves.len(), dtype) };
                    reduce_element(&Contract::new(spec).unwrap(), leaves)
                };
                let one = float::from_f64(dtype, 1.0);
                for leaves in [vec![nan], vec![nan, one], vec![one, one, nan], vec![nan, nan | sign, one]] {
                    assert_eq!(of(&leaves), canonical, "{order} {op} of {dtype} {leaves:x?}");
                }
            }
        }
    }
}

#[test]
fn what_has_no_value_is_the_canonical_nan_and_what_is_infinite_stays_so() {
    for dtype in [Dtype::F8E5m2, Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::F64] {
        let [plus, minus, one, zero] =
            [f64::INFINITY, f64::NEG_INFINITY, 1.0, 0.0].map(|x| float::from_f64(dtype, x));
        let nan = float::canonical_nan(dtype);
        for contract in
            [tree(Sum, 3, dtype), exact(Sum, 3, dtype), tree(Mean, 3, dtype), exact(Mean, 3, dtype)]
        {
            assert_eq!(reduce_element(&contract, &[plus, one, minus]), nan, "{contract}");
            assert_eq!(reduce_element(&contract, &[one, plus, one]), plus, "{contract}");
            assert_eq!(reduce_element(&contract, &[minus, minus, one]), minus, "{contract}");
        }
        assert_eq!(reduce_element(&tree(Prod, 2, dtype), &[plus, zero]), nan);
    }
}

#[test]
fn an_inner_node_travels_with_the_canonical_nan() {
    let contract = tree(Sum, 4, Dtype::Bf16);
    let node = isobit_core::law::Node::new(0, 2, 4).unwrap();
    let (a, b) = (0xffc1u16.to_le_bytes(), 0x7f81u16.to_le_bytes());
    let inputs: [(Content, &[u8]); 2] = [(Content::Leaf(0), &a), (Content::Leaf(1), &b)];
    assert_eq!(fold(&contract, &inputs, Content::Node(node)), 0x7fc0_0000u32.to_le_bytes());
}

#[test]
fn a_mean_divides_once_and_never_multiplies_by_a_reciprocal() {
    for divisor in [3usize, 7, 10] {
        let (narrow, wide) =
            (tree_in(Dtype::F32, Mean, divisor, Dtype::F32), tree(Mean, divisor, Dtype::F64));
        let (mut differs_narrow, mut differs_wide) = (0, 0);
        for value in 1..200 {
            let mut leaves = vec![0.0; divisor];
            leaves[divisor - 1] = value as f32;
            let (quotient, product) = (value as f32 / divisor as f32, value as f32 * (1.0 / divisor as f32));
            assert_eq!(of_f32(&narrow, &leaves), quotient);
            differs_narrow += u32::from(quotient != product);
            let leaves: Vec<f64> = leaves.into_iter().map(f64::from).collect();
            let (quotient, product) = (value as f64 / divisor as f64, value as f64 * (1.0 / divisor as f64));
            assert_eq!(of_f64(&wide, &leaves), quotient);
            assert_eq!(of_f64(&exact(Mean, divisor, Dtype::F64), &leaves), quotient);
            differs_wide += u32::from(quotient != product);
        }
        assert!(differs_narrow > 0 && differs_wide > 0, "the values tell the two apart");
    }
}

#[test]
fn a_mean_divides_by_the_contracts_divisor_and_by_nothing_else() {
    for order in [Order::Tree, Order::Exact] {
        let by = |divisor| {
            let spec = ContractSpec { order, divisor, ..spec(Mean, 3, Dtype::F64) };
            of_f64(&Contract::new(spec).unwrap(), &[1.0, 2.0, 4.0])
        };
        assert_eq!(by(None), 7.0 / 3.0);
        assert_eq!(by(Some(1)), 7.0);
        assert_eq!(by(Some(10)), 0.7);
        assert_eq!(by(Some(1 << 63)), 7.0 / 2f64.powi(63));
    }
    let narrow = ContractSpec { accumulate: Some(Dtype::F32), ..spec(Mean, 3, Dtype::F32) };
    let by_ten = Contract::new(ContractSpec { divisor: Some(10), ..narrow }).unwrap();
    assert_eq!(of_f32(&by_ten, &[1.0, 2.0, 4.0]), 0.7);
}

#[test]
fn minimum_and_maximum_order_the_zeros_and_let_nan_win() {
    let of = |op, leaves: &[f32]| of_f32(&tree(op, leaves.len(), Dtype::F32), leaves);
    for leaves in [[-0.0, 0.0], [0.0, -0.0]] {
        assert_eq!(of(Min, &leaves).to_bits(), (-0f32).to_bits());
        assert_eq!(of(Max, &leaves).to_bits(), 0f32.to_bits());
    }
    for leaves in permutations(&[-TINY, 1.0, f32::NEG_INFINITY, 0.0]) {
        assert_eq!(of(Min, &leaves), f32::NEG_INFINITY);
        assert_eq!(of(Max, &leaves), 1.0);
        let mut with_nan = leaves.clone();
        with_nan[2] = f32::from_bits(0xff80_0001);
        assert_eq!(of(Min, &with_nan).to_bits(), 0x7fc0_0000);
        assert_eq!(of(Max, &with_nan).to_bits(), 0x7fc0_0000);
    }
}

#[test]
fn the_least_of_f64_leaves_can_be_had_in_f16_with_one_rounding() {
    let spec = ContractSpec { out_dtype: Some(Dtype::F16), ..spec(Min, 2, Dtype::F64) };
    let leaves = [65519.99f64, 1e9].map(f64::to_bits);
    assert_eq!(reduce_element(&Contract::new(spec).unwrap(), &leaves), 0x7bff);
}
