//! What a planner is asked: the operation, who owns what, where the ranks are, and what fits.

use std::borrow::Cow;
use std::collections::BTreeMap;

use thiserror::Error;

use super::Algorithm;
use crate::law::LeafMap;
use crate::wire::Collective;
use crate::{Contract, Dtype, Rank};

/// How many elements an operation is about.
#[derive(Clone, Copy)]
pub enum Counts<'a> {
    /// The tensor's elements (all_reduce, reduce, broadcast, send/recv), or those of every block.
    Same(u64),
    /// The elements of each rank's block.
    PerRank(&'a [u64]),
    /// The elements that one rank sends to another, of all_to_all. A rank that plans only its own
    /// part asks only about pairs of which it is one.
    Matrix(&'a dyn Fn(Rank, Rank) -> u64),
}

impl std::fmt::Debug for Counts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Counts::Same(count) => write!(f, "Same({count})"),
            Counts::PerRank(counts) => write!(f, "PerRank({counts:?})"),
            Counts::Matrix(_) => f.write_str("Matrix(..)"),
        }
    }
}

/// One operation to plan. The constructors fill in what each collective needs.
///
/// Buffers, counted in elements; `displs` are the running sums of the counts:
///
/// | collective | `Part`s | `Out` |
/// |---|---|---|
/// | all_reduce | the rank's contributions, each a whole tensor | the tensor |
/// | reduce | likewise | at the root, the tensor |
/// | reduce_scatter | likewise; a tensor is the blocks of all ranks, one after the other | the own block |
/// | all_gather | the own block | all blocks |
/// | gather | the own block | at the root, all blocks |
/// | scatter | at the root, all blocks | the own block |
/// | broadcast | at the root, the tensor | the tensor; at the root it is the part itself |
/// | all_to_all | a block for each rank | a block from each rank |
/// | send/recv | at the sender, the tensor | at the receiver, the tensor |
///
/// A rank's contributions are what [`crate::law::contributions`] says. `Out` may share memory with
/// a part wherever both hold the same elements: whole tensors with whole tensors, a rank's own
/// block with that block of a concatenation; not in all_to_all and send/recv.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The kind of operation.
    pub collective: Collective,
    /// The contract, of reductions.
    pub contract: Option<Contract>,
    /// Who owns which leaf, of reductions.
    pub leaf_map: Option<&'a LeafMap>,
    /// The dtype of moved data; of reductions, that of the leaves.
    pub dtype: Dtype,
    /// The root of rooted operations; the sender of send/recv.
    pub root: Option<Rank>,
    /// The receiver of send/recv.
    pub receiver: Option<Rank>,
    /// How many elements.
    pub counts: Counts<'a>,
}

impl<'a> Request<'a> {
    fn reduction(
        collective: Collective,
        contract: Contract,
        leaf_map: &'a LeafMap,
        counts: Counts<'a>,
    ) -> Self {
        let dtype = contract.dtype_in();
        let leaf_map = Some(leaf_map);
        Request { contract: Some(contract), leaf_map, ..Request::movement(collective, dtype, counts) }
    }

    fn movement(collective: Collective, dtype: Dtype, counts: Counts<'a>) -> Self {
        Request { collective, contract: None, leaf_map: None, dtype, root: None, receiver: None, counts }
    }

    /// Everyone gets the reduction of a tensor of `count` elements.
    pub fn all_reduce(contract: Contract, leaf_map: &'a LeafMap, count: u64) -> Self {
        Request::reduction(Collective::AllReduce, contract, leaf_map, Counts::Same(count))
    }

    /// The root gets it.
    pub fn reduce(contract: Contract, leaf_map: &'a LeafMap, root: Rank, count: u64) -> Self {
        let request = Request::reduction(Collective::Reduce, contract, leaf_map, Counts::Same(count));
        Request { root: Some(root), ..request }
    }

    /// Each rank gets its block of it; `counts` are the blocks'.
    pub fn reduce_scatter(contract: Contract, leaf_map: &'a LeafMap, counts: Counts<'a>) -> Self {
        Request::reduction(Collective::ReduceScatter, contract, leaf_map, counts)
    }

