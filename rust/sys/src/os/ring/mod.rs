//! A byte ring in shared memory: one producer, one consumer, frames that are lent in place.
//!
//! # Layout
//! A ring is control words, a place for the heads of 128 messages, one for copies of small messages, and then
//! `capacity` bytes of frames, a multiple of 64.
//!
//! | offset | word | written by |
//! |---|---|---|
//! | 0, 128 | tail: bytes ever produced, at 0 after an even message, at 128 after an odd one | producer |
//! | 8 | resent: 1 + the last message that was sent again | producer |
//! | 16, 144 | mail: of the latest even, or odd, message the seal, and up to 104 bytes of payload, filled up to 40, 64 or 104; of a longer one its kind, its mark and its place | producer |
//! | 136 | base: where the place of a position is counted from | producer |
//! | 256 | head: bytes ever given back | consumer |
//! | 264 | verified: messages ever verified | consumer |
//! | 272 | wanted: 1 + the last message that is wanted again | consumer |
//! | 280 | cached pace: what a large payload takes the consumer, 0 if not known | consumer |
//! | 288 | streamed pace: what one that was written past the caches takes it | consumer |
//! | 320 | withdrawn: how many messages had been sent when the producer gave up what was not verified | producer |
//! | 384 | heads, of 128 bytes each, message `n` at place `n % 128` | producer |
//! | then | copies: heads and payloads of messages that are buffered | producer |
//!
//! Positions count bytes and never wrap; `(position - base) % capacity` is the place. A frame starts at a
//! multiple of 64 and is contiguous: a prefix (kind u32, payload bytes u32, number u64, seal u64, copy u64) and
//! padding to 64, the payload, and padding to 64. A frame that would not fit before the end is put at the
//! start, after a prefix of kind `WRAP`. A frame of at most half the capacity therefore fits into an
//! empty ring, wherever its end is.
//!
//! A frame of kind `SHARED` has no payload: that lies in its sender's outbox (`outbox.rs`), and the last word of the prefix
//! is its place there.
//!
//! The payload of a frame of kind `STREAMED` or `SHARED_STREAMED` was written past the caches (`pace.rs` says when that is better): those
//! stores are over, by a fence, before the tail is stored.
//!
//! The producer keeps a payload until it is verified. If it can't (its operation failed), it says so in `withdrawn`
//! before the payload may change: a consumer that finds a message damaged looks there, and passes over one that is
//! withdrawn.
//!
//! The prefix of a message that is buffered says where its copy is, head and payload, which nobody reads unless the
//! message is damaged: then the consumer takes the copy. Its producer may do anything meanwhile, or end: such a
//! message is never asked for again, and never withdrawn.
//!
//! A producer that finds the ring empty may go back to its start: it makes its tail the base. So ranks that take
//! messages as fast as they come use the same few lines again and again, which stay in their caches; and ranks that
//! share cores, and have all read before one of them sends more, the same part of every ring.
//!
//! A head's last 8 bytes are its seal: a checksum of the rest of it, the payload's checksum included. A
//! consumer that knows what it expects computes the seal itself, and has verified head and payload when
//! the two are equal. So heads are read only when a message is not the expected one, and stay in the
//! producer's cache. Mail goes further: a small message lies in the line of the tail, and whoever saw the
//! tail move has it; a larger one goes on in the next line. Of one that is longer still the line has the mark, which is
//! the same for heads that differ in nothing but the payload's checksum: who expects such a message, and finds its tail
//! where that message must end, reads the payload without waiting for the lines of its prefix and its head.
//!
//! # Why it is sound
//! At any time each data byte belongs to one side, and only that side touches it.
//! - Bytes `tail..head + capacity` are the producer's. It writes frames there and then stores
//!   `tail` with Release; the consumer loads it with Acquire, so it sees the frames whole.
//! - Bytes `head..tail` are the consumer's, lent or not, and with a frame of them what it names in an outbox. It stores `head` with Release after the last
//!   lease up to there was dropped; the producer loads it with Acquire, so every read is over
//!   before a byte is written again. Leases may end in any order; `head` passes the first that is
//!   still held never.
//! - The base moves only while `head` is `tail`: both sides own nothing that a place was counted for. It is stored
//!   before the next tail, and can't move again before what that tail brings has been given back.
//! - The place of a head is the producer's while its message is verified or not sent: no more than 128
//!   messages are ever unverified. Else it is the consumer's.
//! - A copy is the producer's while its message is verified or not sent. Else it is the consumer's, which has read it
//!   out before the message counts as verified.
//! - Mail is words, not data: the consumer may read it while the producer writes the next. What it read
//!   counts only if its seal is the expected one, as of any message that may be damaged; if not, the
//!   message is read from its frame. Every message stores its seal, then its tail with Release, and the
//!   consumer loads the tail with Acquire before the seal: it never takes a later message's tail together
//!   with the seal of the expected one. The message's number is added to the seal there: what is expected
//!   may come after messages that are not.
//! - Any other frame that failed verification goes back for one rewrite: the consumer is done reading it,
//!   stores `wanted` with Release, and reads it again only after it loaded `resent` with Acquire,
//!   which the producer stored with Release after the rewrite. It is not lent meanwhile.
//!
//! This needs both sides to keep to the protocol. A side that is damaged or hostile can spoil the
//! values of payload bytes, and nothing else: everything read from shared memory is copied first and
//! checked after that (positions within what is possible, lengths within the ring), and leases are
//! counted in the consumer's own memory. What fails a check is a [`RingError`], never an access
//! out of bounds.

