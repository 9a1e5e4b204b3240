//! A rank's end of a formed group: its rings, its bell, and what it knows of its peers.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use isobit_core::Rank;
use isobit_core::wire::{Channel, Draft, Header};
use isobit_sys::os::ring::{self, Consumer, HEADS_KEPT, Outbox, Popped, Producer, RingError, Share, Way};
use isobit_sys::os::sites::Sites;
use isobit_sys::os::wake::Sleeper;
use isobit_sys::{Beside, ReadSpan, WriteSpan};

use super::bootstrap::Formed;
use super::frame::{Shared, ShmFrame};
use super::message::{head, mark, verify};
use super::waiting::{News, YIELDS};
use crate::transport::{
    Attempt, Break, Capabilities, Look, MessageNumber, Tamper, Transport, TransportError, corruption,
};

/// How often a rank looks for a message that it expects, before it looks for all news: 20 to 70 us.
const LOOKS: u32 = 1_000;

const CHANNELS: [Channel; 2] = [Channel::Collective, Channel::PointToPoint];

/// One rank's end of a shm group. Dropping it, or ending its process, is a loss for its peers.
pub struct ShmTransport {
    pub(super) rank: Rank,
    group: u64,
    incarnations: Vec<u64>,
    /// The capacity of the rings for collectives.
    capacity: usize,
    payload_bytes_max: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) outgoing: Vec<Option<[Producer; 2]>>,
    /// Where what goes to several peers lies, if there are several.
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) incoming: Vec<Option<[Consumer; 2]>>,
    pub(super) sleeper: Sleeper,
    /// By rank: whether its process is known to have ended.
    pub(super) ended: Vec<bool>,
    /// What there was to see when the last wait ended.
    pub(super) seen: News,
    pub(super) looked_around: Instant,
    /// How many ranks can run at a time.
    cores: u32,
    pub(super) tamper: Option<Tamper>,
    /// The process that joined; a forked child must not say goodbye for it.
    process: u32,
}

/// The ring to a peer.
pub(super) fn producer(outgoing: &mut [Option<[Producer; 2]>], to: Rank, channel: Channel) -> &mut Producer {
    let rings = outgoing.get_mut(to as usize).and_then(Option::as_mut);
    &mut rings.unwrap_or_else(|| panic!("rank {to} is no peer"))[channel as usize]
}

impl ShmTransport {
    /// A rank's end of a group that has formed, or the step that failed and why.
    pub(super) fn new(rank: Rank, formed: Formed) -> Result<ShmTransport, (&'static str, io::Error)> {
        let own = formed.bells[rank as usize].try_clone().map_err(|error| ("dup", error))?;
        let (world_size, mut outgoing) = (formed.bells.len(), formed.segment.outgoing);
        let mut outbox = formed.segment.outbox.map(Box::new);
        if formed.welcome.fills_caches(world_size) {
            outgoing.iter_mut().flatten().flatten().for_each(Producer::stay_warm);
        }
        if world_size > formed.welcome.cores as usize {
            outbox.iter_mut().for_each(|outbox| outbox.stay_warm());
        }
        let sleeper = Sleeper::new(own, formed.processes).map_err(|error| ("epoll", error))?;
        Ok(ShmTransport {
            rank,
            group: formed.welcome.group,
            incarnations: formed.incarnations,
            capacity: formed.welcome.capacities[0] as usize,
            payload_bytes_max: formed.welcome.payload_bytes_max as usize,
            seen: News::default(),
            shared: Arc::new(Shared { board: formed.segment.board, bells: formed.bells }),
            outgoing,
            outbox,
            incoming: formed.segment.incoming,
            sleeper,
            ended: vec![false; world_size],
            looked_around: Instant::now(),
            cores: formed.welcome.cores,
            tamper: None,
            process: std::process::id(),
        })
    }

    /// Gives this rank's sends a fault.
    pub fn set_tamper(&mut self, tamper: Tamper) {
        self.tamper = Some(tamper);
    }

    /// Whether there is a core for every rank.
    pub(super) fn spins(&self) -> bool {
        self.shared.board.world_size() <= self.cores
    }

    /// Sends everything one way, whatever is faster: for tests.
    pub fn send_only(&mut self, way: Way) {
        self.outgoing.iter_mut().flatten().flatten().for_each(|producer| producer.send_only(way));
    }

    fn producer(&mut self, to: Rank, channel: Channel) -> &mut Producer {
        producer(&mut self.outgoing, to, channel)
    }

    fn consumer(&mut self, from: Rank, channel: Channel) -> &mut Consumer {
        let rings = self.incoming.get_mut(from as usize).and_then(Option::as_mut);
        &mut rings.unwrap_or_else(|| panic!("rank {from} is no peer"))[channel as usize]
    }

    pub(super) fn broken(from: Rank, to: Rank) -> impl Fn(RingError) -> TransportError {
        move |error| TransportError::Corruption { from, to, detail: error.to_string() }
    }

