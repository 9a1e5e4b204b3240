//! isobit's only unsafe Rust: kernels that are bit-equal to the core's law, and the operating system.

mod fpenv;
pub mod kernels;
pub mod memory;
pub mod os;
pub mod span;

pub use kernels::{Input, KernelError, Kernels};
pub use memory::Memory;
pub use span::{ReadSpan, WriteSpan};
