//! Which earlier steps a step must wait for: hazards on memory, as a processor's scoreboard finds them.

use std::collections::BTreeMap;

use super::StepIndex;

/// How a step touches a run of elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Reads a part, which may share memory with `Out`.
    ReadPart,
    /// Reads what an earlier step wrote.
    Read,
    /// Writes.
    Write,
    /// Writes to `Out` what a part holds at the same place: no write where both share memory.
    WriteSame,
}

/// The steps that matter to the next access of a run of elements.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct History {
    writer: Option<StepIndex>,
    readers: Vec<StepIndex>,
    part_readers: Vec<StepIndex>,
}

/// The history of one buffer's elements, by runs that were touched alike.
#[derive(Clone, Default, Debug)]
pub(super) struct Scoreboard {
    /// Start of a run -> its end and its history. Runs are disjoint.
    runs: BTreeMap<u64, (u64, History)>,
}

impl Scoreboard {
    /// Notes that `step` touches `start..end`, and adds to `after` the steps that it must wait for.
    pub(super) fn touch(
        &mut self,
        start: u64,
        end: u64,
        access: Access,
        step: StepIndex,
        after: &mut Vec<StepIndex>,
    ) {
        if start >= end {
            return;
        }
        self.split(start);
        self.split(end);
        self.fill(start, end);
        for (_, history) in self.runs.range_mut(start..end).map(|(_, run)| run) {
            match access {
                Access::ReadPart => history.part_readers.push(step),
                Access::Read => {
                    after.extend(history.writer);
                    history.readers.push(step);
                }
                Access::Write | Access::WriteSame => {
                    after.extend(history.writer);
                    after.append(&mut history.readers);
                    if access == Access::Write {
                        after.append(&mut history.part_readers);
                    }
                    history.writer = Some(step);
                }
            }
        }
        if access == Access::Write {
            self.join(start, end, step);
        }
    }

    /// Cuts the run that spans `at`, if one does.
    fn split(&mut self, at: u64) {
        if let Some((&start, (end, history))) = self.runs.range_mut(..at).next_back()
            && at < *end
        {
            let (upper_end, history) = (*end, history.clone());
            *end = at;
            debug_assert!(start < at);
            self.runs.insert(at, (upper_end, history));
        }
    }

    /// Gives the untouched gaps of `start..end` an empty history.
    fn fill(&mut self, start: u64, end: u64) {
        let mut gaps = Vec::new();
        let mut next = start;
        for (&first, (stop, _)) in self.runs.range(start..end) {
            if next < first {
                gaps.push((next, first));
            }
            next = *stop;
        }
        if next < end {
            gaps.push((next, end));
        }
        for (first, stop) in gaps {
            self.runs.insert(first, (stop, History::default()));
        }
    }

    /// Makes one run of `start..end`, all of which `step` has just written.
    fn join(&mut self, start: u64, end: u64, step: StepIndex) {
        while let Some((&first, _)) = self.runs.range(start + 1..end).next() {
            self.runs.remove(&first);
        }
        self.runs.insert(start, (end, History { writer: Some(step), ..History::default() }));
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Scoreboard};

    /// What step `step` must wait for.
    fn touch(board: &mut Scoreboard, range: std::ops::Range<u64>, access: Access, step: u32) -> Vec<u32> {
        let mut after = Vec::new();
        board.touch(range.start, range.end, access, step, &mut after);
        after.sort_unstable();
        after.dedup();
        after
    }

    #[test]
    fn a_write_waits_for_the_last_writer_and_all_readers_since() {
        let board = &mut Scoreboard::default();
        assert_eq!(touch(board, 0..8, Access::Write, 0), []);
        assert_eq!(touch(board, 4..12, Access::Write, 1), [0]);
        assert_eq!(touch(board, 0..2, Access::Read, 2), [0]);
        assert_eq!(touch(board, 10..20, Access::ReadPart, 3), []);
        assert_eq!(touch(board, 1..11, Access::Write, 4), [0, 1, 2, 3]);
        assert_eq!(touch(board, 0..20, Access::Read, 5), [0, 1, 4]);
    }

    #[test]
    fn a_copy_of_a_part_to_its_own_place_does_not_disturb_the_part() {
        let board = &mut Scoreboard::default();
        assert_eq!(touch(board, 0..4, Access::ReadPart, 0), []);
        assert_eq!(touch(board, 0..4, Access::WriteSame, 1), []);
        assert_eq!(touch(board, 0..4, Access::ReadPart, 2), []);
        assert_eq!(touch(board, 0..4, Access::Write, 3), [0, 1, 2]);
    }
}
