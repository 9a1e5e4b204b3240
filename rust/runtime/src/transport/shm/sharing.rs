//! Payloads that this rank sends to several peers, from its outbox.

use isobit_core::Rank;
use isobit_core::wire::{Channel, Header};
use isobit_sys::os::ring::{Producer, Share};
use isobit_sys::{ReadSpan, WriteSpan};

use super::endpoint::ShmTransport;
use super::message::{head, mark};
use crate::transport::{Attempt, MessageNumber, TransportError};

/// The rings whose messages may name what is in an outbox.
const CHANNEL: Channel = Channel::Collective;

/// The ring to a peer.
fn producer(outgoing: &mut [Option<[Producer; 2]>], peer: usize) -> &mut Producer {
    &mut outgoing[peer].as_mut().expect("messages go to peers")[CHANNEL as usize]
}

impl ShmTransport {
    /// See [`Transport::try_share`](crate::transport::Transport::try_share).
    pub(super) fn share(
        &mut self,
        first: Rank,
        payload: ReadSpan<'_>,
        readers: u32,
    ) -> Result<Option<Share>, TransportError> {
        self.check(first)?;
        let rank = self.rank;
        let Some(outbox) = &mut self.outbox else { return Ok(None) };
        let outgoing = &mut self.outgoing;
        outbox.free(|peer, end| {
            producer(outgoing, peer).is_given_back(end).map_err(Self::broken(rank, peer as Rank))
        })?;
        Ok(outbox.share(payload, readers, producer(outgoing, first as usize)))
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
        let outbox = self.outbox.as_mut().expect("what was shared is in the outbox");
        let producer = producer(&mut self.outgoing, to as usize);
        let sent = producer.try_push_shared(outbox, share, to as usize, mark, head);
        let sent = sent.map_err(Self::broken(rank, to))?;
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
        let outbox = self.outbox.as_mut().expect("what was shared is in the outbox");
        if let Some((peer, earlier)) = outbox.spare() {
            let verified = producer(&mut self.outgoing, peer).verified();
            if verified.map_err(Self::broken(rank, peer as Rank))? <= earlier {
                return Ok(false);
            }
        }
        let attempt = Attempt { to, channel: CHANNEL, number, again: true };
        let damage = self.tamper.as_mut().and_then(|tamper| tamper(attempt));
        let head = head(header, payload, damage);
        let producer = producer(&mut self.outgoing, to as usize);
        let sent = producer.resend_shared(outbox, to as usize, number, payload, head);
        sent.map_err(Self::broken(rank, to))?;
        self.shared.notify(to);
        Ok(true)
    }
}
