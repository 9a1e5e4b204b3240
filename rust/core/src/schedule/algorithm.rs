//! The algorithms by name, which one is chosen, and the entry to planning.

use std::fmt;

use super::builder::Builder;
use super::{
    Content, Layout, Limits, PlanError, Program, Request, Schedule, Topology, movement, reduce, roll_call,
};
use crate::wire::Collective;
use crate::{Order, Rank};

/// How an operation is carried out. None of them can change a bit of a result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Algorithm {
    /// Everyone who gets the result receives every contribution and finishes by itself.
    OneShot,
    /// Everyone sends to rank 0, which sends everyone what comes of it.
    Star,
    /// Each rank finishes its slice; finished slices are exchanged. For moved data: every pair
    /// exchanges its block, in rotation.
    Direct,
    /// Recursive doubling: groups of ranks merge their partial results pairwise.
    Butterfly,
    /// Partial results are merged within each machine before they leave it; of moved data, blocks
    /// travel together and cross to another machine once.
    Hierarchical,
    /// A binomial tree.
    Tree,
    /// The root exchanges with every rank itself.
    Flat,
    /// Everyone hears of everyone in as many rounds as the world size has binary digits.
    Dissemination,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 8] = [
        Algorithm::OneShot,
        Algorithm::Star,
        Algorithm::Direct,
        Algorithm::Butterfly,
        Algorithm::Hierarchical,
        Algorithm::Tree,
        Algorithm::Flat,
        Algorithm::Dissemination,
    ];

    /// The name that messages and `explain` use.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::OneShot => "one-shot",
            Algorithm::Star => "star",
            Algorithm::Direct => "direct",
            Algorithm::Butterfly => "butterfly",
            Algorithm::Hierarchical => "hierarchical",
            Algorithm::Tree => "tree",
            Algorithm::Flat => "flat",
            Algorithm::Dissemination => "dissemination",
        }
    }

    /// Whether it does this collective in this order (of reductions; ignored for others).
    ///
    pub fn supports(self, collective: Collective, order: Order) -> bool {
        match self {
            Algorithm::OneShot => matches!(collective, Collective::AllReduce | Collective::Reduce),
            Algorithm::Star => {
                matches!(collective, Collective::AllReduce | Collective::AllGather | Collective::Barrier)
            }
            Algorithm::Direct => matches!(
                collective,
                Collective::AllReduce
                    | Collective::Reduce
                    | Collective::ReduceScatter
                    | Collective::AllGather
                    | Collective::AllToAll
                    | Collective::PointToPoint
            ),
            Algorithm::Butterfly => collective == Collective::AllReduce && order == Order::Tree,
            Algorithm::Hierarchical => matches!(
                collective,
                Collective::AllReduce
                    | Collective::Reduce
                    | Collective::ReduceScatter
                    | Collective::AllGather
            ),
            Algorithm::Tree | Algorithm::Flat => {
                matches!(collective, Collective::Broadcast | Collective::Gather | Collective::Scatter)
            }
            Algorithm::Dissemination => collective == Collective::Barrier,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Up to this many bytes received a rank, a reduction is one-shot: two steps cost more than bytes.
const ONE_SHOT_BYTES_MAX: u64 = 64 * 1024;

/// Up to this many bytes, and from this many ranks on, messages cost more than merging on the way.
const BUTTERFLY_BYTES_MAX: u64 = 16 * 1024;
const BUTTERFLY_RANKS_MIN: u32 = 16;

/// From this many ranks on, and up to this many bytes a rank, what costs is that every rank has a
/// message for every other: groups of ranks exchange fewer, even where they are no machines.
const GROUPS_RANKS_MIN: u32 = 64;
const GROUPS_BYTES_MAX: u64 = 1024;

/// Up to this many bytes a rank, divided by the cores, ranks that share those send all to one of them. None goes on
/// before all have had a core in turn, whatever the algorithm: what is left to save is work, and that is the number of
/// messages. But one rank has all the bytes, on one core, where others had them on all.
const STAR_BYTES_MAX: u64 = 64 * 1024;
/// The same where nothing is merged in the middle. From so many ranks on: few have heard of all others in the turn that they
/// have anyway.
const STAR_BYTES_MAX_MOVED: u64 = 2 * 1024;
const STAR_RANKS_MIN_MOVED: u32 = 7;
/// The same where there is nothing to move.
const STAR_RANKS_MIN: u32 = 4;

/// On up to so many cores that ranks share, a root has sent each rank a message before those of a tree have had a core in
/// turn, level by level.
const FLAT_CORES_MAX: u64 = 8;

/// The middle of a star.
pub(super) const STAR_ROOT: Rank = 0;

/// The algorithm for a request. A function of what all ranks know alike, so all choose the same.
pub fn choose(request: &Request<'_>, topology: &Topology, limits: &Limits) -> Result<Algorithm, PlanError> {
    choose_because(request, topology, limits).map(|(algorithm, _)| algorithm)
}

/// The algorithm for a request, and why.
pub fn choose_because(
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
) -> Result<(Algorithm, &'static str), PlanError> {
    let layout = Layout::new(request, topology)?;
    let world_size = topology.world_size();
    let bytes = layout.count() * request.dtype.size() as u64;
    let merges = request.contract.is_none_or(|contract| contract.order() == Order::Tree);
    // In exact order a machine's sum is wide, many times as long as a leaf: it pays if addends are, too.
    let lightens = merges || matches!(layout.parts(0), [Content::Wide(_)]);
    let many_small = world_size >= GROUPS_RANKS_MIN && bytes / u64::from(world_size) <= GROUPS_BYTES_MAX;
    let (star_bytes_max, star_ranks_min) = match request.collective {
        Collective::AllGather => (STAR_BYTES_MAX_MOVED, STAR_RANKS_MIN_MOVED),
        Collective::Barrier => (0, STAR_RANKS_MIN),
        _ => (STAR_BYTES_MAX, 0),
    };
    let ranks = u64::from(world_size);
    let staged = limits.chunk_bytes.min(limits.window_bytes);
    Ok(match request.collective {
        Collective::AllReduce | Collective::AllGather | Collective::Barrier
            if topology.shared_cores().is_some_and(|cores| bytes <= ranks * (star_bytes_max / cores))
                && world_size >= star_ranks_min =>
        {
            (Algorithm::Star, "ranks share cores and the tensor is small, so that the fewest messages pay")
        }
        Collective::AllReduce
            if merges && world_size >= BUTTERFLY_RANKS_MIN && bytes <= BUTTERFLY_BYTES_MAX =>
        {
            (
                Algorithm::Butterfly,
                "ranks are many and the tensor is small, so that a logarithm of messages pays",
            )
        }
        Collective::AllReduce | Collective::Reduce
            if bytes.saturating_mul(u64::from(world_size - 1)) <= ONE_SHOT_BYTES_MAX && !many_small =>
        {
            (
                Algorithm::OneShot,
                "what a rank receives is so little that a second step would cost more than bytes",
            )
        }
        Collective::AllReduce | Collective::Reduce | Collective::ReduceScatter | Collective::AllGather
            if many_small =>
        {
            (
                Algorithm::Hierarchical,
                "a rank's share is small, and groups exchange fewer messages than pairs do",
            )
        }
        Collective::AllReduce | Collective::Reduce | Collective::ReduceScatter | Collective::AllGather
            if topology.is_divided() && lightens =>
        {
            (Algorithm::Hierarchical, "what is merged or gathered on a machine crosses to another once")
        }
        Collective::AllReduce | Collective::Reduce | Collective::ReduceScatter => (
            Algorithm::Direct,
            "the tensor is large, and this sends each byte as seldom as can be, in the fewest steps",
        ),
        Collective::AllGather => (Algorithm::Direct, "each block goes straight to everyone, in one step"),
        Collective::AllToAll => (
            Algorithm::Direct,
            "each pair has a block of its own, so that a rank has a message for every other",
        ),
        Collective::PointToPoint => (Algorithm::Direct, "there is one way from a rank to another"),
        Collective::Broadcast | Collective::Gather | Collective::Scatter if takes_turns(topology) => {
            (Algorithm::Flat, "ranks share cores, and each level of a tree would have to wait for its turn")
        }
        Collective::Gather | Collective::Scatter
            if world_size >= GROUPS_RANKS_MIN && bytes <= limits.window_bytes =>
        {
            (Algorithm::Tree, "ranks are many, and all blocks can be staged on the way")
        }
        Collective::Gather | Collective::Scatter if world_size > 2 && bytes <= staged => {
            (Algorithm::Tree, "blocks are small, so that a logarithm of messages at the root pays")
        }
        Collective::Gather | Collective::Scatter => {
            (Algorithm::Flat, "blocks are large, and go straight between the root and each rank")
        }
        Collective::Broadcast => {
            (Algorithm::Tree, "the root sends a logarithm of copies, and the others pass them on")
        }
        Collective::Barrier => {
            (Algorithm::Dissemination, "everyone hears of everyone in a logarithm of rounds")
        }
    })
}

/// Whether the ranks of one machine share so few cores that a root had better have a message for each.
fn takes_turns(topology: &Topology) -> bool {
    !topology.is_divided() && topology.shared_cores().is_some_and(|cores| cores <= FLAT_CORES_MAX)
}

/// The schedule of all ranks.
///
/// ```
/// use isobit_core::schedule::{Algorithm, Limits, Request, Topology, plan, plan_rank};
/// let (request, topology, limits) = (Request::barrier(), Topology::single_node(5), Limits::default());
/// let schedule = plan(&request, &topology, &limits, Algorithm::Dissemination).unwrap();
/// let own = plan_rank(&request, &topology, &limits, Algorithm::Dissemination, 3).unwrap();
/// assert_eq!(own, schedule.programs[3]);
/// assert_eq!(own.steps.len(), 2 * 3);
/// ```
pub fn plan(
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
    algorithm: Algorithm,
) -> Result<Schedule, PlanError> {
    build(request, topology, limits, algorithm, None)
}

/// The program of one rank: the same as that rank's in [`plan`], at a fraction of the work.
pub fn plan_rank(
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
    algorithm: Algorithm,
    rank: Rank,
) -> Result<Program, PlanError> {
    let world_size = topology.world_size();
    if rank >= world_size {
        return Err(PlanError::NoSuchRank { role: "the planned rank", rank, world_size });
    }
    let mut schedule = build(request, topology, limits, algorithm, Some(rank))?;
    Ok(schedule.programs.swap_remove(rank as usize))
}

/// What every algorithm is given.
pub(super) struct Context<'a> {
    pub(super) layout: &'a Layout<'a>,
    pub(super) topology: &'a Topology,
    pub(super) limits: &'a Limits,
    pub(super) algorithm: Algorithm,
}

fn build(
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
    algorithm: Algorithm,
    only: Option<Rank>,
) -> Result<Schedule, PlanError> {
    let layout = Layout::new(request, topology)?;
    let order = request.contract.map_or(Order::Tree, |contract| contract.order());
    let collective = request.collective;
    if !algorithm.supports(collective, order) {
        return Err(PlanError::Unsupported { algorithm, collective, exact: order == Order::Exact });
    }
    let ctx = Context { layout: &layout, topology, limits, algorithm };
    let mut builder = Builder::new(&layout, only);
    let b = &mut builder;
    match (collective, algorithm) {
        (Collective::AllReduce | Collective::Reduce | Collective::ReduceScatter, _) => match algorithm {
            Algorithm::OneShot => reduce::one_shot(&ctx, b)?,
            Algorithm::Star => reduce::star(&ctx, b)?,
            Algorithm::Butterfly => reduce::butterfly(&ctx, b)?,
            Algorithm::Hierarchical => reduce::hierarchical(&ctx, b)?,
            _ => reduce::direct(&ctx, b)?,
        },
        (Collective::Broadcast, _) => movement::broadcast(&ctx, b)?,
        (Collective::Gather, _) => movement::gather(&ctx, b)?,
        (Collective::Scatter, _) => movement::scatter(&ctx, b)?,
        (Collective::AllGather, Algorithm::Hierarchical) => movement::all_gather_hierarchical(&ctx, b)?,
        (Collective::AllGather, Algorithm::Star) => movement::all_gather_star(&ctx, b)?,
        (Collective::AllGather, _) => movement::all_gather(&ctx, b)?,
        (Collective::AllToAll, _) => movement::all_to_all(&ctx, b)?,
        (Collective::Barrier, Algorithm::Star) => movement::barrier_star(&ctx, b),
        (Collective::Barrier, _) => roll_call::all(b, topology.world_size()),
        (Collective::PointToPoint, _) => movement::send_recv(&ctx, b)?,
    }
    Ok(builder.finish())
}

impl Context<'_> {
    /// The edges on which a root calls the roll where its data doesn't.
    pub(super) fn calls(&self, root: Rank) -> Vec<(Rank, Rank)> {
        let calls = if takes_turns(self.topology) { roll_call::flat } else { roll_call::binomial };
        calls(root, self.layout.world_size())
    }
}