    /// Everyone gets everyone's block.
    pub fn all_gather(dtype: Dtype, counts: Counts<'a>) -> Self {
        Request::movement(Collective::AllGather, dtype, counts)
    }

    /// The root gets everyone's block.
    pub fn gather(dtype: Dtype, root: Rank, counts: Counts<'a>) -> Self {
        Request { root: Some(root), ..Request::movement(Collective::Gather, dtype, counts) }
    }

    /// Each rank gets its block of the root's.
    pub fn scatter(dtype: Dtype, root: Rank, counts: Counts<'a>) -> Self {
        Request { root: Some(root), ..Request::movement(Collective::Scatter, dtype, counts) }
    }

    /// Everyone gets the root's tensor of `count` elements.
    pub fn broadcast(dtype: Dtype, root: Rank, count: u64) -> Self {
        let request = Request::movement(Collective::Broadcast, dtype, Counts::Same(count));
        Request { root: Some(root), ..request }
    }

    /// Each rank gets a block from each.
    pub fn all_to_all(dtype: Dtype, counts: Counts<'a>) -> Self {
        Request::movement(Collective::AllToAll, dtype, counts)
    }

    /// Nobody is done before everyone has begun.
    pub fn barrier() -> Self {
        Request::movement(Collective::Barrier, Dtype::U8, Counts::Same(0))
    }

    /// `count` elements from one rank to another.
    pub fn send_recv(dtype: Dtype, from: Rank, to: Rank, count: u64) -> Self {
        let request = Request::movement(Collective::PointToPoint, dtype, Counts::Same(count));
        Request { root: Some(from), receiver: Some(to), ..request }
    }
}

/// Which machine each rank runs on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    machine_of: Vec<u32>,
    machines: Vec<Vec<Rank>>,
    place_of: Vec<u32>,
    cores: Option<u32>,
}

impl Topology {
    /// `world_size` ranks on one machine.
    pub fn single_node(world_size: u32) -> Topology {
        Topology::new(vec![0; world_size as usize])
    }

    /// Rank `r` runs on machine `machine_of[r]`. The numbers only say which are the same.
    ///
    /// ```
    /// use isobit_core::schedule::Topology;
    /// let topology = Topology::new(vec![7, 3, 7]);
    /// assert_eq!(topology.machines(), [vec![0, 2], vec![1]]);
    /// assert_eq!(topology.machine_of(1), 1);
    /// ```
    pub fn new(machine_of: Vec<u32>) -> Topology {
        assert!(!machine_of.is_empty(), "a world has at least one rank");
        let mut names: BTreeMap<u32, usize> = BTreeMap::new();
        let (machine_of_ranks, machines, place_of) = (Vec::new(), Vec::new(), Vec::new());
        let mut topology = Topology { machine_of: machine_of_ranks, machines, place_of, cores: None };
        for (rank, name) in (0..).zip(machine_of) {
            let machine = *names.entry(name).or_insert(topology.machines.len());
            if machine == topology.machines.len() {
                topology.machines.push(Vec::new());
            }
            topology.machine_of.push(u32::try_from(machine).expect("no more machines than ranks"));
            topology.place_of.push(u32::try_from(topology.machines[machine].len()).expect("a rank number"));
            topology.machines[machine].push(rank);
        }
        topology
    }

    /// The same on machines that have so many cores each. Else every rank has one.
    ///
    /// ```
    /// use isobit_core::schedule::Topology;
    /// assert!(!Topology::single_node(4).shares_cores());
    /// assert!(!Topology::single_node(4).on_cores(4).shares_cores());
    /// assert!(Topology::single_node(5).on_cores(4).shares_cores());
    /// ```
    pub fn on_cores(self, cores: u32) -> Topology {
        Topology { cores: Some(cores), ..self }
    }

    /// Whether there is a machine with more ranks than cores.
    pub fn shares_cores(&self) -> bool {
        self.shared_cores().is_some()
    }

    /// Whether there are several machines, and one with several ranks.
    pub(super) fn is_divided(&self) -> bool {
        self.machines.len() > 1 && self.machines.iter().any(|ranks| ranks.len() > 1)
    }

