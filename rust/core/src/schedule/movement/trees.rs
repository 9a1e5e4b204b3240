//! Broadcast, gather and scatter on trees that depend on the root and the world size alone.
//!
//! Ranks are counted from the root, around the end. Binomial: the parent of `v` in a gather or
//! scatter is `v` without its lowest bit, so that a subtree is a run of ranks and travels as one.

use std::ops::Range;

use crate::Rank;
use crate::schedule::algorithm::{Algorithm, Context};
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::chunks::Footprint;
use crate::schedule::{Buf, Content, PlanError, Region, roll_call};
use crate::wire::Collective;

/// The root's tensor goes down the tree, when the root has heard that all are here, chunk after chunk: a rank passes one
/// on while it receives the next.
pub(in crate::schedule) fn broadcast(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let chunk = ctx.data_chunk(b)?;
    let tree = Tree::new(ctx);
    let mut edges = Vec::new();
    let mut reached = 1;
    while reached < tree.world_size {
        let senders = if tree.flat { 1 } else { reached };
        let more = senders.min(tree.world_size - reached);
        edges.extend((0..more).map(|parent| (tree.rank(parent), tree.rank(reached + parent))));
        reached += more;
    }
    roll_call::up(b, &edges);
    let mut concerned = edges.clone();
    concerned.retain(|&(parent, child)| b.records(parent) || b.records(child));
    for (start, len) in ctx.pieces(0..ctx.layout.count(), chunk) {
        for &(parent, child) in &concerned {
            let buf = if ctx.layout.is_root(parent) { Buf::Part(0) } else { Buf::Out };
            let dst = Place::At(region(Buf::Out, start, len));
            b.transfer(parent, region(buf, start, len), child, dst, Content::Data);
        }
    }
    roll_call::down(b, &edges);
    Ok(())
}

/// Every rank's block goes up the tree to the root, where the first piece of each run waits until all have come.
pub(in crate::schedule) fn gather(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let tree = Tree::new(ctx);
    let message = ctx.layout.bytes(Content::Data);
    let chunk = ctx.chunk(b, &Footprint { message, lent: message * tree.runs_max(), slot: 0, slots: 0 })?;
    let staged = tree.stage(ctx, b)?;
    let own = |v: u32| tree.sums[v as usize]..tree.sums[v as usize + 1];
    let copy_own = |b: &mut Builder<'_>, v: u32| {
        let part = region(Buf::Part(0), 0, own(v).end - own(v).start);
        b.copy(tree.rank(v), part, tree.at(ctx, &staged, v, v, &own(v)), Content::Data);
    };
    for v in (0..tree.world_size).filter(|v| staged[*v as usize].is_some()) {
        copy_own(b, v);
    }
    let (mut held, mut rest) = (Vec::new(), Vec::new());
    for v in tree.lowest_first() {
        let (child, parent) = (tree.rank(v), tree.parent(v));
        // What it sends shows that its whole subtree is here.
        b.fence(child);
        for (first, run) in tree.runs(v) {
            for (start, len) in ctx.pieces(run.clone(), chunk) {
                let piece = start..start + len;
                let src = match staged[v as usize] {
                    Some(_) => tree.at(ctx, &staged, v, first, &piece),
                    None => region(Buf::Part(0), start - tree.sums[v as usize], len),
                };
                let dst = tree.at(ctx, &staged, parent, first, &piece);
                if parent > 0 {
                    b.transfer(child, src, tree.rank(parent), Place::At(dst), Content::Data);
                } else if start == run.start {
                    held.push((b.transfer(child, src, tree.root, Place::View, Content::Data), dst));
                } else {
                    rest.push((child, src, dst));
                }
            }
        }
        b.meet(child, tree.rank(parent));
        b.lift_fence(child);
    }
    roll_call::down(b, &ctx.calls(tree.root));
    b.gate(tree.root);
    for (view, dst) in held {
        b.copy(tree.root, view, dst, Content::Data);
    }
    copy_own(b, 0);
    for (child, src, dst) in rest {
        b.transfer(child, src, tree.root, Place::At(dst), Content::Data);
    }
    Ok(())
}

