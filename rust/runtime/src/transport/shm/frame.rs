//! A message that lies in a ring, lent, and what it needs to give its room back.

use std::sync::Arc;

use isobit_core::Rank;
use isobit_core::wire::Header;
use isobit_sys::ReadSpan;
use isobit_sys::os::board::Board;
use isobit_sys::os::ring::Lease;
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

/// A message: it lies in the ring of a peer until this is dropped.
pub struct ShmFrame {
    pub(super) header: Box<Header>,
    /// Always there, but for the time of the drop.
    pub(super) lease: Option<Lease>,
    pub(super) from: Rank,
    pub(super) shared: Arc<Shared>,
}

impl Frame for ShmFrame {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Lent for ShmFrame {
    fn payload(&self) -> ReadSpan<'_> {
        self.lease.as_ref().expect("lent until the drop").payload()
    }
}

impl Drop for ShmFrame {
    fn drop(&mut self) {
        // The room first, then the word that there is room.
        self.lease = None;
        self.shared.notify(self.from);
    }
}
