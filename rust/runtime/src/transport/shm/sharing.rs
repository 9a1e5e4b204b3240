//! Payloads that this rank sends to several peers, from its outbox.

use isobit_core::Rank;
use isobit_core::wire::{Channel, Header};
use isobit_sys::os::ring::{Outbox, Producer, Share};
use isobit_sys::{ReadSpan, WriteSpan};

use super::endpoint::{ShmTransport, producer};
use super::message::{head, mark};
use crate::transport::{Attempt, MessageNumber, TransportError};

/// The rings whose messages may name what is in an outbox.
const CHANNEL: Channel = Channel::Collective;

impl ShmTransport {
    /// This rank's outbox, and the ring to a peer whose messages may name what is in it.
    fn outbox_and_ring(&mut self, peer: Rank) -> Option<(&mut Outbox, &mut Producer)> {
        Some((self.outbox.as_mut()?, producer(&mut self.outgoing, peer, CHANNEL)))
    }

    /// See [`Transport::try_share`](crate::transport::Transport::try_share).
    pub(super) fn share(
        &mut self,
        first: Rank,
        payload: ReadSpan<'_>,
        readers: u32,
    ) -> Result<Option<Share>, TransportError> {
        self.check(first)?;
        Ok(self.outbox_and_ring(first).and_then(|(outbox, ring)| outbox.share(payload, readers, ring)))
    }

    /// See [`Transport::try_send_shared`](crate::transport::Transport::try_send_shared).
    pub(super) fn send_shared(
        &mut self,
        to: Rank,
        header: &Header,
        share: Share,
        payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        self.check(to)?;
        let (rank, damage) = (self.rank, self.damage(to, CHANNEL, false));
        let mark = mark(&header.with(payload.len() as u32).draft(), payload.len());
        // What others may read already is not damaged any more.
        let head = |sum, first: Option<WriteSpan<'_>>| match first {
            Some(place) => head(header, payload, damage)(sum, place),
            None => head(header, payload, None)(sum, WriteSpan::from(&mut [][..])),
        };
        let (outbox, ring) = self.outbox_and_ring(to).expect("what was shared is in the outbox");
        let sent = ring.try_push_shared(outbox, share, mark, head).map_err(Self::broken(rank, to))?;
        if sent.is_some() {
            self.shared.notify(to);
        }
        Ok(sent)
    }

    /// Sends a shared message again, once the spare place is free: whether it did.
    pub(super) fn resend_shared(
        &mut self,
        to: Rank,
        number: MessageNumber,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<bool, TransportError> {
        let rank = self.rank;
        let attempt = Attempt { to, channel: CHANNEL, number, again: true };
        let damage = self.tamper.as_mut().and_then(|tamper| tamper(attempt));
        let head = head(header, payload, damage);
        let (outbox, ring) = self.outbox_and_ring(to).expect("what was shared is in the outbox");
        let sent = ring.try_resend_shared(outbox, number, payload, head).map_err(Self::broken(rank, to))?;
        if sent {
            self.shared.notify(to);
        }
        Ok(sent)
    }
}
