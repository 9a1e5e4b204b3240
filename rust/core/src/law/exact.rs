//! The exact order: sums in fixed point, wide enough for every sum of 2^32 leaves, rounded once.
//!
//! On the wire a wide sum is a two's-complement integer in little-endian u64 limbs, least limb
//! first, followed by one u64 of flags. Leaves up to f32 count in units of 2^-149 in 5 limbs, f64
//! in units of 2^-1074 in 34.

use crate::float::{Format, Number};
use crate::{Contract, Dtype};

/// Set in the flags if some leaf was a NaN.
pub const FLAG_NAN: u64 = 1 << 0;
/// Set in the flags if some leaf was +infinity.
pub const FLAG_PLUS_INFINITY: u64 = 1 << 1;
/// Set in the flags if some leaf was -infinity.
pub const FLAG_MINUS_INFINITY: u64 = 1 << 2;
/// Set in the flags if some leaf was not -0. Of leaves that are all -0 the sum is -0.
pub const FLAG_NOT_MINUS_ZERO: u64 = 1 << 3;

/// The wide sum of leaves of f8, f16, bf16 or f32.
pub type WideF32 = Wide<5, -149>;
/// The wide sum of leaves of f64.
pub type WideF64 = Wide<34, -1074>;

/// Bytes of a wide sum of leaves of `dtype`.
pub const fn wide_bytes(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F64 => WideF64::BYTES,
        _ => WideF32::BYTES,
    }
}

/// A sum without rounding, in `LIMBS` limbs of 64 bits and units of `2^UNIT`.
///
/// ```
/// use isobit_core::law::exact::WideF32;
/// use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
/// let contract = Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Exact, 3, Dtype::F32)).unwrap();
/// let mut sum = WideF32::default();
/// for leaf in [1e30f32, 1.0, -1e30] {
///     sum.add_leaf(Dtype::F32, u64::from(leaf.to_bits()));
/// }
/// assert_eq!(sum.finish(&contract), u64::from(1f32.to_bits()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wide<const LIMBS: usize, const UNIT: i32> {
    limbs: [u64; LIMBS],
    flags: u64,
}

impl<const LIMBS: usize, const UNIT: i32> Default for Wide<LIMBS, UNIT> {
    /// The sum of no leaves.
    fn default() -> Self {
        Wide { limbs: [0; LIMBS], flags: 0 }
    }
}

impl<const LIMBS: usize, const UNIT: i32> Wide<LIMBS, UNIT> {
    /// Bytes on the wire.
    pub const BYTES: usize = 8 * (LIMBS + 1);

    /// Adds one leaf, given as its bit pattern in `dtype`.
    pub fn add_leaf(&mut self, dtype: Dtype, bits: u64) {
        let number = Format::of(dtype).decode(bits);
        self.flags |= match number {
            Number::Finite { negative: true, significand: 0, .. } => 0,
            Number::Finite { .. } => FLAG_NOT_MINUS_ZERO,
            Number::Nan => FLAG_NAN | FLAG_NOT_MINUS_ZERO,
            Number::Infinite { negative: false } => FLAG_PLUS_INFINITY | FLAG_NOT_MINUS_ZERO,
            Number::Infinite { negative: true } => FLAG_MINUS_INFINITY | FLAG_NOT_MINUS_ZERO,
        };
        let Number::Finite { negative, significand, exponent } = number else { return };
        let place = usize::try_from(exponent - UNIT).expect("no leaf has a bit below the unit");
        let (limb, shifted) = (place / 64, u128::from(significand) << (place % 64));
        let mut addend = [0; LIMBS];
        addend[limb] = shifted as u64;
        if let Some(next) = addend.get_mut(limb + 1) {
            *next = (shifted >> 64) as u64;
        }
        self.add(&if negative { negated(addend) } else { addend });
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.flags |= other.flags;
        self.add(&other.limbs);
    }

    fn add(&mut self, addend: &[u64; LIMBS]) {
        let mut carry = false;
        for (limb, add) in self.limbs.iter_mut().zip(addend) {
            let (sum, over) = limb.overflowing_add(*add);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over || over_again);
        }
    }

    /// The sum, or for a mean the quotient, rounded once to the pattern of `dtype_out`.
    pub fn finish(&self, contract: &Contract) -> u64 {
        let out = Format::of(contract.dtype_out());
        let seen = |flag| self.flags & flag != 0;
        match (seen(FLAG_NAN), seen(FLAG_PLUS_INFINITY), seen(FLAG_MINUS_INFINITY)) {
            (true, _, _) | (_, true, true) => return out.encode(Number::Nan),
            (_, false, false) => {}
            (_, _, negative) => return out.encode(Number::Infinite { negative }),
        }
        if self.limbs == [0; LIMBS] {
            return out.round(!seen(FLAG_NOT_MINUS_ZERO), 0, 0, false);
        }
        let negative = self.limbs[LIMBS - 1] >> 63 == 1;
        let magnitude = if negative { negated(self.limbs) } else { self.limbs };
        let (significand, exponent, sticky) = leading_bits_of_quotient(&magnitude, contract.divisor());
        out.round(negative, significand, UNIT + exponent, sticky)
    }

    /// Reads the form on the wire, of [`Wide::BYTES`] bytes.
    pub fn read(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), Self::BYTES, "a wide sum has a fixed size");
        let word = |index: usize| crate::float::read_bits(&bytes[8 * index..8 * index + 8]);
        Wide { limbs: std::array::from_fn(word), flags: word(LIMBS) }
    }

    /// Writes the form on the wire, of [`Wide::BYTES`] bytes.
    pub fn write(&self, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), Self::BYTES, "a wide sum has a fixed size");
        let words = self.limbs.iter().chain([&self.flags]);
        for (word, bytes) in words.zip(bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// The two's complement.
fn negated<const LIMBS: usize>(limbs: [u64; LIMBS]) -> [u64; LIMBS] {
    let mut carry = true;
    limbs.map(|limb| {
        let (sum, over) = (!limb).overflowing_add(u64::from(carry));
        carry = over;
        sum
    })
}

/// The leading 64 bits of `magnitude / divisor`, the exponent of their last one, and whether
/// anything but zeros follows.
fn leading_bits_of_quotient(magnitude: &[u64], divisor: u64) -> (u64, i32, bool) {
    // Long division, a limb at a time from the top. Bringing down two limbs of zeros after the last
    // makes the quotient at least 2^64, whatever the divisor: 64 bits can then be had.
    const BROUGHT_DOWN: usize = 2;
    let mut quotient = [0; 34 + BROUGHT_DOWN];
    let quotient = &mut quotient[..magnitude.len() + BROUGHT_DOWN];
    let mut remainder = 0;
    for (digit, limb) in quotient.iter_mut().zip(magnitude.iter().rev().chain(&[0; BROUGHT_DOWN])) {
        let dividend = u128::from(remainder) << 64 | u128::from(*limb);
        *digit = (dividend / u128::from(divisor)) as u64;
        remainder = (dividend % u128::from(divisor)) as u64;
    }
    let first = quotient.iter().position(|digit| *digit != 0).expect("a magnitude above zero");
    let zeros = quotient[first].leading_zeros();
    let window = (u128::from(quotient[first]) << 64 | u128::from(quotient[first + 1])) << zeros;
    let rest = window as u64 != 0 || quotient[first + 2..].iter().any(|digit| *digit != 0);
    let place = quotient.len() - 1 - first;
    let exponent = 64 * (place as i32 - BROUGHT_DOWN as i32) - zeros as i32;
    ((window >> 64) as u64, exponent, rest || remainder != 0)
}
