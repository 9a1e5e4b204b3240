//! What a program costs: messages, bytes and staging, counted from its steps.

use super::{Action, Layout, Program};

/// What one rank's program costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Messages sent.
    pub messages_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Bytes of payload sent.
    pub bytes_sent: u64,
    /// Bytes of payload received.
    pub bytes_received: u64,
    /// Bytes read by reductions.
    pub bytes_reduced: u64,
    /// Bytes of staging.
    pub staging_bytes: u64,
}

/// Counts what a program costs.
///
/// ```
/// use isobit_core::Dtype;
/// use isobit_core::schedule::{Algorithm, Layout, Limits, Request, Topology, cost, plan_rank};
/// let (topology, limits) = (Topology::single_node(4), Limits::default());
/// let request = Request::broadcast(Dtype::F32, 0, 1000);
/// let root = plan_rank(&request, &topology, &limits, Algorithm::Tree, 0).unwrap();
/// let layout = Layout::new(&request, &topology).unwrap();
/// assert_eq!(cost(&layout, &root).bytes_sent, 2 * 4000);
/// ```
pub fn cost(layout: &Layout<'_>, program: &Program) -> Cost {
    let mut cost = Cost { staging_bytes: program.slot_bytes.iter().sum(), ..Cost::default() };
    for step in &program.steps {
        match &step.action {
            Action::Send { src, content, .. } => {
                cost.messages_sent += 1;
                cost.bytes_sent += src.len * layout.bytes(*content);
            }
            Action::Recv { dst, content, .. } => {
                cost.messages_received += 1;
                cost.bytes_received += dst.len * layout.bytes(*content);
            }
            Action::Reduce { inputs, .. } => {
                let bytes = inputs.iter().map(|input| input.region.len * layout.bytes(input.content));
                cost.bytes_reduced += bytes.sum::<u64>();
            }
            Action::Copy { .. } => {}
        }
    }
    cost
}
