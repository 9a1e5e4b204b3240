//! What can end an exchange, and the error that its caller sees.

use isobit_core::Rank;
use isobit_core::engine::{Mismatch, MismatchKind};
use isobit_core::wire::{Channel, Descriptor};
use isobit_sys::KernelError;

use super::{Communicator, reason};
use crate::error::{Error, ErrorKind};
use crate::transport::{Break, Transport, TransportError};

/// Why an exchange ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    Transport(TransportError),
    Mismatch(Box<Mismatch>),
    Kernel(KernelError),
    Timeout {
        seconds: f64,
        awaited: Vec<Rank>,
    },
    Interrupted,
    /// This rank's own `AbortHandle`.
    Aborted(String),
    /// Another rank said that this operation or an earlier one failed.
    Broken(Break),
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Failure {
        Failure::Transport(error)
    }
}

impl From<Box<Mismatch>> for Failure {
    fn from(mismatch: Box<Mismatch>) -> Failure {
        Failure::Mismatch(mismatch)
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Failure {
        Failure::Kernel(error)
    }
}

/// Where a failure happened.
pub(crate) struct Place {
    pub(crate) rank: Rank,
    pub(crate) epoch: u32,
    pub(crate) operation: Option<String>,
    pub(crate) sequence: Option<u64>,
}

impl Place {
    pub(crate) fn error(self, kind: ErrorKind, peer: Option<Rank>, message: String) -> Error {
        let Place { rank, epoch, operation, sequence } = self;
        Error { kind, message, rank, peer, operation, sequence, epoch }
    }
}

impl Failure {
    /// Whether the group's work is over. Else the operation failed on every rank, and the group goes
    /// on in the next epoch.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Failure::Transport(_) | Failure::Aborted(_))
    }

    /// The caller's error.
    pub(crate) fn at(self, place: Place) -> Error {
        let (kind, peer, message) = match self {
            Failure::Transport(TransportError::Aborted { rank, reason }) => reason::decode(&reason, rank),
            Failure::Aborted(reason) => (ErrorKind::Aborted, None, reason),
            Failure::Broken(end) => reason::decode(&end.reason, end.rank),
            Failure::Transport(error) => of_transport(&error, place.rank),
            Failure::Mismatch(mismatch) => of_mismatch(&mismatch),
            Failure::Kernel(error) => (
                ErrorKind::Aborted,
                None,
                format!("a schedule and its kernels disagree, please report this: {error}"),
            ),
            Failure::Timeout { seconds, awaited } => of_timeout(seconds, &awaited),
            Failure::Interrupted => {
                (ErrorKind::Interrupted, None, format!("interrupted by the caller on rank {}", place.rank))
            }
        };
        place.error(kind, peer, message)
    }
}

impl Communicator {
    /// Ends an operation that failed, for this rank and so that the others learn of it: its caller's error.
    #[cold]
    pub(super) fn failed(
        &mut self,
        failure: Failure,
        (descriptor, sequence): (Descriptor, u64),
        channel: Channel,
        collective: u64,
    ) -> Error {
        let (is_final, told) = (failure.is_final(), matches!(failure, Failure::Broken(_)));
        let failure = self.spelled_out(failure, channel, sequence);
        let whereabouts = self.whereabouts(&failure);
        let mut error = failure.at(self.place(Some((&descriptor, sequence))));
        error.message += &whereabouts;
        if is_final {
            self.end(&error);
        } else {
            self.start_afresh(collective, (!told).then_some(&error));
        }
        // The caller's tensors are his again. Who misses what was sent of them can see why by now.
        self.link.withdraw();
        error
    }
}

fn of_transport(error: &TransportError, rank: Rank) -> (ErrorKind, Option<Rank>, String) {
    match error {
        TransportError::PeerLost { rank, .. } => (
            ErrorKind::PeerLost,
            Some(*rank),
            format!("{error}; start the group again, this communicator can't go on without it"),
        ),
        TransportError::Corruption { from, to, .. } => {
            let peer = if *from == rank { *to } else { *from };
            (
                ErrorKind::Corruption,
                Some(peer),
                format!(
                    "{error}; if no other thread of rank {from} changed the tensor during the call, suspect this host's memory, and run its memory test"
                ),
            )
        }
        TransportError::Timeout { missing, .. } => {
            (ErrorKind::Timeout, missing.first().copied(), error.to_string())
        }
        TransportError::Refused { rank, .. } => (ErrorKind::Unavailable, Some(*rank), error.to_string()),
        TransportError::Interrupted => (ErrorKind::Interrupted, None, error.to_string()),
        TransportError::Auth { .. } => (ErrorKind::Auth, None, error.to_string()),
        TransportError::Unavailable { .. } => (ErrorKind::Unavailable, None, error.to_string()),
        TransportError::Aborted { rank, .. } => (ErrorKind::Aborted, Some(*rank), error.to_string()),
    }
}

fn of_mismatch(mismatch: &Mismatch) -> (ErrorKind, Option<Rank>, String) {
    let kind = match mismatch.kind {
        MismatchKind::Contract => ErrorKind::ContractMismatch,
        _ => ErrorKind::Desync,
    };
    (kind, Some(mismatch.peer), mismatch.to_string())
}

fn of_timeout(seconds: f64, awaited: &[Rank]) -> (ErrorKind, Option<Rank>, String) {
    let names: Vec<String> = awaited.iter().map(Rank::to_string).collect();
    let message = format!(
        "no answer from rank {} within {seconds:.3} s: see whether it is stopped, stuck or in another call, \
         or give a longer timeout",
        names.join(", ")
    );
    (ErrorKind::Timeout, awaited.first().copied(), message)
}
