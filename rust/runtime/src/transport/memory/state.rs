//! What the ranks of a memory group share: its links, who left, and whether all is over.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use isobit_core::Rank;
use isobit_core::wire::{Channel, HEADER_BYTES, Header};
use isobit_sys::ReadSpan;
use isobit_sys::os::checksum;

use super::MemoryOptions;
use crate::transport::{Break, Frame, Lent, MessageNumber, TransportError};

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// One a rank.
    pub(super) bells: Vec<Condvar>,
    pub(super) world_size: u32,
    pub(super) group: u64,
    pub(super) incarnations: Vec<u64>,
    pub(super) options: MemoryOptions,
}

pub(super) struct State {
    /// By [`Shared::link`].
    pub(super) links: Vec<Link>,
    /// By rank: how often something changed that it may wait for.
    pub(super) changes: Vec<u64>,
    /// By rank: why it left.
    pub(super) closed: Vec<Option<String>>,
    pub(super) abort: Option<(Rank, Vec<u8>)>,
    pub(super) breaks: Breaks,
}

/// Of how many epochs it is known where they broke.
const EPOCHS_KEPT: usize = 64;

/// Where the latest epochs broke, the earliest operation of each.
#[derive(Default)]
pub(super) struct Breaks(VecDeque<Break>);

impl Breaks {
    /// The break of `epoch`; the oldest known of one that is forgotten.
    pub(super) fn of(&self, epoch: u32) -> Option<&Break> {
        self.0.iter().find(|known| known.epoch >= epoch)
    }

    pub(super) fn note(&mut self, found: Break) {
        match self.0.iter_mut().find(|known| known.epoch == found.epoch) {
            Some(known) => *known = found,
            None => self.0.push_back(found),
        }
        if self.0.len() > EPOCHS_KEPT {
            self.0.pop_front();
        }
    }
}

/// One direction of one channel of one pair.
#[derive(Default)]
pub(super) struct Link {
    pub(super) queue: VecDeque<Message>,
    /// The answer to `wanted`.
    pub(super) resent: Option<Message>,
    pub(super) wanted: Option<MessageNumber>,
    /// Bytes queued or lent.
    pub(super) used: usize,
    pub(super) sent: u64,
    pub(super) verified: u64,
    /// How many were sent before the sender gave up those that were not verified.
    pub(super) withdrawn: u64,
}

impl Link {
    /// Notes that a message is damaged: whether it was asked for again, which is of no use if it was withdrawn.
    pub(super) fn ask_again(&mut self, number: MessageNumber) -> bool {
        let is_there = number >= self.withdrawn;
        self.wanted = is_there.then_some(number);
        self.verified += u64::from(!is_there);
        is_there
    }
}

pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) number: MessageNumber,
}

impl Message {
    pub(super) fn cost(payload_bytes: usize) -> usize {
        HEADER_BYTES + payload_bytes
    }

    pub(super) fn is_intact(&self) -> bool {
        checksum::of(ReadSpan::from(&self.payload[..])) == self.header.payload_checksum
    }
}

impl Shared {
    pub(super) fn link(&self, from: Rank, to: Rank, channel: Channel) -> usize {
        (from as usize * self.world_size as usize + to as usize) * 2 + channel as usize
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the state half changed, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self, state: &mut State, rank: Rank) {
        state.changes[rank as usize] += 1;
        self.bells[rank as usize].notify_all();
    }

    pub(super) fn ring_all(&self, state: &mut State) {
        for rank in 0..self.world_size {
            self.ring(state, rank);
        }
    }
}

impl State {
    pub(super) fn check_abort(&self) -> Result<(), TransportError> {
        match &self.abort {
            Some((rank, reason)) => Err(TransportError::Aborted { rank: *rank, reason: reason.clone() }),
            None => Ok(()),
        }
    }

    pub(super) fn check_peer(&self, rank: Rank) -> Result<(), TransportError> {
        match &self.closed[rank as usize] {
            Some(reason) => Err(TransportError::PeerLost { rank, reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// A message lent by a [`MemoryTransport`].
pub struct MemoryFrame {
    pub(super) message: Message,
    pub(super) link: usize,
    pub(super) from: Rank,
    pub(super) shared: Arc<Shared>,
}

impl Frame for MemoryFrame {
    fn header(&self) -> &Header {
        &self.message.header
    }
}

impl Lent for MemoryFrame {
    fn payload(&self) -> ReadSpan<'_> {
        ReadSpan::from(&self.message.payload[..])
    }
}

impl Drop for MemoryFrame {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.links[self.link].used -= Message::cost(self.message.payload.len());
        self.shared.ring(&mut state, self.from);
    }
}
