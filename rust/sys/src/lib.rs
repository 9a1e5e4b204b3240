//! isobit's only unsafe Rust: kernels that are bit-equal to the core's law, and the operating system.

pub mod os;
pub mod span;

pub use span::{ReadSpan, WriteSpan};
