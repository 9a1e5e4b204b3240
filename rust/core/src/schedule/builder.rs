//! The recorder of schedules: algorithms describe every transfer once, for both of its ranks.
//!
//! A send and its receive are emitted together and each pair's messages in one order, so they match
//! by construction, and since a step only waits for what was emitted before, nothing can wait in a
//! circle. Asked for one rank's program, it drops what does not concern that rank.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::scoreboard::{Access, Scoreboard};
use super::{Action, Buf, Content, Layout, Operand, Program, Region, Schedule, Step, StepIndex};
use crate::Rank;

/// Where a receiver puts a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// It stays where the transport has it.
    View,
    /// It is stored.
    At(Region),
}

/// The region of `len` elements of `buf` from `start`.
pub(super) fn region(buf: Buf, start: u64, len: u64) -> Region {
    Region { buf, start, len }
}

/// A region of no elements.
pub(super) const NOTHING: Region = Region { buf: Buf::Out, start: 0, len: 0 };

/// Stands for a buffer of a rank that is not recorded.
const UNRECORDED: u32 = u32::MAX;

#[derive(Default)]
struct Recorder {
    program: Program,
    /// `Out`, and the parts where they may share its memory.
    shared: Scoreboard,
    slots: Vec<Scoreboard>,
    free: VecDeque<u32>,
    /// The receive of each view.
    received: Vec<StepIndex>,
    /// The first receive from each peer.
    first: BTreeMap<Rank, StepIndex>,
    /// What the first of the later messages to each peer must wait for, and who has been sent his.
    fence: Vec<StepIndex>,
    fenced: BTreeSet<Rank>,
    /// What every later write to the result must wait for.
    gate: Vec<StepIndex>,
    /// Whether one has, so that `gate` is that one.
    is_open: bool,
}

