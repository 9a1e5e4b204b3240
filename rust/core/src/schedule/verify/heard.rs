//! That nobody is done, and no result is written to, before every rank has shown that it is in the same call.
//!
//! The first message of a rank in another call is a mismatch, and a rank that has passed on what it heard has found
//! none. So if a rank is done only when it has heard of everyone, a call that is wrong on one rank fails on all, and
//! if that comes before every write to its result, the result holds its old bits then.

use std::collections::BTreeMap;

use super::{VerifyError, writes};
use crate::Rank;
use crate::schedule::{Action, Buf, Program, Schedule, StepIndex};

/// Ranks, as bits.
type Ranks = Vec<u64>;

/// Of whom each rank has heard when a step of it is complete.
pub(super) struct Heard<'a> {
    programs: &'a [Program],
    steps: Vec<Vec<Ranks>>,
    /// What the messages of a pair have told so far: the later ones come after the earlier ones.
    told: BTreeMap<(Rank, Rank), Ranks>,
}

impl<'a> Heard<'a> {
    pub(super) fn new(schedule: &'a Schedule) -> Heard<'a> {
        let steps = schedule.programs.iter().map(|program| vec![Ranks::new(); program.steps.len()]).collect();
        Heard { programs: &schedule.programs, steps, told: BTreeMap::new() }
    }

    /// A step is complete, all that it waits for before it, a send before its receive.
    pub(super) fn complete(&mut self, rank: Rank, step: StepIndex) -> Result<(), VerifyError> {
        let at = &self.programs[rank as usize].steps[step as usize];
        let mut heard = self.alone(rank);
        for earlier in &at.after {
            unite(&mut heard, &self.steps[rank as usize][*earlier as usize]);
        }
        match at.action {
            Action::Send { to, .. } => {
                let told = self.told.entry((rank, to)).or_default();
                unite(&mut heard, told);
                told.clone_from(&heard);
            }
            Action::Recv { from, .. } => {
                self.told.get(&(from, rank)).into_iter().for_each(|told| unite(&mut heard, told));
            }
            Action::Reduce { .. } | Action::Copy { .. } => {}
        }
        let writes_result = writes(&at.action).is_some_and(|(at, _)| at.buf == Buf::Out && at.len > 0);
        if writes_result && let Some(of) = self.missing(&heard) {
            return Err(VerifyError::Early { rank, step, of });
        }
        self.steps[rank as usize][step as usize] = heard;
        Ok(())
    }

    /// All steps are complete.
    pub(super) fn check_done(&self) -> Result<(), VerifyError> {
        for (rank, steps) in (0..).zip(&self.steps) {
            let mut heard = self.alone(rank);
            steps.iter().for_each(|of_step| unite(&mut heard, of_step));
            if let Some(of) = self.missing(&heard) {
                return Err(VerifyError::Unheard { rank, of });
            }
        }
        Ok(())
    }

    /// A rank and no other.
    fn alone(&self, rank: Rank) -> Ranks {
        let mut alone = vec![0; self.programs.len().div_ceil(64)];
        alone[rank as usize / 64] = 1 << (rank % 64);
        alone
    }

    /// A rank that is not among these.
    fn missing(&self, heard: &Ranks) -> Option<Rank> {
        (0..).take(self.programs.len()).find(|rank: &Rank| heard[*rank as usize / 64] >> (rank % 64) & 1 == 0)
    }
}

fn unite(heard: &mut Ranks, more: &Ranks) {
    heard.iter_mut().zip(more).for_each(|(heard, more)| *heard |= more);
}
