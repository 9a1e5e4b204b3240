//! Where the elements of an operation are: the sizes and meanings of every rank's buffers.

use super::{Buf, Content, Counts, PlanError, Region, Request, Topology};
use crate::wire::Collective;
use crate::{Contract, Rank, law};

/// No element is larger, not even a wide sum of f64.
const LARGEST_ELEMENT_BYTES: u64 = 512;

/// A checked request: what each buffer of each rank holds.
///
/// ```
/// use isobit_core::Dtype;
/// use isobit_core::schedule::{Counts, Layout, Request, Topology};
/// let topology = Topology::single_node(3);
/// let request = Request::all_gather(Dtype::F32, Counts::PerRank(&[5, 0, 2]));
/// let layout = Layout::new(&request, &topology).unwrap();
/// assert_eq!(layout.part_len(0), 5);
/// assert_eq!(layout.out_len(1), 7);
/// assert_eq!(layout.block(2), 5..7);
/// ```
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    request: Request<'a>,
    world_size: u32,
    /// Where each block begins in the concatenation, and its end; `[0, count]` for whole tensors.
    displs: Vec<u64>,
    contributions: Vec<Vec<Content>>,
}

impl<'a> Layout<'a> {
    /// Checks a request.
    pub fn new(request: &Request<'a>, topology: &Topology) -> Result<Layout<'a>, PlanError> {
        let world_size = topology.world_size();
        let collective = request.collective;
        check_ranks(request, world_size)?;
        let blocks = match (collective, request.counts) {
            (Collective::AllToAll, Counts::PerRank(_)) => {
                return Err(PlanError::Missing { collective, what: "a count for each pair of ranks" });
            }
            (Collective::AllToAll, _) => Vec::new(),
            (_, Counts::Matrix(_)) => {
                return Err(PlanError::Missing { collective, what: "counts by rank, not by pairs of ranks" });
            }
            (
                Collective::AllReduce
                | Collective::Reduce
                | Collective::Broadcast
                | Collective::Barrier
                | Collective::PointToPoint,
                Counts::PerRank(_),
            ) => return Err(PlanError::Missing { collective, what: "one count, not one a rank" }),
            (
                Collective::ReduceScatter | Collective::AllGather | Collective::Gather | Collective::Scatter,
                Counts::Same(count),
            ) => vec![count; world_size as usize],
            (_, Counts::Same(count)) => vec![count],
            (_, Counts::PerRank(counts)) => {
                agree("the list of counts", counts.len() as u64, u64::from(world_size))?;
                counts.to_vec()
            }
        };
        let contributions = match (request.contract, request.leaf_map) {
            (Some(contract), Some(map)) => {
                agree("the leaf map's number of ranks", u64::from(map.world_size()), u64::from(world_size))?;
                agree("the leaf map's number of leaves", map.leaves().into(), contract.leaves().into())?;
                (0..world_size).map(|rank| law::contributions(&contract, map, rank)).collect()
            }
            _ => Vec::new(),
        };
        let layout = Layout { request: *request, world_size, displs: running_sums(blocks)?, contributions };
        layout.count().checked_mul(LARGEST_ELEMENT_BYTES).ok_or(PlanError::TooLarge)?;
        Ok(layout)
    }

    /// The request.
    pub fn request(&self) -> &Request<'a> {
        &self.request
    }

    /// The number of ranks.
    pub fn world_size(&self) -> u32 {
        self.world_size
    }

    /// The elements of the whole tensor, or of all blocks (0 for all_to_all).
    pub fn count(&self) -> u64 {
        *self.displs.last().expect("there is an end")
    }

    /// Where a rank's block lies in the concatenation; the whole tensor where there are no blocks.
    pub fn block(&self, rank: Rank) -> std::ops::Range<u64> {
        match self.displs[..] {
            [] | [_] => 0..0,
            [start, end] => start..end,
            _ => self.displs[rank as usize]..self.displs[rank as usize + 1],
        }
    }

    /// The elements that `from` sends to `to` in all_to_all.
    pub fn pair(&self, from: Rank, to: Rank) -> u64 {
        match self.request.counts {
            Counts::Matrix(count) => count(from, to),
            Counts::Same(count) => count,
            Counts::PerRank(_) => 0,
        }
    }

    /// What each of a rank's parts is.
    pub fn parts(&self, rank: Rank) -> &[Content] {
        let has_data = match self.request.collective {
            Collective::AllReduce | Collective::Reduce | Collective::ReduceScatter => {
                return &self.contributions[rank as usize];
            }
            Collective::AllGather | Collective::Gather | Collective::AllToAll => true,
            Collective::Scatter | Collective::Broadcast | Collective::PointToPoint => self.is_root(rank),
            Collective::Barrier => false,
        };
        if has_data { &[Content::Data] } else { &[] }
    }

