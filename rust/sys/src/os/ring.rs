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

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use super::checksum;
use super::shared::SharedBytes;
use crate::{ReadSpan, WriteSpan};

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

    /// The data `place..place + len`.
    ///
    /// # Safety
    /// As [`SharedBytes::span`].
    unsafe fn data(&self, place: usize, len: usize) -> WriteSpan<'_> {
        assert!(place <= self.capacity && len <= self.capacity - place, "inside the ring");
        // SAFETY: the caller's promise; the control words lie before.
        unsafe { self.memory.span(CONTROL_BYTES + place, len) }
    }
}

/// The side that sends.
pub struct Producer {
    ring: Ring,
    tail: u64,
    /// The last `head` seen.
    head: u64,
    /// The last `verified` seen.
    verified: u64,
    resent: u64,
    /// Messages that may be wanted again, oldest first; the last has number `sent - 1`.
    kept: VecDeque<Kept>,
    sent: u64,
}

struct Kept {
    place: usize,
    payload_bytes: usize,
}

impl Producer {
    /// The producer of the ring in `memory`.
    ///
    /// # Safety
    /// `memory` is all zero except for what its consumer wrote, is a ring and nothing else, and has no
    /// other producer.
    pub(crate) unsafe fn new(memory: SharedBytes) -> Producer {
        let ring = Ring::new(memory);
        Producer { ring, tail: 0, head: 0, verified: 0, resent: 0, kept: VecDeque::new(), sent: 0 }
    }

    /// Sends a message if there is room: its number. `head` gets the checksum of the payload, which
    /// is computed in the same pass as its copy.
    pub fn try_push(
        &mut self,
        payload: ReadSpan<'_>,
        head: impl FnOnce(u64) -> [u8; HEAD_BYTES],
    ) -> Result<Option<u64>, RingError> {
        let capacity = self.ring.capacity;
        assert!(payload.len() <= payload_bytes_max(capacity), "a payload that always fits");
        let frame = frame_bytes(payload.len());
        let place = self.ring.place(self.tail);
        let wraps = frame > capacity - place;
        let needed = if wraps { capacity - place + frame } else { frame };
        if !self.has_room(needed)? {
            return Ok(None);
        }
        let place = if wraps {
            self.write_prefix(place, WRAP, 0, 0);
            0
        } else {
            place
        };
        self.write_frame(place, self.sent, payload, head);
        self.kept.push_back(Kept { place, payload_bytes: payload.len() });
        self.sent += 1;
        self.tail += needed as u64;
        self.ring.store(TAIL, self.tail);
        Ok(Some(self.sent - 1))
    }

    /// How many messages the consumer has verified.
    pub fn verified(&mut self) -> Result<u64, RingError> {
        let found = self.ring.load(VERIFIED);
        if found < self.verified || found > self.sent {
            let detail = format!("{found} messages where {} to {} are possible", self.verified, self.sent);
            return Err(damaged("count of verified messages", detail));
        }
        for _ in self.verified..found {
            self.kept.pop_front();
        }
        self.verified = found;
        Ok(found)
    }

    /// How many messages were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The message that the consumer wants once more.
    pub fn resend_wanted(&mut self) -> Result<Option<u64>, RingError> {
        let wanted = self.ring.load(WANTED);
        if wanted == self.resent {
            return Ok(None);
        }
        // Only the first that is not verified can have been found damaged.
        let first = self.verified()?;
        if wanted != first + 1 || first == self.sent {
            let detail = format!("message {} where only {first} can be", wanted.wrapping_sub(1));
            return Err(damaged("wish for a message", detail));
        }
        Ok(Some(first))
    }

    /// Sends that message again; panics if `number` is not the one, or has another length.
    pub fn resend(
        &mut self,
        number: u64,
        payload: ReadSpan<'_>,
        head: impl FnOnce(u64) -> [u8; HEAD_BYTES],
    ) -> Result<(), RingError> {
        assert_eq!(self.resend_wanted()?, Some(number), "only a message that is wanted is sent again");
        let kept = self.kept.front().expect("what is not verified is kept");
        assert_eq!(payload.len(), kept.payload_bytes, "the same message is sent again");
        self.write_frame(kept.place, number, payload, head);
        self.resent = number + 1;
        self.ring.store(RESENT, self.resent);
        Ok(())
    }

