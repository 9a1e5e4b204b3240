//! The verifier: proves on symbolic values that a schedule does what its request says.
//!
//! It shares with the planner only the meaning of the buffers ([`Layout`]) and of the tree
//! ([`Node`](crate::law::Node)). It checks the form of every step, then that any two steps of a rank which touch the same memory
//! are ordered (whether or not `Out` shares memory with a part), and then runs the schedule without
//! any buffering and within the window, with a value for every element that says what it is; in that run nobody may be
//! done, and no result be touched, before every rank has shown that it is in the call.

mod error;
mod form;
mod hazards;
mod heard;
mod memory;
mod run;

pub use error::VerifyError;

use super::{Action, Buf, Content, Layout, Limits, Region, Request, Schedule, Topology};

/// Proves that `schedule` carries out `request`, or says where it does not.
///
/// ```
/// use isobit_core::Dtype;
/// use isobit_core::schedule::verify::{VerifyError, verify};
/// use isobit_core::schedule::{Algorithm, Counts, Limits, Request, Topology, plan};
/// let (topology, limits) = (Topology::single_node(3), Limits::default());
/// let request = Request::all_gather(Dtype::F32, Counts::Same(10));
/// let mut schedule = plan(&request, &topology, &limits, Algorithm::Direct).unwrap();
/// assert_eq!(verify(&request, &topology, &limits, &schedule), Ok(()));
/// schedule.programs[1].steps.pop();
/// assert!(matches!(verify(&request, &topology, &limits, &schedule), Err(VerifyError::WrongResult { .. })));
/// ```
pub fn verify(
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
    schedule: &Schedule,
) -> Result<(), VerifyError> {
    let layout = Layout::new(request, topology)?;
    form::check(&layout, limits, schedule)?;
    for (rank, program) in (0..).zip(&schedule.programs) {
        hazards::check(&layout, rank, program)?;
    }
    run::run(&layout, limits, schedule)
}

/// The regions that a step reads, with what they are claimed to hold.
fn reads(action: &Action) -> Vec<(Region, Content)> {
    match action {
        Action::Send { src, content, .. } | Action::Copy { src, content, .. } => vec![(*src, *content)],
        Action::Recv { .. } => Vec::new(),
        Action::Reduce { inputs, .. } => inputs.iter().map(|input| (input.region, input.content)).collect(),
    }
}

/// The region that a step writes, with what it is claimed to hold.
fn writes(action: &Action) -> Option<(Region, Content)> {
    match action {
        Action::Send { .. } => None,
        Action::Recv { dst, content, .. } | Action::Copy { dst, content, .. } => Some((*dst, *content)),
        Action::Reduce { target, out, .. } => Some((*out, *target)),
    }
}

/// Whether a copy moves elements of a part to where they are if `Out` shares the part's memory.
fn copies_in_place(layout: &Layout<'_>, rank: crate::Rank, action: &Action) -> bool {
    match action {
        Action::Copy { src, dst, .. } if matches!((src.buf, dst.buf), (Buf::Part(_), Buf::Out)) => {
            layout.shared_place(rank, *src).is_some_and(|at| layout.shared_place(rank, *dst) == Some(at))
        }
        _ => false,
    }
}
