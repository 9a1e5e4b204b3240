//! That nothing is written to a result that several ranks fill before each of them has shown that it is in the same call.
//!
//! The first message of a rank in another call is a mismatch. Where every write to the result comes after one
//! message of each sender, and after all that wait in views for that, the result holds its old bits then.

use std::collections::{BTreeMap, BTreeSet};

use super::hazards::Order;
use super::{VerifyError, writes};
use crate::Rank;
use crate::schedule::{Action, Buf, Layout, Program, Schedule, Step, StepIndex};
use crate::wire::Collective;

pub(super) fn check(layout: &Layout<'_>, schedule: &Schedule) -> Result<(), VerifyError> {
    let collective = layout.request().collective;
    // Blocks that other ranks pass on come without a word of their owners.
    if !matches!(collective, Collective::AllGather | Collective::AllToAll | Collective::Gather)
        || collective == Collective::AllGather && !everyone_hears_everyone(schedule)
    {
        return Ok(());
    }
    for (rank, program) in (0..).zip(&schedule.programs) {
        if collective != Collective::Gather || layout.is_root(rank) {
            check_rank(rank, program)?;
        }
    }
    Ok(())
}

fn everyone_hears_everyone(schedule: &Schedule) -> bool {
    let heard = |program: &Program| {
        let from = |step: &Step| match step.action {
            Action::Recv { from, .. } => Some(from),
            _ => None,
        };
        program.steps.iter().filter_map(from).collect::<BTreeSet<Rank>>().len()
    };
    schedule.programs.iter().all(|program| heard(program) + 1 == schedule.programs.len())
}

fn check_rank(rank: Rank, program: &Program) -> Result<(), VerifyError> {
    let mut first: BTreeMap<Rank, StepIndex> = BTreeMap::new();
    let mut awaited: Vec<(StepIndex, Rank)> = Vec::new();
    for (index, step) in (0..).zip(&program.steps) {
        if let Action::Recv { from, dst, .. } = step.action {
            first.entry(from).or_insert(index);
            if let Buf::View(_) = dst.buf {
                awaited.push((index, from));
            }
        }
    }
    awaited.extend(first.into_iter().map(|(from, index)| (index, from)));
    let mut order = Order::new(program);
    for (index, step) in (0..).zip(&program.steps) {
        let writes_result = writes(&step.action).is_some_and(|(at, _)| at.buf == Buf::Out && at.len > 0);
        let early = |&&(earlier, _): &&(StepIndex, Rank)| !order.follows(earlier, index);
        if writes_result && let Some(&(_, from)) = awaited.iter().find(early) {
            return Err(VerifyError::Early { rank, step: index, from });
        }
    }
    Ok(())
}
