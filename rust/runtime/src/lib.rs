//! isobit: deterministic collective communication. The same contributions give the same bits.
//!
//! A [`Communicator`] is a rank's handle on its group. Its collectives block until their result is
//! there or their deadline has passed. Results depend on the contributions alone: see `docs/law.md`.
#![forbid(unsafe_code)]

mod communicator;
mod error;
mod executor;
mod json;
mod link;
mod progress;
mod recorder;
mod site;
mod trace;
pub mod transport;

pub use communicator::{AbortHandle, Accumulator, Call, Communicator, Explanation, LeafCost};
pub use communicator::{Reduction, SEVERAL_TENSORS, TIMEOUT_DEFAULT};
pub use error::{Error, ErrorKind};
pub use isobit_core::schedule::Cost;
pub use isobit_core::wire;
pub use isobit_core::{Contract, ContractError, ContractSpec, Dtype, Order, Rank, ReduceOp, law};
pub use isobit_sys::{Memory, ReadSpan, WriteSpan};
pub use progress::{Job, Progress, Work};
pub use recorder::{FlightRecorder, OPERATIONS_KEPT, OperationRecord, OperationState, flight_recorders};
pub use site::Site;
pub use transport::shm::{ShmConfig, ShmOptions};
