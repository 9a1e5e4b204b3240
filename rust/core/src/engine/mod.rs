//! The engine: runs one rank's program as a state machine, and judges what arrives for it.
//!
//! Nothing here sees data, time or a socket. A caller polls for effects, carries them out in its
//! own way and reports completions; so a blocking loop, a background worker and the simulated
//! network all run the same code.

mod executor;
mod machine;
mod matching;
mod wiring;

pub use executor::Executor;
pub use machine::{Effect, Engine, Event};
pub use matching::{Expectation, Mismatch, MismatchKind};
