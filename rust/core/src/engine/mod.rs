//! The engine: runs one program of a schedule as a state machine.

mod executor;

pub use executor::Executor;
