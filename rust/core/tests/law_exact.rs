//! The exact order, against an independent big integer and the definition of rounding.

mod law_support;

use std::cmp::Ordering;

use isobit_core::ReduceOp::{Mean, Sum};
use isobit_core::float::{self, Format};
use isobit_core::law::exact::{WideF32, WideF64, wide_bytes};
use isobit_core::law::{LeafMap, LeafSet, Node, contributions, element_bytes, fold, reduce_element};
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order};
use law_support::{Random, exact, of_f32, of_f64, spec, tensor};
use proptest::prelude::*;

/// A big integer in units of 2^-1200, as digits of 32 bits whose carries wait until it is compared.
#[derive(Clone)]
struct Big([i128; 90]);

impl Big {
    const UNIT: i32 = -1200;

    fn zero() -> Big {
        Big([0; 90])
    }

    /// Adds `value * times`, for a finite value.
    fn add(&mut self, value: f64, times: i128) {
        let bits = value.abs().to_bits();
        let (field, fraction) = ((bits >> 52) as i32, (bits & ((1 << 52) - 1)) as i128);
        let significand = if field == 0 { fraction } else { fraction | 1 << 52 };
        let place = field.max(1) - 1075 - Big::UNIT;
        let mut rest = significand * times * if value < 0.0 { -1 } else { 1 };
        let mut digit = (place / 32) as usize;
        while rest != 0 {
            let low = rest % (1 << 32);
            self.0[digit] += low << (place % 32);
            (rest, digit) = (rest / (1 << 32), digit + 1);
        }
    }

    fn sign(&self) -> Ordering {
        let (mut carry, mut any) = (0, false);
        for digit in self.0 {
            let sum = digit + carry;
            any |= sum % (1 << 32) != 0;
            carry = sum.div_euclid(1 << 32);
        }
        if carry != 0 { carry.cmp(&0) } else { 0.cmp(&-i32::from(any)) }
    }
}

/// Whether `bits` is the pattern nearest to `sum of values / divisor`, which is not zero: the
/// quotient lies between the middles to both neighbours, and on a middle only if `bits` is even.
fn is_nearest(values: &[f64], divisor: u64, dtype: Dtype, bits: u64) -> bool {
    let format = Format::of(dtype);
    let mut sum = Big::zero();
    values.iter().for_each(|value| sum.add(*value, 1));
    let negative = sum.sign() == Ordering::Less;
    if negative != (bits & format.sign_bit() != 0) && (dtype != Dtype::F8E4m3fn || bits != format.nan()) {
        return false;
    }
    let magnitude = bits & (format.sign_bit() - 1);
    // What comes after the largest number would be the largest plus the last step.
    let step = |bits: u64| float::to_f64(dtype, bits) - float::to_f64(dtype, bits - 1);
    let largest = format.largest();
    // Compares 2 |sum| with divisor * (a + b), the middle of two neighbours.
    let compare = |a: (f64, f64), b: (f64, f64)| {
        let mut difference = Big::zero();
        values.iter().for_each(|value| difference.add(*value, if negative { -2 } else { 2 }));
        for part in [a.0, a.1, b.0, b.1] {
            difference.add(part, -i128::from(divisor));
        }
        difference.sign()
    };
    let value = |bits: u64| match bits.checked_sub(largest) {
        Some(1) => (float::to_f64(dtype, largest), step(largest)),
        _ => (float::to_f64(dtype, bits), 0.0),
    };
    let even = magnitude.is_multiple_of(2);
    let above_lower = magnitude == 0
        || match compare(value(magnitude - 1), value(magnitude)) {
            Ordering::Greater => true,
            Ordering::Equal => even,
            Ordering::Less => false,
        };
    let below_upper = magnitude > largest
        || match compare(value(magnitude), value(magnitude + 1)) {
            Ordering::Less => true,
            Ordering::Equal => even,
            Ordering::Greater => false,
        };
    above_lower && below_upper
}

fn contract(op: isobit_core::ReduceOp, leaves: usize, dtype: Dtype, out: Dtype, divisor: u64) -> Contract {
    let divisor = (op == Mean).then_some(divisor);
    let spec = ContractSpec { order: Order::Exact, out_dtype: Some(out), divisor, ..spec(op, leaves, dtype) };
    Contract::new(spec).unwrap()
}

