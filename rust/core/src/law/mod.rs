//! The value law: what a reduction's bits are. See `docs/law.md`, whose worked example this is:
//!
//! ```
//! use isobit_core::law::{LeafMap, Node, contributions, fold, reduce};
//! use isobit_core::schedule::Content;
//! use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
//!
//! let mut spec = ContractSpec::new(ReduceOp::Sum, Order::Tree, 5, Dtype::F32);
//! spec.accumulate = Some(Dtype::F32);
//! let contract = Contract::new(spec).unwrap();
//! let [a, b, c, d, e] = &[1e8f32, 1.0, -1e8, 1.0, 0.5].map(f32::to_le_bytes);
//! assert_eq!(reduce(&contract, &[a, b, c, d, e]), 0.5f32.to_le_bytes());
//!
//! // Two ranks own 0..3 and 3..5. The first sends the node 0..2 and leaf 2, the second two leaves.
//! let map = LeafMap::even(5, 2);
//! let left = Content::Node(Node::new(0, 2, 5).unwrap());
//! assert_eq!(contributions(&contract, &map, 0), [left, Content::Leaf(2)]);
//! assert_eq!(contributions(&contract, &map, 1), [Content::Leaf(3), Content::Leaf(4)]);
//! let node = fold(&contract, &[(Content::Leaf(0), a), (Content::Leaf(1), b)], left);
//! let parts: [(Content, &[u8]); 4] =
//!     [(left, &node), (Content::Leaf(2), c), (Content::Leaf(3), d), (Content::Leaf(4), e)];
//! assert_eq!(fold(&contract, &parts, Content::Result), 0.5f32.to_le_bytes());
//!
//! // Any order of the leaves would have done for this one.
//! let exact = Contract::new(ContractSpec { order: Order::Exact, accumulate: None, ..spec }).unwrap();
//! assert_eq!(reduce(&exact, &[e, c, a, d, b]), 2.5f32.to_le_bytes());
//! ```

mod contributions;
mod cover;
pub mod exact;
mod leaves;
mod node;
mod reduce;
mod value;

pub use contributions::{contributions, element_bytes};
pub use cover::{FoldStep, cover, fold_steps};
pub use leaves::{LeafMap, LeafMapError, LeafSet};
pub use node::Node;
pub use reduce::{fold, reduce, reduce_element};
pub use value::{Value, combine, finish, node_bits, widen};
