//! Small calls, straight on: a program all of whose messages are buffered is carried out in its own
//! order, which is one that the engine could have chosen, without asking the engine step by step.
//!
//! No send waits for anybody, so every rank gets as far as its first receive, and a message that is not
//! there after a few looks is waited for in the ordinary loop, which knows of deadlines, interrupts
//! and ranks that are in another call.

use std::collections::BTreeSet;

use isobit_core::Rank;
use isobit_core::engine::Executor;
use isobit_core::schedule::{Action, Content, Program, Region, StepIndex};
use isobit_core::wire::Draft;
use isobit_sys::WriteSpan;

use super::exchange::Exchange;
use super::failure::Failure;
use crate::executor::Message;
use crate::transport::Transport;

/// After how many looks a call rings, in case that a peer sleeps. One that does not is spared the bell, and this
/// rank the wait until its stores are seen.
const LOOKS_UNTIL_RING: u32 = 50;

/// What the straight way keeps from one run of a program to the next.
pub(crate) struct Straight {
    /// The headers of its messages, by step, and the digest of the shape that is in them: a program's operations
    /// differ in nothing else that stays.
    drafts: Vec<Option<Draft>>,
    shape: Option<u64>,
    /// By step: whether it is a send that can go before all else, because it waits for no step and no message
    /// to the same peer comes before it that does.
    goes_first: Vec<bool>,
    /// By step: whether the run under way has carried it out.
    pub(super) done: Vec<bool>,
    peers: Vec<Rank>,
}

impl Straight {
    pub(super) fn new(program: &Program) -> Straight {
        let mut peers: Vec<Rank> = (program.steps.iter())
            .filter_map(|step| match step.action {
                Action::Send { to: peer, .. } | Action::Recv { from: peer, .. } => Some(peer),
                _ => None,
            })
            .collect();
        peers.sort_unstable();
        peers.dedup();
        let mut waits = BTreeSet::new();
        let goes_first = program.steps.iter().map(|step| match step.action {
            Action::Send { to, .. } if !step.after.is_empty() => {
                waits.insert(to);
                false
            }
            Action::Send { to, .. } => !waits.contains(&to),
            _ => false,
        });
        let goes_first = goes_first.collect();
        Straight {
            drafts: Vec::new(),
            shape: None,
            goes_first,
            done: vec![false; program.steps.len()],
            peers,
        }
    }
}

/// How often a call has looked for messages that are not there, and may do so again.
struct Looks {
    left: u32,
    done: u32,
    /// Whether the caller knows that its call waits.
    asked: bool,
}

impl Exchange<'_, '_> {
    /// Sends what goes before all else: whoever waits for it should not wait for anything that this rank still does.
    pub(super) fn send_first(&mut self) -> Result<(), Failure> {
        self.ready();
        let went = self.go(true);
        if went.is_err() {
            self.ring();
        }
        went.map(drop)
    }

    /// Carries out what goes at once after that: whether that was everything. `straight.done` says which steps it was.
    pub(super) fn run_straight(&mut self) -> Result<bool, Failure> {
        let went = self.go(false);
        self.ring();
        if let Ok(true) = went {
            self.executor.clear();
        }
        went
    }

    /// Readies the headers, and forgets the last run.
    fn ready(&mut self) {
        let steps = &self.program.steps;
        self.straight.done.fill(false);
        if self.straight.shape != Some(self.operation.descriptor.shape) {
            self.straight.drafts =
                (0..).zip(steps).map(|(index, step)| self.draft(index, &step.action)).collect();
            self.straight.shape = Some(self.operation.descriptor.shape);
        }
        for draft in self.straight.drafts.iter_mut().flatten() {
            draft.renew(self.epoch, self.operation.sequence);
        }
    }

    fn draft(&self, index: StepIndex, action: &Action) -> Option<Draft> {
        let message = self.engine.message(index);
        match *action {
            Action::Send { to, src, content } => {
                let payload_bytes = self.payload_bytes(src, content);
                Some(self.header(to, self.operation.channel, message).with(payload_bytes).draft())
            }
            Action::Recv { from, dst, content } => {
                let payload_bytes = self.payload_bytes(dst, content);
                Some(self.expectation(from, message, payload_bytes).header().draft())
            }
            Action::Reduce { .. } | Action::Copy { .. } => None,
        }
    }

    /// Carries out the steps that are not done, in their order, to the first that must wait; only sends
    /// that go before all else if `sends`.
    fn go(&mut self, sends: bool) -> Result<bool, Failure> {
        let program = self.program;
        let mut looks = Looks { left: self.link.looks(), done: 0, asked: false };
        for (at, step) in program.steps.iter().enumerate() {
            if self.straight.done[at] {
                continue;
            }
            let goes = match &step.action {
                Action::Send { to, src, content } if !sends || self.straight.goes_first[at] => {
                    let header = self.straight.drafts[at].as_ref().expect("a message has a header");
                    let payload = self.executor.read(*src, *content);
                    self.link.try_send_buffered(*to, self.operation.channel, header, payload)?
                }
                _ if sends => continue,
                Action::Send { .. } => unreachable!("the first arm's"),
                Action::Recv { from, dst, content } => {
                    self.await_message(at, *from, (*dst, *content), &mut looks)?
                }
                Action::Reduce { inputs, target, out } => {
                    self.executor.reduce(inputs, *target, *out)?;
                    true
                }
                Action::Copy { src, dst, content } => {
                    self.executor.copy(*src, *dst, *content)?;
                    true
                }
            };
            if !goes {
                return Ok(false);
            }
            self.straight.done[at] = true;
        }
        Ok(true)
    }

    /// Takes the message of the `Recv` at a place, if it is there before the looks are used up.
    fn await_message(
        &mut self,
        at: usize,
        from: Rank,
        (dst, content): (Region, Content),
        looks: &mut Looks,
    ) -> Result<bool, Failure> {
        let channel = self.operation.channel;
        if self.peers[from as usize].has_early(channel) {
            return self.take(from, at as StepIndex);
        }
        let mut memory = self.executor.spare(self.payload_bytes(dst, content) as usize);
        loop {
            let expected = self.straight.drafts[at].as_ref().expect("a message has a header");
            let out = WriteSpan::from(&mut memory[..]);
            if self.link.try_recv_expected(from, channel, expected, out)? {
                self.keep(dst, content, Message::Small(memory))?;
                return Ok(true);
            }
            if looks.left == 0 {
                self.executor.put_back(memory);
                return Ok(false);
            }
            looks.left -= 1;
            looks.done += 1;
            if looks.done == LOOKS_UNTIL_RING {
                self.ring();
            }
            // A pause takes as long as the message of a peer that is as far as this rank; one that has no core is not.
            if looks.done >= LOOKS_UNTIL_RING || self.shares_cores {
                if !looks.asked {
                    looks.asked = true;
                    self.ask()?;
                }
                self.link.relax();
            }
        }
    }

    fn ring(&self) {
        for peer in &self.straight.peers {
            self.link.ring(*peer);
        }
    }
}