/// Finite leaves of all magnitudes, with cancellations and halves of units made likely.
fn finite_leaves(random: &mut Random, dtype: Dtype, leaves: usize) -> Vec<u64> {
    let sign = Format::of(dtype).sign_bit();
    let mut patterns: Vec<u64> = Vec::new();
    while patterns.len() < leaves {
        let wide = random.bits() & (u64::MAX >> (64 - 8 * dtype.size()));
        let pattern = match random.below(8) {
            0 => wide,
            1 if !patterns.is_empty() => patterns[random.below(patterns.len())] ^ sign,
            2 => float::from_f64(dtype, 2f64.powi(random.below(120) as i32 - 60)),
            3 => random.bits() & 3,
            _ => random.pattern(dtype),
        };
        if float::to_f64(dtype, pattern).is_finite() {
            patterns.push(pattern);
        }
    }
    patterns
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_result_is_the_number_nearest_to_the_true_sum_or_quotient(
        seed: u64, leaves in 1usize..40, divisor in prop_oneof![1u64..100, Just(1 << 63), Just((1 << 53) - 1)]
    ) {
        let mut random = Random(seed);
        let (dtype, out) = (Dtype::FLOATS[random.below(6)], Dtype::FLOATS[random.below(6)]);
        let patterns = finite_leaves(&mut random, dtype, leaves);
        let values: Vec<f64> = patterns.iter().map(|bits| float::to_f64(dtype, *bits)).collect();
        let mut sum = Big::zero();
        values.iter().for_each(|value| sum.add(*value, 1));
        for (op, divisor) in [(Sum, 1), (Mean, divisor)] {
            let contract = contract(op, leaves, dtype, out, divisor);
            let bits = reduce_element(&contract, &patterns);
            if sum.sign() == Ordering::Equal {
                let minus = values.iter().all(|value| value.to_bits() == 1 << 63);
                prop_assert_eq!(bits, if minus { Format::of(out).sign_bit() } else { 0 });
            } else {
                prop_assert!(is_nearest(&values, divisor, out, bits), "{contract}: {bits:#x} of {values:?}");
            }
        }
    }

    #[test]
    fn neither_permuting_nor_grouping_changes_a_bit(seed: u64, leaves in 1usize..60) {
        let mut random = Random(seed);
        let dtype = Dtype::FLOATS[random.below(6)];
        let op = [Sum, Mean][random.below(2)];
        let contract = exact(op, leaves, dtype);
        let mut patterns: Vec<u64> = (0..leaves).map(|_| random.pattern(dtype)).collect();
        let whole = reduce_element(&contract, &patterns);
        random.shuffle(&mut patterns);
        prop_assert_eq!(reduce_element(&contract, &patterns), whole);
        // Any bags: raw leaves and wide sums, of leaves and of wide sums, merged in any order.
        let mut bags: Vec<(Content, Vec<u8>)> =
            patterns.iter().map(|bits| (Content::Leaf(0), tensor(dtype, &[*bits]))).collect();
        while bags.len() > 1 && random.below(leaves) > 0 {
            let size = 1 + random.below(bags.len());
            let bag: Vec<(Content, Vec<u8>)> = bags.drain(..size).collect();
            let count = bag.iter().map(|(content, _)| match content { Content::Wide(n) => *n, _ => 1 }).sum();
            let inputs: Vec<(Content, &[u8])> = bag.iter().map(|(content, bytes)| (*content, &bytes[..])).collect();
            let merged = fold(&contract, &inputs, Content::Wide(count));
            prop_assert_eq!(merged.len(), wide_bytes(dtype));
            bags.push((Content::Wide(count), merged));
            random.shuffle(&mut bags);
        }
        let inputs: Vec<(Content, &[u8])> = bags.iter().map(|(content, bytes)| (*content, &bytes[..])).collect();
        prop_assert_eq!(fold(&contract, &inputs, Content::Result), tensor(dtype, &[whole]));
    }

    #[test]
    fn sums_of_f16_are_those_of_an_integer(seed: u64, leaves in 1usize..200) {
        let mut random = Random(seed);
        let patterns = finite_leaves(&mut random, Dtype::F16, leaves);
        let units = |bits: &u64| (float::to_f64(Dtype::F16, *bits) * 2f64.powi(24)) as i128;
        let sum: i128 = patterns.iter().map(units).sum();
        let minus_zero = patterns.iter().all(|bits| *bits == 0x8000);
        let expected = float::from_f64(Dtype::F16, sum as f64 * 2f64.powi(-24)) | if minus_zero { 0x8000 } else { 0 };
        prop_assert_eq!(reduce_element(&exact(Sum, leaves, Dtype::F16), &patterns), expected);
    }
}

