//! What a call would do, without making it: algorithm, messages, bytes, and what its leaves cost.

use isobit_core::law::{LeafMap, contributions};
use isobit_core::schedule::{Cost, Counts, Request};
use isobit_core::wire::Collective;
use isobit_core::{Contract, Dtype, Order, Rank};

use super::collectives::Reduction;
use super::{Communicator, plans::Outline};
use crate::error::Error;

/// What a call would do on this rank.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// The name of the algorithm.
    pub algorithm: &'static str,
    /// The steps of this rank's program.
    pub steps: u64,
    /// What the program costs.
    pub cost: Cost,
    /// Of a reduction: what its leaves cost.
    pub leaves: Option<LeafCost>,
}

/// What the number of leaves costs at a world size.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LeafCost {
    /// How many there are.
    pub leaves: u32,
    /// How many contributions a rank has on average; a plain collective has 1.
    pub multiplier: f64,
    /// The number of ranks, 2^a or 3*2^a, nearest to this group's at which these leaves cost least.
    pub ranks_nearest: u32,
    /// The multiplier there.
    pub ranks_multiplier: f64,
    /// The number of leaves nearest to this one at which this group has one contribution a rank.
    pub leaves_nearest: u32,
}

impl Communicator {
    /// What a call would do. `count` is what the caller passes: the elements of the tensor of this
    /// rank. A reduction is of as many leaves as there are ranks unless `leaves` says otherwise.
    ///
    /// ```
    /// use isobit::{Communicator, Dtype, ReduceOp, Reduction};
    /// let mut group = Communicator::memory_group(3);
    /// let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    /// let told = group[0].explain("all_reduce", &sum, 1 << 20, Some(64), 0).unwrap();
    /// assert_eq!(told.algorithm, "direct");
    /// let leaves = told.leaves.unwrap();
    /// assert!(leaves.multiplier > 3.6);
    /// assert_eq!((leaves.ranks_nearest, leaves.leaves_nearest), (2, 48));
    /// ```
    pub fn explain(
        &self,
        collective: &str,
        reduction: &Reduction,
        count: u64,
        leaves: Option<u32>,
        root: Rank,
    ) -> Result<Explanation, Error> {
        let found = Collective::ALL.iter().copied().find(|known| known.name() == collective);
        let Some(collective) = found.filter(|known| *known != Collective::PointToPoint) else {
            let names: Vec<&str> =
                Collective::ALL.iter().map(|known| known.name()).filter(|name| !name.contains('/')).collect();
            let message = format!("collective={collective:?} is none of {}", names.join(", "));
            return Err(self.place_of("explain").error(crate::ErrorKind::Value, None, message));
        };
        let world_size = self.world_size();
        let leaves = leaves.unwrap_or(world_size);
        if leaves == 0 {
            return Err(self.wrong(collective, "a reduction has at least one leaf"));
        }
        let map = LeafMap::even(leaves, world_size);
        let each = || Ok(Counts::Same(self.listed(collective, count, None)?[0]));
        let dtype: Dtype = reduction.dtype;
        let contract = || reduction.contract(leaves).map_err(|message| self.wrong(collective, message));
        self.check_rank(collective, "root", root)?;
        let request = match collective {
            Collective::AllReduce => Request::all_reduce(contract()?, &map, count),
            Collective::Reduce => Request::reduce(contract()?, &map, root, count),
            Collective::ReduceScatter => Request::reduce_scatter(contract()?, &map, each()?),
            Collective::AllGather => Request::all_gather(dtype, Counts::Same(count)),
            Collective::Gather => Request::gather(dtype, root, Counts::Same(count)),
            Collective::Scatter => Request::scatter(dtype, root, each()?),
            Collective::Broadcast => Request::broadcast(dtype, root, count),
            Collective::AllToAll => Request::all_to_all(dtype, each()?),
            Collective::Barrier | Collective::PointToPoint => Request::barrier(),
        };
        let Outline { algorithm, steps, cost } =
            self.plans.outline(&request).map_err(|error| self.wrong(collective, error.to_string()))?;
        let leaves = request.contract.map(|contract| leaf_cost(&contract, leaves, world_size));
        Ok(Explanation { algorithm, steps, cost, leaves })
    }
}

fn leaf_cost(contract: &Contract, leaves: u32, world_size: u32) -> LeafCost {
    let multiplier = |ranks| multiplier(contract, &LeafMap::even(leaves, ranks));
    // 2^a and 3*2^a, up to four times as many ranks as there are.
    let cheap = (0..31).flat_map(|a| [1_u32 << a, (1_u32 << a).saturating_mul(3)]);
    let cheap = cheap.filter(|ranks| *ranks <= world_size.saturating_mul(4).min(leaves));
    let costs = cheap.map(|ranks| (ranks, multiplier(ranks)));
    // One rank needs no group at all; it is named only to a group of one or two.
    let costs = costs.filter(|(ranks, _)| *ranks > 1 || world_size <= 2);
    let nearest = costs.min_by(|(a, cost_a), (b, cost_b)| {
        cost_a.total_cmp(cost_b).then(a.abs_diff(world_size).cmp(&b.abs_diff(world_size)))
    });
    let (ranks_nearest, ranks_multiplier) = nearest.unwrap_or((world_size, multiplier(world_size)));
    let aligned = (0..32).map_while(|a| world_size.checked_mul(1_u32.checked_shl(a)?));
    let leaves_nearest = aligned.min_by_key(|aligned| aligned.abs_diff(leaves)).unwrap_or(leaves);
    LeafCost { leaves, multiplier: multiplier(world_size), ranks_nearest, ranks_multiplier, leaves_nearest }
}

fn multiplier(contract: &Contract, map: &LeafMap) -> f64 {
    let parts: usize = (0..map.world_size()).map(|rank| parts(contract, map, rank)).sum();
    parts as f64 / f64::from(map.world_size())
}

fn parts(contract: &Contract, map: &LeafMap, rank: Rank) -> usize {
    match contract.order() {
        Order::Tree => isobit_core::law::cover(map.leaves(), map.of(rank)).len(),
        Order::Exact => contributions(contract, map, rank).len(),
    }
}
