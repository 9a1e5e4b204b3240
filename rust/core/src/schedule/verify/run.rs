//! Running a schedule on symbolic values, with no buffering but the messages that a rank is lent.
//!
//! A send and its receive complete together, when both may start and the receiver's window has
//! room. Room is given back in the order in which it was taken, as a ring does. More is never
//! allowed than a real transport allows, and what may happen next never depends on what happened
//! first, so one run stands for all.

use std::collections::{BTreeMap, VecDeque};

use super::heard::Heard;
use super::memory::{Kind, KindId, Kinds, Memory, Value};
use super::{VerifyError, reads};
use crate::law::{LeafSet, Node};
use crate::schedule::{Action, Buf, Content, Layout, Limits, Operand, Region, Schedule, StepIndex};
use crate::wire::Collective;
use crate::{Order, Rank};

/// The messages from one rank to another.
#[derive(Default)]
struct Pair {
    sends: Vec<StepIndex>,
    recvs: Vec<StepIndex>,
    next: usize,
    /// The messages not given back, in order: their views and sizes, and whether they are done with.
    lent: VecDeque<(u32, u64, bool)>,
    held: u64,
}

impl Pair {
    fn give_back(&mut self) {
        while let Some((_, bytes, true)) = self.lent.front() {
            self.held -= bytes;
            self.lent.pop_front();
        }
    }
}

enum Work {
    Local(Rank, StepIndex),
    Message(Rank, Rank),
}

pub(super) fn run(layout: &Layout<'_>, limits: &Limits, schedule: &Schedule) -> Result<(), VerifyError> {
    let mut run = Run::new(layout, limits, schedule)?;
    while let Some(work) = run.work.pop() {
        match work {
            Work::Local(rank, step) => run.local(rank, step)?,
            Work::Message(from, to) => while run.message(from, to)? {},
        }
    }
    run.all_done()?;
    run.results()
}

struct Run<'a> {
    layout: &'a Layout<'a>,
    window_bytes: u64,
    schedule: &'a Schedule,
    kinds: Kinds,
    memories: Vec<Memory<'a>>,
    pairs: BTreeMap<(Rank, Rank), Pair>,
    /// For every step of every rank: how many it waits for, and who waits for it.
    waits_for: Vec<Vec<usize>>,
    waiting: Vec<Vec<Vec<StepIndex>>>,
    done: Vec<Vec<bool>>,
    /// For every view: its sender, and how many steps are still to read it.
    views: Vec<Vec<(Rank, usize)>>,
    /// None between two ranks alone, where a sender is done when its receiver has verified what he got.
    heard: Option<Heard<'a>>,
    work: Vec<Work>,
}

impl<'a> Run<'a> {
    fn new(layout: &'a Layout<'a>, limits: &Limits, schedule: &'a Schedule) -> Result<Run<'a>, VerifyError> {
        let mut kinds = Kinds::new();
        let programs = &schedule.programs;
        let memories = (0..)
            .zip(programs)
            .map(|(rank, program)| Memory::new(layout, rank, program, &mut kinds))
            .collect();
        let mut run = Run {
            layout,
            window_bytes: limits.window_bytes,
            schedule,
            kinds,
            memories,
            pairs: BTreeMap::new(),
            waits_for: programs.iter().map(|p| p.steps.iter().map(|s| s.after.len()).collect()).collect(),
            waiting: programs.iter().map(|p| vec![Vec::new(); p.steps.len()]).collect(),
            done: programs.iter().map(|p| vec![false; p.steps.len()]).collect(),
            views: programs.iter().map(|p| vec![(0, 0); p.views as usize]).collect(),
            heard: (layout.request().collective != Collective::PointToPoint).then(|| Heard::new(schedule)),
            work: Vec::new(),
        };
        for (rank, program) in (0..).zip(programs) {
            for (index, step) in (0..).zip(&program.steps) {
                match step.action {
                    Action::Send { to, .. } => run.pairs.entry((rank, to)).or_default().sends.push(index),
                    Action::Recv { from, dst, .. } => {
                        run.pairs.entry((from, rank)).or_default().recvs.push(index);
                        if let Buf::View(view) = dst.buf {
                            run.views[rank as usize][view as usize].0 = from;
                        }
                    }
                    Action::Reduce { .. } | Action::Copy { .. } => {}
                }
                for &earlier in &step.after {
                    run.waiting[rank as usize][earlier as usize].push(index);
                }
                for view in views_read(&step.action) {
                    run.views[rank as usize][view as usize].1 += 1;
                }
                if step.after.is_empty() {
                    run.ready(rank, index);
                }
            }
        }
        for (&(from, to), pair) in &run.pairs {
            let (sent, received) = (pair.sends.len(), pair.recvs.len());
            if sent != received {
                return Err(VerifyError::Unmatched { from, to, sent, received });
            }
        }
        Ok(run)
    }

    fn action(&self, rank: Rank, step: StepIndex) -> &'a Action {
        &self.schedule.programs[rank as usize].steps[step as usize].action
    }

