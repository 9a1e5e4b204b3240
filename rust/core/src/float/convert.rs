//! Conversions between the formats, each with one rounding at most, and the order of min and max.

use super::{Format, Number};
use crate::Dtype;

/// The one NaN that results in `dtype` have.
pub const fn canonical_nan(dtype: Dtype) -> u64 {
    Format::of(dtype).nan()
}

/// The pattern in `to` nearest to the value of the pattern `bits` in `from`.
pub const fn convert(from: Dtype, bits: u64, to: Dtype) -> u64 {
    Format::of(to).encode(Format::of(from).decode(bits))
}

/// The value of a pattern of `dtype`; exact for all but f64, which is rounded.
///
/// ```
/// use isobit_core::{Dtype, float};
/// assert_eq!(float::to_f32(Dtype::F16, 0x0001), 2f32.powi(-24));
/// ```
pub const fn to_f32(dtype: Dtype, bits: u64) -> f32 {
    match dtype {
        Dtype::F32 => f32::from_bits(bits as u32),
        Dtype::Bf16 => f32::from_bits((bits as u32) << 16),
        _ => f32::from_bits(convert(dtype, bits, Dtype::F32) as u32),
    }
}

/// The value of a pattern of `dtype`, exactly.
pub const fn to_f64(dtype: Dtype, bits: u64) -> f64 {
    match dtype {
        Dtype::F64 => f64::from_bits(bits),
        _ => f64::from_bits(convert(dtype, bits, Dtype::F64)),
    }
}

/// The pattern of `dtype` nearest to `value`; NaN becomes the canonical one.
///
/// ```
/// use isobit_core::{Dtype, float};
/// assert_eq!(float::from_f32(Dtype::F16, 65519.99), 0x7bff);
/// assert_eq!(float::from_f32(Dtype::F16, 65520.0), 0x7c00);
/// ```
pub const fn from_f32(dtype: Dtype, value: f32) -> u64 {
    match dtype {
        Dtype::Bf16 => bf16_from_f32(value) as u64,
        _ => convert(Dtype::F32, value.to_bits() as u64, dtype),
    }
}

/// The pattern of `dtype` nearest to `value`, in one rounding; NaN becomes the canonical one.
pub const fn from_f64(dtype: Dtype, value: f64) -> u64 {
    convert(Dtype::F64, value.to_bits(), dtype)
}

/// The bf16 nearest to `value`, by the integer formula: ties to even, subnormals kept.
///
/// ```
/// use isobit_core::float::bf16_from_f32;
/// assert_eq!(bf16_from_f32(f32::from_bits(0x0001_8000)), 0x0002);
/// ```
pub const fn bf16_from_f32(value: f32) -> u16 {
    if value.is_nan() {
        return canonical_nan(Dtype::Bf16) as u16;
    }
    let bits = value.to_bits();
    // Half a unit of the kept part, less one if that part is even, so that ties go to even.
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// A number that orders as IEEE 754-2019 minimum and maximum do (-0 < +0); `None` for NaN.
///
/// ```
/// use isobit_core::{Dtype, float::order_key};
/// let key = |value: f32| order_key(Dtype::F32, u64::from(value.to_bits()));
/// assert!(key(-1.0) < key(-0.0) && key(-0.0) < key(0.0) && key(0.0) < key(f32::INFINITY));
/// assert_eq!(key(f32::NAN), None);
/// ```
pub const fn order_key(dtype: Dtype, bits: u64) -> Option<i64> {
    let format = Format::of(dtype);
    if matches!(format.decode(bits), Number::Nan) {
        return None;
    }
    let magnitude = (bits & (format.sign_bit() - 1)) as i64;
    Some(if bits & format.sign_bit() == 0 { magnitude } else { -1 - magnitude })
}

/// The pattern of `dtype` that has this order key.
pub const fn from_order_key(dtype: Dtype, key: Option<i64>) -> u64 {
    match key {
        None => canonical_nan(dtype),
        Some(key) if key < 0 => Format::of(dtype).sign_bit() | (-1 - key) as u64,
        Some(key) => key as u64,
    }
}

/// The bit pattern of an element of up to 8 little-endian bytes.
pub fn read_bits(element: &[u8]) -> u64 {
    element.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// Writes a bit pattern as an element of up to 8 little-endian bytes; higher bits are dropped.
pub fn write_bits(bits: u64, element: &mut [u8]) {
    element.copy_from_slice(&bits.to_le_bytes()[..element.len()]);
}
