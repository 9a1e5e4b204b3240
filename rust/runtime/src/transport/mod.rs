//! Transports: they move bytes between the ranks of one group, and nothing else.
//!
//! What every transport promises, and one suite of conformance tests checks
//! (`tests/transport_conformance.rs`): messages of one (peer, channel) arrive in order and
//! once; what is lent was verified against the checksum that was computed over the sender's buffer; no
//! call blocks but `wait`, and that not past its time; a lost peer or an abort is seen by every
//! later call.

pub mod memory;
pub mod shm;
mod tamper;

use std::time::{Duration, Instant};

use isobit_core::Rank;
use isobit_core::wire::{Channel, Draft, Header};
use isobit_sys::os::sites::Sites;
use isobit_sys::{Beside, Kernels, ReadSpan, WriteSpan};
use thiserror::Error;

pub use isobit_sys::os::ring::{Look, Share};
pub use memory::MemoryTransport;
pub use shm::ShmTransport;
pub use tamper::{Attempt, Tamper};

/// The number of a message among those of one (peer, channel), from 0.
pub type MessageNumber = u64;

/// What a transport can do. The planner reads it; it never decides a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Its name: `memory`, `shm`.
    pub name: &'static str,
    /// The largest payload of a message, in bytes.
    pub payload_bytes_max: usize,
    /// The largest payload of a message that can be sent buffered, in bytes, if any can.
    pub buffered_bytes_max: Option<usize>,
    /// How many payload bytes of one peer's collectives may be under way or lent at a time, in
    /// messages of the largest size; smaller ones, each with its header, fill it sooner.
    pub window_bytes: usize,
    /// How many ranks can run at a time, where that is known: every rank of the group says the same.
    pub cores: Option<u32>,
}

/// Why a transport can't go on.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum TransportError {
    /// The transport can't be had here.
    #[error("transport '{transport}' is unavailable: {reason}")]
    Unavailable {
        /// Its name.
        transport: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// A peer's process ended, or it closed its communicator.
    #[error("rank {rank} is lost: {reason}")]
    PeerLost {
        /// The peer.
        rank: Rank,
        /// How this was found out.
        reason: String,
    },
    /// Not every rank came in time.
    #[error(
        "{} did not come within {:.1} s: check that every rank was started with the same job name and world size, and its output for errors",
        ranks(missing), waited.as_secs_f64()
    )]
    Timeout {
        /// The ranks that did not come, ascending.
        missing: Vec<Rank>,
        /// How long this rank waited.
        waited: Duration,
    },
    /// A rank does not fit into the group: every rank that has come gets this.
    #[error("rank {rank} can't join: {reason}")]
    Refused {
        /// The rank that does not fit.
        rank: Rank,
        /// What was expected, what it has, and what to do.
        reason: String,
    },
    /// The caller did not want to wait any longer for the others.
    #[error("interrupted while the group was being formed")]
    Interrupted,
    /// Whoever is at the other end is not this user.
    #[error("not this user at the other end: {reason}")]
    Auth {
        /// Who was expected and who was found.
        reason: String,
    },
    /// A message arrived damaged twice, or the link's own bookkeeping is damaged.
    #[error("the link from rank {from} to rank {to} is corrupt: {detail}")]
    Corruption {
        /// The sender.
        from: Rank,
        /// The receiver.
        to: Rank,
        /// Operation, message and byte range.
        detail: String,
    },
    /// A rank ended the group's work; the bytes are its reason, as it gave them to `abort`.
    #[error("the group was aborted by rank {rank}")]
    Aborted {
        /// The rank that aborted.
        rank: Rank,
        /// Its reason, opaque to the transport.
        reason: Vec<u8>,
    },
}

