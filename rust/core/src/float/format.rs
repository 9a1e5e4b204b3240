//! One description for all six formats, one decoder and one correctly rounding encoder.

use crate::Dtype;

/// A binary floating-point format: a sign bit, an exponent field, a mantissa field.
///
/// ```
/// use isobit_core::float::{Format, Number};
/// let three = Number::Finite { negative: false, significand: 3, exponent: 0 };
/// assert_eq!(Format::F16.encode(three), 0x4200);
/// assert_eq!(Format::F16.decode(0x4200), Number::Finite { negative: false, significand: 0x600, exponent: -9 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// Bits of the whole.
    bits: u32,
    /// Bits of the mantissa field.
    mantissa: u32,
    /// The exponent of the smallest normal number; subnormals share it.
    least_exponent: i32,
    /// The pattern of the largest finite number. Larger magnitudes are the infinity, if the format
    /// has one, and NaN.
    largest: u64,
    /// The pattern of +infinity; none in f8e4m3fn.
    infinity: Option<u64>,
    /// The canonical quiet NaN.
    nan: u64,
}

/// What a bit pattern means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Number {
    /// Not a number, of either sign and any payload.
    Nan,
    /// An infinity.
    Infinite {
        /// Its sign.
        negative: bool,
    },
    /// `significand * 2^exponent`; a zero has significand 0, and a sign.
    Finite {
        /// Its sign.
        negative: bool,
        /// Its magnitude in units of `2^exponent`.
        significand: u64,
        /// The exponent of the unit.
        exponent: i32,
    },
}

impl Format {
    /// OCP FP8 E4M3 without infinities.
    pub const F8E4M3FN: Format =
        Format { bits: 8, mantissa: 3, least_exponent: -6, largest: 0x7e, infinity: None, nan: 0x7f };
    /// OCP FP8 E5M2.
    pub const F8E5M2: Format = Format::ieee(8, 2, -14, 0x7e);
    /// IEEE 754 binary16.
    pub const F16: Format = Format::ieee(16, 10, -14, 0x7e00);
    /// bfloat16.
    pub const BF16: Format = Format::ieee(16, 7, -126, 0x7fc0);
    /// IEEE 754 binary32.
    pub const F32: Format = Format::ieee(32, 23, -126, 0x7fc0_0000);
    /// IEEE 754 binary64.
    pub const F64: Format = Format::ieee(64, 52, -1022, 0x7ff8_0000_0000_0000);

    const fn ieee(bits: u32, mantissa: u32, least_exponent: i32, nan: u64) -> Format {
        let infinity = ((1 << (bits - 1 - mantissa)) - 1) << mantissa;
        Format { bits, mantissa, least_exponent, largest: infinity - 1, infinity: Some(infinity), nan }
    }

    /// The format of a floating-point dtype.
    ///
    /// # Panics
    /// If `dtype` is none.
    pub const fn of(dtype: Dtype) -> Format {
        match dtype {
            Dtype::F8E4m3fn => Format::F8E4M3FN,
            Dtype::F8E5m2 => Format::F8E5M2,
            Dtype::F16 => Format::F16,
            Dtype::Bf16 => Format::BF16,
            Dtype::F32 => Format::F32,
            Dtype::F64 => Format::F64,
            _ => panic!("not a floating-point dtype"),
        }
    }

    /// The sign bit.
    pub const fn sign_bit(self) -> u64 {
        1 << (self.bits - 1)
    }

    /// The one NaN that results have.
    pub const fn nan(self) -> u64 {
        self.nan
    }

    /// The pattern of the largest finite number.
    pub const fn largest(self) -> u64 {
        self.largest
    }

    /// What a bit pattern means.
    pub const fn decode(self, bits: u64) -> Number {
        let negative = bits & self.sign_bit() != 0;
        let magnitude = bits & (self.sign_bit() - 1);
        if magnitude > self.largest {
            return match self.infinity {
                Some(infinity) if magnitude == infinity => Number::Infinite { negative },
                _ => Number::Nan,
            };
        }
        let field = magnitude >> self.mantissa;
        let fraction = magnitude & ((1 << self.mantissa) - 1);
        let unit = self.least_exponent - self.mantissa as i32;
        if field == 0 {
            return Number::Finite { negative, significand: fraction, exponent: unit };
        }
        let significand = fraction | 1 << self.mantissa;
        Number::Finite { negative, significand, exponent: unit + field as i32 - 1 }
    }

    /// The pattern nearest to a number; every NaN is the canonical one.
    pub const fn encode(self, number: Number) -> u64 {
        match number {
            Number::Nan => self.nan,
            Number::Infinite { negative } => self.beyond(negative),
            Number::Finite { negative, significand, exponent } => {
                self.round(negative, significand, exponent, false)
            }
        }
    }

    /// Rounds `significand * 2^exponent`, and a little more if `sticky`, to nearest, ties to even.
    ///
    /// "A little more" is anything above nothing and below one unit of the significand. It decides
    /// ties only, so a sticky significand needs two bits more than the result has: all 64 do.
    pub const fn round(self, negative: bool, significand: u64, exponent: i32, sticky: bool) -> u64 {
        let sign = if negative { self.sign_bit() } else { 0 };
        // The little more becomes a last bit of its own: rounding to odd.
        let (wide, exponent) = ((significand as u128) << 1 | sticky as u128, exponent - 1);
        if wide == 0 {
            return sign;
        }
        let leading = exponent + wide.ilog2() as i32;
        if leading > self.largest_exponent() {
            return self.beyond(negative);
        }
        let normal = if leading > self.least_exponent { leading - self.least_exponent } else { 0 };
        let unit = self.least_exponent + normal - self.mantissa as i32;
        let kept = if unit <= exponent {
            wide << (exponent - unit)
        } else {
            // `wide` has 65 bits at most: dropping 67 or more leaves nothing, not even a tie.
            let drop = if unit - exponent < 67 { unit - exponent } else { 67 };
            let (kept, rest, half) = (wide >> drop, wide & ((1 << drop) - 1), 1 << (drop - 1));
            kept + (rest > half || (rest == half && kept & 1 == 1)) as u128
        };
        // A normal number's implicit bit adds one to the exponent field, and so does a carry.
        let magnitude = ((normal as u64) << self.mantissa) + kept as u64;
        if magnitude > self.largest { self.beyond(negative) } else { sign | magnitude }
    }

    /// The exponent of the leading bit of the largest number.
    const fn largest_exponent(self) -> i32 {
        self.least_exponent - 1 + (self.largest >> self.mantissa) as i32
    }

    /// What a magnitude beyond the largest becomes.
    const fn beyond(self, negative: bool) -> u64 {
        match self.infinity {
            Some(infinity) => infinity | if negative { self.sign_bit() } else { 0 },
            None => self.nan,
        }
    }
}
