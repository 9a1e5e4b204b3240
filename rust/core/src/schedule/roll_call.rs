//! The roll call: empty messages by which ranks learn that all of them are in the same call, where an operation's data
//! does not tell every one of them.

use super::Content;
use super::builder::{Builder, NOTHING, Place};
use crate::Rank;

/// A tree's edges, each a parent and its child, those nearer to the root first.
pub(super) type Edges = [(Rank, Rank)];

/// Tells the root of a tree that all are here, before it sends or writes anything else. Who then gets something from
/// the root, over others or not, and has heard its own part of the tree, knows it, too.
pub(super) fn up(b: &mut Builder<'_>, edges: &Edges) {
    for &(parent, child) in edges.iter().rev() {
        b.fence(child);
        b.gate(child);
        tell(b, child, parent);
    }
    if let Some(&(root, _)) = edges.first() {
        b.fence(root);
        b.gate(root);
    }
}

/// Tells everyone what the root knows by now. Who has had a message of its parent has been told by that.
pub(super) fn down(b: &mut Builder<'_>, edges: &Edges) {
    for &(parent, child) in edges.iter() {
        if !b.has_met(parent, child) {
            b.fence(parent);
            tell(b, parent, child);
            b.lift_fence(parent);
        }
    }
}

/// Tells everyone that all are here, before anyone writes to a result: in round `k` rank `r` tells `r + 2^k` of all
/// that it has heard of.
pub(super) fn all(b: &mut Builder<'_>, world_size: u32) {
    let mut distance = 1;
    while distance < world_size {
        for (from, to) in b.rotation(distance) {
            tell(b, from, to);
        }
        for rank in b.recorded() {
            b.fence(rank);
        }
        distance = distance.saturating_mul(2);
    }
    for rank in b.recorded() {
        b.lift_fence(rank);
        b.gate(rank);
    }
}

/// The binomial tree over ranks counted from `root`, in which a parent is its child without the lowest bit.
pub(super) fn binomial(root: Rank, world_size: u32) -> Vec<(Rank, Rank)> {
    let rank = |v: u32| ((u64::from(root) + u64::from(v)) % u64::from(world_size)) as Rank;
    let mut children: Vec<u32> = (1..world_size).collect();
    children.sort_by_key(|v| std::cmp::Reverse(v.trailing_zeros()));
    children.into_iter().map(|v| (rank(v & (v - 1)), rank(v))).collect()
}

/// The edges from `root` to every other rank.
pub(super) fn flat(root: Rank, world_size: u32) -> Vec<(Rank, Rank)> {
    (0..world_size).filter(|rank| *rank != root).map(|rank| (root, rank)).collect()
}

fn tell(b: &mut Builder<'_>, from: Rank, to: Rank) {
    b.transfer(from, NOTHING, to, Place::At(NOTHING), Content::Data);
}