    fn ready(&mut self, rank: Rank, step: StepIndex) {
        self.work.push(match *self.action(rank, step) {
            Action::Send { to, .. } => Work::Message(rank, to),
            Action::Recv { from, .. } => Work::Message(from, rank),
            Action::Reduce { .. } | Action::Copy { .. } => Work::Local(rank, step),
        });
    }

    fn complete(&mut self, rank: Rank, step: StepIndex) -> Result<(), VerifyError> {
        self.done[rank as usize][step as usize] = true;
        if let Some(heard) = &mut self.heard {
            heard.complete(rank, step)?;
        }
        for view in views_read(self.action(rank, step)) {
            let (from, readers) = &mut self.views[rank as usize][view as usize];
            *readers -= 1;
            if *readers == 0 {
                let from = *from;
                self.release(from, rank, view);
            }
        }
        for index in 0..self.waiting[rank as usize][step as usize].len() {
            let later = self.waiting[rank as usize][step as usize][index];
            self.waits_for[rank as usize][later as usize] -= 1;
            if self.waits_for[rank as usize][later as usize] == 0 {
                self.ready(rank, later);
            }
        }
        Ok(())
    }

    fn release(&mut self, from: Rank, to: Rank, view: u32) {
        self.memories[to as usize].release(view);
        let pair = self.pairs.get_mut(&(from, to)).expect("the view came through this pair");
        if let Some((_, _, back)) = pair.lent.iter_mut().find(|(lent, _, _)| *lent == view) {
            *back = true;
        }
        pair.give_back();
        self.work.push(Work::Message(from, to));
    }

    /// Lets the next message of a pair through if it may go. Whether it did.
    fn message(&mut self, from: Rank, to: Rank) -> Result<bool, VerifyError> {
        let pair = &self.pairs[&(from, to)];
        let (Some(&send), Some(&recv)) = (pair.sends.get(pair.next), pair.recvs.get(pair.next)) else {
            return Ok(false);
        };
        if self.waits_for[from as usize][send as usize] > 0 || self.waits_for[to as usize][recv as usize] > 0
        {
            return Ok(false);
        }
        let (Action::Send { src, content, .. }, Action::Recv { dst, content: expected_content, .. }) =
            (self.action(from, send), self.action(to, recv))
        else {
            unreachable!("pairs hold sends and receives");
        };
        if src.len != dst.len || content != expected_content {
            return Err(VerifyError::Mismatch {
                from,
                send,
                to,
                recv,
                sent: src.len,
                sent_content: *content,
                expected: dst.len,
                expected_content: *expected_content,
            });
        }
        let bytes = src.len * self.layout.bytes(*content);
        if pair.held + bytes > self.window_bytes {
            return Ok(false);
        }
        let values = self.fetch(from, send, *src, *content)?;
        self.memories[to as usize].write(*dst, *content, &values);
        let pair = self.pairs.get_mut(&(from, to)).expect("looked up above");
        pair.next += 1;
        let (view, read) = match dst.buf {
            Buf::View(view) => (view, self.views[to as usize][view as usize].1 > 0),
            _ => (u32::MAX, false),
        };
        pair.lent.push_back((view, bytes, !read));
        pair.held += bytes;
        pair.give_back();
        self.complete(from, send)?;
        self.complete(to, recv)?;
        Ok(true)
    }

    fn local(&mut self, rank: Rank, step: StepIndex) -> Result<(), VerifyError> {
        match self.action(rank, step) {
            Action::Copy { src, dst, content } => {
                let values = self.fetch(rank, step, *src, *content)?;
                self.memories[rank as usize].write(*dst, *content, &values);
            }
            Action::Reduce { inputs, target, out } => {
                let values = self.reduce(rank, step, inputs, *target)?;
                self.memories[rank as usize].write(*out, *target, &values);
            }
            Action::Send { .. } | Action::Recv { .. } => unreachable!("messages are no local work"),
        }
        self.complete(rank, step)
    }

    /// The values of a region, which must be what the step claims.
    fn fetch(
        &self,
        rank: Rank,
        step: StepIndex,
        at: Region,
        claimed: Content,
    ) -> Result<Vec<Value>, VerifyError> {
        let values = self.memories[rank as usize].read(at, claimed);
        match (at.start..).zip(&values).find(|(_, value)| !self.kinds.get(value.kind).is(claimed)) {
            None => Ok(values),
            Some((element, value)) => {
                let found = self.kinds.describe(*value);
                Err(VerifyError::WrongOperand { rank, step, element, claimed, found })
            }
        }
    }