#[test]
fn the_wide_form_is_a_little_endian_integer_and_its_flags() {
    let words = |bytes: &[u8]| bytes.chunks_exact(8).map(float::read_bits).collect::<Vec<u64>>();
    let written = |leaves: &[f32]| {
        let mut sum = WideF32::default();
        leaves.iter().for_each(|leaf| sum.add_leaf(Dtype::F32, u64::from(leaf.to_bits())));
        let mut bytes = vec![0; WideF32::BYTES];
        sum.write(&mut bytes);
        assert_eq!(WideF32::read(&bytes), sum);
        words(&bytes)
    };
    assert_eq!(wide_bytes(Dtype::F8E4m3fn), 48);
    assert_eq!(wide_bytes(Dtype::F64), 280);
    assert_eq!(written(&[]), [0, 0, 0, 0, 0, 0]);
    assert_eq!(written(&[-0.0]), [0, 0, 0, 0, 0, 0]);
    assert_eq!(written(&[0.0]), [0, 0, 0, 0, 0, 8]);
    assert_eq!(written(&[1.0]), [0, 0, 1 << 21, 0, 0, 8]);
    assert_eq!(written(&[f32::from_bits(1)]), [1, 0, 0, 0, 0, 8]);
    assert_eq!(written(&[-f32::from_bits(1)]), [u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, 8]);
    assert_eq!(written(&[f32::NAN]), [0, 0, 0, 0, 0, 9]);
    assert_eq!(written(&[f32::INFINITY]), [0, 0, 0, 0, 0, 10]);
    assert_eq!(written(&[f32::NEG_INFINITY, -0.0]), [0, 0, 0, 0, 0, 12]);
    let mut sum = WideF64::default();
    sum.add_leaf(Dtype::F64, 1f64.to_bits());
    let mut bytes = vec![0; WideF64::BYTES];
    sum.write(&mut bytes);
    let mut expected = vec![0; 35];
    (expected[16], expected[34]) = (1 << 50, 8);
    assert_eq!(words(&bytes), expected);
}

#[test]
fn the_wide_form_holds_more_leaves_than_there_can_be() {
    // Doubling 32 times is 2^32 leaves of the largest number.
    let mut narrow = WideF32::default();
    narrow.add_leaf(Dtype::F32, u64::from(f32::MIN.to_bits()));
    let mut wide = WideF64::default();
    wide.add_leaf(Dtype::F64, f64::MIN.to_bits());
    for _ in 0..32 {
        narrow.merge(&narrow.clone());
        wide.merge(&wide.clone());
    }
    let mean = |dtype| {
        let divisor = Some(1 << 32);
        Contract::new(ContractSpec { order: Order::Exact, divisor, ..spec(Mean, 2, dtype) }).unwrap()
    };
    assert_eq!(narrow.finish(&mean(Dtype::F32)), u64::from(f32::MIN.to_bits()));
    assert_eq!(wide.finish(&mean(Dtype::F64)), f64::MIN.to_bits());
}

