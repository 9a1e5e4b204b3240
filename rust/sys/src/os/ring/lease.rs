//! What the consumer hands out: payloads, lent where they lie or copied if they are small.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use super::{HEAD, MAIL_WORDS, PAYLOAD_AT, Ring};
use crate::ReadSpan;
use crate::os::sync::Mutex;

/// Which frames are lent, in the consumer's own memory.
pub(super) struct Leases {
    /// From the oldest on: where each frame ends, and whether its lease is over.
    pub(super) queue: VecDeque<(u64, bool)>,
    /// The number of the oldest.
    pub(super) first: u64,
    /// Memory of payloads that were not lent in the ring.
    pub(super) spare: Vec<Vec<u8>>,
}

/// The payload of a small message.
#[derive(Clone, Copy, Debug)]
pub struct Small {
    pub(super) words: [u64; MAIL_WORDS],
    pub(super) len: usize,
}

impl Small {
    /// The payload.
    #[inline]
    pub fn payload(&self) -> ReadSpan<'_> {
        ReadSpan::of_words(&self.words, self.len)
    }
}

/// A message's payload, lent until this is dropped.
pub struct Lease {
    pub(super) ring: Ring,
    pub(super) leases: Arc<Mutex<Leases>>,
    pub(super) number: u64,
    pub(super) place: usize,
    pub(super) payload_bytes: usize,
    /// The payload, if it is not in the ring.
    pub(super) fetched: Option<Vec<u8>>,
}

impl Lease {
    /// The payload.
    #[inline]
    pub fn payload(&self) -> ReadSpan<'_> {
        match &self.fetched {
            Some(bytes) => ReadSpan::from(&bytes[..]),
            // SAFETY: the frame stays the consumer's until `head` passes it, which this lease prevents,
            // and no one else writes it.
            None => unsafe { self.ring.reading(self.place + PAYLOAD_AT, self.payload_bytes) },
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.spare.extend(self.fetched.take());
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
