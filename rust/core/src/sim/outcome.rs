//! What a simulated rank is asked to do, and how it ends.

use std::sync::Arc;

use thiserror::Error;

use super::Buffers;
use crate::Rank;
use crate::engine::Mismatch;
use crate::schedule::Program;
use crate::wire::Descriptor;

/// One collective call of one rank.
#[derive(Clone, Debug)]
pub struct Call {
    /// The rank's program.
    pub program: Arc<Program>,
    /// What the rank says that it is doing.
    pub descriptor: Descriptor,
    /// Its parts and its result.
    pub buffers: Buffers,
}

/// Why a rank gave up.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Error)]
pub enum Failure {
    /// The call's time was up.
    #[error("rank {rank} waited for ranks {awaited:?} in operation {sequence} until its deadline")]
    Timeout {
        /// The rank whose time was up first.
        rank: Rank,
        /// The operation.
        sequence: u64,
        /// Whom it waited for.
        awaited: Vec<Rank>,
    },
    /// A peer has ended.
    #[error("rank {rank} is lost")]
    PeerLost {
        /// The peer.
        rank: Rank,
    },
    /// Two ranks were not doing the same thing.
    #[error(transparent)]
    Desync(Box<Mismatch>),
    /// A message arrived damaged twice.
    #[error("message {message} of operation {sequence} from rank {from} to rank {to} arrived damaged twice")]
    Corruption {
        /// The sender.
        from: Rank,
        /// The receiver.
        to: Rank,
        /// The operation that waited for it.
        sequence: u64,
        /// Its number within the operation and the pair.
        message: u32,
    },
}

/// How a rank ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It has the results of all its calls.
    Finished(Vec<Vec<u8>>),
    /// It gave up.
    Failed {
        /// Why.
        failure: Failure,
        /// The rank that found out.
        found_by: Rank,
    },
    /// It crashed, as the faults wanted.
    Crashed,
    /// It still stands still, as the faults wanted.
    Stalled,
}

/// What a rank has sent, those messages left out that it was asked for once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Messages.
    pub messages: u64,
    /// Bytes of payload.
    pub bytes: u64,
}