mod consumer;
mod lease;
mod outbox;
mod pace;
mod producer;

use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Release};

use thiserror::Error;

use super::shared::{Lines, SharedBytes};
use crate::{ReadSpan, WriteSpan};

pub use consumer::{Consumer, Look, Popped};
pub use lease::Lease;
pub use outbox::{Outbox, Share};
pub use pace::Way;
pub use producer::Producer;

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 128;

const CONTROL_BYTES: usize = COPIES + COPIES_BYTES;
/// The two lines of an even message, and behind them those of an odd one.
type Turn<'a> = Lines<'a, 2>;
const TURN_BYTES: usize = 2 * ALIGN;
const TAIL: usize = 0;
const RESENT: usize = 8;
const BASE: usize = TURN_BYTES + 8;
const MAIL_SEAL: usize = 16;
const MAIL: usize = 24;
const MAIL_WORDS: usize = 13;
/// The longest payload that is in the mail: a longer message has a mark.
pub const MAIL_BYTES: usize = MAIL_WORDS * 8;
/// In the mail's place, of longer ones: the kind of its frame, its mark, and where in an outbox it is.
const KIND: usize = MAIL;
const MARK: usize = MAIL + 8;
const PLACE: usize = MAIL + 16;
/// So much of the mail is in the line of the tail.
const FIRST_LINE_BYTES: usize = ALIGN - MAIL;
const HEAD: usize = 256;
const VERIFIED: usize = 264;
const WANTED: usize = 272;
const WITHDRAWN: usize = 320;
const CACHED_PACE: usize = 280;
const STREAMED_PACE: usize = 288;
const HEADS: usize = 384;
const COPIES: usize = HEADS + HEADS_KEPT * HEAD_BYTES;
/// For three of the largest.
const COPIES_BYTES: usize = if cfg!(all(test, loom)) { HEAD_BYTES + ALIGN } else { 64 * 1024 };

/// Whether both sides measure what this message takes them.
fn is_measured(number: u64, payload_bytes: usize) -> bool {
    payload_bytes >= MEASURED_BYTES_MIN
        || (payload_bytes >= STREAM_BYTES_MIN && number.is_multiple_of(MEASURED_EVERY))
}

/// So much of a ring stays as it is until it is touched: all that small messages need.
const LAZY_BYTES: usize = 32 * 1024;
/// So many bytes of it, or of an outbox, get their pages together after that.
const POPULATED_BYTES: usize = 64 * 1024;

/// Makes the pages of `memory` of which `needed` counts the bytes from `start` on, and some behind them, once for many
/// messages of which each would wait for its own: up to where they are made.
#[cold]
fn populate(memory: &SharedBytes, start: usize, needed: Range<usize>, capacity: usize) -> usize {
    let end = needed.end.next_multiple_of(POPULATED_BYTES).min(capacity);
    memory.populate(start + needed.start, end - needed.start);
    end
}

