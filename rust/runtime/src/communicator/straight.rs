//! Small calls, straight on: a program all of whose messages are buffered is carried out in its own
//! order, which is one that the engine could have chosen, without asking the engine step by step.
//!
//! No send waits for anybody, so every rank gets as far as its first receive, and a message that is not
//! there after a few looks is waited for in the ordinary loop, which knows of deadlines, interrupts
//! and ranks that are in another call.

use std::collections::BTreeSet;

use isobit_core::Rank;
use isobit_core::schedule::{Action, Program, Step, StepIndex};
use isobit_core::wire::Draft;

use super::exchange::Exchange;
use super::failure::Failure;
use crate::executor::Piece;
use crate::transport::Transport;

/// After how many looks a call rings, in case that a peer sleeps. One that does not is spared the bell, and this
/// rank the wait until its stores are seen.
const LOOKS_UNTIL_RING: u32 = 50;

/// What the straight way keeps from one run of a program to the next.
pub(crate) struct Straight {
    /// The steps in the order in which they are carried out: first the sends that can go before all else, because they
    /// wait for no step, and no message to the same peer comes before them that does.
    order: Vec<StepIndex>,
    /// How many of them those are.
    firsts: usize,
    /// Those steps, ready to be carried out, and the digest of the shape that is in their headers: a program's
    /// operations differ in nothing else that stays.
    moves: Vec<Move>,
    shape: Option<u64>,
    /// How many of them the run under way has carried out.
    at: usize,
    peers: Vec<Rank>,
}

/// A step with all that there is to find out about it.
enum Move {
    Send { to: Rank, src: Piece, header: Draft },
    Recv { from: Rank, dst: Piece, header: Draft },
    Reduce { place: usize, inputs: Vec<Piece>, out: Piece },
    Copy { src: Piece, dst: Piece },
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
        let goes_first = |(_, step): &(StepIndex, &Step)| match step.action {
            Action::Send { to, .. } if !step.after.is_empty() => {
                waits.insert(to);
                false
            }
            Action::Send { to, .. } => !waits.contains(&to),
            _ => false,
        };
        let (firsts, others): (Vec<_>, Vec<_>) = (0..).zip(&program.steps).partition(goes_first);
        let order = firsts.iter().chain(&others).map(|(index, _)| *index).collect();
        Straight { order, firsts: firsts.len(), moves: Vec::new(), shape: None, at: 0, peers }
    }

    /// By step: whether the run under way has carried it out.
    pub(super) fn done(&self) -> Vec<bool> {
        let mut done = vec![false; self.order.len()];
        self.order[..self.at].iter().for_each(|step| done[*step as usize] = true);
        done
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
        self.ready()?;
        let went = self.go(self.straight.firsts);
        if went.is_err() {
            self.ring();
        }
        went.map(drop)
    }

    /// Carries out what goes at once after that: whether that was everything. `straight` knows which steps it was.
    pub(super) fn run_straight(&mut self) -> Result<bool, Failure> {
        let went = self.go(self.straight.order.len());
        self.ring();
        if let Ok(true) = went {
            self.executor.clear();
        }
        went
    }

    /// Readies the headers, and forgets the last run.
    fn ready(&mut self) -> Result<(), Failure> {
        self.straight.at = 0;
        if self.straight.shape != Some(self.operation.descriptor.shape) {
            let order = std::mem::take(&mut self.straight.order);
            let moves = order.iter().map(|step| self.to_move(*step)).collect::<Result<_, Failure>>();
            (self.straight.order, self.straight.moves) = (order, moves?);
            self.straight.shape = Some(self.operation.descriptor.shape);
        }
        for one in &mut self.straight.moves {
            if let Move::Send { header, .. } | Move::Recv { header, .. } = one {
                header.renew(self.operation.epoch, self.operation.sequence);
            }
        }
        Ok(())
    }

    fn to_move(&mut self, step: StepIndex) -> Result<Move, Failure> {
        let message = self.engine.message(step);
        Ok(match &self.program.steps[step as usize].action {
            Action::Send { to, src, content } => {
                let payload_bytes = self.payload_bytes(*src, *content);
                let header = self.header(*to, self.operation.channel, message).with(payload_bytes).draft();
                Move::Send { to: *to, src: self.executor.piece(*src, *content), header }
            }
            Action::Recv { from, dst, content } => {
                let payload_bytes = self.payload_bytes(*dst, *content);
                let header = self.expectation(*from, message, payload_bytes).header().draft();
                Move::Recv { from: *from, dst: self.executor.piece(*dst, *content), header }
            }
            Action::Reduce { inputs, target, out } => {
                let place = self.executor.reduction(inputs, *target)?;
                let pieces = inputs.iter().map(|input| self.executor.piece(input.region, input.content));
                Move::Reduce { place, inputs: pieces.collect(), out: self.executor.piece(*out, *target) }
            }
            Action::Copy { src, dst, content } => {
                let [src, dst] = [*src, *dst].map(|region| self.executor.piece(region, *content));
                Move::Copy { src, dst }
            }
        })
    }

    /// Carries out the steps that are not done, up to step `end` of their order or the first that must wait.
    fn go(&mut self, end: usize) -> Result<bool, Failure> {
        let channel = self.operation.channel;
        let mut looks = Looks { left: self.link.looks(), done: 0, asked: false };
        while self.straight.at < end {
            match &self.straight.moves[self.straight.at] {
                Move::Send { to, src, header } => {
                    let payload = self.executor.read_piece(*src);
                    if !self.link.try_send_buffered(*to, channel, header, payload)? {
                        return Ok(false);
                    }
                }
                Move::Recv { from, .. } => {
                    if !self.await_message(*from, &mut looks)? {
                        return Ok(false);
                    }
                }
                Move::Reduce { place, inputs, out } => self.executor.reduce_pieces(*place, inputs, *out)?,
                Move::Copy { src, dst } => self.executor.copy_piece(*src, *dst),
            }
            self.straight.at += 1;
        }
        Ok(true)
    }

    /// Takes the message of the `Recv` that is next, if it is there before the looks are used up.
    #[inline]
    fn await_message(&mut self, from: Rank, looks: &mut Looks) -> Result<bool, Failure> {
        let (channel, at) = (self.operation.channel, self.straight.at);
        if self.peers[from as usize].has_early(channel) {
            return self.take(from, self.straight.order[at]);
        }
        loop {
            let Move::Recv { dst, header, .. } = &self.straight.moves[at] else {
                unreachable!("the caller has seen that it is a Recv")
            };
            if self.link.try_recv_expected(from, channel, header, self.executor.small(*dst))? {
                self.executor.took_small(*dst);
                return Ok(true);
            }
            if looks.left == 0 {
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