#[test]
fn sums_that_f64_can_not_hold_are_exact_too() {
    let (half_unit, least, most) = (2f32.powi(-24), f32::from_bits(1), 2f32.powi(100));
    let above_the_tie = [1.0, half_unit, least, most, -most];
    assert_eq!(of_f32(&exact(Sum, 5, Dtype::F32), &above_the_tie), 1.0f32.next_up());
    let on_the_tie = [1.0, half_unit, -0.0, most, -most];
    assert_eq!(of_f32(&exact(Sum, 5, Dtype::F32), &on_the_tie), 1.0);
    let below = [1.0f64, 2f64.powi(-53), -f64::from_bits(1), f64::MAX, f64::MIN];
    assert_eq!(of_f64(&exact(Sum, 5, Dtype::F64), &below), 1.0);
    let above = [1.0f64, 2f64.powi(-53), f64::from_bits(1), f64::MAX, f64::MIN];
    assert_eq!(of_f64(&exact(Sum, 5, Dtype::F64), &above), 1.0f64.next_up());
}

#[test]
fn a_quotient_is_rounded_once_even_where_the_sum_would_be_rounded_first() {
    // (2^24 + 1 + 2 * 2^24 + 2) / 3 = 2^24 + 1: exactly a tie; plus a little, above it.
    let tie = [2f32.powi(24), 1.0, 2f32.powi(25), 2.0, 0.0];
    let mean = contract(Mean, 5, Dtype::F32, Dtype::F32, 3);
    assert_eq!(of_f32(&mean, &tie), 2f32.powi(24));
    let more = [2f32.powi(24), 1.0, 2f32.powi(25), 2.0, f32::from_bits(1)];
    assert_eq!(of_f32(&mean, &more), 2f32.powi(24) + 2.0);
}

#[test]
fn what_remains_of_a_long_division_decides_a_tie() {
    // The quotient's first 66 bits are those of a tie: only the remainder tells that it is none.
    let divisor = 0x553d_f768_a0ed_9400;
    let mean = contract(Mean, 1, Dtype::F32, Dtype::F64, divisor);
    let least = f32::from_bits(1);
    let bits = reduce_element(&mean, &[u64::from(least.to_bits())]);
    assert!(is_nearest(&[f64::from(least)], divisor, Dtype::F64, bits));
    assert!(!is_nearest(&[f64::from(least)], divisor, Dtype::F64, bits - 1));
}

#[test]
fn a_rank_sends_its_raw_leaves_while_they_are_no_larger_than_a_wide_sum() {
    for (dtype, most) in [(Dtype::F8E5m2, 48), (Dtype::Bf16, 24), (Dtype::F32, 12), (Dtype::F64, 35)] {
        let ranks = [LeafSet::run(1, 1 + most), LeafSet::default(), LeafSet::run(1 + most, 100)];
        let first = LeafSet::from_leaves([0]);
        let map = LeafMap::new(100, ranks.into_iter().chain([first]).collect()).unwrap();
        let of = |rank| contributions(&exact(Sum, 100, dtype), &map, rank);
        assert_eq!(of(0), (1..=most).map(Content::Leaf).collect::<Vec<_>>(), "{dtype}");
        assert_eq!(of(1), []);
        assert_eq!(of(2), [Content::Wide(99 - most)], "{dtype}");
        assert_eq!(of(3), [Content::Leaf(0)]);
    }
}

#[test]
fn the_size_of_an_element_follows_from_what_it_is() {
    let tree =
        Contract::new(ContractSpec { out_dtype: Some(Dtype::F64), ..spec(Sum, 8, Dtype::Bf16) }).unwrap();
    let exact = exact(Sum, 8, Dtype::F64);
    let node = Content::Node(Node::new(0, 4, 8).unwrap());
    let size = |content, contract| element_bytes(content, Some(contract), Dtype::Bf16);
    assert_eq!(size(Content::Leaf(3), &tree), 2);
    assert_eq!(size(node, &tree), 4);
    assert_eq!(size(Content::Result, &tree), 8);
    assert_eq!(size(Content::Wide(3), &exact), 280);
    assert_eq!(element_bytes(Content::Data, None, Dtype::I16), 2);
}

#[test]
#[should_panic(expected = "the leaves of the inputs are those of")]
fn a_wide_sum_of_too_few_leaves_is_refused() {
    let leaf = 1f32.to_le_bytes();
    fold(
        &exact(Sum, 3, Dtype::F32),
        &[(Content::Leaf(0), &leaf), (Content::Leaf(1), &leaf)],
        Content::Result,
    );
}