/// How many messages can be unverified.
pub const HEADS_KEPT: usize = 128;

const ALIGN: usize = 64;
/// Of the line before the payload.
const PREFIX_BYTES: usize = 32;
const PAYLOAD_AT: usize = ALIGN;
const CACHED: u32 = 0x4652_414d;
const WRAP: u32 = 0x5752_4150;
const STREAMED: u32 = 0x5354_524d;
const SHARED: u32 = 0x5348_4152;
const SHARED_STREAMED: u32 = 0x5353_4852;

/// Where a message's payload is, and how it came there.
#[derive(Clone, Copy, Debug)]
struct Payload {
    /// Among the ring's data, or in the sender's outbox.
    place: usize,
    bytes: usize,
    way: Way,
    is_shared: bool,
}

impl Payload {
    /// The kind of its frame.
    fn kind(self) -> u32 {
        match (self.is_shared, self.way) {
            (false, Way::Cached) => CACHED,
            (false, Way::Streamed) => STREAMED,
            (true, Way::Cached) => SHARED,
            (true, Way::Streamed) => SHARED_STREAMED,
        }
    }

    /// Bytes of its frame.
    fn frame_bytes(self) -> usize {
        frame_bytes(if self.is_shared { 0 } else { self.bytes })
    }
}

/// What a kind of frame says of its payload: the way, and whether it is shared.
fn of_kind(kind: u32) -> Option<(Way, bool)> {
    match kind {
        CACHED => Some((Way::Cached, false)),
        STREAMED => Some((Way::Streamed, false)),
        SHARED => Some((Way::Cached, true)),
        SHARED_STREAMED => Some((Way::Streamed, true)),
        _ => None,
    }
}

/// In place of where its copy is, of a message that has none.
const NO_COPY: u64 = u64::MAX;

/// The largest payload of which a producer leaves a copy: copying more costs more than waiting for the receiver.
pub const BUFFERED_BYTES_MAX: usize = 16 * 1024;

/// The smallest payload that may be written past the caches: of a smaller one the fence costs as much as is gained.
const STREAM_BYTES_MIN: usize = 2 * 1024;
/// From this size on every message is measured; of smaller ones, whose time two looks at the clock would show in, one
/// in so many is.
const MEASURED_BYTES_MIN: usize = 16 * 1024;
const MEASURED_EVERY: u64 = 8;

/// The smallest data capacity: two frames of one cache line of payload.
pub const CAPACITY_MIN: usize = 2 * frame_bytes(ALIGN);

/// Bytes that a frame with this payload takes.
pub const fn frame_bytes(payload_bytes: usize) -> usize {
    (PAYLOAD_AT + payload_bytes).next_multiple_of(ALIGN)
}

/// Bytes of a whole ring with this data capacity.
pub const fn ring_bytes(capacity: usize) -> usize {
    CONTROL_BYTES + capacity
}

/// The largest payload that always fits into an empty ring of this capacity.
pub const fn payload_bytes_max(capacity: usize) -> usize {
    capacity / 2 / ALIGN * ALIGN - PAYLOAD_AT
}

/// The other side wrote what it can't have written.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the ring's {what} is damaged: {detail}")]
pub struct RingError {
    /// Which of its words or frames.
    pub what: &'static str,
    /// What was expected and found.
    pub detail: String,
}

fn damaged(what: &'static str, detail: String) -> RingError {
    RingError { what, detail }
}

/// A ring of its own on the heap, for two threads of this process.
pub fn pair(capacity: usize) -> (Producer, Consumer) {
    let memory = SharedBytes::zeroed(ring_bytes(capacity));
    // SAFETY: the memory is fresh and goes to these two only.
    unsafe { (Producer::new(memory.clone()), Consumer::new(memory, None)) }
}

#[derive(Clone)]
struct Ring {
    memory: SharedBytes,
    capacity: usize,
    /// The producer's outbox, where the consumer can read it.
    outbox: Option<SharedBytes>,
}

