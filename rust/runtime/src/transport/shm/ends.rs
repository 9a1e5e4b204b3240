//! What ends a rank's messages: an abort, or the loss of a peer. Whether there is one is asked for every message,
//! why only then.

use isobit_core::Rank;

use super::endpoint::ShmTransport;
use crate::transport::TransportError;

impl ShmTransport {
    #[inline]
    pub(super) fn check_abort(&self) -> Result<(), TransportError> {
        if self.shared.board.has_aborted() { self.read_abort() } else { Ok(()) }
    }

    #[cold]
    fn read_abort(&self) -> Result<(), TransportError> {
        match self.shared.board.aborted() {
            Some((rank, reason)) => Err(TransportError::Aborted { rank, reason }),
            None => Ok(()),
        }
    }

    /// Whether a peer will never say anything more; what it had said before is in its rings.
    #[inline]
    pub(super) fn lost(&self, rank: Rank) -> Option<TransportError> {
        self.is_lost(rank).then(|| self.loss(rank))
    }

    #[inline]
    fn is_lost(&self, rank: Rank) -> bool {
        self.ended[rank as usize] || self.shared.board.has_closed(rank)
    }

    #[cold]
    fn loss(&self, rank: Rank) -> TransportError {
        let reason = self.shared.board.closed(rank).unwrap_or_else(|| {
            let process = self.shared.board.process(rank);
            format!("its process ({process}) ended without a goodbye; see its output and exit status")
        });
        TransportError::PeerLost { rank, reason }
    }

    /// Whether this rank may send to a peer.
    #[inline(always)]
    pub(super) fn check(&self, to: Rank) -> Result<(), TransportError> {
        if self.shared.board.has_aborted() || self.is_lost(to) { self.read_why_not(to) } else { Ok(()) }
    }

    #[cold]
    fn read_why_not(&self, to: Rank) -> Result<(), TransportError> {
        self.check_abort()?;
        self.lost(to).map_or(Ok(()), Err)
    }
}
