//! The formats: every code of the small ones, and the conversions against the hardware's.

use isobit_core::Dtype;
use isobit_core::float::{self, Format, Number};
use proptest::prelude::*;

/// Every pattern of a format of up to 16 bits.
fn codes(dtype: Dtype) -> impl Iterator<Item = u64> {
    0..1 << (8 * dtype.size())
}

/// A value by its definition, in floating-point arithmetic that is exact here.
fn by_definition(dtype: Dtype, bits: u64) -> f64 {
    let (mantissa, bias) = match dtype {
        Dtype::F8E4m3fn => (3, 7),
        Dtype::F8E5m2 => (2, 15),
        Dtype::F16 => (10, 15),
        _ => (7, 127),
    };
    let exponent_bits = 8 * dtype.size() as i32 - 1 - mantissa;
    let sign = if bits >> (mantissa + exponent_bits) == 1 { -1.0 } else { 1.0 };
    let field = (bits >> mantissa) as i32 & ((1 << exponent_bits) - 1);
    let fraction = (bits & ((1 << mantissa) - 1)) as f64 / 2f64.powi(mantissa);
    let top = field == (1 << exponent_bits) - 1;
    match (dtype, top, field) {
        (Dtype::F8E4m3fn, true, _) if fraction == 0.875 => f64::NAN,
        (Dtype::F8E4m3fn, true, _) => sign * (1.0 + fraction) * 2f64.powi(field - bias),
        (_, true, _) if fraction == 0.0 => sign * f64::INFINITY,
        (_, true, _) => f64::NAN,
        (_, _, 0) => sign * fraction * 2f64.powi(1 - bias),
        _ => sign * (1.0 + fraction) * 2f64.powi(field - bias),
    }
}

const SMALL: [Dtype; 4] = [Dtype::F8E4m3fn, Dtype::F8E5m2, Dtype::F16, Dtype::Bf16];

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[test]
fn every_code_of_the_small_formats_widens_to_its_definition() {
    for dtype in SMALL {
        for bits in codes(dtype) {
            let expected = by_definition(dtype, bits);
            assert!(same(float::to_f64(dtype, bits), expected), "{dtype} {bits:#x}");
            assert!(same(f64::from(float::to_f32(dtype, bits)), expected), "{dtype} {bits:#x}");
        }
    }
}

#[test]
fn every_code_survives_the_way_to_f64_and_back() {
    for dtype in SMALL {
        for bits in codes(dtype) {
            let nan = float::to_f64(dtype, bits).is_nan();
            let expected = if nan { float::canonical_nan(dtype) } else { bits };
            assert_eq!(float::from_f64(dtype, float::to_f64(dtype, bits)), expected, "{dtype}");
            assert_eq!(float::from_f32(dtype, float::to_f32(dtype, bits)), expected, "{dtype}");
        }
    }
}

#[test]
fn halfway_between_two_neighbours_goes_to_the_even_one_and_a_hair_beside_it_to_the_nearer() {
    for dtype in SMALL {
        for low in 0..Format::of(dtype).largest() {
            let (a, b) = (float::to_f64(dtype, low), float::to_f64(dtype, low + 1));
            let tie = a + (b - a) / 2.0;
            let even = low + (low & 1);
            assert_eq!(float::from_f64(dtype, tie), even, "{dtype} {low:#x}");
            assert_eq!(float::from_f64(dtype, tie.next_down()), low, "{dtype} {low:#x}");
            assert_eq!(float::from_f64(dtype, tie.next_up()), low + 1, "{dtype} {low:#x}");
            let sign = Format::of(dtype).sign_bit();
            assert_eq!(float::from_f64(dtype, -tie), sign | even, "{dtype} {low:#x}");
            assert_eq!(float::from_f32(dtype, tie as f32), even, "{dtype} {low:#x}");
        }
    }
}

