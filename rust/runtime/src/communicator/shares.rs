//! Messages of a program that take the same bytes to several ranks: they share one copy of them, where the transport has a
//! place for it.

use std::collections::BTreeMap;

use isobit_core::Rank;
use isobit_core::schedule::{Action, Buf, Content, Program, Region, StepIndex};

use super::exchange::{Exchange, sent};
use super::failure::Failure;
use crate::transport::{Share, Transport};

/// Fewer read a copy of their own as fast, or faster.
const READERS_MIN: u32 = 3;

/// The groups of messages that may share, and their copies in the run under way.
pub(crate) struct Shares {
    /// By step: its group, if it has one.
    groups: Vec<Option<usize>>,
    /// By group: how many messages it has.
    sizes: Vec<u32>,
    /// By group: how many have not been sent, and the copy.
    left: Vec<(u32, Option<Share>)>,
}

impl Shares {
    /// Finds what never changes between two messages: contributions and received messages don't, and what is written once
    /// is sent only after that.
    pub(super) fn new(program: &Program) -> Shares {
        let mut members: BTreeMap<(Region, Content), Vec<StepIndex>> = BTreeMap::new();
        let mut written: BTreeMap<Buf, Vec<(u64, u64)>> = BTreeMap::new();
        for (index, step) in (0..).zip(&program.steps) {
            match &step.action {
                Action::Send { src, content, .. } if src.len > 0 => {
                    members.entry((*src, *content)).or_default().push(index);
                }
                Action::Recv { dst: out, .. }
                | Action::Copy { dst: out, .. }
                | Action::Reduce { out, .. } => {
                    written.entry(out.buf).or_default().push((out.start, out.start + out.len));
                }
                Action::Send { .. } => {}
            }
        }
        let writes = |region: &Region| {
            let all = written.get(&region.buf).map_or(&[][..], Vec::as_slice);
            all.iter()
                .filter(|(start, end)| *start < region.start + region.len && region.start < *end)
                .count()
        };
        let mut shares =
            Shares { groups: vec![None; program.steps.len()], sizes: Vec::new(), left: Vec::new() };
        for ((region, _), steps) in members {
            if steps.len() > 1 && writes(&region) <= 1 {
                steps.iter().for_each(|step| shares.groups[*step as usize] = Some(shares.sizes.len()));
                shares.sizes.push(steps.len() as u32);
            }
        }
        shares
    }

    /// Forgets the last run.
    pub(super) fn begin(&mut self) {
        self.left.clear();
        self.left.extend(self.sizes.iter().map(|size| (*size, None)));
    }

    /// Whether a message takes to enough ranks what others take to them.
    pub(super) fn is_for_many(&self, step: StepIndex) -> bool {
        self.groups[step as usize].is_some_and(|group| self.sizes[group] >= READERS_MIN)
    }

    /// Takes note that a message has been sent.
    pub(super) fn sent(&mut self, step: StepIndex) {
        if let Some(group) = self.groups[step as usize] {
            self.left[group].0 -= 1;
        }
    }
}

impl Exchange<'_, '_> {
    /// The copy that a message to this rank shares with others, which is made now if there is none and it is worth it.
    pub(super) fn share(&mut self, rank: Rank, step: StepIndex) -> Result<Option<Share>, Failure> {
        let Some(group) = self.shares.groups[step as usize] else { return Ok(None) };
        if let (left @ READERS_MIN.., None) = self.shares.left[group] {
            let (src, content) = sent(self.program, step);
            let share = self.link.try_share(rank, self.executor.read(src, content), left)?;
            self.shares.left[group].1 = share;
        }
        Ok(self.shares.left[group].1)
    }

    /// Ends what is shared: all messages have been sent that will be.
    pub(super) fn end_shares(&mut self) {
        if self.shares.left.iter().any(|(_, share)| share.is_some()) {
            self.link.end_shares();
        }
    }
}

#[cfg(test)]
mod tests {
    use isobit_core::schedule::{Step, Topology};
    use isobit_core::wire::Collective;
    use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};

    use super::super::plans::Plans;
    use super::super::signature::{Amounts, Signature};
    use super::*;

    /// The sizes of the groups of rank 0's part among four ranks of a machine.
    fn sizes(signature: Signature) -> Vec<u32> {
        let mut plans = Plans::new(Topology::single_node(4), 0, Default::default(), Some(8192));
        let Ok(place) = plans.find(signature) else { panic!("it can be planned") };
        plans.at(place).1.shares.sizes.clone()
    }

    #[test]
    fn what_goes_to_all_others_is_shared_and_what_is_for_one_is_not() {
        let count = 1 << 20;
        let gather = Signature::movement(Collective::AllGather, Dtype::F32, Amounts::Same(count));
        let scatter = Signature::movement(Collective::AllToAll, Dtype::F32, Amounts::Same(count));
        let contract = Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, 4, Dtype::F32)).unwrap();
        let reduce = Signature::reduction(Collective::AllReduce, contract, Amounts::Same(count));
        for signature in [gather, reduce] {
            let sizes = sizes(signature);
            assert!(sizes.len() > 1 && sizes.iter().all(|size| *size == 3), "{sizes:?}");
        }
        assert!(sizes(scatter).is_empty());
    }

    #[test]
    fn what_is_written_more_than_once_is_not_shared() {
        let region = |buf, start| Region { buf, start, len: 4 };
        let send = |to, src| Action::Send { to, src, content: Content::Data };
        let copy = |dst| Action::Copy { src: region(Buf::Part(0), 0), dst, content: Content::Data };
        let sizes = |actions: Vec<Action>| {
            let steps = actions.into_iter().map(|action| Step { action, after: Vec::new() }).collect();
            Shares::new(&Program { steps, ..Default::default() }).sizes
        };
        let slot = region(Buf::Slot(0), 0);
        assert_eq!(sizes(vec![copy(slot), send(1, slot), send(2, slot)]), [2]);
        assert_eq!(sizes(vec![copy(slot), send(1, slot), copy(slot), send(2, slot)]), []);
        // Overlapping it is enough.
        let part = region(Buf::Slot(0), 3);
        assert_eq!(sizes(vec![copy(slot), send(1, slot), copy(part), send(2, slot)]), []);
        assert_eq!(sizes(vec![copy(slot), send(1, slot), copy(region(Buf::Slot(0), 4)), send(2, slot)]), [2]);
    }
}
