//! Hierarchical: partial results are merged within each machine before they leave it.
//!
//! The tensor is cut into pieces. Each has a finisher, and on every machine an aggregator, which
//! merges the machine's contributions to the piece into their joint cover and sends that to the
//! finisher. Results go back the same way: from the finisher to the aggregators to their neighbours.

use std::ops::Range;

use super::direct::{result_place, slice_of};
use super::{LAG, heaviest, heaviest_parts, joint_cover, leaf_map, lend, merge, merges, own, weigh};
use crate::Rank;
use crate::law::Node;
use crate::schedule::algorithm::{Context, Footprint, chunk_of, chunks_in};
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::{Buf, Content, Operand, PlanError, Region};
use crate::wire::Collective;

pub(in crate::schedule) fn hierarchical(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let plan = Pieces::new(ctx);
    let chunk = ctx.chunk(b, &plan.footprint(ctx))?;
    let rounds = plan.pieces.iter().map(|piece| chunks_in(&piece.range, chunk)).max().unwrap_or(0);
    let mut finished: Vec<Vec<((u64, u64), Region)>> = vec![Vec::new(); plan.pieces.len()];
    for round in 0..rounds + LAG {
        for (piece, finished) in plan.pieces.iter().zip(&mut finished) {
            if let Some(part) = chunk_of(&piece.range, chunk, round) {
                finished.push((part, finish(ctx, b, &plan, piece, part)));
            }
        }
        if let Some(ready) = round.checked_sub(LAG).and_then(|round| usize::try_from(round).ok()) {
            for (piece, finished) in plan.pieces.iter().zip(&finished) {
                if let Some(&(part, at)) = finished.get(ready) {
                    hand_out(ctx, b, piece, part, at);
                }
            }
        }
    }
    for piece in &plan.pieces {
        meet(ctx, b, piece);
    }
    Ok(())
}

/// Contributions to the aggregators, covers to the finisher, and its reduction.
fn finish(ctx: &Context<'_>, b: &mut Builder<'_>, plan: &Pieces, piece: &Piece, part: (u64, u64)) -> Region {
    let mut inputs = Vec::new();
    for (machine, (ranks, &aggregator)) in ctx.topology.machines().iter().zip(&piece.aggregators).enumerate()
    {
        let mut held: Vec<Operand> = own(ctx, aggregator, part);
        for &rank in ranks.iter().filter(|rank| **rank != aggregator) {
            lend(b, rank, &own(ctx, rank, part), aggregator, &mut held);
        }
        if aggregator == piece.finisher {
            inputs.append(&mut held);
            continue;
        }
        let mut slots = Vec::new();
        let merged = merge(b, aggregator, held, &plan.covers[machine], &mut slots);
        lend(b, aggregator, &merged, piece.finisher, &mut inputs);
        slots.into_iter().for_each(|slot| b.free(aggregator, slot));
    }
    let out = result_place(ctx, b, piece.finisher, part);
    b.reduce(piece.finisher, inputs, Content::Result, out);
    out
}

/// The result of a chunk, from its finisher to whoever gets it.
fn hand_out(ctx: &Context<'_>, b: &mut Builder<'_>, piece: &Piece, (start, len): (u64, u64), at: Region) {
    let out = region(Buf::Out, start, len);
    match (ctx.layout.request().collective, ctx.layout.request().root) {
        (Collective::AllReduce, _) => {
            for &aggregator in piece.aggregators.iter().filter(|rank| **rank != piece.finisher) {
                b.transfer(piece.finisher, at, aggregator, Place::At(out), Content::Result);
            }
            for (ranks, &aggregator) in ctx.topology.machines().iter().zip(&piece.aggregators) {
                for &rank in ranks.iter().filter(|rank| **rank != aggregator) {
                    b.transfer(aggregator, out, rank, Place::At(out), Content::Result);
                }
            }
        }
        (Collective::Reduce, Some(root)) if root != piece.finisher => {
            b.transfer(piece.finisher, at, root, Place::At(out), Content::Result);
            b.free(piece.finisher, at.buf);
        }
        _ => {}
    }
}

