//! Operations that move data and reduce nothing.

mod direct;
mod trees;

pub(super) use direct::{all_gather, all_to_all, barrier, send_recv};
pub(super) use trees::{broadcast, gather, scatter};