impl Ring {
    fn new(memory: SharedBytes, outbox: Option<SharedBytes>) -> Ring {
        let capacity = memory.len() - CONTROL_BYTES;
        assert!(capacity >= CAPACITY_MIN && capacity.is_multiple_of(ALIGN), "{capacity} bytes are no ring");
        Ring { memory, capacity, outbox }
    }

    fn load(&self, word: usize) -> u64 {
        self.memory.word(word).load(Acquire)
    }

    fn store(&self, word: usize, value: u64) {
        self.memory.word(word).store(value, Release);
    }

    /// The place of a position among the data, which is at the base or after it.
    fn place(&self, base: u64, position: u64) -> usize {
        let (offset, capacity) = (position - base, self.capacity as u64);
        // A division takes longer than the rest of a small message.
        (if offset < capacity { offset } else { offset % capacity }) as usize
    }

    /// The data `place..place + len`, to read.
    ///
    /// # Safety
    /// As [`SharedBytes::reading`].
    unsafe fn reading(&self, place: usize, len: usize) -> ReadSpan<'_> {
        // SAFETY: the caller's promise; the control words lie before, and nothing behind.
        unsafe { self.memory.reading(CONTROL_BYTES.saturating_add(place), len) }
    }

    /// A payload that is inside, to read.
    ///
    /// # Safety
    /// As [`SharedBytes::reading`].
    #[inline]
    unsafe fn payload(&self, payload: Payload) -> ReadSpan<'_> {
        match &self.outbox {
            // SAFETY: the caller's promise.
            Some(outbox) if payload.is_shared => unsafe { outbox.reading(payload.place, payload.bytes) },
            // SAFETY: as above.
            _ => unsafe { self.reading(payload.place, payload.bytes) },
        }
    }

    /// Whether a shared payload is inside the outbox.
    fn is_in_outbox(&self, place: usize, bytes: usize) -> bool {
        let end = place.checked_add(bytes);
        self.outbox.as_ref().is_some_and(|outbox| end.is_some_and(|end| end <= outbox.len()))
    }

    /// The data `place..place + len`, to write.
    ///
    /// # Safety
    /// As [`SharedBytes::writing`].
    unsafe fn writing(&self, place: usize, len: usize) -> WriteSpan<'_> {
        // SAFETY: as for `reading`.
        unsafe { self.memory.writing(CONTROL_BYTES.saturating_add(place), len) }
    }

    /// Where the head of a message is.
    fn head_at(number: u64) -> usize {
        HEADS + (number % HEADS_KEPT as u64) as usize * HEAD_BYTES
    }

    /// The words that even and odd messages have in turn.
    #[inline]
    fn in_turn(&self, number: u64) -> Turn<'_> {
        self.memory.lines((number % 2) as usize * TURN_BYTES)
    }

    /// Bytes ever produced.
    fn tail(&self) -> u64 {
        self.in_turn(0).word(TAIL).load(Acquire).max(self.in_turn(1).word(TAIL).load(Acquire))
    }
}

#[cfg(test)]
mod expected_tests;
#[cfg(test)]
mod outbox_tests;
#[cfg(test)]
mod tests;

/// The offsets of a ring's words, for a model.
#[cfg(all(test, loom))]
pub(super) fn modelled_words() -> impl Iterator<Item = usize> {
    let in_turn = (0..MAIL_WORDS + 3).flat_map(|word| [TAIL + word * 8, TAIL + TURN_BYTES + word * 8]);
    [BASE, HEAD, VERIFIED, WANTED, CACHED_PACE, STREAMED_PACE, WITHDRAWN].into_iter().chain(in_turn)
}

/// The seal of message `number` as it stands beside the tail: no other message's is equal, not even of one whose
/// head and payload are, so that nothing before the expected message is passed over.
fn mailed(seal: u64, number: u64) -> u64 {
    seal.wrapping_add(number)
}

/// The seal of a head: its last 8 bytes.
pub(super) fn seal_of(head: &[u8; HEAD_BYTES]) -> u64 {
    let (_, seal) = head.split_last_chunk().expect("a head is longer than its seal");
    u64::from_le_bytes(*seal)
}
