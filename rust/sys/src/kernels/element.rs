//! The floating-point formats, an element at a time, written so that loops over them vectorise.
//!
//! Every function is branch-free integer and floating-point arithmetic that is exact or rounds once.

use super::block::widen_block;
use super::isa::Isa;

/// A floating-point format in memory.
pub(super) trait Element: Copy + Sized + 'static {
    /// Its bits.
    type Bits: Copy;

    /// Widens exactly; never called for `F64`.
    fn to_f32(bits: Self::Bits) -> f32;
    /// Widens exactly.
    fn to_f64(bits: Self::Bits) -> f64;
    /// Rounds once, to nearest even, NaN to the canonical one.
    fn of_f32(value: f32) -> Self::Bits;
    /// Rounds once, to nearest even, NaN to the canonical one.
    fn of_f64(value: f64) -> Self::Bits;

    /// Whether f64 adds some few of them inexactly.
    const NEEDS_SPREAD_TEST: bool = false;

    /// Over how many binades two addends may be spread for f64 to add them exactly, plus one: 53
    /// bits less the format's. Zero for f64 itself.
    const SPREAD_MAX: i16 = i16::MAX;

    /// A pattern without its sign, such that comparing compares magnitudes.
    type Magnitude: Copy + Ord;

    /// The least and the greatest of them.
    const MAGNITUDES: (Self::Magnitude, Self::Magnitude);

    fn magnitude(bits: Self::Bits) -> Self::Magnitude;
    /// Subtracts one, of zero giving the greatest.
    fn less_one(magnitude: Self::Magnitude) -> Self::Magnitude;
    /// Whether addends up to `most` and from `least + 1` on are spread over more than `spread_max`
    /// binades. With an infinity or a NaN they are not: any order gives the result then.
    fn is_spread(most: Self::Magnitude, least: Self::Magnitude, spread_max: i16) -> bool;

    /// Widens `len` elements to f32.
    ///
    /// # Safety
    /// The instruction set is available; both pointers are good for `len` elements and disjoint.
    unsafe fn widen_block<I: Isa>(from: *const Self::Bits, to: *mut f32, len: usize) {
        // SAFETY: as the caller promises.
        unsafe { widen_block::<I, Self>(from, to, len) };
    }
}

/// What a format's `magnitude` and its companions are over its patterns of type `$bits`.
macro_rules! magnitudes {
    ($bits:ty, $mantissa:literal) => {
        type Magnitude = $bits;
        const MAGNITUDES: ($bits, $bits) = (0, <$bits>::MAX);

        #[inline(always)]
        fn magnitude(bits: $bits) -> $bits {
            bits & (<$bits>::MAX >> 1)
        }

        #[inline(always)]
        fn less_one(magnitude: $bits) -> $bits {
            magnitude.wrapping_sub(1)
        }

        #[inline(always)]
        fn is_spread(most: $bits, least: $bits, spread_max: i16) -> bool {
            let infinity = (<$bits>::MAX >> 1) >> $mantissa << $mantissa;
            let finite = most < infinity;
            finite & ((most >> $mantissa) > (least >> $mantissa).wrapping_add(spread_max as $bits))
        }
    };
}

/// An accumulator: `f32` or `f64`.
pub(super) trait Accumulator: Copy + 'static {
    /// The accumulator's own format.
    type Format: Element;

    fn widen<E: Element>(bits: E::Bits) -> Self;
    fn narrow<E: Element>(self) -> E::Bits;
    fn add(self, right: Self) -> Self;
    fn mul(self, right: Self) -> Self;
    fn div(self, right: Self) -> Self;
    /// The divisor of a mean, which the contract has checked to be exact.
    fn of_divisor(divisor: u64) -> Self;

    /// What to multiply by in its place, if that gives the same bits: a power of two has a reciprocal that is exact (of
    /// 2^63 it is a normal number in f32), so that product and quotient are the same real number, rounded once.
    fn of_reciprocal(divisor: u64) -> Option<Self>;
}

