//! What carries out the data side of a program: memory, copies and reductions.

use crate::schedule::{Content, Operand, Region};

/// The memory and the arithmetic of one rank during one operation.
///
/// The engine decides what happens next and never sees data; an executor holds the data and never
/// decides. One exists over scalar code (the simulator's), one over the CPU's kernels; a GPU's
/// would hold device buffers behind the same names.
pub trait Executor {
    /// A received, verified message that the transport lends until it is dropped.
    type Frame;
    /// What a failed step gives.
    type Error;

    /// Puts a received message in the place of view `view`.
    fn bind(&mut self, view: u32, frame: Self::Frame);

    /// Drops the message of view `view`, whose last reader is done.
    fn release(&mut self, view: u32);

    /// Copies a received message to `dst` and gives it back to the transport.
    fn store(&mut self, frame: Self::Frame, dst: Region, content: Content) -> Result<(), Self::Error>;

    /// Carries out [`crate::schedule::Action::Reduce`].
    fn reduce(&mut self, inputs: &[Operand], target: Content, out: Region) -> Result<(), Self::Error>;

    /// Carries out [`crate::schedule::Action::Copy`].
    fn copy(&mut self, src: Region, dst: Region, content: Content) -> Result<(), Self::Error>;
}