/// `rank 2`, or `ranks 2, 5`.
fn ranks(ranks: &[Rank]) -> String {
    let numbers: Vec<String> = ranks.iter().map(Rank::to_string).collect();
    format!("rank{} {}", if ranks.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

/// The error of a message that arrived damaged twice.
fn corruption(from: Rank, to: Rank, channel: Channel, number: MessageNumber, detail: &str) -> TransportError {
    let detail = format!("message {number} of the {channel:?} channel arrived damaged twice ({detail})");
    TransportError::Corruption { from, to, detail }
}

/// The end of an epoch: an operation failed, and the group goes on in the next one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Break {
    /// The rank that said so.
    pub rank: Rank,
    /// The epoch that ended.
    pub epoch: u32,
    /// The operation at which it ended: those before it are complete or will be.
    pub sequence: u64,
    /// The reason, opaque to the transport.
    pub reason: Vec<u8>,
}

/// A received payload, lent until this is dropped. It was verified.
pub trait Lent {
    /// The payload.
    fn payload(&self) -> ReadSpan<'_>;
}

/// A received message.
pub trait Frame: Lent {
    /// Its header, as the sender gave it.
    fn header(&self) -> &Header;
}

/// A rank's connection to the others of its group.
///
/// A send is complete when the receiver has verified it (`verified` has passed its number), a buffered
/// one at once, for a copy of it lies where the receiver finds it. Until then the sender keeps the payload as it is,
/// because a damaged message is asked for once more: `wait` then returns, `resend_wanted` names it, and `resend`
/// gives it again. A sender that can't keep it any longer calls `withdraw`.
pub trait Transport: Send {
    /// The lent messages.
    type Frame: Frame;

    /// This rank.
    fn rank(&self) -> Rank;

    /// How many ranks there are.
    fn world_size(&self) -> u32;

    /// The group's number, drawn when it was formed; every header carries it.
    fn group(&self) -> u64;

    /// The incarnation of a rank of the group: a number that its process drew when it joined.
    fn incarnation(&self, rank: Rank) -> u64;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Hands over a message if there is room: its number, or `None` for "not now".
    ///
    /// Panics if the payload is longer than `payload_bytes_max`, or if `to` is this rank or none.
    /// The transport fills in the header's payload length and checksums. The payload's checksum is computed before
    /// this returns, in one pass with its copy if it is copied.
    fn try_send(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError>;

    /// As `try_send`; if the message is sent, a copy of this rank's own, of as many bytes, is made as well: in the same
    /// pass, if that is faster.
    fn try_send_beside(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Header,
        payload: ReadSpan<'_>,
        beside: Beside<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        let sent = self.try_send(to, channel, header, payload)?;
        if sent.is_some() {
            Kernels::best().stream(beside.src, beside.dst);
        }
        Ok(sent)
    }

    /// Puts a payload of more than `buffered_bytes_max` bytes where all peers can read it, for `readers` of them, of whom
    /// this is the first, if there is room and this transport has such a place. `try_send_shared` then sends it to each; it
    /// stays until the last has it, or `end_shares` says that no other will get it.
    fn try_share(
        &mut self,
        first: Rank,
        payload: ReadSpan<'_>,
        readers: u32,
    ) -> Result<Option<Share>, TransportError>;

    /// As `try_send` of a collective's message, whose payload is there already.
    fn try_send_shared(
        &mut self,
        to: Rank,
        header: &Header,
        share: Share,
        payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError>;

    /// What is shared by now goes to nobody else.
    fn end_shares(&mut self);

    /// As `try_send`, for a payload of at most `buffered_bytes_max` bytes, which is not needed any more
    /// when this returns: a receiver that finds the message damaged takes a copy of it, without this rank. Whether it
    /// was sent.
    ///
    /// The receiver is not woken: `ring` does that, and must follow before this rank waits or returns.
    fn try_send_buffered(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Draft,
        payload: ReadSpan<'_>,
    ) -> Result<bool, TransportError>;

    /// Reads the payload of the next message from a peer to `out`, which is as long, if the message is there and
    /// exactly the one expected: whether it was. If not, `out` may hold anything, and there may be another message.
    /// `ring` must follow, as above: the peer may wait for room.
    fn try_recv_expected(
        &mut self,
        from: Rank,
        channel: Channel,
        expected: &Draft,
        out: WriteSpan<'_>,
    ) -> Result<bool, TransportError>;

    /// As `try_recv_expected`; `read` copies or reduces the payload in the pass that verifies it, and gives its
    /// checksum. If it was not taken, `read` may have read a message that is the expected one and damaged: it
    /// comes again, and what was made of it must not be used. A transport that can't do this finds [`Look::Other`],
    /// which `try_recv` then takes; one that can, and finds nothing, has looked whether the peer is lost.
    fn try_recv_read(
        &mut self,
        from: Rank,
        channel: Channel,
        expected: &Draft,
        read: &mut dyn FnMut(ReadSpan<'_>) -> u64,
    ) -> Result<Look, TransportError>;

    /// Wakes a peer that sleeps.
    fn ring(&self, peer: Rank);

    /// How often a rank that expects a message does well to look for it, with `relax` in between, before
    /// anything else: a peer that has come as far answers soon. 0 if it is not worth a look.
    fn looks(&self) -> u32;

    /// Passes the time until the next look.
    fn relax(&self);

    /// The next message from a peer if one is there, verified.
    ///
    /// What a lost peer had handed over completely still comes before its `PeerLost`. An abort comes at once.
    fn try_recv(&mut self, from: Rank, channel: Channel) -> Result<Option<Self::Frame>, TransportError>;

    /// The next message from a peer, if there is one that `try_recv` might take: its header, if that is intact. The
    /// message stays where it is: its sender waits on, and learns of the error that the header may show before its send
    /// is complete. A lost peer is as for `try_recv`.
    fn peek(&mut self, from: Rank, channel: Channel) -> Result<Option<Option<Header>>, TransportError>;

    /// How many messages to this peer have been verified by it: as many as were sent, if it ended
    /// after that.
    fn verified(&mut self, to: Rank, channel: Channel) -> Result<u64, TransportError>;

    /// A message that a peer received damaged and wants once more, if there is one.
    fn resend_wanted(&mut self) -> Option<(Rank, Channel, MessageNumber)>;

    /// Gives such a message again, unless there is no room just now: whether it did. The same header and payload as in
    /// `try_send`.
    ///
    /// Panics if the message is not one that `resend_wanted` names, or has another length.
    fn resend(
        &mut self,
        to: Rank,
        channel: Channel,
        number: MessageNumber,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<bool, TransportError>;

    /// Gives up whatever was sent, not buffered, and is not verified: its payload may be gone or altered when this
    /// has returned. A receiver that has not read such a message passes over it.
    fn withdraw(&mut self);

    /// Blocks until something may have changed since the last call of any method, or `until`.
    ///
    /// A peer that is lost meanwhile ends the wait but is no error here: only those calls fail that need it.
    fn wait(&mut self, until: Instant) -> Result<(), TransportError>;

    /// Ends `epoch` at operation `sequence` for every rank, with a reason of at most
    /// `BREAK_BYTES_MAX` bytes. Of several, the earliest operation counts.
    fn break_epoch(&mut self, epoch: u32, sequence: u64, reason: &[u8]);

    /// The operation at which `epoch` ended early, if it did; 0 of one so long ago that nobody knows.
    /// Costs next to nothing.
    fn broken(&self, epoch: u32) -> Option<u64>;

    /// All about it.
    fn break_of(&self, epoch: u32) -> Option<Break>;

    /// Where in their programs the ranks make their calls.
    fn sites(&self) -> &Sites;

    /// Ends the group's work for every rank, with a reason of at most `ABORT_BYTES_MAX` bytes. The
    /// first rank to do so wins; calling it again does nothing.
    fn abort(&mut self, reason: &[u8]);

    /// Says goodbye: peers that still wait for this rank get `PeerLost` with `reason`.
    fn close(&mut self, reason: &str);
}

/// The longest reason of a break, in bytes.
pub const BREAK_BYTES_MAX: usize = isobit_sys::os::board::BREAK_BYTES_MAX;

/// The longest reason of an abort, in bytes.
pub const ABORT_BYTES_MAX: usize = 8 * 1024;
