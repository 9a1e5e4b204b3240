//! The value law: what a reduction's bits are. See `docs/law.md`.

mod contributions;
mod cover;
pub mod exact;
mod leaves;
mod node;

pub use contributions::{contributions, element_bytes};
pub use cover::{FoldStep, cover, fold_steps};
pub use leaves::{LeafMap, LeafMapError, LeafSet};
pub use node::Node;
