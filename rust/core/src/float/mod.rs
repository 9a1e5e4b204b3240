//! Floating-point formats as integers: what each bit pattern means, and correct rounding to it.
//!
//! Everything here is integer arithmetic, so that no mode of the processor (rounding direction,
//! flush-to-zero, denormals-are-zero) can change a bit of it.

mod convert;
mod format;

pub use convert::{
    bf16_from_f32, canonical_nan, convert, from_f32, from_f64, from_order_key, order_key, read_bits, to_f32,
    to_f64, write_bits,
};
pub use format::{Format, Number};