    fn send(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Header,
        payload: ReadSpan<'_>,
        beside: Option<Beside<'_>>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        assert!(payload.len() <= self.payload_bytes_max, "the payload exceeds the largest");
        self.check(to)?;
        let (rank, damage) = (self.rank, self.damage(to, channel, false));
        let mark = mark(&header.with(payload.len() as u32).draft(), payload.len());
        let (head, producer) = (head(header, payload, damage), self.producer(to, channel));
        let sent = match beside {
            Some(beside) => producer.try_push_beside(payload, mark, head, beside),
            None => producer.try_push(payload, mark, head),
        };
        let sent = sent.map_err(Self::broken(rank, to))?;
        if sent.is_some() {
            self.shared.notify(to);
        }
        Ok(sent)
    }

    /// The bit of the next message's payload, or of what stands in for it, that a test wants flipped.
    #[cold]
    pub(super) fn damage(&mut self, to: Rank, channel: Channel, again: bool) -> Option<usize> {
        let tamper = self.tamper.as_mut()?;
        let number = self.outgoing[to as usize].as_ref()?[channel as usize].sent();
        tamper(Attempt { to, channel, number, again })
    }
}

impl Transport for ShmTransport {
    type Frame = ShmFrame;

    fn rank(&self) -> Rank {
        self.rank
    }

    fn world_size(&self) -> u32 {
        self.shared.board.world_size()
    }

    fn group(&self) -> u64 {
        self.group
    }

    fn incarnation(&self, rank: Rank) -> u64 {
        self.incarnations[rank as usize]
    }

    fn capabilities(&self) -> Capabilities {
        // Less than one frame is lost at the ring's end.
        let frames = (self.capacity / ring::frame_bytes(self.payload_bytes_max) - 1).min(HEADS_KEPT);
        Capabilities {
            name: "shm",
            payload_bytes_max: self.payload_bytes_max,
            buffered_bytes_max: Some(self.payload_bytes_max.min(ring::BUFFERED_BYTES_MAX)),
            window_bytes: frames.max(1) * self.payload_bytes_max,
            cores: Some(self.cores),
        }
    }

    fn try_send(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        self.send(to, channel, header, payload, None)
    }

    fn try_send_beside(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Header,
        payload: ReadSpan<'_>,
        beside: Beside<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        self.send(to, channel, header, payload, Some(beside))
    }

    fn try_share(
        &mut self,
        first: Rank,
        payload: ReadSpan<'_>,
        readers: u32,
    ) -> Result<Option<Share>, TransportError> {
        self.share(first, payload, readers)
    }

    fn try_send_shared(
        &mut self,
        to: Rank,
        header: &Header,
        share: Share,
        payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        self.send_shared(to, header, share, payload)
    }

    fn end_shares(&mut self) {
        self.outbox.iter_mut().for_each(|outbox| outbox.close());
    }

    fn try_send_buffered(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Draft,
        payload: ReadSpan<'_>,
    ) -> Result<bool, TransportError> {
        self.check(to)?;
        let rank = self.rank;
        let is_tampered = self.tamper.is_some();
        let damages = is_tampered.then(|| [false, true].map(|again| self.damage(to, channel, again)));
        let head = |sum, places: [WriteSpan<'_>; 2]| {
            if let Some(damages) = damages {
                let damaged = places.into_iter().zip(damages);
                damaged.for_each(|(place, damage)| damage.into_iter().for_each(|bit| place.flip(bit)));
            }
            header.sealed(sum)
        };
        let sent = self.producer(to, channel).try_push_buffered(payload, mark(header, payload.len()), head);
        Ok(sent.map_err(Self::broken(rank, to))?.is_some())
    }

    fn try_recv_expected(
        &mut self,
        from: Rank,
        channel: Channel,
        expected: &Draft,
        out: WriteSpan<'_>,
    ) -> Result<bool, TransportError> {
        let rank = self.rank;
        let taken = self
            .consumer(from, channel)
            .try_pop_expected(out, |sum| expected.seal(sum))
            .map_err(Self::broken(from, rank))?;
        if taken {
            self.check_abort()?;
        }
        Ok(taken)
    }