macro_rules! accumulator {
    ($float:ty, $format:ty, $widen:ident, $narrow:ident) => {
        impl Accumulator for $float {
            type Format = $format;

            #[inline(always)]
            fn widen<E: Element>(bits: E::Bits) -> Self {
                E::$widen(bits)
            }

            #[inline(always)]
            fn narrow<E: Element>(self) -> E::Bits {
                E::$narrow(self)
            }

            #[inline(always)]
            fn add(self, right: Self) -> Self {
                self + right
            }

            #[inline(always)]
            fn mul(self, right: Self) -> Self {
                self * right
            }

            #[inline(always)]
            fn div(self, right: Self) -> Self {
                self / right
            }

            fn of_divisor(divisor: u64) -> Self {
                divisor as $float
            }

            fn of_reciprocal(divisor: u64) -> Option<Self> {
                divisor.is_power_of_two().then_some(1.0 / divisor as $float)
            }
        }
    };
}
accumulator!(f32, F32, to_f32, of_f32);
accumulator!(f64, F64, to_f64, of_f64);

#[derive(Clone, Copy)]
pub(super) struct F8E4m3fn;
#[derive(Clone, Copy)]
pub(super) struct F8E5m2;
#[derive(Clone, Copy)]
pub(super) struct F16;
#[derive(Clone, Copy)]
pub(super) struct Bf16;
#[derive(Clone, Copy)]
pub(super) struct F32;
#[derive(Clone, Copy)]
pub(super) struct F64;

const F32_INF: u32 = 0x7f80_0000;
pub(super) const F32_NAN: u32 = 0x7fc0_0000;
pub(super) const F64_NAN: u64 = 0x7ff8_0000_0000_0000;

impl Element for F64 {
    type Bits = u64;
    const NEEDS_SPREAD_TEST: bool = true;
    const SPREAD_MAX: i16 = 0;

    magnitudes!(u64, 52);

    #[inline(always)]
    fn to_f32(bits: u64) -> f32 {
        debug_assert!(false, "f64 does not widen to f32");
        f64::from_bits(bits) as f32
    }

    #[inline(always)]
    fn to_f64(bits: u64) -> f64 {
        f64::from_bits(bits)
    }

    #[inline(always)]
    fn of_f32(value: f32) -> u64 {
        Self::of_f64(f64::from(value))
    }

    #[inline(always)]
    fn of_f64(value: f64) -> u64 {
        if value.is_nan() { F64_NAN } else { value.to_bits() }
    }
}

impl Element for F32 {
    type Bits = u32;
    const NEEDS_SPREAD_TEST: bool = true;
    const SPREAD_MAX: i16 = 29;

    magnitudes!(u32, 23);

    #[inline(always)]
    fn to_f32(bits: u32) -> f32 {
        f32::from_bits(bits)
    }

    #[inline(always)]
    fn to_f64(bits: u32) -> f64 {
        f64::from(f32::from_bits(bits))
    }

    #[inline(always)]
    fn of_f32(value: f32) -> u32 {
        if value.is_nan() { F32_NAN } else { value.to_bits() }
    }

    #[inline(always)]
    fn of_f64(value: f64) -> u32 {
        Self::of_f32(value as f32)
    }
}

/// Rounds to odd: the neighbour toward zero, with the last bit set if that lost anything. Rounding
/// the result again, to a format two bits shorter or more, is then the same as rounding once.
#[inline(always)]
fn odd_f32(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let away = back.abs() > value.abs();
    let inexact = back != value;
    f32::from_bits((nearest.to_bits() - u32::from(away)) | u32::from(inexact))
}

impl Element for Bf16 {
    type Bits = u16;
    const NEEDS_SPREAD_TEST: bool = true;
    const SPREAD_MAX: i16 = 45;

    magnitudes!(u16, 7);

