//! Plans, kept by what they depend on: a training step makes the same calls over and over.

use std::collections::BTreeMap;
use std::sync::Arc;

use isobit_core::Rank;
use isobit_core::engine::Engine;
use isobit_core::law::{LeafMap, element_bytes};
use isobit_core::schedule::{
    self, Action, Buf, Content, Cost, Counts, Layout, Limits, PlanError, Program, Region, Request, Step,
    Topology,
};
use isobit_sys::Memory;

use super::shares::Shares;
use super::signature::{Amounts, Signature};
use super::straight::Straight;
use crate::executor::{Kept, Streams};

/// How many plans are kept. A model has a few dozen signatures; one that never repeats, such as
/// ever new lengths, must not fill the memory.
const PLANS_MAX: usize = 256;

/// A program ready to run, with its staging.
pub(crate) struct Plan {
    /// No other plan of the communicator has or had it.
    pub(crate) number: u64,
    pub(crate) program: Arc<Program>,
    pub(crate) engine: Engine,
    pub(crate) slots: Vec<Memory>,
    pub(crate) kept: Kept,
    pub(crate) sending: Sending,
    pub(crate) straight: Straight,
    pub(crate) shares: Shares,
    used: u64,
}

/// How a program's messages may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sending {
    /// Each is complete when its receiver has verified it.
    Verified,
    /// Those of at most so many bytes are complete at once: nobody is done before all have shown that they are in the
    /// same call.
    Buffered(u64),
    /// The same, and all are small enough, those that it receives as well.
    AllBuffered,
}

/// To copy more than this takes as long as a receiver that has a core needs to verify it.
const COPIED_BYTES_MAX: u64 = 8 * 1024;

/// The plans of one communicator.
pub(crate) struct Plans {
    topology: Topology,
    rank: Rank,
    limits: Limits,
    /// The largest message that the transport can send buffered.
    buffered_bytes_max: Option<u64>,
    plans: Vec<(Signature, Plan)>,
    /// By signature, its place among them.
    places: BTreeMap<Signature, usize>,
    uses: u64,
}

/// What a plan would be.
pub(crate) struct Outline {
    pub(crate) algorithm: &'static str,
    pub(crate) steps: u64,
    pub(crate) cost: Cost,
}

/// Why there is no plan.
pub(crate) enum NoPlan {
    Plan(PlanError),
    Memory { bytes: u64 },
}

impl Plans {
    pub(crate) fn new(
        topology: Topology,
        rank: Rank,
        limits: Limits,
        buffered_bytes_max: Option<u64>,
    ) -> Plans {
        let (plans, places) = (Vec::new(), BTreeMap::new());
        Plans { topology, rank, limits, buffered_bytes_max, plans, places, uses: 0 }
    }

    /// The place of a signature's plan, which is made now if it is not there.
    pub(crate) fn find(&mut self, signature: Signature) -> Result<usize, NoPlan> {
        self.uses += 1;
        let place = match self.places.get(&signature) {
            Some(place) => *place,
            None => self.add(signature)?,
        };
        self.plans[place].1.used = self.uses;
        Ok(place)
    }

    /// A plan and its signature.
    pub(crate) fn at(&mut self, place: usize) -> (&Signature, &mut Plan) {
        let (signature, plan) = &mut self.plans[place];
        (signature, plan)
    }

    fn add(&mut self, signature: Signature) -> Result<usize, NoPlan> {
        let plan = self.make(&signature)?;
        let mut place = self.plans.len();
        if place < PLANS_MAX {
            self.plans.push((signature.clone(), plan));
        } else {
            let oldest = self.plans.iter().enumerate().min_by_key(|(_, (_, plan))| plan.used);
            place = oldest.map_or(0, |(place, _)| place);
            let (forgotten, _) = std::mem::replace(&mut self.plans[place], (signature.clone(), plan));
            self.places.remove(&forgotten);
        }
        self.places.insert(signature, place);
        Ok(place)
    }

    /// How many ranks are on this one's machine.
    fn ranks_here(&self) -> usize {
        self.topology.machines()[self.topology.machine_of(self.rank)].len()
    }

    fn bytes(&self, signature: &Signature, region: Region, content: Content) -> u64 {
        region.len * element_bytes(content, signature.contract.as_ref(), signature.dtype) as u64
    }

    /// How the messages of a program may be sent. Between two ranks alone the sender waits until its message was
    /// verified: it would else have returned before the other could object.
    fn sending(&self, signature: &Signature, program: &Program) -> Sending {
        let Some(bytes_max) = self.buffered_bytes_max.filter(|_| signature.receiver.is_none()) else {
            return Sending::Verified;
        };
        let bytes_max =
            if self.topology.shares_cores() { bytes_max } else { bytes_max.min(COPIED_BYTES_MAX) };
        let is_small = |step: &Step| match &step.action {
            Action::Send { src: message, content, .. } | Action::Recv { dst: message, content, .. } => {
                self.bytes(signature, *message, *content) <= bytes_max
            }
            _ => true,
        };
        if program.steps.iter().all(is_small) { Sending::AllBuffered } else { Sending::Buffered(bytes_max) }
    }