#[test]
fn beyond_the_largest_number_is_infinity_and_in_e4m3fn_nan() {
    for (dtype, last, first, past) in [
        (Dtype::F8E4m3fn, 464.0, 464.0f64.next_up(), 0x7f),
        (Dtype::F8E5m2, 61440f64.next_down(), 61440.0, 0x7c),
        (Dtype::F16, 65520f64.next_down(), 65520.0, 0x7c00),
        (Dtype::F16, 65519.99, 65520.0, 0x7c00),
    ] {
        assert_eq!(float::from_f64(dtype, last), Format::of(dtype).largest(), "{dtype}");
        for value in [first, 1e300, f64::INFINITY] {
            assert_eq!(float::from_f64(dtype, value), past, "{dtype}");
        }
    }
    assert_eq!(float::from_f64(Dtype::F8E4m3fn, -1e300), 0x7f, "the canonical NaN has no sign");
    assert_eq!(float::from_f64(Dtype::F16, -65520.0), 0xfc00);
}

#[test]
fn the_known_bf16_vectors_hold() {
    for (from, to) in [
        (0x7f7f_ffff, 0x7f80),
        (0x7f80_0001, 0x7fc0),
        (0x0001_8000, 0x0002),
        (0x0001_16c2, 0x0001),
        (0x3f80_8000, 0x3f80),
        (0x3f81_8000, 0x3f82),
        (0xffc0_1234, 0x7fc0),
        (0xff80_0000, 0xff80),
    ] {
        assert_eq!(float::bf16_from_f32(f32::from_bits(from)), to, "{from:08x}");
    }
}

#[test]
fn half_the_smallest_f16_ties_to_zero_and_keeps_its_sign() {
    let tie = 2f64.powi(-25);
    assert_eq!(float::from_f64(Dtype::F16, tie), 0x0000);
    assert_eq!(float::from_f64(Dtype::F16, -tie), 0x8000);
    assert_eq!(float::from_f64(Dtype::F16, tie.next_up()), 0x0001);
    assert_eq!(float::from_f64(Dtype::F16, 3.0 * tie), 0x0002);
    assert_eq!(float::from_f64(Dtype::F16, f64::from_bits(1)), 0x0000);
    assert_eq!(float::from_f64(Dtype::F16, -f64::from_bits(1)), 0x8000);
}

#[test]
fn a_million_f32_patterns_narrow_to_the_nearest_code() {
    for dtype in SMALL {
        let format = Format::of(dtype);
        // Neighbours in order of magnitude; beyond the largest, one more step of the same size.
        let mut values: Vec<f64> = (0..=format.largest()).map(|bits| by_definition(dtype, bits)).collect();
        values.push(2.0 * values[values.len() - 1] - values[values.len() - 2]);
        for pattern in (0..0x7f80_0000u32).step_by(2039) {
            let value = f64::from(f32::from_bits(pattern));
            let above = values.partition_point(|code| *code <= value).min(values.len() - 1);
            let (low, high) = (values[above - 1], values[above]);
            let up = value - low > high - value || (value - low == high - value && above % 2 == 0);
            let nearest = if up { above } else { above - 1 } as u64;
            assert_eq!(float::from_f32(dtype, f32::from_bits(pattern)), nearest, "{dtype} {pattern:08x}");
        }
    }
}

#[test]
fn every_nan_becomes_the_canonical_one() {
    let nans =
        [0x7fc0_0000u32, 0xffc0_0000, 0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff].map(f32::from_bits);
    let canonical = [0x7f, 0x7e, 0x7e00, 0x7fc0, 0x7fc0_0000, 0x7ff8_0000_0000_0000];
    for (dtype, canonical) in Dtype::FLOATS.into_iter().zip(canonical) {
        assert_eq!(float::canonical_nan(dtype), canonical, "{dtype}");
        for nan in nans {
            assert_eq!(float::from_f32(dtype, nan), canonical, "{dtype}");
            assert_eq!(float::convert(Dtype::F32, u64::from(nan.to_bits()), dtype), canonical, "{dtype}");
        }
    }
}

#[test]
fn the_sticky_bit_decides_ties_and_nothing_else() {
    let round = |significand, sticky| Format::F16.round(false, significand, -30, sticky);
    let tie = (1 << 63) | (1 << 52);
    assert_eq!(round(tie, true), round(tie, false), "both are infinite");
    let round = |significand, sticky| Format::F16.round(false, significand, -63, sticky);
    assert_eq!(round(tie, false), 0x3c00);
    assert_eq!(round(tie, true), 0x3c01);
    assert_eq!(round(tie - 1, true), 0x3c00);
    assert_eq!(round(1 << 63, true), 0x3c00);
}

