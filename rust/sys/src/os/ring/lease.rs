//! What the consumer hands out: payloads, lent where they lie.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, PoisonError};

use super::{HEAD, Payload, Ring};
use crate::ReadSpan;
use crate::os::sync::{AtomicU64, Mutex, MutexGuard};

/// Which frames are lent, in the consumer's own memory.
pub(super) struct Leases {
    /// How many frames wait for a lease. It is 0 only after `head` has passed all of them; the consumer alone adds.
    held: AtomicU64,
    queue: Mutex<Queue>,
}

struct Queue {
    /// From the oldest on: where each frame ends, and whether its lease is over.
    frames: VecDeque<(u64, bool)>,
    /// The number of the oldest.
    first: u64,
}

impl Leases {
    pub(super) fn new() -> Leases {
        let queue = Queue { frames: VecDeque::new(), first: 0 };
        Leases { held: AtomicU64::new(0), queue: Mutex::new(queue) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds message `number`, whose frame ends there and which is lent.
    pub(super) fn lend(&self, number: u64, end: u64) {
        let mut queue = self.queue();
        if queue.frames.is_empty() {
            queue.first = number;
        }
        queue.frames.push_back((end, false));
        self.held.fetch_add(1, Relaxed);
    }

    /// Gives a frame back that is not lent: at once, or when all before it are given back.
    #[inline]
    pub(super) fn pass(&self, ring: &Ring, end: u64) {
        if self.held.load(Acquire) > 0 {
            self.pass_behind(ring, end);
        } else {
            ring.store(HEAD, end);
        }
    }

    /// The same behind a lease, if that is not over by now.
    #[cold]
    fn pass_behind(&self, ring: &Ring, end: u64) {
        let mut queue = self.queue();
        if queue.frames.is_empty() {
            ring.store(HEAD, end);
            return;
        }
        queue.frames.push_back((end, true));
        self.held.fetch_add(1, Relaxed);
    }

    /// Ends the lease of message `number`.
    fn end(&self, ring: &Ring, number: u64) {
        let mut queue = self.queue();
        let index = (number - queue.first) as usize;
        queue.frames[index].1 = true;
        let mut freed = None;
        while let Some((end, true)) = queue.frames.front().copied() {
            queue.frames.pop_front();
            queue.first += 1;
            freed = Some(end);
        }
        if let Some(end) = freed {
            ring.store(HEAD, end);
            self.held.store(queue.frames.len() as u64, Release);
        }
    }
}

/// A message's payload, lent until this is dropped.
pub struct Lease {
    pub(super) ring: Ring,
    pub(super) leases: Arc<Leases>,
    pub(super) number: u64,
    pub(super) payload: Payload,
    /// The payload, if it is that of a message's copy.
    pub(super) copied: Option<Vec<u8>>,
}

impl Lease {
    /// The payload.
    #[inline]
    pub fn payload(&self) -> ReadSpan<'_> {
        match &self.copied {
            Some(bytes) => ReadSpan::from(&bytes[..]),
            // SAFETY: the frame, and what it names in an outbox, stays the consumer's until `head` passes it, which
            // this lease prevents, and no one else writes it.
            None => unsafe { self.ring.payload(self.payload) },
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.end(&self.ring, self.number);
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message {} of {} bytes", self.number, self.payload.bytes)
    }
}
