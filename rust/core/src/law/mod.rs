//! The value law: what a reduction's bits are. See `docs/law.md`.

mod cover;
mod leaves;
mod node;

pub use cover::{FoldStep, cover, fold_steps};
pub use leaves::{LeafMap, LeafMapError, LeafSet};
pub use node::Node;
