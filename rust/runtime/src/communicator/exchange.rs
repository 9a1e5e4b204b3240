//! The blocking loop: drives one engine over a transport until its program is done.
//!
//! The engine says what may happen next, the executor holds the data, the transport moves messages.
//! This loop only carries word between them; nothing here can reach a value.

use std::time::{Duration, Instant};

use isobit_core::Rank;
use isobit_core::engine::{Effect, Engine, Event, Executor, Expectation};
use isobit_core::schedule::{Action, Buf, Content, Program, Region, StepIndex};
use isobit_core::wire::{Channel, Header};
use isobit_sys::ReadSpan;
use isobit_sys::os::checksum;

use super::abort::AbortHandle;
use super::failure::Failure;
use super::notice::is_notice;
use super::operation::{Operation, compare};
use super::peer::{Early, Peer};
use super::plans::Sending;
use super::shares::Shares;
use super::straight::Straight;
use super::waiting::Waiting;
use crate::executor::{CpuExecutor, Message};
use crate::link::{Link, LinkFrame};
use crate::recorder::Recorder;
use crate::site::Site;
use crate::trace::{self, Step, Trace};
use crate::transport::{Frame, Look, Transport, TransportError};

/// One run of a program.
pub(crate) struct Exchange<'r, 'a> {
    pub(crate) link: &'r mut Link,
    pub(crate) peers: &'r mut [Peer],
    pub(crate) recorder: &'r mut Recorder,
    pub(crate) site: Site,
    pub(crate) trace: Option<&'r mut Trace>,
    pub(crate) program: &'r Program,
    pub(crate) engine: &'r mut Engine,
    pub(crate) executor: CpuExecutor<'a>,
    pub(crate) sending: Sending,
    pub(crate) straight: &'r mut Straight,
    pub(crate) shares: &'r mut Shares,
    pub(crate) operation: &'r Operation<'r>,
    pub(crate) timeout: Duration,
    pub(crate) interrupt: &'r mut dyn FnMut() -> bool,
    pub(crate) abort: &'r AbortHandle,
    /// Whether there are more ranks than cores.
    pub(crate) shares_cores: bool,
    /// Whether it takes the ordinary way, and so may have waited.
    pub(crate) is_ordinary: bool,
}

