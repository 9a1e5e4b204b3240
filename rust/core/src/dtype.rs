//! Element types: their names, sizes and codes on the wire.

use std::fmt;

/// The type of a tensor's elements.
///
/// ```
/// use isobit_core::Dtype;
/// assert_eq!(Dtype::from_name("bf16"), Some(Dtype::Bf16));
/// assert_eq!(Dtype::Bf16.size(), 2);
/// assert_eq!(Dtype::from_code(Dtype::F64.code()), Some(Dtype::F64));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Dtype {
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities (OCP FP8 E4M3, "fn").
    F8E4m3fn = 1,
    /// 8-bit float, 5 exponent and 2 mantissa bits, IEEE-like (OCP FP8 E5M2).
    F8E5m2 = 2,
    /// IEEE 754 binary16.
    F16 = 3,
    /// bfloat16: the upper half of a binary32.
    Bf16 = 4,
    /// IEEE 754 binary32.
    F32 = 5,
    /// IEEE 754 binary64.
    F64 = 6,
    /// Signed 8-bit integer.
    I8 = 16,
    /// Signed 16-bit integer.
    I16 = 17,
    /// Signed 32-bit integer.
    I32 = 18,
    /// Signed 64-bit integer.
    I64 = 19,
    /// Unsigned 8-bit integer.
    U8 = 24,
    /// Unsigned 16-bit integer.
    U16 = 25,
    /// Unsigned 32-bit integer.
    U32 = 26,
    /// Unsigned 64-bit integer.
    U64 = 27,
    /// One byte a truth value: zero is false, anything else is true, results are 0 or 1.
    Bool = 32,
}

impl Dtype {
    /// Every dtype, in the order of their codes.
    pub const ALL: [Dtype; 15] = [
        Dtype::F8E4m3fn,
        Dtype::F8E5m2,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::F32,
        Dtype::F64,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U8,
        Dtype::U16,
        Dtype::U32,
        Dtype::U64,
        Dtype::Bool,
    ];

    /// The floating-point dtypes, narrowest first.
    pub const FLOATS: [Dtype; 6] =
        [Dtype::F8E4m3fn, Dtype::F8E5m2, Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::F64];

    /// The name that Python, messages and vectors use.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F8E4m3fn => "f8e4m3fn",
            Dtype::F8E5m2 => "f8e5m2",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
            Dtype::I8 => "i8",
            Dtype::I16 => "i16",
            Dtype::I32 => "i32",
            Dtype::I64 => "i64",
            Dtype::U8 => "u8",
            Dtype::U16 => "u16",
            Dtype::U32 => "u32",
            Dtype::U64 => "u64",
            Dtype::Bool => "bool",
        }
    }

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The dtype of that wire code.
    pub fn from_code(code: u8) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.code() == code)
    }

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F8E4m3fn | Dtype::F8E5m2 | Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
        }
    }

    /// Whether it is a floating-point type.
    pub const fn is_float(self) -> bool {
        (self as u8) < 16
    }

    /// Whether it is an integer type (bool is not).
    pub const fn is_integer(self) -> bool {
        matches!(self as u8, 16..=27)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
