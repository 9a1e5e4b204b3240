//! The value law: what a reduction's bits are. See `docs/law.md`.

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
