//! What goes on between this rank and one other during a call, and what is kept between calls.

use std::collections::VecDeque;

use isobit_core::schedule::StepIndex;
use isobit_core::wire::{Channel, Header};

use super::notice::is_notice;
use crate::link::LinkFrame;
use crate::transport::{Frame, Lent, MessageNumber};

/// Point-to-point bytes of one peer that a rank keeps for receives to come, while it waits in
/// another call: two ranks that both send first and receive afterwards then both get on.
pub(crate) const KEPT_BYTES_MAX: usize = 64 << 20;

/// A message under way: accepted by the transport, not yet verified by the peer.
pub(crate) struct Flight {
    pub(crate) step: StepIndex,
    pub(crate) number: MessageNumber,
    pub(crate) header: Header,
}

/// A message that came before it was asked for.
pub(crate) struct Early {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

impl Early {
    pub(crate) fn of(frame: &LinkFrame) -> Early {
        Early { header: *frame.header(), payload: frame.payload().to_vec() }
    }
}

/// One peer.
#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) outgoing: VecDeque<StepIndex>,
    pub(crate) flights: VecDeque<Flight>,
    pub(crate) incoming: VecDeque<StepIndex>,
    pub(crate) notice: Option<Header>,
    /// For how long the call has waited for this peer, and perhaps for others.
    pub(crate) waited_ns: u64,
    collective: Option<Early>,
    kept: VecDeque<Early>,
    kept_bytes: usize,
}

impl Peer {
    /// Forgets the last call.
    pub(crate) fn begin(&mut self) {
        self.outgoing.clear();
        self.flights.clear();
        self.incoming.clear();
        self.waited_ns = 0;
    }

    /// Whether the call needs this peer to do something.
    pub(crate) fn is_awaited(&self) -> bool {
        !(self.incoming.is_empty() && self.flights.is_empty() && self.outgoing.is_empty())
    }

    /// Forgets what came in epochs before `epoch`.
    pub(crate) fn enter(&mut self, epoch: u32) {
        let current = |header: &Header| header.epoch >= epoch;
        self.notice = self.notice.filter(current);
        self.collective = self.collective.take().filter(|early| current(&early.header));
        self.kept.retain(|early| current(&early.header));
        self.kept_bytes = self.kept.iter().map(|early| early.payload.len()).sum();
    }

    /// Whether a collective waits for the peer without expecting a message of it: the peer might be
    /// in another call, which its next message would tell.
    pub(crate) fn may_be_elsewhere(&self, long: bool) -> bool {
        self.incoming.is_empty()
            && self.collective.is_none()
            && (long || !(self.flights.is_empty() && self.outgoing.is_empty()))
    }

    /// Whether another point-to-point message may be kept.
    pub(crate) fn may_keep(&self) -> bool {
        self.kept_bytes < KEPT_BYTES_MAX
    }

    /// Puts aside a message that nothing asks for yet.
    pub(crate) fn put_aside(&mut self, channel: Channel, early: Early) {
        match channel {
            Channel::Collective => self.collective = Some(early),
            Channel::PointToPoint if is_notice(&early.header) => self.notice = Some(early.header),
            Channel::PointToPoint => {
                self.kept_bytes += early.payload.len();
                self.kept.push_back(early);
            }
        }
    }

    /// Whether a message was put aside.
    pub(crate) fn has_early(&self, channel: Channel) -> bool {
        match channel {
            Channel::Collective => self.collective.is_some(),
            Channel::PointToPoint => !self.kept.is_empty(),
        }
    }

    /// The oldest message put aside.
    pub(crate) fn take(&mut self, channel: Channel) -> Option<Early> {
        match channel {
            Channel::Collective => self.collective.take(),
            Channel::PointToPoint => {
                let early = self.kept.pop_front()?;
                self.kept_bytes -= early.payload.len();
                Some(early)
            }
        }
    }
}