    /// The length of each of a rank's parts.
    pub fn part_len(&self, rank: Rank) -> u64 {
        match self.request.collective {
            Collective::AllGather | Collective::Gather => length(self.block(rank)),
            Collective::AllToAll => (0..self.world_size).map(|to| self.pair(rank, to)).sum(),
            _ if self.parts(rank).is_empty() => 0,
            _ => self.count(),
        }
    }

    /// The length of a rank's result.
    pub fn out_len(&self, rank: Rank) -> u64 {
        match self.request.collective {
            Collective::AllReduce | Collective::Broadcast | Collective::AllGather => self.count(),
            Collective::Reduce | Collective::Gather if self.is_root(rank) => self.count(),
            Collective::Reduce | Collective::Gather | Collective::Barrier => 0,
            Collective::ReduceScatter | Collective::Scatter => length(self.block(rank)),
            Collective::AllToAll => (0..self.world_size).map(|from| self.pair(from, rank)).sum(),
            Collective::PointToPoint if self.request.receiver == Some(rank) => self.count(),
            Collective::PointToPoint => 0,
        }
    }

    /// Whether `rank` is the root.
    pub fn is_root(&self, rank: Rank) -> bool {
        self.request.root == Some(rank)
    }

    /// Where elements of a part and of `Out` lie if both share memory: element `e` of a buffer is
    /// at `e + shift`. The shifts of parts and of `Out`; none if they never share memory.
    pub fn shifts(&self, rank: Rank) -> Option<(u64, u64)> {
        match self.request.collective {
            Collective::AllReduce | Collective::Reduce | Collective::Broadcast => Some((0, 0)),
            Collective::AllGather | Collective::Gather => Some((self.block(rank).start, 0)),
            Collective::ReduceScatter | Collective::Scatter => Some((0, self.block(rank).start)),
            Collective::AllToAll | Collective::Barrier | Collective::PointToPoint => None,
        }
    }

    /// The place of a region of a part or of `Out` in that shared memory.
    pub fn shared_place(&self, rank: Rank, region: Region) -> Option<u64> {
        let (part, out) = self.shifts(rank)?;
        match region.buf {
            Buf::Part(_) => Some(region.start + part),
            Buf::Out => Some(region.start + out),
            Buf::View(_) | Buf::Slot(_) => None,
        }
    }

    /// The contract of a reduction.
    pub fn contract(&self) -> Option<&Contract> {
        self.request.contract.as_ref()
    }

    /// The bytes of one element.
    pub fn bytes(&self, content: Content) -> u64 {
        law::element_bytes(content, self.contract(), self.request.dtype) as u64
    }
}

fn length(range: std::ops::Range<u64>) -> u64 {
    range.end - range.start
}

fn agree(what: &'static str, found: u64, expected: u64) -> Result<(), PlanError> {
    if found == expected { Ok(()) } else { Err(PlanError::Disagree { what, found, expected }) }
}

fn running_sums(blocks: Vec<u64>) -> Result<Vec<u64>, PlanError> {
    let mut sums = vec![0u64];
    for block in blocks {
        let end = sums[sums.len() - 1].checked_add(block).ok_or(PlanError::TooLarge)?;
        sums.push(end);
    }
    Ok(sums)
}

fn check_ranks(request: &Request<'_>, world_size: u32) -> Result<(), PlanError> {
    let collective = request.collective;
    let reduces =
        matches!(collective, Collective::AllReduce | Collective::Reduce | Collective::ReduceScatter);
    if reduces && (request.contract.is_none() || request.leaf_map.is_none()) {
        return Err(PlanError::Missing { collective, what: "a contract and a leaf map" });
    }
    let needs_root = matches!(
        collective,
        Collective::Reduce
            | Collective::Gather
            | Collective::Scatter
            | Collective::Broadcast
            | Collective::PointToPoint
    );
    if needs_root && request.root.is_none() {
        return Err(PlanError::Missing { collective, what: "a root" });
    }
    if collective == Collective::PointToPoint {
        match (request.root, request.receiver) {
            (_, None) => return Err(PlanError::Missing { collective, what: "a receiver" }),
            (Some(from), Some(to)) if from == to => return Err(PlanError::ToItself { rank: from }),
            _ => {}
        }
    }
    for (role, rank) in [("the root", request.root), ("the receiver", request.receiver)] {
        if let Some(rank) = rank
            && rank >= world_size
        {
            return Err(PlanError::NoSuchRank { role, rank, world_size });
        }
    }
    Ok(())
}