/// See the module.
pub(super) struct Builder<'a> {
    layout: &'a Layout<'a>,
    only: Option<Rank>,
    recorders: Vec<Recorder>,
    slot_bytes: u64,
    slots_max: usize,
    /// The directed pairs that have exchanged a message.
    met: BTreeSet<(Rank, Rank)>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(layout: &'a Layout<'a>, only: Option<Rank>) -> Builder<'a> {
        let recorders = (0..layout.world_size()).map(|_| Recorder::default()).collect();
        Builder { layout, only, recorders, slot_bytes: 0, slots_max: 0, met: BTreeSet::new() }
    }

    /// Slots that [`Builder::slot`] gives have this size, and each rank has at most this many.
    pub(super) fn set_slots(&mut self, bytes: u64, max: u64) {
        self.slot_bytes = bytes;
        self.slots_max = usize::try_from(max).expect("slots fit in memory");
    }

    pub(super) fn finish(self) -> Schedule {
        Schedule { programs: self.recorders.into_iter().map(|recorder| recorder.program).collect() }
    }

    /// The rank whose program alone is recorded, if not all are.
    pub(super) fn only(&self) -> Option<Rank> {
        self.only
    }

    /// Whether the program of `rank` is recorded.
    pub(super) fn records(&self, rank: Rank) -> bool {
        self.only.is_none_or(|only| only == rank)
    }

    /// The ranks whose programs are recorded.
    pub(super) fn recorded(&self) -> std::ops::Range<Rank> {
        match self.only {
            Some(rank) => rank..rank + 1,
            None => 0..self.layout.world_size(),
        }
    }

    /// The pairs `(rank, rank + distance)`, around the end, of which one is recorded.
    pub(super) fn rotation(&self, distance: u32) -> impl Iterator<Item = (Rank, Rank)> + use<> {
        let world = self.layout.world_size();
        let (first, second) = match self.only {
            None => (0..world, 0..0),
            Some(rank) => {
                let before = (rank + world - distance) % world;
                let (low, high) = (rank.min(before), rank.max(before));
                (low..low + 1, if low == high { 0..0 } else { high..high + 1 })
            }
        };
        first.chain(second).map(move |rank| (rank, (rank + distance) % world))
    }

    /// `from` sends to `to`. The result is where the receiver has it.
    pub(super) fn transfer(
        &mut self,
        from: Rank,
        src: Region,
        to: Rank,
        place: Place,
        content: Content,
    ) -> Region {
        debug_assert_ne!(from, to, "a rank does not send to itself");
        let mut dst = match place {
            Place::View => region(Buf::View(UNRECORDED), 0, src.len),
            Place::At(dst) => dst,
        };
        if !self.records(from) && !self.records(to) {
            return dst;
        }
        self.met.insert((from, to));
        if self.records(from) {
            self.push(from, Action::Send { to, src, content });
        }
        if self.records(to) {
            if let Place::View = place {
                let program = &mut self.recorders[to as usize].program;
                dst.buf = Buf::View(program.views);
                program.views += 1;
            }
            self.push(to, Action::Recv { from, dst, content });
        }
        dst
    }

    /// An empty message, if none was sent from `from` to `to` yet: so that the two find out if they
    /// disagree about the operation.
    pub(super) fn meet(&mut self, from: Rank, to: Rank) {
        if from != to && !self.has_met(from, to) {
            self.transfer(from, NOTHING, to, Place::At(NOTHING), Content::Data);
        }
    }

    /// Whether a message was sent from `from` to `to`, as far as one of them is recorded.
    pub(super) fn has_met(&self, from: Rank, to: Rank) -> bool {
        self.met.contains(&(from, to))
    }

    /// `rank` reduces the inputs, which may come in any order.
    pub(super) fn reduce(&mut self, rank: Rank, mut inputs: Vec<Operand>, target: Content, out: Region) {
        if self.records(rank) {
            inputs.sort_by_key(|input| first_leaf(input.content));
            self.push(rank, Action::Reduce { inputs, target, out });
        }
    }

    /// `rank` copies.
    pub(super) fn copy(&mut self, rank: Rank, src: Region, dst: Region, content: Content) {
        if self.records(rank) && src.len > 0 {
            self.push(rank, Action::Copy { src, dst, content });
        }
    }

    /// A slot of `rank`. It is taken from those given back as late as possible, so that the chunks of
    /// a tensor do not wait for each other's staging.
    pub(super) fn slot(&mut self, rank: Rank) -> Buf {
        if !self.records(rank) {
            return Buf::Slot(UNRECORDED);
        }
        let recorder = &self.recorders[rank as usize];
        if recorder.slots.len() < self.slots_max {
            return self.slot_of(rank, self.slot_bytes);
        }
        let slot = self.recorders[rank as usize].free.pop_front();
        Buf::Slot(slot.expect("the algorithm has counted the slots that it needs at a time"))
    }

    /// A slot of `rank` of its own size, to keep.
    pub(super) fn slot_of(&mut self, rank: Rank, bytes: u64) -> Buf {
        if !self.records(rank) {
            return Buf::Slot(UNRECORDED);
        }
        let recorder = &mut self.recorders[rank as usize];
        recorder.slots.push(Scoreboard::default());
        recorder.program.slot_bytes.push(bytes);
        Buf::Slot(u32::try_from(recorder.slots.len() - 1).expect("slots are few"))
    }

    /// Gives a slot back: what was emitted so far still uses it, the next to take it waits for that.
    pub(super) fn free(&mut self, rank: Rank, slot: Buf) {
        if let Buf::Slot(slot) = slot
            && self.records(rank)
        {
            self.recorders[rank as usize].free.push_back(slot);
        }
    }

    /// What `rank` sends to each peer from here on comes after the first message of everyone whom it has heard by now:
    /// the first to a peer waits for them, and the others come after that one. What a peer has told is no news to it.
    pub(super) fn fence(&mut self, rank: Rank) {
        if self.records(rank) {
            let recorder = &mut self.recorders[rank as usize];
            recorder.fence = recorder.first.values().copied().collect();
            recorder.fenced.clear();
        }
    }

    /// What `rank` sends from here on waits for its data alone.
    pub(super) fn lift_fence(&mut self, rank: Rank) {
        self.recorders[rank as usize].fence.clear();
    }

    /// Every write of `rank` to its result from here on waits for the first message of everyone whom it has heard
    /// by now: a peer that is in another call shows it with that, and the result is untouched then.
    pub(super) fn gate(&mut self, rank: Rank) {
        if self.records(rank) {
            let recorder = &mut self.recorders[rank as usize];
            recorder.gate = recorder.first.values().copied().collect();
            let steps = &recorder.program.steps;
            recorder.is_open =
                matches!(recorder.gate[..], [step] if steps[step as usize].action.writes_result());
        }
    }

    fn push(&mut self, rank: Rank, action: Action) {
        let recorder = &mut self.recorders[rank as usize];
        let step = StepIndex::try_from(recorder.program.steps.len()).expect("fewer than 2^32 steps");
        let mut after = Vec::new();
        let mut touch = |at: Region, access: Access| {
            recorder.touch(self.layout.shared_place(rank, at), at, access, step, &mut after);
        };
        match &action {
            Action::Send { to, src, .. } => {
                touch(*src, Access::Read);
                if recorder.fenced.insert(*to) {
                    let own = recorder.first.get(to);
                    after.extend(recorder.fence.iter().filter(|told| Some(*told) != own));
                }
            }
            Action::Recv { from, dst, .. } => {
                touch(*dst, Access::Write);
                recorder.first.entry(*from).or_insert(step);
            }
            Action::Reduce { inputs, out, .. } => {
                inputs.iter().for_each(|input| touch(input.region, Access::Read));
                touch(*out, Access::Write);
            }
            Action::Copy { src, dst, .. } => {
                let place = |at: &Region| self.layout.shared_place(rank, *at);
                let same = matches!((src.buf, dst.buf), (Buf::Part(_), Buf::Out))
                    && place(src).is_some_and(|at| place(dst) == Some(at));
                touch(*src, Access::Read);
                touch(*dst, if same { Access::WriteSame } else { Access::Write });
            }
        }
        if action.writes_result() && !recorder.gate.is_empty() {
            after.extend(&recorder.gate);
            // The later ones wait for this one alone: else thousands of ranks would be thousands of times as many.
            if !std::mem::replace(&mut recorder.is_open, true) {
                recorder.gate = vec![step];
            }
        }
        after.retain(|earlier| *earlier != step);
        after.sort_unstable();
        after.dedup();
        recorder.program.steps.push(Step { action, after });
    }
}

