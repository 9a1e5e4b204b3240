//! Which leaves a rank owns.

use thiserror::Error;

/// A set of leaf numbers, as sorted, disjoint, non-adjacent, non-empty runs `first..end`.
///
/// ```
/// use isobit_core::law::LeafSet;
/// let set = LeafSet::from_leaves([5, 0, 1, 2]);
/// assert_eq!(set.runs(), [(0, 3), (5, 6)]);
/// assert!(set.contains(2) && !set.contains(3));
/// assert_eq!(set.len(), 4);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LeafSet {
    runs: Vec<(u32, u32)>,
}

impl LeafSet {
    /// The run `first..end`; empty if `first >= end`.
    pub fn run(first: u32, end: u32) -> LeafSet {
        LeafSet { runs: if first < end { vec![(first, end)] } else { Vec::new() } }
    }

    /// The set of the given leaves, in any order.
    pub fn from_leaves(leaves: impl IntoIterator<Item = u32>) -> LeafSet {
        let mut sorted: Vec<u32> = leaves.into_iter().collect();
        sorted.sort_unstable();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for leaf in sorted {
            match runs.last_mut() {
                Some((_, end)) if leaf < *end => {}
                Some((_, end)) if leaf == *end => *end += 1,
                _ => runs.push((leaf, leaf + 1)),
            }
        }
        LeafSet { runs }
    }

    /// The union of runs `first..end`, in any order.
    pub fn from_runs(runs: impl IntoIterator<Item = (u32, u32)>) -> LeafSet {
        let mut sorted: Vec<(u32, u32)> = runs.into_iter().filter(|(first, end)| first < end).collect();
        sorted.sort_unstable();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (first, end) in sorted {
            match runs.last_mut() {
                Some((_, last)) if first <= *last => *last = (*last).max(end),
                _ => runs.push((first, end)),
            }
        }
        LeafSet { runs }
    }

    /// The runs.
    pub fn runs(&self) -> &[(u32, u32)] {
        &self.runs
    }

    /// The leaves, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs.iter().flat_map(|&(first, end)| first..end)
    }

    /// How many leaves it holds.
    pub fn len(&self) -> u32 {
        self.runs.iter().map(|(first, end)| end - first).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether it holds `leaf`.
    pub fn contains(&self, leaf: u32) -> bool {
        self.holds(leaf, leaf + 1)
    }

    /// Whether it holds all of `first..end`.
    pub fn holds(&self, first: u32, end: u32) -> bool {
        let after = self.runs.partition_point(|&(start, _)| start <= first);
        after > 0 && end <= self.runs[after - 1].1
    }

    /// Whether it holds any of `first..end`.
    pub fn meets(&self, first: u32, end: u32) -> bool {
        let after = self.runs.partition_point(|&(_, stop)| stop <= first);
        after < self.runs.len() && self.runs[after].0 < end
    }
}

/// Why an ownership is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LeafMapError {
    /// A leaf that nobody owns.
    #[error("leaf {leaf} of {leaves} is owned by no rank")]
    Unowned {
        /// The leaf.
        leaf: u32,
        /// The number of leaves.
        leaves: u32,
    },
    /// A leaf that more than one rank owns.
    #[error("leaf {leaf} is owned by more than one rank")]
    OwnedTwice {
        /// The leaf.
        leaf: u32,
    },
    /// A leaf that does not exist.
    #[error("leaf {leaf} does not exist: there are {leaves}")]
    OutOfRange {
        /// The leaf.
        leaf: u32,
        /// The number of leaves.
        leaves: u32,
    },
}

/// Who owns which leaf: a partition of `0..leaves` over the ranks, some of which may own none.
///
/// ```
/// use isobit_core::law::LeafMap;
/// let map = LeafMap::even(8, 3);
/// assert_eq!(map.of(0).runs(), [(0, 3)]);
/// assert_eq!(map.of(2).runs(), [(6, 8)]);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeafMap {
    leaves: u32,
    ranks: Vec<LeafSet>,
}

impl LeafMap {
    /// Contiguous runs in rank order whose lengths differ by one at most, the longer ones first.
    pub fn even(leaves: u32, world_size: u32) -> LeafMap {
        assert!(world_size > 0, "a world has at least one rank");
        let (each, more) = (leaves / world_size, leaves % world_size);
        let start = |rank: u32| rank * each + rank.min(more);
        LeafMap {
            leaves,
            ranks: (0..world_size).map(|rank| LeafSet::run(start(rank), start(rank + 1))).collect(),
        }
    }

    /// Rank `i` owns leaf `i`: the map of a plain collective.
    pub fn one_each(world_size: u32) -> LeafMap {
        LeafMap::even(world_size, world_size)
    }

    /// The given sets, one a rank, if they are a partition of `0..leaves`.
    pub fn new(leaves: u32, ranks: Vec<LeafSet>) -> Result<LeafMap, LeafMapError> {
        let mut runs: Vec<(u32, u32)> = ranks.iter().flat_map(|set| set.runs().iter().copied()).collect();
        runs.sort_unstable();
        let mut next = 0;
        for (first, end) in runs {
            if first < next {
                return Err(LeafMapError::OwnedTwice { leaf: first });
            }
            if first > next {
                return Err(LeafMapError::Unowned { leaf: next, leaves });
            }
            next = end;
        }
        match next {
            end if end > leaves => Err(LeafMapError::OutOfRange { leaf: end - 1, leaves }),
            end if end < leaves => Err(LeafMapError::Unowned { leaf: end, leaves }),
            _ => Ok(LeafMap { leaves, ranks }),
        }
    }

    /// The number of leaves.
    pub fn leaves(&self) -> u32 {
        self.leaves
    }

    /// The number of ranks.
    pub fn world_size(&self) -> u32 {
        u32::try_from(self.ranks.len()).expect("world sizes are u32")
    }

    /// The leaves of `rank`.
    pub fn of(&self, rank: u32) -> &LeafSet {
        &self.ranks[rank as usize]
    }

    /// The digest that headers carry, so that ranks with different ownerships find out: XXH3-64 of
    /// `leaves u32, world size u32`, then for each rank `number of runs u32` and its runs as
    /// `first u32, end u32`, little-endian.
    pub fn digest(&self) -> u64 {
        let mut words = vec![self.leaves, self.world_size()];
        for set in &self.ranks {
            words.push(u32::try_from(set.runs().len()).expect("fewer runs than leaves"));
            words.extend(set.runs().iter().flat_map(|&(first, end)| [first, end]));
        }
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}
