//! Hierarchical: contributions are merged within each group of ranks before they leave it.
//!
//! The groups are the machines ([`Topology::groups`]). The tensor is cut into pieces, one a rank, who
//! finishes it. In every group each member aggregates a run of pieces, its lane: it merges the group's
//! contributions and sends the pieces to their finishers. Results go back the same way. Pieces of a
//! lane lie side by side, so that within a group several travel as one message: with `M` groups of
//! `N / M` a rank exchanges about `N / M + M` messages, not `N`.

use std::ops::Range;

use super::direct::result_place;
use super::lanes::{Bundle, Lanes};
use super::{LAG, call_roll, cover_of, heaviest, heaviest_parts, lend, merge, merges, own, weigh};
use crate::Rank;
use crate::law::Node;
use crate::schedule::algorithm::Context;
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::chunks::Footprint;
use crate::schedule::{Buf, Content, Operand, PlanError, Region, Topology, roll_call};
use crate::wire::Collective;

pub(in crate::schedule) fn hierarchical(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let groups = ctx.topology.groups();
    let ranks = groups.machines().iter();
    let covers = ranks.map(|ranks| cover_of(ctx, ranks.iter().copied())).collect();
    let lanes = Lanes::new(ctx.layout, &groups);
    let plan = Plan { ctx, groups: &groups, lanes, covers };
    let chunk = ctx.chunk(b, &plan.footprint())?;
    // Who finishes something has heard of everyone, and so has who gets a result.
    if !call_roll(ctx, b)
        && ctx.layout.request().collective != Collective::AllReduce
        && plan.lanes.leave_some_out()
    {
        roll_call::all(b, ctx.layout.world_size());
    }
    let mut finished: Vec<Vec<(Bundle, Vec<Region>)>> = Vec::new();
    let turns = (0..plan.lanes.rounds(chunk)).flat_map(|round| plan.lanes.turns(chunk, round));
    for bundles in turns {
        finished.push(plan.finish(b, bundles));
        if let Some(ready) = finished.len().checked_sub(1 + usize::try_from(LAG).unwrap_or(0)) {
            plan.hand_out(b, &std::mem::take(&mut finished[ready]));
        }
    }
    for late in &finished {
        plan.hand_out(b, late);
    }
    plan.meet(b);
    Ok(())
}

struct Plan<'a> {
    ctx: &'a Context<'a>,
    groups: &'a Topology,
    lanes: Lanes,
    /// What each group's contributions are merged to.
    covers: Vec<Vec<Content>>,
}