    fn try_recv_read(
        &mut self,
        from: Rank,
        channel: Channel,
        expected: &Draft,
        read: &mut dyn FnMut(ReadSpan<'_>) -> u64,
    ) -> Result<Look, TransportError> {
        self.check_abort()?;
        // Asked before the ring is read, as in `try_recv`.
        let lost = self.lost(from);
        let rank = self.rank;
        let consumer = self.consumer(from, channel);
        let found = consumer.try_pop_read(
            expected.payload_bytes(),
            mark(expected, expected.payload_bytes()),
            |head| cfg!(feature = "unchecked") || expected.is_of(head),
            |sum| expected.seal(sum),
            read,
        );
        let found = found.map_err(Self::broken(from, rank))?;
        match found {
            Look::Nothing => return lost.map_or(Ok(found), Err),
            Look::Taken => self.shared.notify(from),
            Look::Other => {}
        }
        Ok(found)
    }

    fn ring(&self, peer: Rank) {
        self.shared.notify(peer);
    }

    fn looks(&self) -> u32 {
        if self.spins() { LOOKS } else { YIELDS }
    }

    fn relax(&self) {
        if self.spins() {
            std::hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }

    fn try_recv(&mut self, from: Rank, channel: Channel) -> Result<Option<ShmFrame>, TransportError> {
        self.check_abort()?;
        // Asked before the ring is read: what comes after a goodbye can't be missed.
        let lost = self.lost(from);
        let rank = self.rank;
        let popped = self.consumer(from, channel).try_pop(verify).map_err(Self::broken(from, rank))?;
        match popped {
            Popped::Frame(header, lease) => {
                self.shared.notify(from);
                let shared = Arc::clone(&self.shared);
                Ok(Some(ShmFrame { header: Box::new(header), lease: Some(lease), from, shared }))
            }
            Popped::DamagedTwice(number, detail) => Err(corruption(from, rank, channel, number, &detail)),
            Popped::Damaged => {
                self.shared.notify(from);
                lost.map_or(Ok(None), Err)
            }
            Popped::Withdrawn => self.try_recv(from, channel),
            Popped::Empty => lost.map_or(Ok(None), Err),
        }
    }

    fn peek(&mut self, from: Rank, channel: Channel) -> Result<Option<Option<Header>>, TransportError> {
        self.check_abort()?;
        // Asked before the ring is read, as in `try_recv`.
        let lost = self.lost(from);
        let rank = self.rank;
        match self.consumer(from, channel).peek().map_err(Self::broken(from, rank))? {
            Some(head) => Ok(Some(head.and_then(|head| Header::decode(&head).ok()))),
            None => lost.map_or(Ok(None), Err),
        }
    }

    fn verified(&mut self, to: Rank, channel: Channel) -> Result<u64, TransportError> {
        self.check_abort()?;
        // Asked before the count is read, so that the count of a lost peer is its last.
        let lost = self.producer(to, channel).sent() > 0 && self.lost(to).is_some();
        let rank = self.rank;
        let producer = self.producer(to, channel);
        let verified = producer.verified().map_err(Self::broken(rank, to))?;
        match (lost && verified < producer.sent()).then(|| self.lost(to)).flatten() {
            Some(lost) => Err(lost),
            None => Ok(verified),
        }
    }

    fn resend_wanted(&mut self) -> Option<(Rank, Channel, MessageNumber)> {
        let rank = self.rank;
        for to in (0..self.world_size()).filter(|to| *to != rank) {
            for channel in CHANNELS {
                // A ring that is damaged is an error of the calls that use it.
                let wanted = self.producer(to, channel).resend_wanted().unwrap_or(None);
                if let Some(number) = wanted
                    && self.lost(to).is_none()
                {
                    return Some((to, channel, number));
                }
            }
        }
        None
    }

    fn resend(
        &mut self,
        to: Rank,
        channel: Channel,
        number: MessageNumber,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<bool, TransportError> {
        self.check_abort()?;
        if let Some(lost) = self.lost(to) {
            return Err(lost);
        }
        if self.producer(to, channel).wants_shared() {
            return self.resend_shared(to, number, header, payload);
        }
        let rank = self.rank;
        let attempt = Attempt { to, channel, number, again: true };
        let damage = self.tamper.as_mut().and_then(|tamper| tamper(attempt));
        let head = head(header, payload, damage);
        self.producer(to, channel).resend(number, payload, head).map_err(Self::broken(rank, to))?;
        self.shared.notify(to);
        Ok(true)
    }

    fn withdraw(&mut self) {
        for (to, producers) in (0..).zip(&mut self.outgoing) {
            // A ring that is damaged is an error of the calls that use it.
            let withdraw = |any, producer: &mut Producer| producer.withdraw().unwrap_or(true) | any;
            if producers.iter_mut().flatten().fold(false, withdraw) {
                self.shared.notify(to);
            }
        }
    }

    fn wait(&mut self, until: Instant) -> Result<(), TransportError> {
        self.check_abort()?;
        self.wait_for_news(until);
        self.check_abort()
    }

    fn break_epoch(&mut self, epoch: u32, sequence: u64, reason: &[u8]) {
        self.shared.board.break_epoch(epoch, sequence, reason);
        self.shared.notify_all();
    }

    fn broken(&self, epoch: u32) -> Option<u64> {
        self.shared.board.broken(epoch)
    }

    fn break_of(&self, epoch: u32) -> Option<Break> {
        let sequence = self.shared.board.broken(epoch)?;
        let (rank, reason) = self.shared.board.break_reason(epoch);
        Some(Break { rank, epoch, sequence, reason })
    }

    fn sites(&self) -> &Sites {
        self.shared.board.sites()
    }

    fn abort(&mut self, reason: &[u8]) {
        if self.shared.board.abort(reason) {
            self.shared.notify_all();
        }
    }

    fn close(&mut self, reason: &str) {
        if self.process == std::process::id() && self.shared.board.close(reason) {
            self.shared.notify_all();
        }
    }
}

impl Drop for ShmTransport {
    fn drop(&mut self) {
        self.close("its transport was dropped");
    }
}
