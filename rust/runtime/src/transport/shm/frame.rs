//! A message that lies in a ring, lent, and what it needs to give its room back.

use std::sync::Arc;

use isobit_core::Rank;
use isobit_core::wire::Header;
use isobit_sys::ReadSpan;
use isobit_sys::os::board::Board;
use isobit_sys::os::ring::{Lease, Small};
use isobit_sys::os::wake::Bell;

use crate::transport::{Frame, Lent};

/// What frames need after their transport is gone.
pub(super) struct Shared {
    pub(super) board: Board,
    pub(super) bells: Vec<Bell>,
}

impl Shared {
    pub(super) fn notify(&self, rank: Rank) {
        if self.board.notify(rank) {
            self.bells[rank as usize].ring();
        }
    }

    pub(super) fn notify_all(&self) {
        for rank in 0..self.board.world_size() {
            self.notify(rank);
        }
    }
}

/// A message: it lies in a ring until this is dropped, unless it is small.
pub struct ShmFrame {
    pub(super) header: Box<Header>,
    pub(super) payload: ShmPayload,
}

/// A payload: it lies in a ring until this is dropped, unless it is small.
pub struct ShmPayload(pub(super) Place);

/// Where a message's payload is.
pub(super) enum Place {
    /// In this process, copied.
    Here(Small),
    /// In the ring of a peer, lent. The lease is always there, but for the time of the drop.
    Ring { lease: Option<Lease>, from: Rank, shared: Arc<Shared> },
}

impl Frame for ShmFrame {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Lent for ShmFrame {
    fn payload(&self) -> ReadSpan<'_> {
        self.payload.payload()
    }
}

impl Lent for ShmPayload {
    fn payload(&self) -> ReadSpan<'_> {
        match &self.0 {
            Place::Here(small) => small.payload(),
            Place::Ring { lease, .. } => lease.as_ref().expect("lent until the drop").payload(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The room first, then the word that there is room.
        if let Place::Ring { lease, from, shared } = self {
            *lease = None;
            shared.notify(*from);
        }
    }
}
