//! What is read straight from the structs of numpy and of the interpreter, because asking takes longer than a call.
//!
//! Of the interpreter it is what PyO3 offers no safe and quick way to: the running frame, methods that take their
//! arguments as they come, and letting go of the interpreter in the midst of a call. Besides buffer.rs the files here are
//! the only ones outside `rust/sys` with `unsafe` in them.
#![allow(unsafe_code)]

mod interpreter;
mod method;
mod numpy;

pub(crate) use interpreter::{Frame, Interpreter, Place, place};
pub(crate) use method::shortcut;
pub(crate) use numpy::NumpyArray;