    fn has_room(&mut self, needed: usize) -> Result<bool, RingError> {
        let room = |head: u64| self.ring.capacity as u64 - (self.tail - head) >= needed as u64;
        if room(self.head) {
            return Ok(true);
        }
        let found = self.ring.load(HEAD);
        if found < self.head || found > self.tail || !found.is_multiple_of(ALIGN as u64) {
            let detail = format!("{found} where {} to {} are possible", self.head, self.tail);
            return Err(damaged("head", detail));
        }
        self.head = found;
        Ok(room(found))
    }

    fn write_prefix(&self, place: usize, kind: u32, payload_bytes: u32, number: u64) {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[0..4].copy_from_slice(&kind.to_le_bytes());
        prefix[4..8].copy_from_slice(&payload_bytes.to_le_bytes());
        prefix[8..16].copy_from_slice(&number.to_le_bytes());
        self.write(place, &prefix);
    }

    fn write_frame(
        &self,
        place: usize,
        number: u64,
        payload: ReadSpan<'_>,
        head: impl FnOnce(u64) -> [u8; HEAD_BYTES],
    ) {
        // SAFETY: the frame is the producer's, between `tail` and `head + capacity` or handed back
        // by `wanted`, and this thread has no other span over it.
        let sum = checksum::copy(payload, unsafe { self.ring.data(place + PAYLOAD_AT, payload.len()) });
        self.write(place + PREFIX_BYTES, &head(sum));
        self.write_prefix(place, FRAME, payload.len() as u32, number);
    }

    fn write(&self, place: usize, bytes: &[u8]) {
        // SAFETY: called for bytes that are the producer's, by `try_push` and `resend` only.
        let target = unsafe { self.ring.data(place, bytes.len()) };
        // SAFETY: both are `bytes.len()` bytes long, and `bytes` is on this thread's stack.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) }
    }
}

/// The side that receives.
pub struct Consumer {
    ring: Ring,
    /// Where the next frame starts.
    next: u64,
    /// The next message's number.
    number: u64,
    /// Whether that message was found damaged once.
    asked: bool,
    leases: Arc<Mutex<Leases>>,
}

/// Which frames are lent, in the consumer's own memory.
struct Leases {
    /// From the oldest on: where each frame ends, and whether its lease is over.
    queue: VecDeque<(u64, bool)>,
    /// The number of the oldest.
    first: u64,
}

/// What was found at the ring's end.
#[derive(Debug)]
pub enum Popped<T, E> {
    /// Nothing, for now.
    Empty,
    /// A message that passed the check, with what the check made of it.
    Frame(T, Lease),
    /// A message that did not pass; it has been asked for again.
    Damaged,
    /// A message that did not pass a second time: its number, and why. Every later call finds it again.
    DamagedTwice(u64, E),
}

impl Consumer {
    /// The consumer of the ring in `memory`.
    ///
    /// # Safety
    /// `memory` is all zero except for what its producer wrote, is a ring and nothing else, and has no
    /// other consumer.
    pub(crate) unsafe fn new(memory: SharedBytes) -> Consumer {
        let leases = Leases { queue: VecDeque::new(), first: 0 };
        let leases = Arc::new(Mutex::new(leases));
        Consumer { ring: Ring::new(memory), next: 0, number: 0, asked: false, leases }
    }

    /// The next message, if it is there. `check` gets its head, its payload's length and the
    /// checksum of the payload as it lies in the ring.
    pub fn try_pop<T, E>(
        &mut self,
        check: impl FnOnce(&[u8; HEAD_BYTES], usize, u64) -> Result<T, E>,
    ) -> Result<Popped<T, E>, RingError> {
        let again = self.asked;
        if again && self.ring.load(RESENT) != self.number + 1 {
            return Ok(Popped::Empty);
        }
        let Some((place, payload_bytes, end)) = self.find()? else {
            return Ok(Popped::Empty);
        };
        let mut head = [0; HEAD_BYTES];
        self.read(place + PREFIX_BYTES, &mut head);
        // SAFETY: the frame lies between `head` and `tail`: it is the consumer's, and only read.
        let payload = unsafe { self.ring.data(place + PAYLOAD_AT, payload_bytes) };
        match check(&head, payload_bytes, checksum::of(ReadSpan::from(payload))) {
            Ok(checked) => {
                let lease = self.lend(place, payload_bytes, end);
                Ok(Popped::Frame(checked, lease))
            }
            Err(error) if again => Ok(Popped::DamagedTwice(self.number, error)),
            Err(_) => {
                self.asked = true;
                self.ring.store(WANTED, self.number + 1);
                Ok(Popped::Damaged)
            }
        }
    }

