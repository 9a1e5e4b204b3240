//! A simulated world: the engines of many ranks on one thread, in virtual time.
//!
//! Messages are encoded headers and payloads with their checksums; they are delayed, held back by
//! windows, damaged, asked for once more, or lost with their rank, all drawn from one seed. A run is
//! a function of its calls, its [`Faults`] and its seed, so every failure is found again from them.

mod executor;
mod faults;
mod member;
mod network;
mod outcome;
mod random;
mod run;

pub use executor::{Buffers, ScalarExecutor};
pub use faults::{Crash, Faults, Stall};
pub use outcome::{Call, Failure, Outcome, Traffic};
pub use random::Random;
pub use run::{Report, simulate};
