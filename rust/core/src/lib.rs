//! isobit's pure core: the value law, schedules, the engine and the wire.
//!
//! Nothing here knows a clock, a socket, a thread or a file; everything is a function of its
//! arguments or a state machine, and can be simulated by the hundred thousand on one thread.
#![forbid(unsafe_code)]

pub mod contract;
pub mod digest;
pub mod dtype;
pub mod engine;
pub mod float;
pub mod law;
pub mod op;
pub mod schedule;
pub mod sim;
pub mod wire;

pub use contract::{Contract, ContractError, ContractSpec};
pub use dtype::Dtype;
pub use op::{Order, ReduceOp};

/// A rank's number in its group, from 0.
pub type Rank = u32;
