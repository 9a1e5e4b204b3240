//! That any two steps of a rank which touch the same memory, one of them writing, are ordered.
//!
//! Element by element and from the definition, so that it shares nothing with the scoreboard that
//! the planner uses: whoever writes must come after the last writer and all readers since, and
//! whoever reads after the last writer. That orders all pairs, since order is transitive.

use std::collections::BTreeSet;

use super::{VerifyError, copies_in_place, reads, writes};
use crate::Rank;
use crate::schedule::{Action, Buf, Content, Layout, Program, Region, StepIndex};

/// What has happened to one element.
#[derive(Clone, Default)]
struct Element {
    /// Who wrote `Out` last.
    writer: Option<StepIndex>,
    /// Who last wrote something else than a part holds here.
    clobberer: Option<StepIndex>,
    readers: Vec<StepIndex>,
    part_readers: Vec<StepIndex>,
}

pub(super) fn check(layout: &Layout<'_>, rank: Rank, program: &Program) -> Result<(), VerifyError> {
    let (part_shift, out_shift) = layout.shifts(rank).unwrap_or((0, 0));
    let shared_len = (layout.part_len(rank) + part_shift).max(layout.out_len(rank) + out_shift);
    let size = |len: u64| usize::try_from(len).expect("verified schedules fit in memory");
    let mut memory = Memory {
        layout,
        rank,
        order: Order::new(program),
        shared: vec![Element::default(); size(shared_len)],
        slots: program.slot_bytes.iter().map(|bytes| vec![Element::default(); size(*bytes)]).collect(),
        received: vec![None; program.views as usize],
    };
    for (index, step) in (0..).zip(&program.steps) {
        for (region, content) in reads(&step.action) {
            memory.read(index, region, content)?;
        }
        if let Some((region, content)) = writes(&step.action) {
            memory.write(index, region, content, &step.action)?;
        }
    }
    Ok(())
}

struct Memory<'a> {
    layout: &'a Layout<'a>,
    rank: Rank,
    order: Order<'a>,
    /// `Out`, and the parts where they may share its memory.
    shared: Vec<Element>,
    /// By byte.
    slots: Vec<Vec<Element>>,
    received: Vec<Option<StepIndex>>,
}

impl Memory<'_> {
    fn read(&mut self, step: StepIndex, region: Region, content: Content) -> Result<(), VerifyError> {
        if region.len == 0 {
            return Ok(());
        }
        if let Buf::View(view) = region.buf {
            let received = self.received[view as usize];
            return self.order.demand(self.rank, received, step, "view", 0);
        }
        let Some((elements, start, memory)) =
            span(self.layout, self.rank, &mut self.shared, &mut self.slots, region, content)
        else {
            return Ok(());
        };
        for (at, element) in (start..).zip(elements) {
            if let Buf::Part(_) = region.buf {
                self.order.demand(self.rank, element.clobberer, step, memory, at)?;
                element.part_readers.push(step);
            } else {
                self.order.demand(self.rank, element.writer, step, memory, at)?;
                element.readers.push(step);
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        step: StepIndex,
        region: Region,
        content: Content,
        action: &Action,
    ) -> Result<(), VerifyError> {
        if region.len == 0 {
            return Ok(());
        }
        if let Buf::View(view) = region.buf {
            self.received[view as usize] = Some(step);
            return Ok(());
        }
        let in_place = copies_in_place(self.layout, self.rank, action);
        let Some((elements, start, memory)) =
            span(self.layout, self.rank, &mut self.shared, &mut self.slots, region, content)
        else {
            return Ok(());
        };
        for (at, element) in (start..).zip(elements) {
            let mut before = vec![element.writer];
            before.extend(element.readers.drain(..).map(Some));
            element.writer = Some(step);
            if !in_place {
                before.push(element.clobberer);
                before.extend(element.part_readers.drain(..).map(Some));
                element.clobberer = Some(step);
            }
            for earlier in before {
                self.order.demand(self.rank, earlier, step, memory, at)?;
            }
        }
        Ok(())
    }
}

/// The elements of a region (of a slot its bytes), where they start, and the memory's name; none for
/// a part that never shares memory with anything.
fn span<'m>(
    layout: &Layout<'_>,
    rank: Rank,
    shared: &'m mut [Element],
    slots: &'m mut [Vec<Element>],
    region: Region,
    content: Content,
) -> Option<(&'m mut [Element], u64, &'static str)> {
    let range = |start: u64, len: u64| {
        let bound = |at: u64| usize::try_from(at).expect("verified schedules fit in memory");
        bound(start)..bound(start + len)
    };
    match (region.buf, layout.shared_place(rank, region)) {
        (Buf::Slot(slot), _) => {
            let bytes = layout.bytes(content);
            let start = region.start * bytes;
            Some((&mut slots[slot as usize][range(start, region.len * bytes)], start, "slot"))
        }
        (Buf::Out, None) => Some((&mut shared[range(region.start, region.len)], region.start, "out")),
        (_, Some(start)) => Some((&mut shared[range(start, region.len)], start, "out")),
        _ => None,
    }
}

/// Which steps come after which.
pub(super) struct Order<'a> {
    program: &'a Program,
    known: BTreeSet<(StepIndex, StepIndex)>,
    /// In which walk a step was last seen.
    seen: Vec<u32>,
    walk: u32,
}

impl<'a> Order<'a> {
    pub(super) fn new(program: &'a Program) -> Order<'a> {
        Order { program, known: BTreeSet::new(), seen: vec![0; program.steps.len()], walk: 0 }
    }

    fn demand(
        &mut self,
        rank: Rank,
        earlier: Option<StepIndex>,
        later: StepIndex,
        memory: &'static str,
        element: u64,
    ) -> Result<(), VerifyError> {
        match earlier {
            Some(earlier) if earlier != later && !self.follows(earlier, later) => {
                Err(VerifyError::Race { rank, earlier, later, memory, element })
            }
            _ => Ok(()),
        }
    }

    /// Whether `later` waits for `earlier`, directly or through others.
    pub(super) fn follows(&mut self, earlier: StepIndex, later: StepIndex) -> bool {
        if self.known.contains(&(earlier, later)) {
            return true;
        }
        self.walk += 1;
        let mut open = vec![later];
        while let Some(step) = open.pop() {
            for &before in &self.program.steps[step as usize].after {
                if before == earlier {
                    self.known.insert((earlier, later));
                    return true;
                }
                if before > earlier && self.seen[before as usize] != self.walk {
                    self.seen[before as usize] = self.walk;
                    open.push(before);
                }
            }
        }
        false
    }
}