    /// What the plan of a request would be, without its staging.
    pub(crate) fn outline(&self, request: &Request<'_>) -> Result<Outline, PlanError> {
        let algorithm = schedule::choose(request, &self.topology, &self.limits)?;
        let program = schedule::plan_rank(request, &self.topology, &self.limits, algorithm, self.rank)?;
        let cost = schedule::cost(&Layout::new(request, &self.topology)?, &program);
        Ok(Outline { algorithm: algorithm.name(), steps: program.steps.len() as u64, cost })
    }

    fn make(&self, signature: &Signature) -> Result<Plan, NoPlan> {
        let rank = self.rank;
        let pairs = |from: Rank, to: Rank| match &signature.amounts {
            Amounts::Pairs { send, .. } if from == rank => send[to as usize],
            Amounts::Pairs { recv, .. } if to == rank => recv[from as usize],
            _ => unreachable!("a rank plans its own part only"),
        };
        let counts = match &signature.amounts {
            Amounts::Same(count) => Counts::Same(*count),
            Amounts::PerRank(counts) => Counts::PerRank(counts),
            Amounts::Pairs { .. } => Counts::Matrix(&pairs),
        };
        let one_each = LeafMap::one_each(self.topology.world_size());
        let request = Request {
            collective: signature.collective,
            contract: signature.contract,
            leaf_map: signature.contract.map(|_| signature.leaf_map.as_ref().unwrap_or(&one_each)),
            dtype: signature.dtype,
            root: signature.root,
            receiver: signature.receiver,
            counts,
        };
        let algorithm = schedule::choose(&request, &self.topology, &self.limits).map_err(NoPlan::Plan)?;
        let program = schedule::plan_rank(&request, &self.topology, &self.limits, algorithm, rank);
        let program = program.map_err(NoPlan::Plan)?;
        let slots = program.slot_bytes.iter().map(|&bytes| {
            usize::try_from(bytes).ok().and_then(Memory::zeroed).ok_or(NoPlan::Memory { bytes })
        });
        let slots = slots.collect::<Result<_, _>>()?;
        let program = Arc::new(program);
        Ok(Plan {
            engine: Engine::new(Arc::clone(&program)),
            kept: Kept::new(
                program.views,
                streams(&program, self.ranks_here(), self.topology.shares_cores(), |region, content| {
                    self.bytes(signature, region, content)
                }),
            ),
            sending: self.sending(signature, &program),
            straight: Straight::new(&program),
            shares: Shares::new(&program),
            program,
            slots,
            number: self.uses,
            used: self.uses,
        })
    }
}

/// From how many bytes on, of the tensors and results of all ranks of a machine together, a result goes past the caches:
/// where it would not stay in them anyway. A broadcast of 16 MiB to another rank takes 0.7 ms where it stays, and 1.1
/// where it doesn't; an all_gather of 16 MiB on 8 ranks takes 9.6 ms through the caches, and 7.6 past them.
const STREAM_BYTES_MIN: u64 = 48 << 20;

/// The same of what is moved by ranks that share cores and send as well: each pair's rings take of the same caches. An
/// all_gather of 8 MiB on 4 ranks takes 2.1 ms through the caches and 1.6 past them, an all_to_all of 2 MiB on 8 ranks 1.2
/// to 1.5 and 0.8 to 1.2. A root that gathers 4 MiB from 8, and sends nothing, takes 213 us and 253.
const STREAM_BYTES_MIN_OF_MANY: u64 = 24 << 20;

/// What goes past the caches because `ranks` such programs have so much: what is moved into the result, and what is reduced
/// into it, each unless some of it is read again.
fn streams(
    program: &Program,
    ranks: usize,
    share_cores: bool,
    bytes: impl Fn(Region, Content) -> u64,
) -> Streams {
    let out = |region: &Region| region.buf == Buf::Out && region.len > 0;
    let (mut moved, mut reduced, mut given) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut give = |src: &Region, content: Content| {
        if let Buf::Part(part) = src.buf {
            let until: &mut u64 = given.entry(part).or_default();
            *until = bytes(Region { start: 0, len: src.start + src.len, ..*src }, content).max(*until);
        }
    };
    for step in &program.steps {
        match &step.action {
            Action::Send { src, content, .. } | Action::Copy { src, content, .. } => give(src, *content),
            Action::Reduce { inputs, .. } => {
                inputs.iter().for_each(|operand| give(&operand.region, operand.content));
            }
            _ => {}
        }
        match &step.action {
            Action::Recv { dst, content, .. } | Action::Copy { dst, content, .. } if out(dst) => {
                moved.push((*dst, *content));
            }
            Action::Reduce { out: dst, target, .. } if out(dst) => reduced.push((*dst, *target)),
            _ => {}
        }
    }
    let given: u64 = given.values().sum();
    let goes_past = |mut written: Vec<(Region, Content)>, bytes_min: u64| {
        let used = given + written.iter().map(|(region, content)| bytes(*region, *content)).sum::<u64>();
        written.sort_unstable_by_key(|(region, _)| region.start);
        let is_read = |src: &Region| {
            let before = written.partition_point(|(region, _)| region.start < src.start + src.len);
            out(src)
                && written[..before].last().is_some_and(|(region, _)| region.start + region.len > src.start)
        };
        let reads = |step: &Step| match &step.action {
            Action::Send { src, .. } | Action::Copy { src, .. } => is_read(src),
            Action::Reduce { inputs, .. } => inputs.iter().any(|operand| is_read(&operand.region)),
            _ => false,
        };
        let is_much = used.saturating_mul(ranks as u64) >= bytes_min;
        is_much && !written.is_empty() && !program.steps.iter().any(reads)
    };
    let sends =
        program.steps.iter().any(|step| matches!(&step.action, Action::Send { src, .. } if src.len > 0));
    let moved_min = if share_cores && sends { STREAM_BYTES_MIN_OF_MANY } else { STREAM_BYTES_MIN };
    Streams { moved: goes_past(moved, moved_min), reduced: goes_past(reduced, STREAM_BYTES_MIN) }
}

