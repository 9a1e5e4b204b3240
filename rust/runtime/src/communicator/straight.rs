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

/// Why the straight way does not go on.
enum Stop {
    /// It is where it was to end.
    End,
    /// The next message is not there.
    Waits,
    /// The next message came before it was asked for: who kept it has it.
    Early,
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

    /// Readies the steps, and forgets the last run.
    fn ready(&mut self) -> Result<(), Failure> {
        self.straight.at = 0;
        if self.straight.shape != Some(self.operation.descriptor.shape) {
            let steps = 0..self.straight.order.len();
            let moves = steps.map(|at| self.move_of(self.straight.order[at]));
            self.straight.moves = moves.collect::<Result<_, Failure>>()?;
            self.straight.shape = Some(self.operation.descriptor.shape);
        }
        Ok(())
    }

    fn move_of(&mut self, step: StepIndex) -> Result<Move, Failure> {
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

    /// Carries out the steps that are not done, up to step `end` of their order or the first that must wait: whether
    /// it came to the end.
    #[inline(always)]
    fn go(&mut self, end: usize) -> Result<bool, Failure> {
        loop {
            match self.go_on(end)? {
                Stop::End => return Ok(true),
                Stop::Waits => return Ok(false),
                Stop::Early if self.take_kept()? => {}
                Stop::Early => return Ok(false),
            }
        }
    }

    /// Takes the message of the next step, which came before it was asked for.
    #[cold]
    fn take_kept(&mut self) -> Result<bool, Failure> {
        let at = self.straight.at;
        let Move::Recv { from, .. } = self.straight.moves[at] else {
            unreachable!("only messages come early")
        };
        let taken = self.take(from, self.straight.order[at])?;
        self.straight.at += usize::from(taken);
        Ok(taken)
    }

    #[inline(always)]
    fn go_on(&mut self, end: usize) -> Result<Stop, Failure> {
        let Exchange { link, executor, peers, operation, interrupt, shares_cores, straight, .. } = self;
        let Straight { moves, at, peers: ringed, .. } = &mut **straight;
        let (channel, mut left, mut looked) = (operation.channel, link.looks(), 0);
        let (epoch, sequence) = (operation.epoch, operation.sequence);
        // A pause takes as long as the message of a peer that is as far as this rank; one that has no core is not.
        let patient = if *shares_cores { 1 } else { LOOKS_UNTIL_RING };
        for one in &mut moves[*at..end] {
            match one {
                Move::Send { to, src, header } => {
                    header.renew(epoch, sequence);
                    if !link.try_send_buffered(*to, channel, header, executor.read_piece(*src))? {
                        return Ok(Stop::Waits);
                    }
                }
                Move::Recv { from, .. } if peers[*from as usize].has_early(channel) => {
                    return Ok(Stop::Early);
                }
                Move::Recv { from, dst, header } => {
                    header.renew(epoch, sequence);
                    while !link.try_recv_expected(*from, channel, header, executor.small(*dst))? {
                        if left == 0 {
                            return Ok(Stop::Waits);
                        }
                        (left, looked) = (left - 1, looked + 1);
                        if looked == LOOKS_UNTIL_RING {
                            ringed.iter().for_each(|peer| link.ring(*peer));
                        }
                        if looked >= patient {
                            // The caller is asked once whether its call may wait.
                            if looked == patient && interrupt() {
                                return Err(Failure::Interrupted);
                            }
                            link.relax();
                        }
                    }
                    executor.took_small(*dst);
                }
                Move::Reduce { place, inputs, out } => executor.reduce_pieces(*place, inputs, *out)?,
                Move::Copy { src, dst } => executor.copy_piece(*src, *dst),
            }
            *at += 1;
        }
        Ok(Stop::End)
    }

    fn ring(&self) {
        for peer in &self.straight.peers {
            self.link.ring(*peer);
        }
    }
}
