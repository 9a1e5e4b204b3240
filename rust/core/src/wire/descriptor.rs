//! The descriptor of an operation: what two ranks must agree on to work together.

use std::fmt;

use crate::Dtype;
use crate::contract::{Contract, Difference};
use crate::op::coded_enum;

coded_enum! {
    /// The kind of an operation.
    Collective {
        /// Everyone gets the reduction.
        AllReduce = 1, "all_reduce";
        /// The root gets the reduction.
        Reduce = 2, "reduce";
        /// Each rank gets its slice of the reduction.
        ReduceScatter = 3, "reduce_scatter";
        /// Everyone gets everyone's block.
        AllGather = 4, "all_gather";
        /// The root gets everyone's block.
        Gather = 5, "gather";
        /// Each rank gets its block of the root's.
        Scatter = 6, "scatter";
        /// Everyone gets the root's tensor.
        Broadcast = 7, "broadcast";
        /// Each rank gets a block from each.
        AllToAll = 8, "all_to_all";
        /// Everyone has arrived.
        Barrier = 9, "barrier";
        /// One rank to another.
        PointToPoint = 10, "send/recv";
    }
}

/// What an operation is, in the words of its caller. It travels in every header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Descriptor {
    /// The kind of operation.
    pub collective: Collective,
    /// The contract, of reductions.
    pub contract: Option<Contract>,
    /// The elements' dtype.
    pub dtype: Dtype,
    /// The root, of rooted operations.
    pub root: Option<u32>,
    /// The number of elements that both sides must agree on: the tensor's, or in all-to-all and
    /// send/recv those that travel between the two.
    pub count: u64,
    /// The digest of the tensor's shape: XXH3-64 of its dimensions as u64.
    pub shape: u64,
    /// The digest of who owns or gets how much: leaves, or counts a rank. 0 where there is nothing to agree on.
    pub layout: u64,
}

impl Descriptor {
    /// The first field in which two descriptors differ, with both values, for messages.
    pub fn difference(&self, other: &Descriptor) -> Option<Difference> {
        fn field(
            field: &'static str,
            ours: impl fmt::Display,
            theirs: impl fmt::Display,
        ) -> Option<Difference> {
            let (ours, theirs) = (ours.to_string(), theirs.to_string());
            (ours != theirs).then_some(Difference { field, ours, theirs })
        }
        let root = |root: Option<u32>| root.map_or("none".to_owned(), |root| root.to_string());
        let contracts = match (&self.contract, &other.contract) {
            (Some(ours), Some(theirs)) => ours.difference(theirs),
            _ => None,
        };
        field("collective", self.collective, other.collective)
            .or(contracts)
            .or_else(|| field("dtype", self.dtype, other.dtype))
            .or_else(|| field("root", root(self.root), root(other.root)))
            .or_else(|| field("count", self.count, other.count))
            .or_else(|| {
                field("shape", format!("digest {:016x}", self.shape), format!("digest {:016x}", other.shape))
            })
            .or_else(|| {
                field(
                    "layout",
                    format!("digest {:016x}", self.layout),
                    format!("digest {:016x}", other.layout),
                )
            })
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} x {}", self.collective, self.count, self.dtype)?;
        if let Some(contract) = &self.contract {
            write!(f, ", {contract}")?;
        }
        if let Some(root) = self.root {
            write!(f, ", root {root}")?;
        }
        f.write_str(")")
    }
}