    fn reduce(
        &mut self,
        rank: Rank,
        step: StepIndex,
        inputs: &[Operand],
        target: Content,
    ) -> Result<Vec<Value>, VerifyError> {
        let inputs = inputs
            .iter()
            .map(|input| self.fetch(rank, step, input.region, input.content))
            .collect::<Result<Vec<_>, _>>()?;
        let not_tiled = VerifyError::NotTiled { rank, step, target };
        let mut values = Vec::with_capacity(inputs[0].len());
        let mut combined: Option<(Vec<KindId>, KindId)> = None;
        for at in 0..inputs[0].len() {
            let element = inputs[0][at].element;
            if inputs.iter().any(|input| input[at].element != element) {
                return Err(not_tiled);
            }
            let kinds: Vec<KindId> = inputs.iter().map(|input| input[at].kind).collect();
            let kind = match &combined {
                Some((known, kind)) if *known == kinds => *kind,
                _ => {
                    let kind = self.combine(&kinds, target).ok_or_else(|| not_tiled.clone())?;
                    combined = Some((kinds, kind));
                    combined.as_ref().map_or(0, |(_, kind)| *kind)
                }
            };
            values.push(Value { kind, element });
        }
        Ok(values)
    }

    /// The kind that a reduction of these makes, if it is what its target says.
    fn combine(&mut self, inputs: &[KindId], target: Content) -> Option<KindId> {
        let contract = self.layout.contract()?;
        let leaves = contract.leaves();
        let inputs = inputs.iter().map(|input| self.kinds.get(*input));
        let kind = match (target, contract.order()) {
            (Content::Node(node), Order::Tree) => {
                tiles(inputs, Node::new(node.first(), node.end(), leaves)?, leaves)?;
                Kind::Node(node)
            }
            (Content::Result, Order::Tree) => {
                tiles(inputs, Node::root(leaves), leaves)?;
                Kind::Result
            }
            (Content::Result, Order::Exact) => {
                (united(inputs)? == LeafSet::run(0, leaves)).then_some(Kind::Result)?
            }
            (Content::Wide(count), Order::Exact) => {
                let leaves = united(inputs)?;
                (leaves.len() == count).then_some(Kind::Bag(leaves))?
            }
            _ => return None,
        };
        Some(self.kinds.id(kind))
    }

    fn all_done(&self) -> Result<(), VerifyError> {
        for (&(from, rank), pair) in &self.pairs {
            if let (Some(&send), Some(&step)) = (pair.sends.get(pair.next), pair.recvs.get(pair.next))
                && self.waits_for[from as usize][send as usize] == 0
                && self.waits_for[rank as usize][step as usize] == 0
                && let Action::Send { src, content, .. } = self.action(from, send)
            {
                let (held, window_bytes) = (pair.held, self.window_bytes);
                let bytes = src.len * self.layout.bytes(*content);
                return Err(VerifyError::Window { rank, step, from, held, bytes, window_bytes });
            }
        }
        for (rank, done) in (0..).zip(&self.done) {
            if let Some((step, _)) = (0..).zip(done).find(|(_, done)| !**done) {
                return Err(VerifyError::Deadlock { rank, step });
            }
        }
        Ok(())
    }

    fn results(&mut self) -> Result<(), VerifyError> {
        for (rank, memory) in (0..).zip(&self.memories) {
            if let Some((element, found)) = memory.wrong_result(&mut self.kinds) {
                let found = self.kinds.describe(found);
                return Err(VerifyError::WrongResult { rank, element, found });
            }
        }
        self.heard.as_ref().map_or(Ok(()), Heard::check_done)
    }
}

/// The views that a step reads, each once.
fn views_read(action: &Action) -> Vec<u32> {
    let mut views: Vec<u32> = reads(action)
        .into_iter()
        .filter_map(|(region, _)| match region.buf {
            Buf::View(view) => Some(view),
            _ => None,
        })
        .collect();
    views.sort_unstable();
    views.dedup();
    views
}

/// Whether nodes of the tree are, in this order, the leaves of `target` from first to last.
fn tiles<'k>(inputs: impl Iterator<Item = &'k Kind>, target: Node, leaves: u32) -> Option<()> {
    let mut next = target.first();
    for input in inputs {
        let Kind::Node(node) = input else { return None };
        let node = Node::new(node.first(), node.end(), leaves)?;
        if node.first() != next || !target.contains(node) {
            return None;
        }
        next = node.end();
    }
    (next == target.end()).then_some(())
}

/// The leaves of sums, if none is in two of them.
fn united<'k>(inputs: impl Iterator<Item = &'k Kind>) -> Option<LeafSet> {
    let mut all = Vec::new();
    for input in inputs {
        match input {
            Kind::Node(node) if node.is_leaf() => all.push(node.first()),
            Kind::Bag(leaves) => all.extend(leaves.iter()),
            _ => return None,
        }
    }
    let count = all.len();
    let united = LeafSet::from_leaves(all);
    (united.len() as usize == count).then_some(united)
}
