//! What the tests of schedules share: ownerships, requests, and the check that a schedule is right.
#![allow(dead_code, reason = "each test file uses a part of it")]

use isobit_core::law::{LeafMap, LeafSet};
use isobit_core::schedule::verify::verify;
use isobit_core::schedule::{Algorithm, Limits, PlanError, Request, Schedule, Topology, plan, plan_rank};
use isobit_core::{Contract, ContractSpec, Dtype, Order, Rank, ReduceOp};

/// A small deterministic source of choices.
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(crate) fn rank(&mut self, world_size: u32) -> Rank {
        u32::try_from(self.below(world_size.into())).unwrap()
    }

    pub(crate) fn counts(&mut self, world_size: u32, bound: u64) -> Vec<u64> {
        (0..world_size).map(|_| self.below(bound)).collect()
    }
}

/// The kinds of ownership that `ownership` makes.
pub(crate) const OWNERSHIPS: u64 = 5;

pub(crate) fn ownership(kind: u64, leaves: u32, world_size: u32, choices: &mut Choices) -> LeafMap {
    let owner: Box<dyn FnMut(u32) -> Rank> = match kind {
        0 => return LeafMap::even(leaves, world_size),
        // One rank owns all.
        1 => {
            let rank = choices.rank(world_size);
            Box::new(move |_| rank)
        }
        // Any rank any leaf.
        2 => Box::new(|_| choices.rank(world_size)),
        // Round robin: nobody owns neighbours.
        3 => Box::new(|leaf| leaf % world_size),
        // Runs of random length, not in rank order; some ranks own nothing.
        _ => {
            let mut rank = choices.rank(world_size);
            Box::new(move |_| {
                if choices.below(3) == 0 {
                    rank = choices.rank(world_size);
                }
                rank
            })
        }
    };
    let owners: Vec<Rank> = (0..leaves).map(owner).collect();
    let set = |rank| LeafSet::from_leaves((0..leaves).filter(|leaf| owners[*leaf as usize] == rank));
    LeafMap::new(leaves, (0..world_size).map(set).collect()).unwrap()
}

pub(crate) fn sum(order: Order, leaves: u32, dtype: Dtype) -> Contract {
    Contract::new(ContractSpec::new(ReduceOp::Sum, order, leaves, dtype)).unwrap()
}

/// Ranks spread over machines of different sizes, not in order.
pub(crate) fn machines(world_size: u32, choices: &mut Choices) -> Topology {
    let machines = 1 + choices.below(u64::from(world_size).min(9));
    let topology =
        Topology::new((0..world_size).map(|_| u32::try_from(choices.below(machines)).unwrap()).collect());
    if choices.below(2) == 0 { topology } else { topology.on_cores(1) }
}

/// Plans with the smallest limits that do, so that there are many chunks and no slack, or with the
/// given multiple of them.
pub(crate) fn plan_tightly(
    request: &Request<'_>,
    topology: &Topology,
    algorithm: Algorithm,
    slack: u64,
) -> (Schedule, Limits) {
    let none = Limits { chunk_bytes: 0, window_bytes: 0 };
    let limits = match plan(request, topology, &none, algorithm) {
        Err(PlanError::LimitsTooSmall { chunk_bytes, window_bytes, .. }) => {
            // Now the one, now the other is what keeps a chunk small.
            Limits {
                chunk_bytes: chunk_bytes.max(1) * slack * slack,
                window_bytes: window_bytes.max(1) * (2 * slack - 1),
            }
        }
        _ => Limits { chunk_bytes: slack, window_bytes: slack },
    };
    let limits = match plan(request, topology, &limits, algorithm) {
        Err(PlanError::LimitsTooSmall { chunk_bytes, window_bytes, .. }) => Limits {
            chunk_bytes: limits.chunk_bytes.max(chunk_bytes),
            window_bytes: limits.window_bytes.max(window_bytes),
        },
        _ => limits,
    };
    (plan(request, topology, &limits, algorithm).unwrap(), limits)
}

/// Plans with every algorithm that supports the request, and checks each schedule.
pub(crate) fn check(request: &Request<'_>, topology: &Topology, slack: u64) {
    let order = request.contract.map_or(Order::Tree, |contract| contract.order());
    let mut supported = 0;
    for algorithm in Algorithm::ALL.into_iter().filter(|a| a.supports(request.collective, order)) {
        supported += 1;
        let (schedule, limits) = plan_tightly(request, topology, algorithm, slack);
        let said = |what: &str| {
            format!("{what}: {} by {algorithm} on {topology:?}: {request:?}", request.collective)
        };
        if let Err(error) = verify(request, topology, &limits, &schedule) {
            panic!("{}", said(&error.to_string()));
        }
        for rank in 0..topology.world_size() {
            let own = plan_rank(request, topology, &limits, algorithm, rank).unwrap();
            assert!(own == schedule.programs[rank as usize], "{}", said("plan_rank differs from plan"));
        }
    }
    assert!(supported > 0);
}
