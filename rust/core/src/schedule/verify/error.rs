//! What can be wrong with a schedule.

use thiserror::Error;

use crate::Rank;
use crate::schedule::{Content, PlanError, StepIndex};

/// The first thing found wrong with a schedule.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum VerifyError {
    /// The request itself is wrong.
    #[error(transparent)]
    Request(#[from] PlanError),
    /// There is not one program a rank.
    #[error("{found} programs for {expected} ranks")]
    Programs {
        /// How many there are.
        found: usize,
        /// How many ranks there are.
        expected: u32,
    },
    /// A step that makes no sense by itself.
    #[error("rank {rank} step {step}: {what}")]
    Malformed {
        /// The rank.
        rank: Rank,
        /// The step.
        step: StepIndex,
        /// What is wrong.
        what: &'static str,
    },
    /// A message larger than the limit.
    #[error("rank {rank} step {step}: a message of {bytes} bytes, the limit is {bytes_max}")]
    MessageTooLarge {
        /// The sender.
        rank: Rank,
        /// The step.
        step: StepIndex,
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// More staging than the limit.
    #[error("rank {rank} stages {bytes} bytes, the limit is {bytes_max}")]
    Staging {
        /// The rank.
        rank: Rank,
        /// The bytes of its slots.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Two steps touch the same memory, one writes, and neither waits for the other.
    #[error("rank {rank}: steps {earlier} and {later} race for {memory} at element {element}")]
    Race {
        /// The rank.
        rank: Rank,
        /// The one step.
        earlier: StepIndex,
        /// The other.
        later: StepIndex,
        /// `out`, `slot` or `view`.
        memory: &'static str,
        /// The element (of slots the byte).
        element: u64,
    },
    /// A result is written to before a rank has shown that it is in this call.
    #[error("rank {rank}: step {step} writes to the result before it has heard of rank {of}")]
    Early {
        /// The rank.
        rank: Rank,
        /// The step.
        step: StepIndex,
        /// Of whom it has not heard.
        of: Rank,
    },
    /// One rank sends more or fewer messages to another than that one receives.
    #[error("rank {from} sends {sent} messages to rank {to}, which receives {received}")]
    Unmatched {
        /// The sender.
        from: Rank,
        /// The receiver.
        to: Rank,
        /// How many are sent.
        sent: usize,
        /// How many are received.
        received: usize,
    },
    /// A message is received as something else than it was sent.
    #[error(
        "rank {from} step {send} sends {sent} x {sent_content:?}, rank {to} step {recv} expects {expected} x {expected_content:?}"
    )]
    Mismatch {
        /// The sender.
        from: Rank,
        /// Its step.
        send: StepIndex,
        /// The receiver.
        to: Rank,
        /// Its step.
        recv: StepIndex,
        /// Elements sent.
        sent: u64,
        /// What they are said to be.
        sent_content: Content,
        /// Elements expected.
        expected: u64,
        /// What they are expected to be.
        expected_content: Content,
    },
    /// Memory does not hold what a step takes it for.
    #[error("rank {rank} step {step}: element {element} is {found}, not {claimed:?}")]
    WrongOperand {
        /// The rank.
        rank: Rank,
        /// The step.
        step: StepIndex,
        /// The element of its buffer.
        element: u64,
        /// What the step says it is.
        claimed: Content,
        /// What it is.
        found: String,
    },
    /// The inputs of a reduction do not add up to its target.
    #[error("rank {rank} step {step}: the inputs do not make {target:?}")]
    NotTiled {
        /// The rank.
        rank: Rank,
        /// The step.
        step: StepIndex,
        /// The target.
        target: Content,
    },
    /// An element of a result is not what the request says.
    #[error("rank {rank}: element {element} of the result is {found}")]
    WrongResult {
        /// The rank.
        rank: Rank,
        /// The element.
        element: u64,
        /// What it is.
        found: String,
    },
    /// Ranks wait for each other in a circle.
    #[error("deadlock: rank {rank} never completes step {step}")]
    Deadlock {
        /// A rank in the circle or behind it.
        rank: Rank,
        /// Its first step that never completes.
        step: StepIndex,
    },
    /// Messages that are lent for too long leave no room for the next.
    #[error(
        "deadlock: rank {rank} holds {held} bytes lent from rank {from} and needs {bytes} more for step {step}; the window is {window_bytes}"
    )]
    Window {
        /// The receiver.
        rank: Rank,
        /// Its step that has no room.
        step: StepIndex,
        /// The sender.
        from: Rank,
        /// The bytes lent.
        held: u64,
        /// The bytes of the next message.
        bytes: u64,
        /// The limit.
        window_bytes: u64,
    },
    /// A rank is done before another has shown that it is in the same call.
    #[error("rank {rank} is done without having heard of rank {of}")]
    Unheard {
        /// The rank.
        rank: Rank,
        /// Of whom it has not heard.
        of: Rank,
    },
}