impl Exchange<'_, '_> {
    /// Runs the program to its end or to the first failure.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        let result = self.run_to_end();
        self.end_shares();
        result.map_err(|failure| match failure {
            // Why a peer failed says more than that it then left, or that not all of what it sent is there.
            Failure::Transport(TransportError::PeerLost { .. }) | Failure::Mismatch(_) => {
                self.check_epoch().err().unwrap_or(failure)
            }
            _ => failure,
        })
    }

    fn run_to_end(&mut self) -> Result<(), Failure> {
        // With a timeline every wait is to be seen.
        let is_straight =
            self.sending == Sending::AllBuffered && self.link.looks() > 0 && self.trace.is_none();
        let mut begun = self.check_epoch();
        if is_straight && begun.is_ok() {
            begun = self.send_first();
        }
        // While the first messages are under way, when this rank would only wait, and before it waits for anybody.
        let operation = self.operation;
        self.recorder.begin(operation.key(), operation.sequence, self.site, || operation.described());
        begun?;
        if is_straight {
            if self.run_straight()? {
                return self.check_epoch();
            }
            for view in self.engine.catch_up(&self.straight.done()) {
                self.executor.release(view);
            }
        } else {
            self.engine.reset(self.executor.is_apart());
        }
        self.go_ordinary()
    }

    /// Does what is left, step by step as the engine says. Apart, so that small calls have none of it in their way.
    #[inline(never)]
    fn go_ordinary(&mut self) -> Result<(), Failure> {
        self.is_ordinary = true;
        self.peers.iter_mut().for_each(Peer::begin);
        self.shares.begin();
        let patience = self.patience();
        if patience == 0 {
            self.ask()?;
        }
        let (mut waiting, mut looked) = (None, 0);
        loop {
            let mut moved = self.compute(self.sends_beside())?;
            if self.engine.is_finished() {
                // A peer that has gone on to the next epoch takes messages of this one without using them.
                return self.check_epoch();
            }
            moved |= self.resend()?;
            for rank in 0..self.link.world_size() {
                moved |= self.converse(rank)?;
            }
            if moved || self.compute(false)? {
                looked = 0;
            } else if looked < patience {
                looked += 1;
                self.link.relax();
            } else {
                if patience > 0 && waiting.is_none() {
                    self.ask()?;
                }
                self.check_epoch()?;
                self.take_early(waiting.as_ref().is_some_and(|waiting: &Waiting| waiting.intervals > 0))?;
                self.wait(&mut waiting)?;
            }
        }
    }

    /// Asks the caller whether to go on.
    pub(super) fn ask(&mut self) -> Result<(), Failure> {
        if (self.interrupt)() { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Whether a rank said that this operation, or one before it, failed.
    #[inline]
    pub(super) fn check_epoch(&self) -> Result<(), Failure> {
        self.link.broken(self.operation.epoch).map_or(Ok(()), |at| self.check_break(at))
    }

    #[cold]
    fn check_break(&self, at: u64) -> Result<(), Failure> {
        if !self.operation.is_behind(at) {
            return Ok(());
        }
        Err(Failure::Broken(self.link.break_of(self.operation.epoch).expect("there was one")))
    }

    /// Lets the engine go on without messages, up to its next copy: whether there was one. Data that was
    /// just sent is then still in the cache when it is copied. Copies may be left alone.
    fn compute(&mut self, leaves_copies: bool) -> Result<bool, Failure> {
        loop {
            if leaves_copies && matches!(self.engine.peek(), Some(Effect::Copy(_))) {
                return Ok(false);
            }
            let Some(effect) = self.engine.poll() else { return Ok(false) };
            match effect {
                Effect::Release(view) => self.executor.release(view),
                Effect::Send(step) => match self.program.steps[step as usize].action {
                    Action::Send { to, .. } => self.peer(to).outgoing.push_back(step),
                    _ => unreachable!("the engine names steps by what they do"),
                },
                Effect::Recv(step) => match self.program.steps[step as usize].action {
                    Action::Recv { from, .. } => self.peer(from).incoming.push_back(step),
                    _ => unreachable!("the engine names steps by what they do"),
                },
                Effect::Reduce(step) | Effect::Copy(step) => {
                    let start = trace::begin(self.trace.as_deref());
                    let mut copied = false;
                    match &self.program.steps[step as usize].action {
                        Action::Reduce { inputs, target, out } => {
                            self.executor.reduce(inputs, *target, *out)?
                        }
                        Action::Copy { src, dst, content } => {
                            self.executor.copy(*src, *dst, *content)?;
                            copied = true;
                        }
                        _ => unreachable!("the engine names steps by what they do"),
                    }
                    if let Some(start) = start {
                        self.trace_work(step, start);
                    }
                    self.engine.on_event(Event::Completed(step));
                    if copied {
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn peer(&mut self, rank: Rank) -> &mut Peer {
        &mut self.peers[rank as usize]
    }

    /// Sends to and receives from one peer whatever goes now.
    fn converse(&mut self, rank: Rank) -> Result<bool, Failure> {
        let at = rank as usize;
        let mut moved = false;
        while let Some(&step) = self.peers[at].outgoing.front() {
            if !self.send(rank, step)? {
                break;
            }
            self.peers[at].outgoing.pop_front();
            moved = true;
        }
        while let Some(&step) = self.peers[at].incoming.front() {
            if !self.receive(rank, step)? {
                break;
            }
            self.peers[at].incoming.pop_front();
            moved = true;
        }
        if !self.peers[at].flights.is_empty() {
            let verified = self.link.verified(rank, self.operation.channel)?;
            while let Some(flight) = self.peers[at].flights.front().filter(|flight| flight.number < verified)
            {
                self.engine.on_event(Event::Completed(flight.step));
                self.peers[at].flights.pop_front();
                moved = true;
            }
        }
        Ok(moved)
    }

    fn receive(&mut self, rank: Rank, step: StepIndex) -> Result<bool, Failure> {
        match self.take_reduced(rank, step)? {
            Look::Taken => return Ok(true),
            Look::Nothing => return Ok(false),
            Look::Other => {}
        }
        let start = trace::begin(self.trace.as_deref());
        if !self.take(rank, step)? {
            return Ok(false);
        }
        if let (Some(start), Some(trace)) = (start, &mut self.trace)
            && let Action::Recv { dst, content, .. } = self.program.steps[step as usize].action
        {
            let bytes = dst.len as usize * self.executor.element_bytes(content);
            trace.step(Step::Recv(rank), start, bytes);
        }
        self.engine.on_event(Event::Completed(step));
        Ok(true)
    }

    /// Takes the message of a `Recv`, if it is there.
    pub(super) fn take(&mut self, rank: Rank, step: StepIndex) -> Result<bool, Failure> {
        let Action::Recv { dst, content, .. } = self.program.steps[step as usize].action else {
            unreachable!("only receives are queued as incoming")
        };
        let channel = self.operation.channel;
        let bytes = self.payload_bytes(dst, content);
        let expectation = self.expectation(rank, self.engine.message(step), bytes);
        if !matches!(dst.buf, Buf::View(_)) && bytes > 0 && !self.peers[rank as usize].has_early(channel) {
            let copy = if self.executor.streams() { checksum::stream } else { checksum::copy };
            let out = self.executor.write(dst, content);
            let read = &mut |payload: ReadSpan<'_>| copy(payload, out);
            match self.link.try_recv_read(rank, channel, &expectation.header().draft(), read)? {
                Look::Taken => return Ok(true),
                Look::Nothing => return Ok(false),
                Look::Other => {}
            }
        }
        let Some((header, message)) = self.next_message(rank, &expectation)? else { return Ok(false) };
        compare(&expectation, &header)?;
        self.keep(dst, content, message)?;
        Ok(true)
    }

    /// Refuses a message where it is, if it is another than the expected one: its sender has sent to nobody
    /// else, and what it learns while it waits it learns in the call that is wrong.
    fn refuse(&self, header: Option<Header>, expectation: &Expectation) -> Result<(), Failure> {
        match header.filter(|header| header.epoch == self.operation.epoch && !is_notice(header)) {
            Some(header) => Ok(compare(expectation, &header)?),
            None => Ok(()),
        }
    }

    pub(super) fn payload_bytes(&self, region: Region, content: Content) -> u32 {
        let bytes = region.len * self.executor.element_bytes(content) as u64;
        u32::try_from(bytes).expect("schedules keep messages under the payload limit")
    }

    /// Puts the message of a `Recv` where it is wanted.
    pub(super) fn keep(&mut self, dst: Region, content: Content, message: Message) -> Result<(), Failure> {
        match dst.buf {
            Buf::View(view) => self.executor.bind(view, message),
            _ => self.executor.store(message, dst, content)?,
        }
        Ok(())
    }

    /// The next message of this operation's stream that is of this epoch and no notice.
    fn next_message(
        &mut self,
        rank: Rank,
        expectation: &Expectation,
    ) -> Result<Option<(Header, Message)>, Failure> {
        let (at, channel) = (rank as usize, self.operation.channel);
        loop {
            if let Some(early) = self.peers[at].take(channel) {
                return Ok(Some((early.header, Message::Kept(early.payload))));
            }
            if channel == Channel::PointToPoint {
                // What comes after this look is for the next one: who takes it unseen has ended its sender's wait.
                let Some(header) = self.link.peek(rank, channel)? else { return Ok(None) };
                self.refuse(header, expectation)?;
            }
            let Some(frame) = self.link.try_recv(rank, channel)? else { return Ok(None) };
            let header = *frame.header();
            if header.epoch == self.operation.epoch && (channel == Channel::Collective || !is_notice(&header))
            {
                return Ok(Some((header, Message::Lent(frame))));
            }
            self.put_aside(rank, channel, &frame)?;
        }
    }

    /// Keeps a message for later; one of a past epoch is dropped, one of a later epoch tells that
    /// this one has ended.
    pub(super) fn put_aside(
        &mut self,
        rank: Rank,
        channel: Channel,
        frame: &LinkFrame,
    ) -> Result<(), Failure> {
        let epoch = frame.header().epoch;
        if epoch >= self.operation.epoch {
            self.peers[rank as usize].put_aside(channel, Early::of(frame));
        }
        if epoch > self.operation.epoch { self.check_epoch() } else { Ok(()) }
    }

    #[cold]
    pub(super) fn trace_work(&mut self, step: StepIndex, start: Instant) {
        let Some(trace) = &mut self.trace else { return };
        let bytes = |len: u64, content| len as usize * self.executor.element_bytes(content);
        match &self.program.steps[step as usize].action {
            Action::Reduce { inputs, .. } => {
                let read = inputs.iter().map(|input| bytes(input.region.len, input.content)).sum();
                trace.step(Step::Reduce, start, read);
            }
            Action::Copy { src, content, .. } => trace.step(Step::Copy, start, bytes(src.len, *content)),
            Action::Send { .. } | Action::Recv { .. } => {}
        }
    }

    pub(super) fn header(&self, rank: Rank, channel: Channel, message: u32) -> Header {
        Header {
            group: self.link.group(),
            incarnation: self.link.incarnation(self.link.rank()),
            epoch: self.operation.epoch,
            source: self.link.rank(),
            destination: rank,
            channel,
            sequence: self.operation.sequence,
            message,
            tag: self.operation.tag,
            descriptor: self.operation.outgoing(rank),
            payload_bytes: 0,
            payload_checksum: 0,
        }
    }

    pub(super) fn expectation(&self, rank: Rank, message: u32, payload_bytes: u32) -> Expectation {
        Expectation {
            group: self.link.group(),
            incarnation: self.link.incarnation(rank),
            epoch: self.operation.epoch,
            source: rank,
            destination: self.link.rank(),
            channel: self.operation.channel,
            sequence: self.operation.sequence,
            message,
            tag: self.operation.tag,
            descriptor: self.operation.incoming(rank),
            payload_bytes,
        }
    }
}

/// What a step sends.
pub(super) fn sent(program: &Program, step: StepIndex) -> (Region, Content) {
    match program.steps[step as usize].action {
        Action::Send { src, content, .. } => (src, content),
        _ => unreachable!("only sends are queued as outgoing"),
    }
}
