//! What a call would do, without making it: algorithm, messages, bytes, and what its leaves cost.

use isobit_core::law::LeafMap;
pub use isobit_core::schedule::LeafCost;
use isobit_core::schedule::{Cost, Counts, Request, leaf_cost};
use isobit_core::wire::Collective;
use isobit_core::{Dtype, Rank};

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
