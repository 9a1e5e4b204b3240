//! The signature of an operation: everything that its plan depends on, besides the group.

use isobit_core::law::LeafMap;
use isobit_core::wire::{Collective, Descriptor};
use isobit_core::{Contract, Dtype, Rank, digest};

/// See the module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Signature {
    pub(crate) collective: Collective,
    pub(crate) contract: Option<Contract>,
    /// Who owns which leaf; none where rank `i` owns leaf `i`.
    pub(crate) leaf_map: Option<LeafMap>,
    pub(crate) dtype: Dtype,
    /// The root; the sender of a send or receive.
    pub(crate) root: Option<Rank>,
    /// The receiver of a send or receive.
    pub(crate) receiver: Option<Rank>,
    pub(crate) amounts: Amounts,
}

/// How many elements go where.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Amounts {
    /// The tensor's elements, or those of every block.
    Same(u64),
    /// The elements of each rank's block.
    PerRank(Vec<u64>),
    /// The elements that this rank sends to and receives from each.
    Pairs { send: Vec<u64>, recv: Vec<u64> },
}

impl Signature {
    /// An operation that moves data.
    pub(crate) fn movement(collective: Collective, dtype: Dtype, amounts: Amounts) -> Signature {
        Signature { collective, contract: None, leaf_map: None, dtype, root: None, receiver: None, amounts }
    }

    /// An operation that reduces.
    pub(crate) fn reduction(collective: Collective, contract: Contract, amounts: Amounts) -> Signature {
        Signature {
            contract: Some(contract),
            ..Signature::movement(collective, contract.dtype_in(), amounts)
        }
    }

    /// With a root.
    pub(crate) fn rooted(self, root: Rank) -> Signature {
        Signature { root: Some(root), ..self }
    }

    /// What headers say of the operation; `shape` is the digest of the tensor's.
    pub(crate) fn descriptor(&self, shape: u64) -> Descriptor {
        let (count, counts) = match &self.amounts {
            Amounts::Same(count) => (*count, 0),
            Amounts::PerRank(counts) => (counts.iter().sum(), digest::words(counts)),
            Amounts::Pairs { .. } => (0, 0),
        };
        let owners = self.leaf_map.as_ref().map_or(0, LeafMap::digest);
        Descriptor {
            collective: self.collective,
            contract: self.contract,
            dtype: self.dtype,
            root: self.root,
            count,
            shape,
            layout: owners ^ counts,
        }
    }

    /// The elements between this rank and each other, where they differ from pair to pair.
    pub(crate) fn pairs(&self) -> Option<(&[u64], &[u64])> {
        match &self.amounts {
            Amounts::Pairs { send, recv } => Some((send, recv)),
            _ => None,
        }
    }
}
