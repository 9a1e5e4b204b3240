//! The side of the ring that sends: it lays frames out, and lays one out again that arrived damaged.

use std::collections::VecDeque;

use super::{
    ALIGN, FRAME, HEAD, HEAD_BYTES, PAYLOAD_AT, PREFIX_BYTES, RESENT, Ring, RingError, TAIL, VERIFIED,
    WANTED, WRAP, damaged, frame_bytes, payload_bytes_max,
};
use crate::ReadSpan;
use crate::os::checksum;
use crate::os::shared::SharedBytes;

/// The side that sends.
pub struct Producer {
    pub(super) ring: Ring,
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
        let sum = checksum::copy(payload, unsafe { self.ring.writing(place + PAYLOAD_AT, payload.len()) });
        self.write(place + PREFIX_BYTES, &head(sum));
        self.write_prefix(place, FRAME, payload.len() as u32, number);
    }

    pub(super) fn write(&self, place: usize, bytes: &[u8]) {
        // SAFETY: called for bytes that are the producer's, by `try_push` and `resend` only.
        let target = unsafe { self.ring.writing(place, bytes.len()) };
        // SAFETY: both are `bytes.len()` bytes long, and `bytes` is on this thread's stack.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) }
    }
}
