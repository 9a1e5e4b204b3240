//! What each rank brings to a reduction. Everybody can compute it for everybody.

use super::{LeafMap, cover, exact};
use crate::schedule::Content;
use crate::{Contract, Dtype, Order, Rank};

/// The contributions of `rank`, in the order of its parts: in tree order the cover of its leaves;
/// in exact order its raw leaves if they are no larger than a wide sum, else one wide sum.
///
/// ```
/// use isobit_core::law::{LeafMap, Node, contributions};
/// use isobit_core::schedule::Content::{Leaf, Node as Inner, Wide};
/// use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
/// let contract = |order| Contract::new(ContractSpec::new(ReduceOp::Sum, order, 64, Dtype::F32)).unwrap();
/// let map = LeafMap::even(64, 5);
/// let tree = [Inner(Node::new(52, 56, 64).unwrap()), Inner(Node::new(56, 64, 64).unwrap())];
/// assert_eq!(contributions(&contract(Order::Tree), &map, 4), tree);
/// assert_eq!(contributions(&contract(Order::Exact), &map, 4)[0], Leaf(52));
/// assert_eq!(contributions(&contract(Order::Exact), &map, 0), [Wide(13)]);
/// ```
pub fn contributions(contract: &Contract, map: &LeafMap, rank: Rank) -> Vec<Content> {
    let set = map.of(rank);
    let raw_bytes = set.len() as usize * contract.dtype_in().size();
    match contract.order() {
        Order::Tree => cover(map.leaves(), set).into_iter().map(Content::of_node).collect(),
        Order::Exact if raw_bytes <= exact::wide_bytes(contract.dtype_in()) => {
            set.iter().map(Content::Leaf).collect()
        }
        Order::Exact => vec![Content::Wide(set.len())],
    }
}

/// Bytes of one element of `content`: of a reduction under `contract`, or of moved `dtype`.
pub fn element_bytes(content: Content, contract: Option<&Contract>, dtype: Dtype) -> usize {
    match content.dtype(contract, dtype) {
        Some(dtype) => dtype.size(),
        None => exact::wide_bytes(contract.map_or(dtype, Contract::dtype_in)),
    }
}
