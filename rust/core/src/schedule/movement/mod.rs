//! Operations that move data and reduce nothing.

mod direct;
mod hierarchical;
mod star;
mod trees;

pub(super) use direct::{all_gather, all_to_all, send_recv};
pub(super) use hierarchical::all_gather as all_gather_hierarchical;
pub(super) use star::{all_gather as all_gather_star, barrier as barrier_star};
pub(super) use trees::{broadcast, gather, scatter};
