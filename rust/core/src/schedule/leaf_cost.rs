//! What the number of leaves costs: how many contributions a rank has, and where it would have fewer.

use crate::law::{LeafMap, contributions, cover};
use crate::{Contract, Order, Rank};

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

/// What `leaves` leaves cost `world_size` ranks, and what is near and cheaper.
///
/// ```
/// use isobit_core::schedule::leaf_cost;
/// use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
/// let contract = Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, 64, Dtype::F32)).unwrap();
/// let cost = leaf_cost(&contract, 64, 3);
/// assert!(cost.multiplier > 3.6);
/// assert_eq!((cost.ranks_nearest, cost.leaves_nearest), (2, 48));
/// ```
pub fn leaf_cost(contract: &Contract, leaves: u32, world_size: u32) -> LeafCost {
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
        Order::Tree => cover(map.leaves(), map.of(rank)).len(),
        Order::Exact => contributions(contract, map, rank).len(),
    }
}
