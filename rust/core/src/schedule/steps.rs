//! How many messages of an algorithm wait for one another, if the tensor is one chunk.

use super::{Algorithm, Request, Topology};
use crate::Rank;
use crate::wire::Collective;

/// Messages that follow one another, by the links that they take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Steps {
    /// Within a machine.
    pub within: u32,
    /// Between machines.
    pub between: u32,
}

/// The steps of an algorithm. Of a tree it is twice the number of rounds, in each of which a rank sends one message.
///
/// ```
/// use isobit_core::Dtype;
/// use isobit_core::schedule::{Algorithm, Counts, Request, Steps, Topology, steps};
/// let topology = Topology::new((0..16).map(|rank| rank / 4).collect());
/// let request = Request::all_gather(Dtype::F32, Counts::Same(1));
/// assert_eq!(steps(&request, &topology, Algorithm::Direct), Steps { within: 0, between: 1 });
/// assert_eq!(steps(&request, &topology, Algorithm::Hierarchical), Steps { within: 3, between: 3 });
/// ```
pub fn steps(request: &Request<'_>, topology: &Topology, algorithm: Algorithm) -> Steps {
    let world_size = topology.world_size();
    if world_size == 1 {
        return Steps::default();
    }
    let rounds = u32::BITS - (world_size - 1).leading_zeros();
    let reduces = matches!(request.collective, Collective::AllReduce | Collective::Reduce);
    let mut steps = Steps::default();
    let mut cross = |between: bool, count: u32| {
        *(if between { &mut steps.between } else { &mut steps.within }) += count;
    };
    let machines = topology.machines().len() > 1;
    let apart = |a: Rank, b: Rank| topology.machine_of(a) != topology.machine_of(b);
    let root = request.root.unwrap_or(0);
    let other = |round: u32| (u64::from(root) + (1 << round)) % u64::from(world_size);
    let other = |round: u32| u32::try_from(other(round)).unwrap_or(root);
    // One of two ranks tells the other nothing new when it answers.
    let answers = world_size > 2;
    match algorithm {
        Algorithm::OneShot if request.root.is_none() => cross(machines, 1),
        Algorithm::Flat if request.collective == Collective::Broadcast => {
            cross(machines, if answers { 2 } else { 1 });
        }
        Algorithm::OneShot | Algorithm::Flat => {
            cross(machines, 1);
            // The roll call takes the tree.
            (0..rounds).filter(|_| answers).for_each(|round| cross(apart(root, other(round)), 1));
        }
        Algorithm::Star => {
            cross(machines, if answers || request.collective != Collective::Barrier { 2 } else { 1 });
        }
        Algorithm::Direct => cross(machines, if reduces { 2 } else { 1 }),
        Algorithm::Butterfly => {
            let excess = world_size - (1 << world_size.ilog2());
            if excess > 0 {
                cross(apart(0, 1), 2);
            }
            // Actor `v` is rank `v + min(v, excess)`.
            (0..world_size.ilog2())
                .map(|round| 1 << round)
                .for_each(|v| cross(apart(0, v + excess.min(v)), 1));
        }
        Algorithm::Hierarchical
            if request.collective == Collective::AllGather && !topology.groups().is_divided() =>
        {
            cross(machines, 1);
        }
        Algorithm::Hierarchical => {
            // Into an aggregator's hands and on to the finisher, or to all groups and to the group; and back.
            let back = if reduces { 1 } else { 0 };
            let (inside, outside) = match request.collective {
                // Blocks of the group have come by the time that the roll is called.
                Collective::AllGather => {
                    (0..rounds).for_each(|round| cross(apart(root, other(round)), 1));
                    (1, 1)
                }
                _ => (1 + back, 1 + back),
            };
            cross(machines && !topology.is_divided(), inside);
            cross(machines, outside);
        }
        // Down the tree, and up for the roll call, or the other way around.
        Algorithm::Tree => {
            (0..rounds).for_each(|round| cross(apart(root, other(round)), if answers { 2 } else { 1 }));
        }
        Algorithm::Dissemination => (0..rounds).for_each(|round| cross(apart(root, other(round)), 1)),
    }
    steps
}