    /// How many cores the ranks of a machine share, where there is one with more ranks than cores.
    pub(super) fn shared_cores(&self) -> Option<u64> {
        let cores = self.cores.filter(|cores| *cores > 0)?;
        self.machines.iter().any(|ranks| ranks.len() > cores as usize).then_some(u64::from(cores))
    }

    /// The number of ranks.
    pub fn world_size(&self) -> u32 {
        u32::try_from(self.machine_of.len()).expect("world sizes are u32")
    }

    /// The ranks of each machine, ascending; machines in the order of their first rank.
    pub fn machines(&self) -> &[Vec<Rank>] {
        &self.machines
    }

    /// The groups that hierarchical schedules merge in: the machines; if they divide nothing, because
    /// there is one or each has one rank, about `sqrt(N)` runs of neighbours, of one length if they can be.
    ///
    /// ```
    /// use isobit_core::schedule::Topology;
    /// let groups = Topology::single_node(7).groups().into_owned();
    /// assert_eq!(groups.machines(), [vec![0, 1, 2, 3], vec![4, 5, 6]]);
    /// ```
    pub fn groups(&self) -> Cow<'_, Topology> {
        let world_size = self.world_size();
        if (2..world_size as usize).contains(&self.machines.len()) {
            return Cow::Borrowed(self);
        }
        let many = world_size.isqrt();
        let even = (many.div_ceil(2).max(2)..=many).rev().find(|many| world_size.is_multiple_of(*many));
        let many = u64::from(even.unwrap_or(many));
        let group = |rank| u32::try_from(u64::from(rank) * many / u64::from(world_size)).unwrap_or(rank);
        Cow::Owned(Topology::new((0..world_size).map(group).collect()))
    }

    /// The index in `machines` of a rank's machine.
    pub fn machine_of(&self, rank: Rank) -> usize {
        self.machine_of[rank as usize] as usize
    }

    /// A rank's place among the ranks of its machine.
    pub fn place_of(&self, rank: Rank) -> usize {
        self.place_of[rank as usize] as usize
    }
}

/// What fits through the transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The largest payload of a message, in bytes. Small enough that a message stays in cache
    /// between the check of its checksum and its use.
    pub chunk_bytes: u64,
    /// How many bytes of messages from one peer may be lent at a time. Staging of partial results
    /// keeps within it too.
    pub window_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { chunk_bytes: 256 * 1024, window_bytes: 1024 * 1024 }
    }
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PlanError {
    /// The request lacks what its collective needs.
    #[error("{collective} needs {what}")]
    Missing {
        /// The collective.
        collective: Collective,
        /// What is missing.
        what: &'static str,
    },
    /// A rank that does not exist.
    #[error("{role} is rank {rank}, but there are {world_size} ranks")]
    NoSuchRank {
        /// What the rank was to be.
        role: &'static str,
        /// The rank.
        rank: Rank,
        /// How many there are.
        world_size: u32,
    },
    /// Two parts of the request are about different sizes.
    #[error("{what} is for {found}, expected {expected}")]
    Disagree {
        /// Which part.
        what: &'static str,
        /// What it is for.
        found: u64,
        /// What the rest is for.
        expected: u64,
    },
    /// A rank that sends to itself.
    #[error("rank {rank} can't send to itself: copy instead")]
    ToItself {
        /// The rank.
        rank: Rank,
    },
    /// More elements than can be counted.
    #[error("the sizes add up to more than 2^64 bytes")]
    TooLarge,
    /// The algorithm can't do this.
    #[error("algorithm {algorithm} does not do {collective}{}", if *.exact { " in exact order" } else { "" })]
    Unsupported {
        /// The algorithm.
        algorithm: Algorithm,
        /// The collective.
        collective: Collective,
        /// Whether it is the exact order that it can't do.
        exact: bool,
    },
    /// The limits leave no room for a single element.
    #[error(
        "algorithm {algorithm} needs messages of {chunk_bytes} and a window of {window_bytes} bytes at least"
    )]
    LimitsTooSmall {
        /// The algorithm.
        algorithm: Algorithm,
        /// The smallest `Limits::chunk_bytes`.
        chunk_bytes: u64,
        /// The smallest `Limits::window_bytes`.
        window_bytes: u64,
    },
}