    #[inline(always)]
    fn to_f32(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[inline(always)]
    fn to_f64(bits: u16) -> f64 {
        f64::from(Self::to_f32(bits))
    }

    #[inline(always)]
    fn of_f32(value: f32) -> u16 {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        (if value.is_nan() { F32_NAN >> 16 } else { rounded }) as u16
    }

    #[inline(always)]
    fn of_f64(value: f64) -> u16 {
        Self::of_f32(odd_f32(value))
    }
}

/// Widens a format with `MANTISSA` bits and this `BIAS` whose codes (sign removed) from `SPECIAL`
/// on are not finite: `SPECIAL` itself is infinity, unless `SPECIAL` is the canonical NaN `NAN`.
#[inline(always)]
fn widen_small<const MANTISSA: u32, const BIAS: u32, const SPECIAL: u32, const NAN: u32>(
    sign: u32,
    magnitude: u32,
) -> f32 {
    let shifted = magnitude << (23 - MANTISSA);
    let normal = shifted + ((127 - BIAS) << 23);
    let least_normal = f32::from_bits((128 - BIAS) << 23);
    // A subnormal's mantissa, put behind the least normal number, which is then taken away again.
    let subnormal = f32::from_bits(shifted + ((128 - BIAS) << 23)) - least_normal;
    let special = if magnitude == SPECIAL && SPECIAL != NAN { F32_INF } else { F32_NAN };
    let finite = if magnitude < (1 << MANTISSA) { subnormal.to_bits() } else { normal };
    f32::from_bits((if magnitude >= SPECIAL { special } else { finite }) | sign << 31)
}

/// Narrows to such a format, rounding to nearest even. `width` bits in all.
#[inline(always)]
fn narrow_small<
    const WIDTH: u32,
    const MANTISSA: u32,
    const BIAS: u32,
    const SPECIAL: u32,
    const NAN: u32,
>(
    value: f32,
) -> u32 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let shift = 23 - MANTISSA;
    let carried = magnitude + ((1 << (shift - 1)) - 1) + ((magnitude >> shift) & 1);
    let normal = (carried >> shift).wrapping_sub((127 - BIAS) << MANTISSA);
    // The sum's last bit is worth the format's least subnormal, so the addition does the rounding.
    let aligner = f32::from_bits((128 - BIAS - MANTISSA + 23) << 23);
    let subnormal = (f32::from_bits(magnitude) + aligner).to_bits().wrapping_sub(aligner.to_bits());
    let code = if magnitude < (128 - BIAS) << 23 { subnormal } else { normal };
    let code = if code > SPECIAL { SPECIAL } else { code };
    let signed = code | (bits >> 31) << (WIDTH - 1);
    let is_nan = magnitude > F32_INF || (SPECIAL == NAN && code == NAN);
    if is_nan { NAN } else { signed }
}

/// F16 uses the instruction set's own widening, where it has one.
macro_rules! small_widen_block {
    (F16) => {
        unsafe fn widen_block<I: Isa>(from: *const u16, to: *mut f32, len: usize) {
            // SAFETY: as the caller promises; what is left is a part of the same elements.
            unsafe {
                let done = I::widen_f16(from, to, len);
                widen_block::<I, Self>(from.add(done), to.add(done), len - done);
            }
        }
    };
    ($other:tt) => {};
}

macro_rules! small_format {
    ($name:tt, $bits:ty, $width:literal, $mantissa:literal, $bias:literal, $special:literal, $nan:literal) => {
        impl Element for $name {
            type Bits = $bits;

            magnitudes!($bits, $mantissa);
            small_widen_block!($name);

            #[inline(always)]
            fn to_f32(bits: $bits) -> f32 {
                let bits = u32::from(bits);
                let sign = bits >> ($width - 1);
                widen_small::<$mantissa, $bias, $special, $nan>(sign, bits & ((1 << ($width - 1)) - 1))
            }

            #[inline(always)]
            fn to_f64(bits: $bits) -> f64 {
                f64::from(Self::to_f32(bits))
            }

            #[inline(always)]
            fn of_f32(value: f32) -> $bits {
                narrow_small::<$width, $mantissa, $bias, $special, $nan>(value) as $bits
            }

            #[inline(always)]
            fn of_f64(value: f64) -> $bits {
                Self::of_f32(odd_f32(value))
            }
        }
    };
}
small_format!(F16, u16, 16, 10, 15, 0x7c00, 0x7e00);
small_format!(F8E5m2, u8, 8, 2, 15, 0x7c, 0x7e);
small_format!(F8E4m3fn, u8, 8, 3, 7, 0x7f, 0x7f);
