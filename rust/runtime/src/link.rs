//! The transport of a communicator: one of those that this build has.

use std::time::Instant;

use isobit_core::Rank;
use isobit_core::wire::{Channel, Draft, Header};
use isobit_sys::os::sites::Sites;
use isobit_sys::{Beside, ReadSpan, WriteSpan};

use crate::transport::memory::{self, MemoryFrame, MemoryTransport};
use crate::transport::shm::{self, ShmConfig, ShmFrame, ShmOptions, ShmTransport};
use crate::transport::{
    Break, Capabilities, Frame, Lent, Look, MessageNumber, Share, Transport, TransportError,
};

macro_rules! each {
    ($self:ident, $link:ident => $call:expr) => {
        match $self {
            Link::Memory($link) => $call,
            Link::Shm($link) => $call,
        }
    };
}

/// A transport, chosen when the group was formed.
pub(crate) enum Link {
    Memory(MemoryTransport),
    Shm(ShmTransport),
}

/// A message lent by it.
pub(crate) enum LinkFrame {
    Memory(MemoryFrame),
    Shm(ShmFrame),
}

impl Frame for LinkFrame {
    fn header(&self) -> &Header {
        match self {
            LinkFrame::Memory(frame) => frame.header(),
            LinkFrame::Shm(frame) => frame.header(),
        }
    }
}

impl Lent for LinkFrame {
    fn payload(&self) -> ReadSpan<'_> {
        match self {
            LinkFrame::Memory(frame) => frame.payload(),
            LinkFrame::Shm(frame) => frame.payload(),
        }
    }
}

impl Link {
    /// A transport between some ranks of this one's group, who all give the same name.
    pub(crate) fn subgroup(
        &self,
        name: String,
        rank: Rank,
        world_size: u32,
        deadline: Instant,
        interrupt: &mut dyn FnMut() -> bool,
    ) -> Result<Link, TransportError> {
        match self {
            Link::Memory(_) => Ok(Link::Memory(memory::join(name, rank, world_size))),
            Link::Shm(_) => {
                let config = ShmConfig {
                    job: name,
                    rank,
                    world_size,
                    deadline,
                    options: ShmOptions::for_ranks(world_size),
                };
                Ok(Link::Shm(shm::connect(&config, interrupt)?))
            }
        }
    }
}

impl Transport for Link {
    type Frame = LinkFrame;

    fn rank(&self) -> Rank {
        each!(self, link => link.rank())
    }

    fn world_size(&self) -> u32 {
        each!(self, link => link.world_size())
    }

    fn group(&self) -> u64 {
        each!(self, link => link.group())
    }

    fn incarnation(&self, rank: Rank) -> u64 {
        each!(self, link => link.incarnation(rank))
    }

    fn capabilities(&self) -> Capabilities {
        each!(self, link => link.capabilities())
    }

    fn try_send(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        each!(self, link => link.try_send(to, channel, header, payload))
    }

    fn try_send_beside(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Header,
        payload: ReadSpan<'_>,
        beside: Beside<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        each!(self, link => link.try_send_beside(to, channel, header, payload, beside))
    }

    fn try_share(
        &mut self,
        first: Rank,
        payload: ReadSpan<'_>,
        readers: u32,
    ) -> Result<Option<Share>, TransportError> {
        each!(self, link => link.try_share(first, payload, readers))
    }

    fn try_send_shared(
        &mut self,
        to: Rank,
        header: &Header,
        share: Share,
        payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        each!(self, link => link.try_send_shared(to, header, share, payload))
    }

    fn end_shares(&mut self) {
        each!(self, link => link.end_shares());
    }

    fn try_send_buffered(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Draft,
        payload: ReadSpan<'_>,
    ) -> Result<bool, TransportError> {
        each!(self, link => link.try_send_buffered(to, channel, header, payload))
    }

    fn try_recv_expected(
        &mut self,
        from: Rank,
        channel: Channel,
        expected: &Draft,
        out: WriteSpan<'_>,
    ) -> Result<bool, TransportError> {
        each!(self, link => link.try_recv_expected(from, channel, expected, out))
    }

    fn try_recv_read(
        &mut self,
        from: Rank,
        channel: Channel,
        expected: &Draft,
        read: &mut dyn FnMut(ReadSpan<'_>) -> u64,
    ) -> Result<Look, TransportError> {
        each!(self, link => link.try_recv_read(from, channel, expected, read))
    }

    fn ring(&self, peer: Rank) {
        each!(self, link => link.ring(peer));
    }

    fn looks(&self) -> u32 {
        each!(self, link => link.looks())
    }

    fn relax(&self) {
        each!(self, link => link.relax());
    }

    fn try_recv(&mut self, from: Rank, channel: Channel) -> Result<Option<LinkFrame>, TransportError> {
        match self {
            Link::Memory(link) => Ok(link.try_recv(from, channel)?.map(LinkFrame::Memory)),
            Link::Shm(link) => Ok(link.try_recv(from, channel)?.map(LinkFrame::Shm)),
        }
    }

    fn peek(&mut self, from: Rank, channel: Channel) -> Result<Option<Option<Header>>, TransportError> {
        each!(self, link => link.peek(from, channel))
    }

    fn verified(&mut self, to: Rank, channel: Channel) -> Result<u64, TransportError> {
        each!(self, link => link.verified(to, channel))
    }

    fn resend_wanted(&mut self) -> Option<(Rank, Channel, MessageNumber)> {
        each!(self, link => link.resend_wanted())
    }

    fn resend(
        &mut self,
        to: Rank,
        channel: Channel,
        number: MessageNumber,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<bool, TransportError> {
        each!(self, link => link.resend(to, channel, number, header, payload))
    }

    fn withdraw(&mut self) {
        each!(self, link => link.withdraw());
    }

    fn wait(&mut self, until: Instant) -> Result<(), TransportError> {
        each!(self, link => link.wait(until))
    }

    fn break_epoch(&mut self, epoch: u32, sequence: u64, reason: &[u8]) {
        each!(self, link => link.break_epoch(epoch, sequence, reason));
    }

    fn broken(&self, epoch: u32) -> Option<u64> {
        each!(self, link => link.broken(epoch))
    }

    fn break_of(&self, epoch: u32) -> Option<Break> {
        each!(self, link => link.break_of(epoch))
    }

    fn sites(&self) -> &Sites {
        each!(self, link => link.sites())
    }

    fn abort(&mut self, reason: &[u8]) {
        each!(self, link => link.abort(reason));
    }

    fn close(&mut self, reason: &str) {
        each!(self, link => link.close(reason));
    }
}
