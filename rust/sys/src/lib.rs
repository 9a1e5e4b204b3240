//! isobit's only unsafe Rust: kernels that are bit-equal to the core's law, and the operating system.

pub mod clock;
mod fpenv;
pub mod kernels;
pub mod memory;
pub mod os;
pub mod span;

pub use kernels::{Beside, Input, KernelError, Kernels, Prepared, Written};
pub use memory::Memory;
pub use span::{ReadSpan, WriteSpan};

/// Whether this build leaves out checks, the law's order or the flight recorder, to measure what they cost. It must
/// not be shipped.
pub const IS_FOR_MEASURING: bool =
    cfg!(any(feature = "unchecked", feature = "unordered", feature = "unrecorded"));