    /// The next frame's place, payload length and end.
    fn find(&self) -> Result<Option<(usize, usize, u64)>, RingError> {
        let tail = self.ring.load(TAIL);
        let capacity = self.ring.capacity;
        let freed = self.ring.memory.word(HEAD).load(Relaxed);
        if tail < self.next || tail - freed.min(tail) > capacity as u64 || !tail.is_multiple_of(ALIGN as u64)
        {
            let detail = format!("{tail} where {} to {} are possible", self.next, freed + capacity as u64);
            return Err(damaged("tail", detail));
        }
        if tail == self.next {
            return Ok(None);
        }
        let (mut start, mut place) = (self.next, self.ring.place(self.next));
        let (mut kind, mut payload_bytes, mut number) = self.read_prefix(place);
        if kind == WRAP {
            start += (capacity - place) as u64;
            place = 0;
            if start >= tail {
                return Err(damaged("frame", format!("nothing follows the wrap at {}", self.next)));
            }
            (kind, payload_bytes, number) = self.read_prefix(place);
        }
        let left = ((tail - start) as usize).min(capacity - place);
        let fits = payload_bytes <= payload_bytes_max(capacity) && frame_bytes(payload_bytes) <= left;
        if kind != FRAME || number != self.number || !fits {
            let detail = format!(
                "kind {kind:08x}, message {number} of {payload_bytes} bytes where message {} of at most {left} can be",
                self.number
            );
            return Err(damaged("frame", detail));
        }
        Ok(Some((place, payload_bytes, start + frame_bytes(payload_bytes) as u64)))
    }

    fn read_prefix(&self, place: usize) -> (u32, usize, u64) {
        let mut prefix = [0; 16];
        self.read(place, &mut prefix);
        let word = |at: usize| u32::from_le_bytes(prefix[at..at + 4].try_into().expect("four bytes"));
        (word(0), word(4) as usize, u64::from_le_bytes(prefix[8..].try_into().expect("eight bytes")))
    }

    fn read(&self, place: usize, bytes: &mut [u8]) {
        // SAFETY: called for bytes between `head` and `tail`, which are the consumer's.
        let source = unsafe { self.ring.data(place, bytes.len()) };
        // SAFETY: both are `bytes.len()` bytes long, and `bytes` is on this thread's stack.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), bytes.as_mut_ptr(), bytes.len()) }
    }

    fn lend(&mut self, place: usize, payload_bytes: usize, end: u64) -> Lease {
        let number = self.number;
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).queue.push_back((end, false));
        self.asked = false;
        self.next = end;
        self.number += 1;
        self.ring.store(VERIFIED, self.number);
        Lease { ring: self.ring.clone(), leases: Arc::clone(&self.leases), number, place, payload_bytes }
    }
}

/// A message's payload, lent until this is dropped.
pub struct Lease {
    ring: Ring,
    leases: Arc<Mutex<Leases>>,
    number: u64,
    place: usize,
    payload_bytes: usize,
}

impl Lease {
    /// The payload.
    pub fn payload(&self) -> ReadSpan<'_> {
        // SAFETY: the frame stays the consumer's until `head` passes it, which this lease prevents,
        // and no one else writes it.
        unsafe { self.ring.data(self.place + PAYLOAD_AT, self.payload_bytes) }.into()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let index = (self.number - leases.first) as usize;
        leases.queue[index].1 = true;
        let mut freed = None;
        while let Some((end, true)) = leases.queue.front().copied() {
            leases.queue.pop_front();
            leases.first += 1;
            freed = Some(end);
        }
        if let Some(end) = freed {
            self.ring.store(HEAD, end);
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message {} of {} bytes", self.number, self.payload_bytes)
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
