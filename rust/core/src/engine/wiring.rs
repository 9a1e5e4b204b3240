//! What follows from a program alone: who waits for whom, in which order messages start, who
//! reads which view. Worked out once a program, so that a run allocates nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::schedule::{Action, Buf, Program, Region, StepIndex};

/// No step.
pub(super) const NONE: StepIndex = StepIndex::MAX;

/// What kind of effect a step is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Send,
    Recv,
    Reduce,
    Copy,
}

/// What the engine needs to know of one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) kind: Kind,
    /// How many completions and starts must come before it starts.
    pub(super) pending: u32,
    /// The next message of the same direction and peer: it may not start earlier than this one.
    pub(super) next_in_lane: StepIndex,
    /// Its number within (operation, source, destination); 0 for what is no message.
    pub(super) message: u32,
    /// The steps that wait for it, in `Wiring::dependents`.
    dependents: (u32, u32),
    /// The views that it reads, in `Wiring::reads`.
    reads: (u32, u32),
    /// The view that it receives into, if nobody reads it.
    pub(super) unread_view: u32,
    /// Whether it sends a part: who overwrites that part waits for it, and nothing else does.
    pub(super) sends_part: bool,
    /// How many of those that it waits for are such, if it reduces.
    pub(super) part_sends: u32,
}

/// A program, prepared for running.
#[derive(Clone, Debug)]
pub(super) struct Wiring {
    pub(super) wires: Vec<Wire>,
    dependents: Vec<StepIndex>,
    reads: Vec<u32>,
    /// How many reads each view waits for.
    pub(super) readers: Vec<u32>,
}

impl Wiring {
    /// Panics if the program is malformed: a step that waits for a later one, a view that does not
    /// exist or that is received twice. The planner makes none such, and the verifier finds them.
    pub(super) fn new(program: &Program) -> Wiring {
        let mut dependents = vec![Vec::new(); program.steps.len()];
        let mut readers = vec![0; program.views as usize];
        let mut received = vec![false; program.views as usize];
        let mut reads = Vec::new();
        let mut wires: Vec<Wire> = Vec::with_capacity(program.steps.len());
        let mut lanes: BTreeMap<(bool, u32), StepIndex> = BTreeMap::new();
        for (index, step) in (0..NONE).zip(&program.steps) {
            for &before in &step.after {
                assert!(
                    before < index,
                    "step {index} waits for step {before}, which does not come before it"
                );
                dependents[before as usize].push(index);
            }
            let mut wire = Wire {
                kind: Kind::Copy,
                pending: count(step.after.len()),
                next_in_lane: NONE,
                message: 0,
                dependents: (0, 0),
                reads: (count(reads.len()), 0),
                unread_view: NONE,
                sends_part: matches!(&step.action, Action::Send { src, .. } if matches!(src.buf, Buf::Part(_))),
                part_sends: 0,
            };
            let lane = match &step.action {
                Action::Send { to, src, .. } => {
                    wire.kind = Kind::Send;
                    reads.extend(view(src));
                    Some((true, *to))
                }
                Action::Recv { from, dst, .. } => {
                    wire.kind = Kind::Recv;
                    if let Some(view) = view(dst) {
                        let twice = std::mem::replace(&mut received[view as usize], true);
                        assert!(!twice, "step {index} receives into view {view} for the second time");
                        wire.unread_view = view;
                    }
                    Some((false, *from))
                }
                Action::Reduce { inputs, .. } => {
                    wire.kind = Kind::Reduce;
                    reads.extend(inputs.iter().filter_map(|input| view(&input.region)));
                    None
                }
                Action::Copy { src, .. } => {
                    reads.extend(view(src));
                    None
                }
            };
            if wire.kind == Kind::Reduce {
                wire.part_sends =
                    count(step.after.iter().filter(|at| wires[**at as usize].sends_part).count());
            }
            wire.reads.1 = count(reads.len());
            for &view in &reads[range(wire.reads)] {
                readers[view as usize] += 1;
            }
            if let Some(lane) = lane
                && let Some(before) = lanes.insert(lane, index)
            {
                wires[before as usize].next_in_lane = index;
                wire.message = wires[before as usize].message + 1;
                wire.pending += 1;
            }
            wires.push(wire);
        }
        let mut flat = Vec::new();
        for (wire, dependents) in wires.iter_mut().zip(&dependents) {
            wire.dependents.0 = count(flat.len());
            flat.extend(dependents);
            wire.dependents.1 = count(flat.len());
            if wire.unread_view != NONE && readers[wire.unread_view as usize] > 0 {
                wire.unread_view = NONE;
            }
        }
        Wiring { wires, dependents: flat, reads, readers }
    }

    /// The steps that wait for `step`.
    pub(super) fn dependents(&self, step: StepIndex) -> &[StepIndex] {
        &self.dependents[range(self.wires[step as usize].dependents)]
    }

    /// The views that `step` reads, as often as it reads them.
    pub(super) fn reads(&self, step: StepIndex) -> &[u32] {
        &self.reads[range(self.wires[step as usize].reads)]
    }
}

fn view(region: &Region) -> Option<u32> {
    match region.buf {
        Buf::View(view) => Some(view),
        _ => None,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("a program has fewer than 2^32 steps and operands")
}

fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}