impl Plan<'_> {
    /// Contributions to the aggregators, what they merge them to on to the finishers, and the results.
    fn finish(&self, b: &mut Builder<'_>, bundles: Vec<Bundle>) -> Vec<(Bundle, Vec<Region>)> {
        let (recorded, mut held) = (self.recorded(b), self.collect(b, &bundles));
        let results = bundles.into_iter().enumerate().map(|(index, bundle)| {
            let mut inputs: Vec<Vec<Operand>> = vec![Vec::new(); bundle.pieces.len()];
            let mut merged: Vec<Option<Vec<Operand>>> = vec![None; recorded.len()];
            let mut slots = Vec::new();
            for group in recorded.clone() {
                let aggregator = self.aggregator(group, bundle.pieces.start);
                if !b.records(aggregator) {
                    continue;
                }
                let held = std::mem::take(&mut held[group - recorded.start][index]);
                // What is for the aggregator alone needs no merging on the way.
                let alone =
                    bundle.pieces.len() == 1 && self.lanes.finisher(bundle.pieces.start) == aggregator;
                let mut taken = Vec::new();
                let cover = &self.covers[group];
                merged[group - recorded.start] =
                    Some(if alone { held } else { merge(b, aggregator, held, cover, &mut taken) });
                slots.extend(taken.into_iter().map(|slot| (aggregator, slot)));
            }
            for (_, piece, group) in self.crossings(b, &bundle.pieces) {
                let Some(part) = self.lanes.part(piece, &bundle) else { continue };
                let (from, to) = (self.aggregator(group, piece), self.lanes.finisher(piece));
                let into = &mut inputs[piece - bundle.pieces.start];
                let operands: Vec<Operand> = match merged.get(group.wrapping_sub(recorded.start)) {
                    Some(Some(merged)) => merged.iter().map(|whole| cut(whole, &bundle, part)).collect(),
                    _ => self.covers[group].iter().map(|content| elsewhere(*content, part)).collect(),
                };
                if from == to { into.extend(operands) } else { lend(b, from, &operands, to, into) }
            }
            slots.into_iter().for_each(|(rank, slot)| b.free(rank, slot));
            let results = bundle.pieces.clone().zip(inputs).map(|(piece, inputs)| {
                let Some(part) = self.lanes.part(piece, &bundle) else { return region(Buf::Out, 0, 0) };
                let finisher = self.lanes.finisher(piece);
                let out = result_place(self.ctx, b, finisher, part);
                b.reduce(finisher, inputs, Content::Result, out);
                out
            });
            let results = results.collect();
            (bundle, results)
        });
        results.collect()
    }

    /// What the aggregators of bundles hold: of each recorded group, of each bundle.
    fn collect(&self, b: &mut Builder<'_>, bundles: &[Bundle]) -> Vec<Vec<Vec<Operand>>> {
        let groups = &self.groups.machines()[self.recorded(b)];
        let mut held = vec![vec![Vec::new(); bundles.len()]; groups.len()];
        for distance in 0..self.lanes.largest() {
            for (index, bundle) in bundles.iter().enumerate() {
                for (group, ranks) in groups.iter().enumerate().filter(|(_, ranks)| distance < ranks.len()) {
                    let place = self.lanes.lane(ranks.len(), bundle.pieces.start);
                    let from = ranks[(place + ranks.len() - distance) % ranks.len()];
                    if !b.records(from) && !b.records(ranks[place]) {
                        continue;
                    }
                    let own = own(self.ctx, from, (bundle.start, bundle.len));
                    let held = &mut held[group][index];
                    if distance == 0 { held.extend(own) } else { lend(b, from, &own, ranks[place], held) }
                }
            }
        }
        held
    }

    /// The results of bundles, from their finishers to whoever gets them.
    fn hand_out(&self, b: &mut Builder<'_>, finished: &[(Bundle, Vec<Region>)]) {
        match (self.ctx.layout.request().collective, self.ctx.layout.request().root) {
            (Collective::AllReduce, _) => {
                for (bundle, results) in finished {
                    for (_, piece, group) in self.crossings(b, &bundle.pieces) {
                        let (from, to) = (self.lanes.finisher(piece), self.aggregator(group, piece));
                        let at = results[piece - bundle.pieces.start];
                        if from != to && at.len > 0 {
                            b.transfer(from, at, to, Place::At(at), Content::Result);
                        }
                    }
                }
                self.spread(b, finished);
            }
            (Collective::Reduce, Some(root)) => {
                finished.iter().for_each(|(bundle, results)| self.bring(b, bundle, results, root));
            }
            _ => {}
        }
    }

    /// The results of bundles, from their aggregators to their groups.
    fn spread(&self, b: &mut Builder<'_>, finished: &[(Bundle, Vec<Region>)]) {
        let groups = &self.groups.machines()[self.recorded(b)];
        for distance in 1..self.lanes.largest() {
            for (bundle, _) in finished {
                for ranks in groups.iter().filter(|ranks| distance < ranks.len()) {
                    let place = self.lanes.lane(ranks.len(), bundle.pieces.start);
                    let to = ranks[(place + distance) % ranks.len()];
                    let out = region(Buf::Out, bundle.start, bundle.len);
                    b.transfer(ranks[place], out, to, Place::At(out), Content::Result);
                }
            }
        }
    }

    /// The results of a bundle, over the aggregator in the root's group to the root.
    fn bring(&self, b: &mut Builder<'_>, bundle: &Bundle, results: &[Region], root: Rank) {
        let aggregator = self.aggregator(self.groups.machine_of(root), bundle.pieces.start);
        let lacking = self.runs_without(bundle, root);
        if lacking.is_empty() {
            return;
        }
        let staged = match (aggregator == root, results) {
            (true, _) => region(Buf::Out, bundle.start, bundle.len),
            // Of a single piece its finisher may be the aggregator, and has it staged.
            (false, [at]) if self.lanes.finisher(bundle.pieces.start) == aggregator => *at,
            _ => region(b.slot(aggregator), 0, bundle.len),
        };
        for (piece, at) in bundle.pieces.clone().zip(results) {
            let (Some((start, len)), finisher) = (self.lanes.part(piece, bundle), self.lanes.finisher(piece))
            else {
                continue;
            };
            let dst = region(staged.buf, staged.start + (start - bundle.start), len);
            match (finisher == root, finisher == aggregator) {
                (true, _) => continue,
                (_, false) => {
                    b.transfer(finisher, *at, aggregator, Place::At(dst), Content::Result);
                }
                (_, true) if at.buf == staged.buf => continue,
                (_, true) => b.copy(aggregator, *at, dst, Content::Result),
            }
            b.free(finisher, at.buf);
        }
        if aggregator != root {
            for (start, len) in lacking {
                let src = region(staged.buf, staged.start + (start - bundle.start), len);
                b.transfer(aggregator, src, root, Place::At(region(Buf::Out, start, len)), Content::Result);
            }
            b.free(aggregator, staged.buf);
        }
    }

    /// What the root still lacks of a bundle: all but the piece that it finished itself.
    fn runs_without(&self, bundle: &Bundle, root: Rank) -> Vec<(u64, u64)> {
        let end = bundle.start + bundle.len;
        let own = bundle.pieces.clone().find(|piece| self.lanes.finisher(*piece) == root);
        let (start, len) = own.and_then(|piece| self.lanes.part(piece, bundle)).unwrap_or((end, 0));
        let runs = [(bundle.start, start - bundle.start), (start + len, end - start - len)];
        runs.into_iter().filter(|(_, len)| *len > 0).collect()
    }

    /// Whoever would exchange elements if there were any exchanges a message at least.
    fn meet(&self, b: &mut Builder<'_>) {
        let (collective, root) = (self.ctx.layout.request().collective, self.ctx.layout.request().root);
        for ranks in &self.groups.machines()[self.recorded(b)] {
            for &from in ranks {
                ranks.iter().for_each(|to| b.meet(from, *to));
            }
        }
        let home = root.map(|root| self.groups.machine_of(root));
        for (_, piece, group) in self.crossings(b, &(0..self.lanes.pieces())) {
            let (aggregator, finisher) = (self.aggregator(group, piece), self.lanes.finisher(piece));
            b.meet(aggregator, finisher);
            if collective == Collective::AllReduce || home == Some(group) {
                b.meet(finisher, aggregator);
            }
        }
    }

    fn aggregator(&self, group: usize, piece: usize) -> Rank {
        let ranks = &self.groups.machines()[group];
        ranks[self.lanes.lane(ranks.len(), piece)]
    }

    /// The groups with a rank that is recorded.
    fn recorded(&self, b: &Builder<'_>) -> Range<usize> {
        let only = b.only().map(|rank| self.groups.machine_of(rank));
        only.map_or(0..self.groups.machines().len(), |group| group..group + 1)
    }

    /// Of some pieces, who exchanges them between groups, if one of the two is recorded: the distance
    /// from the aggregators' group to the finisher's, the piece, the aggregators' group; at first
    /// everyone's own group, then the next, so that no rank is everyone's target at once.
    fn crossings(&self, b: &Builder<'_>, pieces: &Range<usize>) -> Vec<(usize, usize, usize)> {
        let groups = self.groups.machines().len();
        let mut crossings = Vec::new();
        for piece in pieces.clone() {
            let finisher = self.lanes.finisher(piece);
            let home = self.groups.machine_of(finisher);
            let among = match b.only() {
                Some(only) if only != finisher => {
                    let group = self.groups.machine_of(only);
                    if self.aggregator(group, piece) == only { group..group + 1 } else { 0..0 }
                }
                _ => 0..groups,
            };
            crossings.extend(among.map(|group| ((home + groups - group) % groups, piece, group)));
        }
        crossings.sort_unstable();
        crossings
    }

    fn footprint(&self) -> Footprint {
        let ctx = self.ctx;
        let covers = self.covers.iter().map(|cover| weigh(ctx, cover));
        let (message, lent) = heaviest(covers.chain([heaviest_parts(ctx)]));
        let merged = self.groups.machines().iter().zip(&self.covers).map(|(ranks, cover)| {
            let held: Vec<Content> = ranks.iter().flat_map(|rank| ctx.layout.parts(*rank)).copied().collect();
            merges(cover, &held)
        });
        // A root's results are staged where they are finished, and again where they are collected.
        let staged = if ctx.layout.request().collective == Collective::Reduce { LAG + 2 } else { 0 };
        let leaves = ctx.layout.contract().map_or(1, |contract| contract.leaves());
        let node = ctx.layout.bytes(Content::Node(Node::root(leaves)));
        let result = ctx.layout.bytes(Content::Result);
        Footprint {
            message: message.max(result),
            lent,
            slot: node.max(result),
            slots: merged.max().unwrap_or(0) + staged,
        }
    }
}

/// The part of an operand that spans a bundle.
fn cut(whole: &Operand, bundle: &Bundle, (start, len): (u64, u64)) -> Operand {
    let start = whole.region.start + (start - bundle.start);
    Operand { region: region(whole.region.buf, start, len), content: whole.content }
}

/// An operand of a rank that is not recorded.
fn elsewhere(content: Content, (start, len): (u64, u64)) -> Operand {
    Operand { region: region(Buf::Out, start, len), content }
}