#[cfg(test)]
mod tests {
    use isobit_core::wire::Collective;
    use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};

    use super::*;

    #[test]
    fn results_go_past_the_caches_where_those_of_all_ranks_together_would_not_stay_in_them() {
        let streams = |world_size: u32, count: u64| {
            let mut plans = Plans::new(Topology::single_node(world_size), 0, Limits::default(), None);
            let signature = Signature::movement(Collective::AllToAll, Dtype::U8, Amounts::Same(count));
            let Ok(place) = plans.find(signature) else { panic!("it can be planned") };
            let ranks = plans.ranks_here();
            streams(&plans.at(place).1.program, ranks, false, |region, _| region.len).moved
        };
        assert_eq!([2, 4, 8].map(|ranks| streams(ranks, (4 << 20) / u64::from(ranks))), [false, false, true]);
        assert_eq!([2, 4, 8].map(|ranks| streams(ranks, (12 << 20) / u64::from(ranks))), [true, true, true]);
    }

    #[test]
    fn results_go_past_the_caches_sooner_where_ranks_share_cores_and_send_as_well() {
        let streams = |collective, cores| {
            let topology = Topology::single_node(4).on_cores(cores);
            let mut plans = Plans::new(topology, 0, Limits::default(), None);
            let amounts = Amounts::Same(2 << 20);
            let signature = Signature::movement(collective, Dtype::U8, amounts).rooted(0);
            let Ok(place) = plans.find(signature) else { panic!("it can be planned") };
            streams(&plans.at(place).1.program, 4, cores < 4, |region, _| region.len).moved
        };
        assert_eq!([4, 2].map(|cores| streams(Collective::AllGather, cores)), [false, true]);
        assert_eq!([4, 2].map(|cores| streams(Collective::Gather, cores)), [false, false]);
    }

    #[test]
    fn what_is_reduced_goes_past_the_caches_unless_it_is_sent_on() {
        let streams = |collective| {
            let mut plans = Plans::new(Topology::single_node(2), 0, Limits::default(), None);
            let contract =
                Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, 2, Dtype::F32)).unwrap();
            let count = if collective == Collective::AllReduce { 8 << 20 } else { 4 << 20 };
            let signature = Signature::reduction(collective, contract, Amounts::Same(count));
            let Ok(place) = plans.find(signature) else { panic!("it can be planned") };
            let ranks = plans.ranks_here();
            streams(&plans.at(place).1.program, ranks, false, |region, _| region.len * 4)
        };
        assert_eq!(streams(Collective::ReduceScatter), Streams { moved: false, reduced: true });
        assert_eq!(streams(Collective::AllReduce), Streams { moved: true, reduced: false });
    }

    #[test]
    fn who_receives_large_messages_takes_the_ordinary_way_though_all_that_it_sends_is_small() {
        for (count, expected) in
            [(8, [Sending::AllBuffered, Sending::AllBuffered]), (1 << 20, [Sending::Buffered(4096); 2])]
        {
            for (rank, expected) in (0..).zip(expected) {
                let mut plans = Plans::new(Topology::single_node(2), rank, Limits::default(), Some(4096));
                let broadcast =
                    Signature::movement(Collective::Broadcast, Dtype::F32, Amounts::Same(count)).rooted(0);
                let Ok(place) = plans.find(broadcast) else { panic!("it can be planned") };
                assert_eq!(plans.at(place).1.sending, expected, "{count} elements on rank {rank}");
            }
        }
    }

    #[test]
    fn larger_messages_are_buffered_where_their_receivers_share_cores() {
        let count = 2 * COPIED_BYTES_MAX;
        let is_buffered = |cores| {
            let topology = Topology::single_node(4).on_cores(cores);
            let mut plans = Plans::new(topology, 0, Limits::default(), Some(count));
            let signature = Signature::movement(Collective::AllGather, Dtype::U8, Amounts::Same(count));
            let Ok(place) = plans.find(signature) else { panic!("it can be planned") };
            plans.at(place).1.sending == Sending::AllBuffered
        };
        assert_eq!([4, 2].map(is_buffered), [false, true]);
    }
}
