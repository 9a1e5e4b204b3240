//! What a call does while it has nothing to do: it looks for what peers sent unasked, tells them what it waits
//! for, asks whether it should stop, and sleeps.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use isobit_core::Rank;
use isobit_core::wire::Channel;

use super::exchange::Exchange;
use super::failure::Failure;
use super::notice::judge;
use crate::link::LinkFrame;
use crate::trace::{Ranks, Step};
use crate::transport::{Frame, Transport, TransportError};

/// How often a waiting call asks whether it should stop.
const INTERRUPT_EVERY: Duration = Duration::from_millis(50);

/// After how many such intervals it tells the peers what it waits for. Late enough that no healthy
/// call sends notices, early enough that a wrong one is known at once.
const NOTICE_AFTER: u32 = 2;

/// Up to so many bytes of a rank's tensors a call has little to do: it takes some 5 us.
const LITTLE_BYTES: u64 = 64 * 1024;

/// How often such a call looks for messages before it waits: some 5 us.
const LOOKS_UNTIL_WAIT: u32 = 50;

/// What a call that waits has done about it.
pub(super) struct Waiting {
    deadline: Instant,
    next: Instant,
    pub(super) intervals: u32,
}

impl Exchange<'_, '_> {
    /// Takes what peers sent although this call does not ask for it: point-to-point messages are
    /// kept for the receive to come, and a collective's message or notice may tell that the peer is
    /// in another call, so that nobody would ever answer.
    ///
    /// A call that waits `long` looks at the messages of every peer: one that it expects nothing of, such as
    /// one that takes another rank for the root, may have said so long ago.
    pub(super) fn take_early(&mut self, long: bool) -> Result<(), Failure> {
        let own = self.link.rank();
        for rank in (0..self.link.world_size()).filter(|rank| *rank != own) {
            let at = rank as usize;
            if self.operation.channel == Channel::Collective
                && self.peers[at].may_be_elsewhere(long)
                && let Some(frame) = self.look(rank, Channel::Collective)?
            {
                let header = *frame.header();
                if (header.epoch, header.sequence) == (self.operation.epoch, self.operation.sequence) {
                    self.expectation(rank, header.message, header.payload_bytes).check(&header)?;
                }
                self.put_aside(rank, Channel::Collective, &frame)?;
            }
            let asked_for =
                self.operation.channel == Channel::PointToPoint && !self.peers[at].incoming.is_empty();
            while !asked_for
                && self.peers[at].may_keep()
                && let Some(frame) = self.look(rank, Channel::PointToPoint)?
            {
                self.put_aside(rank, Channel::PointToPoint, &frame)?;
            }
            if let Some(notice) = self.peers[at].notice {
                judge(self.recorder.handle(), rank, &notice)?;
                // One of a call to come stays until that is made.
                let next =
                    self.operation.collective + u64::from(self.operation.channel == Channel::Collective);
                if (notice.epoch, notice.sequence) < (self.operation.epoch, next) {
                    self.peers[at].notice = None;
                }
            }
        }
        Ok(())
    }

    /// What a peer sent unasked. One that is lost is no matter here: a call that needs it will tell.
    fn look(&mut self, rank: Rank, channel: Channel) -> Result<Option<LinkFrame>, Failure> {
        match self.link.try_recv(rank, channel) {
            Err(TransportError::PeerLost { .. }) => Ok(None),
            looked => Ok(looked?),
        }
    }

    /// How often the call looks in vain before it waits, and asks its caller only then; 0 if it asks at once. To ask can
    /// take as long as a few messages do, where that lets other threads have what the caller holds.
    pub(super) fn patience(&self) -> u32 {
        // With a timeline every wait is to be seen.
        let is_little = self.operation.bytes <= LITTLE_BYTES && self.trace.is_none();
        // Who shares a core keeps the others from it by looking, and some transports can't tell by looking again.
        if is_little && !self.shares_cores { LOOKS_UNTIL_WAIT.min(self.link.looks()) } else { 0 }
    }

    pub(super) fn wait(&mut self, waiting: &mut Option<Waiting>) -> Result<(), Failure> {
        let now = Instant::now();
        let waiting = waiting.get_or_insert_with(|| Waiting {
            deadline: now + self.timeout,
            next: now + INTERRUPT_EVERY,
            intervals: 0,
        });
        if now >= waiting.deadline {
            return Err(Failure::Timeout {
                seconds: self.timeout.as_secs_f64(),
                awaited: self.engine.awaited(),
            });
        }
        if now >= waiting.next {
            waiting.next = now + INTERRUPT_EVERY;
            waiting.intervals += 1;
            if let Some((waited_ns, awaited)) = self.waited() {
                self.recorder.waits(waited_ns, Some(awaited));
            }
            if let Some(trace) = &mut self.trace {
                trace.idle();
            }
            if let Some(reason) = self.abort.wanted() {
                return Err(Failure::Aborted(reason));
            }
            if (self.interrupt)() {
                return Err(Failure::Interrupted);
            }
            if waiting.intervals == NOTICE_AFTER && self.operation.channel == Channel::Collective {
                self.send_notices()?;
            }
        }
        let waited = self.link.wait(waiting.deadline.min(waiting.next));
        self.note_wait(now);
        Ok(waited?)
    }

    /// Takes note that the call has waited since `start`, for those who had something left to do.
    fn note_wait(&mut self, start: Instant) {
        let waited_ns = start.elapsed().as_nanos() as u64;
        let awaited = (0..).zip(&*self.peers).filter(|(_, peer)| peer.is_awaited()).map(|(rank, _)| rank);
        if let Some(trace) = &mut self.trace
            && let Some(ranks) = Ranks::of(awaited)
        {
            trace.step(Step::Wait(ranks), start, 0);
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.is_awaited()) {
            peer.waited_ns += waited_ns;
        }
    }

    /// For how long the call has waited for the rank that it waited for longest.
    pub(crate) fn waited(&self) -> Option<(u64, Rank)> {
        if !self.is_ordinary {
            return None;
        }
        let longest = (0..).zip(&*self.peers).max_by_key(|(rank, peer)| (peer.waited_ns, Reverse(*rank)));
        longest.map(|(rank, peer)| (peer.waited_ns, rank)).filter(|(waited_ns, _)| *waited_ns > 0)
    }

    fn send_notices(&mut self) -> Result<(), Failure> {
        for rank in 0..self.link.world_size() {
            if self.peers[rank as usize].incoming.is_empty() {
                continue;
            }
            let mut header = self.header(rank, Channel::PointToPoint, 0);
            header.descriptor = self.operation.incoming(rank);
            // A full stream means that the peer takes nothing: it is in no call that a notice could reach.
            self.link.try_send(rank, Channel::PointToPoint, &header, [].as_slice().into())?;
        }
        Ok(())
    }
}
