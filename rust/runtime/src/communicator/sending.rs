//! How an exchange sends: buffered, shared or as it is, with a copy of this rank's own in the same pass where that is
//! faster, and once more what arrived damaged.

use isobit_core::Rank;
use isobit_core::engine::Event;
use isobit_core::schedule::{Action, Content, Region, StepIndex};
use isobit_sys::Beside;

use super::exchange::{Exchange, sent};
use super::failure::Failure;
use super::peer::Flight;
use super::plans::Sending;
use crate::trace::{self, Step};
use crate::transport::Transport;

impl Exchange<'_, '_> {
    /// Sends the message of a `Send`, if there is room for it.
    pub(super) fn send(&mut self, rank: Rank, step: StepIndex) -> Result<bool, Failure> {
        let header = self.header(rank, self.operation.channel, self.engine.message(step));
        let (src, content) = sent(self.program, step);
        let bytes = self.payload_bytes(src, content) as usize;
        let start = trace::begin(self.trace.as_deref());
        let is_buffered = match self.sending {
            Sending::Verified => false,
            Sending::Buffered(bytes_max) => bytes as u64 <= bytes_max,
            Sending::AllBuffered => true,
        };
        if is_buffered {
            let header = header.with(bytes as u32);
            let payload = self.executor.read(src, content);
            if !self.link.try_send_buffered(rank, header.channel, &header.draft(), payload)? {
                return Ok(false);
            }
            self.link.ring(rank);
            self.engine.on_event(Event::Completed(step));
        } else {
            let share = self.share(rank, step)?;
            let payload = self.executor.read(src, content);
            let copy = self.copy_beside(bytes).filter(|_| share.is_none());
            let sent = match (share, copy) {
                (Some(share), _) => self.link.try_send_shared(rank, &header, share, payload)?,
                (None, Some((_, src, dst, content))) => {
                    let (src, dst) = (self.executor.read(src, content), self.executor.write(dst, content));
                    let beside = Beside { src, dst };
                    self.link.try_send_beside(rank, header.channel, &header, payload, beside)?
                }
                (None, None) => self.link.try_send(rank, header.channel, &header, payload)?,
            };
            let Some(number) = sent else { return Ok(false) };
            if let Some((copy, ..)) = copy {
                if let Some(start) = start {
                    self.trace_work(copy, start);
                }
                self.engine.copied(copy);
            }
            self.shares.sent(step);
            self.peers[rank as usize].flights.push_back(Flight { step, number, header });
        }
        if let (Some(start), Some(trace)) = (start, &mut self.trace) {
            trace.step(Step::Send(rank), start, bytes);
        }
        Ok(true)
    }

    /// Whether copies wait for messages that they can be made beside: those that go past the caches, to other memory.
    pub(super) fn sends_beside(&self) -> bool {
        let mut next = self.peers.iter().filter_map(|peer| peer.outgoing.front());
        self.executor.streams()
            && self.executor.is_apart()
            && next.any(|step| !self.shares.is_for_many(*step))
    }

    /// The copy that is made beside a message of so many bytes.
    fn copy_beside(&self, bytes: usize) -> Option<(StepIndex, Region, Region, Content)> {
        let copy = self.engine.next_copy().filter(|_| self.sends_beside())?;
        let Action::Copy { src, dst, content } = self.program.steps[copy as usize].action else {
            unreachable!("the engine names steps by what they do")
        };
        (self.payload_bytes(src, content) as usize == bytes).then_some((copy, src, dst, content))
    }

    /// Answers one peer that received a message damaged. A flight of an earlier call can't be asked
    /// for: calls end when all their flights are verified, and withdraw those that are not.
    pub(super) fn resend(&mut self) -> Result<bool, Failure> {
        let Some((rank, channel, number)) = self.link.resend_wanted() else { return Ok(false) };
        let flights = &self.peers[rank as usize].flights;
        let Some(flight) = flights.iter().find(|f| f.number == number && f.header.channel == channel) else {
            return Ok(false);
        };
        let (src, content) = sent(self.program, flight.step);
        let payload = self.executor.read(src, content);
        Ok(self.link.resend(rank, channel, number, &flight.header, payload)?)
    }
}
