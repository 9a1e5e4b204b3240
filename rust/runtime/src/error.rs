//! The error of every call: what kind, who, where in the sequence of operations, and what to do.

use std::fmt;

use isobit_core::Rank;

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ErrorKind {
    /// The deadline passed.
    Timeout = 1,
    /// A peer's process ended, or it left the group.
    PeerLost = 2,
    /// Ranks called different operations, or in a different order.
    Desync = 3,
    /// Ranks called the same reduction under different contracts.
    ContractMismatch = 4,
    /// A message arrived damaged twice.
    Corruption = 5,
    /// A rank ended the group's work.
    Aborted = 6,
    /// Ranks run releases that do not speak the same wire or follow the same law.
    VersionMismatch = 7,
    /// A process that may not join tried to, or the one that answered is not whom it should be.
    Auth = 8,
    /// What was asked for can't be had here.
    Unavailable = 9,
    /// An argument is wrong; nothing was sent.
    Value = 10,
    /// The caller's interrupt stopped the call.
    Interrupted = 11,
    /// The system has not enough memory; nothing was sent.
    Memory = 12,
    /// Another rank's call was refused, so that this one can't be answered.
    RemoteArgument = 13,
}

impl ErrorKind {
    /// The name that messages use; Python's exceptions have the same.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::Timeout => "Timeout",
            ErrorKind::PeerLost => "PeerLost",
            ErrorKind::Desync => "Desync",
            ErrorKind::ContractMismatch => "ContractMismatch",
            ErrorKind::Corruption => "Corruption",
            ErrorKind::Aborted => "Aborted",
            ErrorKind::VersionMismatch => "VersionMismatch",
            ErrorKind::Auth => "AuthError",
            ErrorKind::Unavailable => "Unavailable",
            ErrorKind::Value => "ValueError",
            ErrorKind::Interrupted => "Interrupted",
            ErrorKind::Memory => "MemoryError",
            ErrorKind::RemoteArgument => "RemoteArgumentError",
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<ErrorKind> {
        use ErrorKind::*;
        [
            Timeout,
            PeerLost,
            Desync,
            ContractMismatch,
            Corruption,
            Aborted,
            VersionMismatch,
            Auth,
            Unavailable,
            RemoteArgument,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == code)
    }
}

/// The error of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The whole story in one or two sentences, with what to do next.
    pub message: String,
    /// The rank on which the call failed.
    pub rank: Rank,
    /// The other rank concerned, where there is one.
    pub peer: Option<Rank>,
    /// The operation, in the words of its caller.
    pub operation: Option<String>,
    /// The operation's sequence number.
    pub sequence: Option<u64>,
    /// The group's epoch.
    pub epoch: u32,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.rank)?;
        if let Some(operation) = &self.operation {
            write!(f, ", {operation}")?;
        }
        if let Some(sequence) = self.sequence {
            write!(f, ", operation {sequence}")?;
        }
        write!(f, ", epoch {}: {}", self.epoch, self.message)
    }
}

impl std::error::Error for Error {}