#[test]
fn order_keys_order_every_pair_of_f8_as_minimum_and_maximum_do() {
    for dtype in [Dtype::F8E4m3fn, Dtype::F8E5m2] {
        for (a, b) in codes(dtype).flat_map(|a| codes(dtype).map(move |b| (a, b))) {
            let (x, y) = (by_definition(dtype, a), by_definition(dtype, b));
            let (key_a, key_b) = (float::order_key(dtype, a), float::order_key(dtype, b));
            assert_eq!(key_a.is_none(), x.is_nan());
            if let (Some(key_a), Some(key_b)) = (key_a, key_b) {
                assert_eq!(key_a.cmp(&key_b), x.total_cmp(&y), "{dtype} {a:#x} {b:#x}");
                assert_eq!(float::from_order_key(dtype, Some(key_a)), a);
            }
        }
        assert_eq!(float::from_order_key(dtype, None), float::canonical_nan(dtype));
    }
}

/// f64 patterns over all of the range, with the edges of the narrower formats drawn often.
fn any_f64() -> impl Strategy<Value = f64> {
    let near = (any::<bool>(), -1080i32..1030, any::<u64>(), 0u32..53).prop_map(
        |(negative, exponent, bits, zeros)| {
            let fraction = (bits >> 12) & (u64::MAX << zeros);
            let value = f64::from_bits(0x3ff0_0000_0000_0000 | (fraction & ((1 << 52) - 1)));
            let scaled = value * 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2);
            if negative { -scaled } else { scaled }
        },
    );
    prop_oneof![any::<u64>().prop_map(f64::from_bits), near, (-160i32..130).prop_map(|e| 2f64.powi(e) * 1.5)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn rounding_f64_to_f32_is_the_hardwares(value in any_f64()) {
        let expected = value as f32;
        let expected = if expected.is_nan() { 0x7fc0_0000 } else { expected.to_bits() };
        prop_assert_eq!(float::from_f64(Dtype::F32, value), u64::from(expected));
    }

    #[test]
    fn widening_f32_to_f64_is_the_hardwares(bits in any::<u32>()) {
        let value = f32::from_bits(bits);
        prop_assert!(same(float::to_f64(Dtype::F32, u64::from(bits)), f64::from(value)));
    }

    #[test]
    fn the_integer_formula_for_bf16_is_the_generic_rounding(bits in any::<u32>()) {
        let generic = float::convert(Dtype::F32, u64::from(bits), Dtype::Bf16);
        prop_assert_eq!(u64::from(float::bf16_from_f32(f32::from_bits(bits))), generic);
    }

    #[test]
    fn decoding_and_encoding_is_the_identity_on_numbers(bits in any::<u64>()) {
        if Format::F64.decode(bits) != Number::Nan {
            prop_assert_eq!(Format::F64.encode(Format::F64.decode(bits)), bits);
        }
    }

    #[test]
    fn a_narrow_result_is_no_further_than_its_neighbours(value in any_f64(), pick in 0..4usize) {
        let dtype = SMALL[pick];
        let bits = float::from_f64(dtype, value);
        let format = Format::of(dtype);
        let magnitude = bits & (format.sign_bit() - 1);
        if !value.is_nan() && magnitude <= format.largest() {
            let distance = |bits: u64| (float::to_f64(dtype, bits) - value).abs();
            prop_assert_eq!(float::to_f64(dtype, bits).is_sign_negative(), value.is_sign_negative());
            prop_assert!(magnitude == 0 || distance(bits) <= distance(bits - 1));
            prop_assert!(magnitude == format.largest() || distance(bits) <= distance(bits + 1));
        }
    }

    #[test]
    fn elements_are_little_endian(bits in any::<u64>()) {
        let mut element = [0; 4];
        float::write_bits(bits, &mut element);
        prop_assert_eq!(u64::from(u32::from_le_bytes(element)), bits & 0xffff_ffff);
        prop_assert_eq!(float::read_bits(&element), bits & 0xffff_ffff);
    }
}