impl Action {
    fn writes_result(&self) -> bool {
        let out = match self {
            Action::Send { .. } => return false,
            Action::Recv { dst: out, .. } | Action::Reduce { out, .. } | Action::Copy { dst: out, .. } => out,
        };
        out.buf == Buf::Out && out.len > 0
    }
}

impl Recorder {
    fn touch(
        &mut self,
        shared: Option<u64>,
        at: Region,
        access: Access,
        step: StepIndex,
        after: &mut Vec<StepIndex>,
    ) {
        match (at.buf, shared) {
            _ if at.len == 0 => {}
            (Buf::Part(_), None) => {}
            (Buf::Part(_), Some(start)) => {
                self.shared.touch(start, start + at.len, Access::ReadPart, step, after);
            }
            (Buf::Out, shared) => {
                let start = shared.unwrap_or(at.start);
                self.shared.touch(start, start + at.len, access, step, after);
            }
            (Buf::Slot(slot), _) => {
                self.slots[slot as usize].touch(at.start, at.start + at.len, access, step, after);
            }
            (Buf::View(_), _) if access == Access::Write => self.received.push(step),
            (Buf::View(view), _) => after.push(self.received[view as usize]),
        }
    }
}

/// Where a contribution stands among the inputs of a reduction; wide sums come last.
fn first_leaf(content: Content) -> u32 {
    match content {
        Content::Leaf(leaf) => leaf,
        Content::Node(node) => node.first(),
        Content::Data | Content::Wide(_) | Content::Result => u32::MAX,
    }
}
