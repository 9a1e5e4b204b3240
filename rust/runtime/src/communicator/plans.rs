//! Plans, kept by what they depend on: a training step makes the same calls over and over.

use std::collections::BTreeMap;
use std::sync::Arc;

use isobit_core::Rank;
use isobit_core::engine::Engine;
use isobit_core::law::LeafMap;
use isobit_core::schedule::{self, Cost, Counts, Layout, Limits, PlanError, Program, Request, Topology};
use isobit_sys::Memory;

use super::signature::{Amounts, Signature};

/// How many plans are kept. A model has a few dozen signatures; one that never repeats, such as
/// ever new lengths, must not fill the memory.
const PLANS_MAX: usize = 256;

/// A program ready to run, with its staging.
pub(crate) struct Plan {
    pub(crate) program: Arc<Program>,
    pub(crate) engine: Engine,
    pub(crate) slots: Vec<Memory>,
    used: u64,
}

/// The plans of one communicator.
pub(crate) struct Plans {
    topology: Topology,
    rank: Rank,
    limits: Limits,
    plans: BTreeMap<Signature, Plan>,
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
    pub(crate) fn new(topology: Topology, rank: Rank, limits: Limits) -> Plans {
        Plans { topology, rank, limits, plans: BTreeMap::new(), uses: 0 }
    }

    /// The plan of a signature, made now if it is not there.
    pub(crate) fn get(&mut self, signature: Signature) -> Result<&mut Plan, NoPlan> {
        self.uses += 1;
        if !self.plans.contains_key(&signature) {
            if self.plans.len() == PLANS_MAX {
                let oldest = self.plans.iter().min_by_key(|(_, plan)| plan.used).map(|(key, _)| key.clone());
                self.plans.remove(&oldest.expect("it is full"));
            }
            let plan = self.make(&signature)?;
            self.plans.insert(signature.clone(), plan);
        }
        let plan = self.plans.get_mut(&signature).expect("it was just put there");
        plan.used = self.uses;
        Ok(plan)
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
        Ok(Plan { engine: Engine::new(Arc::clone(&program)), program, slots, used: self.uses })
    }
}