/// Every rank's block comes down the tree from the root, when that has heard that all are here.
pub(in crate::schedule) fn scatter(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let chunk = ctx.data_chunk(b)?;
    let tree = Tree::new(ctx);
    let staged = tree.stage(ctx, b)?;
    roll_call::up(b, &ctx.calls(tree.root));
    for v in tree.lowest_first().into_iter().rev() {
        let (child, parent) = (tree.rank(v), tree.rank(tree.parent(v)));
        for (first, run) in tree.runs(v) {
            for (start, len) in ctx.pieces(run, chunk) {
                let piece = start..start + len;
                let src = tree.at(ctx, &staged, tree.parent(v), first, &piece);
                let dst = match staged[v as usize] {
                    Some(_) => tree.at(ctx, &staged, v, first, &piece),
                    None => region(Buf::Out, start - tree.sums[v as usize], len),
                };
                b.transfer(parent, src, child, Place::At(dst), Content::Data);
            }
        }
        if parent == tree.root {
            b.meet(parent, child);
        }
    }
    // Flat, the root has had a message for each.
    if !tree.flat {
        roll_call::down(b, &ctx.calls(tree.root));
    }
    for v in 0..tree.world_size {
        let own = tree.sums[v as usize]..tree.sums[v as usize + 1];
        if v == 0 || staged[v as usize].is_some() {
            let src = tree.at(ctx, &staged, v, v, &own);
            b.copy(tree.rank(v), src, region(Buf::Out, 0, own.end - own.start), Content::Data);
        }
    }
    Ok(())
}

/// The tree over ranks counted from the root.
struct Tree {
    root: Rank,
    world_size: u32,
    flat: bool,
    /// The running sums of the blocks, in the order counted from the root.
    sums: Vec<u64>,
}

impl Tree {
    fn new(ctx: &Context<'_>) -> Tree {
        let world_size = ctx.layout.world_size();
        let root = ctx.layout.request().root.expect("the layout has checked that there is a root");
        let flat = ctx.algorithm == Algorithm::Flat;
        let mut tree = Tree { root, world_size, flat, sums: vec![0] };
        for v in 0..world_size {
            let block = ctx.layout.block(tree.rank(v));
            tree.sums.push(tree.sums[v as usize] + (block.end - block.start));
        }
        tree
    }

    fn rank(&self, v: u32) -> Rank {
        let rank = (u64::from(self.root) + u64::from(v)) % u64::from(self.world_size);
        u32::try_from(rank).expect("below the world size")
    }

    fn parent(&self, v: u32) -> u32 {
        if self.flat { 0 } else { v & (v - 1) }
    }

    /// One past the last of the subtree of `v`.
    fn end(&self, v: u32) -> u32 {
        let size = if self.flat { 1 } else { 1 << v.trailing_zeros() };
        self.world_size.min(v.saturating_add(size))
    }

    /// All but the root, children before their parents.
    fn lowest_first(&self) -> Vec<u32> {
        let mut all: Vec<u32> = (1..self.world_size).collect();
        if !self.flat {
            all.sort_by_key(|v| v.trailing_zeros());
        }
        all
    }

    /// The subtree of `v` as runs of consecutive ranks: the first of each, and its elements in the
    /// order counted from the root. Two if the subtree spans the last rank and rank 0.
    fn runs(&self, v: u32) -> Vec<(u32, Range<u64>)> {
        let (end, rank_0) = (self.end(v), self.world_size - self.root);
        let cut = if v < rank_0 && rank_0 < end { rank_0 } else { end };
        [(v, cut), (cut, end)]
            .into_iter()
            .filter(|(first, end)| first < end)
            .map(|(first, end)| (first, self.sums[first as usize]..self.sums[end as usize]))
            .collect()
    }

    /// How many runs a subtree may have.
    fn runs_max(&self) -> u64 {
        if self.flat { 1 } else { 2 }
    }

    /// A slot for each rank that has children and is not the root, for all blocks of its subtree.
    fn stage(&self, ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<Vec<Option<Buf>>, PlanError> {
        let bytes = |v: u32| {
            let elements = self.sums[self.end(v) as usize] - self.sums[v as usize];
            elements * ctx.layout.bytes(Content::Data)
        };
        let inner = |v: &u32| self.end(*v) - v > 1;
        ctx.check_staging((1..self.world_size).filter(inner).map(bytes).max().unwrap_or(0))?;
        let mut staged = vec![None; self.world_size as usize];
        for v in (1..self.world_size).filter(inner) {
            staged[v as usize] = Some(b.slot_of(self.rank(v), bytes(v)));
        }
        Ok(staged)
    }

    /// Where `v`, the root or a rank with a slot, has `piece`: elements of the run that begins with the block of `first`.
    fn at(
        &self,
        ctx: &Context<'_>,
        staged: &[Option<Buf>],
        v: u32,
        first: u32,
        piece: &Range<u64>,
    ) -> Region {
        let len = piece.end - piece.start;
        match staged[v as usize] {
            Some(slot) => region(slot, piece.start - self.sums[v as usize], len),
            None => {
                let block = ctx.layout.block(self.rank(first));
                let start = block.start + (piece.start - self.sums[first as usize]);
                let gathers = ctx.layout.request().collective == Collective::Gather;
                region(if gathers { Buf::Out } else { Buf::Part(0) }, start, len)
            }
        }
    }
}
