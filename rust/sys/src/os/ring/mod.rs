//! A byte ring in shared memory: one producer, one consumer, frames that are lent in place.
//!
//! # Layout
//! A ring is 256 bytes of control and then `capacity` bytes of data, a multiple of 64.
//!
//! | offset | word | written by |
//! |---|---|---|
//! | 0 | tail: bytes ever produced | producer |
//! | 8 | resent: 1 + the last message that was sent again | producer |
//! | 128 | head: bytes ever given back | consumer |
//! | 136 | verified: messages ever verified | consumer |
//! | 144 | wanted: 1 + the last message that is wanted again | consumer |
//!
//! Positions count bytes and never wrap; `position % capacity` is the place. A frame starts at a
//! multiple of 64 and is contiguous: a 64-byte prefix (kind u32, payload bytes u32, number u64),
//! a head of 128 bytes that the ring does not read, the payload, and padding to 64. A frame that
//! would not fit before the end is put at the start, after a prefix of kind `WRAP`. A frame of at
//! most half the capacity therefore fits into an empty ring, wherever its end is.
//!
//! # Why it is sound
//! At any time each data byte belongs to one side, and only that side touches it.
//! - Bytes `tail..head + capacity` are the producer's. It writes frames there and then stores
//!   `tail` with Release; the consumer loads it with Acquire, so it sees the frames whole.
//! - Bytes `head..tail` are the consumer's, lent or not. It stores `head` with Release after the last
//!   lease up to there was dropped; the producer loads it with Acquire, so every read is over
//!   before a byte is written again. Leases may end in any order; `head` passes the first that is
//!   still held never.
//! - A frame that failed verification goes back for one rewrite: the consumer is done reading it,
//!   stores `wanted` with Release, and reads it again only after it loaded `resent` with Acquire,
//!   which the producer stored with Release after the rewrite. It is not lent meanwhile.
//!
//! This needs both sides to keep to the protocol. A side that is damaged or hostile can spoil the
//! values of payload bytes, and nothing else: everything read from shared memory is copied first and
//! checked after that (positions within what is possible, lengths within the ring), and leases are
//! counted in the consumer's own memory. What fails a check is a [`RingError`], never an access
//! out of bounds.

mod consumer;
mod producer;

use std::sync::atomic::Ordering::{Acquire, Release};

use thiserror::Error;

use super::shared::SharedBytes;
use crate::{ReadSpan, WriteSpan};

pub use consumer::{Consumer, Lease, Popped};
pub use producer::Producer;

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 128;

const CONTROL_BYTES: usize = 256;
const TAIL: usize = 0;
const RESENT: usize = 8;
const HEAD: usize = 128;
const VERIFIED: usize = 136;
const WANTED: usize = 144;

const ALIGN: usize = 64;
const PREFIX_BYTES: usize = 64;
const PAYLOAD_AT: usize = PREFIX_BYTES + HEAD_BYTES;
const FRAME: u32 = 0x4652_414d;
const WRAP: u32 = 0x5752_4150;

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
    unsafe { (Producer::new(memory.clone()), Consumer::new(memory)) }
}

#[derive(Clone)]
struct Ring {
    memory: SharedBytes,
    capacity: usize,
}

impl Ring {
    fn new(memory: SharedBytes) -> Ring {
        let capacity = memory.len() - CONTROL_BYTES;
        assert!(capacity >= CAPACITY_MIN && capacity.is_multiple_of(ALIGN), "{capacity} bytes are no ring");
        Ring { memory, capacity }
    }

    fn load(&self, word: usize) -> u64 {
        self.memory.word(word).load(Acquire)
    }

    fn store(&self, word: usize, value: u64) {
        self.memory.word(word).store(value, Release);
    }

    /// The place of a position among the data.
    fn place(&self, position: u64) -> usize {
        (position % self.capacity as u64) as usize
    }

    /// The data `place..place + len`, to read.
    ///
    /// # Safety
    /// As [`SharedBytes::reading`].
    unsafe fn reading(&self, place: usize, len: usize) -> ReadSpan<'_> {
        self.check(place, len);
        // SAFETY: the caller's promise; the control words lie before.
        unsafe { self.memory.reading(CONTROL_BYTES + place, len) }
    }

    /// The data `place..place + len`, to write.
    ///
    /// # Safety
    /// As [`SharedBytes::writing`].
    unsafe fn writing(&self, place: usize, len: usize) -> WriteSpan<'_> {
        self.check(place, len);
        // SAFETY: the caller's promise; the control words lie before.
        unsafe { self.memory.writing(CONTROL_BYTES + place, len) }
    }

    fn check(&self, place: usize, len: usize) {
        assert!(place <= self.capacity && len <= self.capacity - place, "inside the ring");
    }
}

#[cfg(test)]
mod tests;

/// The offsets of a ring's words, for a model.
#[cfg(all(test, loom))]
pub(super) fn modelled_words() -> [usize; 5] {
    [TAIL, RESENT, HEAD, VERIFIED, WANTED]
}