/// Whoever would exchange elements if the piece had any exchanges a message at least.
fn meet(ctx: &Context<'_>, b: &mut Builder<'_>, piece: &Piece) {
    let (everyone, root) = match (ctx.layout.request().collective, ctx.layout.request().root) {
        (Collective::AllReduce, _) => (true, None),
        (_, root) => (false, root),
    };
    for (ranks, &aggregator) in ctx.topology.machines().iter().zip(&piece.aggregators) {
        let neighbours = ranks.iter().map(|rank| (*rank, aggregator));
        for (from, to) in neighbours.chain([(aggregator, piece.finisher)]) {
            b.meet(from, to);
            if everyone {
                b.meet(to, from);
            }
        }
    }
    if let Some(root) = root {
        b.meet(piece.finisher, root);
    }
}

struct Piece {
    range: Range<u64>,
    finisher: Rank,
    /// One a machine; on the finisher's, the finisher.
    aggregators: Vec<Rank>,
}

struct Pieces {
    pieces: Vec<Piece>,
    /// The joint cover of each machine.
    covers: Vec<Vec<Node>>,
}

impl Pieces {
    /// A block of reduce_scatter is finished by its owner. Otherwise as many ranks of each machine
    /// as the smallest machine has finish a slice each.
    fn new(ctx: &Context<'_>) -> Pieces {
        let machines = ctx.topology.machines();
        let lanes = machines.iter().map(Vec::len).min().unwrap_or(0);
        let piece = |range: Range<u64>, finisher: Rank| {
            let home = ctx.topology.machine_of(finisher);
            let place = ctx.topology.place_of(finisher);
            let mut aggregators: Vec<Rank> =
                machines.iter().map(|ranks| ranks[place % ranks.len()]).collect();
            aggregators[home] = finisher;
            Piece { range, finisher, aggregators }
        };
        let world = 0..ctx.layout.world_size();
        let pieces = match ctx.layout.request().collective {
            Collective::ReduceScatter => world.map(|rank| piece(ctx.layout.block(rank), rank)).collect(),
            _ => {
                let finishers: Vec<Rank> =
                    world.filter(|rank| ctx.topology.place_of(*rank) < lanes).collect();
                let slices = u32::try_from(finishers.len()).expect("no more than ranks");
                let slice = |index| slice_of(ctx.layout.count(), slices, index);
                (0..).zip(finishers).map(|(index, finisher)| piece(slice(index), finisher)).collect()
            }
        };
        let map = leaf_map(ctx);
        let covers = machines.iter().map(|ranks| joint_cover(map, ranks.iter().copied())).collect();
        Pieces { pieces, covers }
    }

    fn footprint(&self, ctx: &Context<'_>) -> Footprint {
        let contents = |nodes: &[Node]| nodes.iter().map(|node| Content::of_node(*node)).collect::<Vec<_>>();
        let covers = self.covers.iter().map(|cover| weigh(ctx, &contents(cover)));
        let (message, lent) = heaviest(covers.chain([heaviest_parts(ctx)]));
        let merged = ctx.topology.machines().iter().zip(&self.covers).map(|(ranks, cover)| {
            let held: Vec<Content> = ranks.iter().flat_map(|rank| ctx.layout.parts(*rank)).copied().collect();
            merges(cover, &held)
        });
        let staged = if ctx.layout.request().collective == Collective::Reduce { LAG + 1 } else { 0 };
        let node = ctx.layout.bytes(Content::Node(Node::root(leaf_map(ctx).leaves())));
        let result = ctx.layout.bytes(Content::Result);
        Footprint {
            message: message.max(result),
            lent,
            slot: node.max(result),
            slots: merged.max().unwrap_or(0) + staged,
        }
    }
}
