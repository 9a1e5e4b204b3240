//! How a hierarchical schedule cuts a tensor: into pieces, lanes of pieces, and bundles of neighbours.

use std::ops::Range;

use super::direct::slice_of;
use crate::Rank;
use crate::schedule::chunks::{chunk_of, chunks_in};
use crate::schedule::{Layout, Topology};
use crate::wire::Collective;

/// A piece for each rank, in the order in which they lie in the tensor.
pub(super) struct Lanes {
    pieces: Vec<(Range<u64>, Rank)>,
    /// The size of the largest group.
    largest: usize,
    /// Whether some group's lane ends before a piece.
    cuts: Vec<bool>,
}

/// Parts of neighbouring pieces that every group aggregates in one place.
pub(super) struct Bundle {
    pub(super) pieces: Range<usize>,
    pub(super) start: u64,
    pub(super) len: u64,
    chunk: u64,
    round: u64,
}

impl Lanes {
    /// A block of reduce_scatter is finished by its owner. Otherwise the slices of ranks that have the
    /// same place in their groups lie side by side, so that a slice's finisher aggregates it, too.
    pub(super) fn new(layout: &Layout<'_>, groups: &Topology) -> Lanes {
        let world_size = layout.world_size();
        let mut finishers: Vec<Rank> = (0..world_size).collect();
        let blocks = layout.request().collective == Collective::ReduceScatter;
        if !blocks {
            finishers.sort_by_key(|rank| (groups.place_of(*rank), groups.machine_of(*rank)));
        }
        let slice = |index, rank| match blocks {
            true => layout.block(rank),
            false => slice_of(layout.count(), world_size, index),
        };
        let pieces = (0..).zip(finishers).map(|(index, rank)| (slice(index, rank), rank)).collect();
        let mut sizes: Vec<usize> = groups.machines().iter().map(Vec::len).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let mut lanes = Lanes { pieces, largest: sizes.last().copied().unwrap_or(1), cuts: Vec::new() };
        let cut = |piece: usize| {
            piece > 0 && sizes.iter().any(|size| lanes.lane(*size, piece - 1) != lanes.lane(*size, piece))
        };
        lanes.cuts = (0..lanes.pieces()).map(cut).collect();
        lanes
    }

    /// How many pieces there are.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Whether some ranks finish nothing.
    pub(super) fn leave_some_out(&self) -> bool {
        self.pieces.iter().any(|(range, _)| range.is_empty())
    }

    /// The size of the largest group.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Who finishes a piece.
    pub(super) fn finisher(&self, piece: usize) -> Rank {
        self.pieces[piece].1
    }

    /// The place of a piece's aggregator in a group of `size` ranks.
    pub(super) fn lane(&self, size: usize, piece: usize) -> usize {
        piece * size / self.pieces.len()
    }

    /// How many chunks the longest piece has.
    pub(super) fn rounds(&self, chunk: u64) -> u64 {
        self.pieces.iter().map(|(range, _)| chunks_in(range, chunk)).max().unwrap_or(0)
    }

    /// What of a piece is in a bundle, as start and length; none if nothing.
    pub(super) fn part(&self, piece: usize, bundle: &Bundle) -> Option<(u64, u64)> {
        chunk_of(&self.pieces[piece].0, bundle.chunk, bundle.round)
    }

    /// The bundles of one round, no longer than a chunk: those that belong together in each turn are of
    /// different lanes, and of finishers in different groups.
    pub(super) fn turns(&self, chunk: u64, round: u64) -> Vec<Vec<Bundle>> {
        let mut lanes: Vec<Vec<Bundle>> = (0..self.largest).map(|_| Vec::new()).collect();
        let mut cut = true;
        for piece in 0..self.pieces() {
            cut |= self.cuts[piece];
            let Some((start, len)) = chunk_of(&self.pieces[piece].0, chunk, round) else { continue };
            let lane = &mut lanes[self.lane(self.largest, piece)];
            match lane.last_mut() {
                Some(last) if !cut && last.start + last.len == start && last.len + len <= chunk => {
                    last.len += len;
                    last.pieces.end = piece + 1;
                }
                _ => lane.push(Bundle { pieces: piece..piece + 1, start, len, chunk, round }),
            }
            cut = false;
        }
        for (index, lane) in lanes.iter_mut().enumerate() {
            let by = index * lane.len() / self.largest;
            lane.rotate_left(by);
        }
        let turns = lanes.iter().map(Vec::len).max().unwrap_or(0);
        let mut lanes: Vec<_> = lanes.into_iter().map(Vec::into_iter).collect();
        (0..turns).map(|_| lanes.iter_mut().filter_map(Iterator::next).collect()).collect()
    }
}
