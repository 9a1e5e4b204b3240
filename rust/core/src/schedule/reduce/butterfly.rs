//! Butterfly: groups of neighbouring ranks merge pairwise, in as many rounds as the world size has
//! binary digits. Both groups' partial results are exchanged and merged to the joint cover, so a
//! rank holds few and large nodes early.
//!
//! If the world size is no power of two, as many odd ranks as it exceeds one by give their
//! contributions to their even neighbours first, and get the result from them.

use super::{call_roll, heaviest, heaviest_parts, joint_cover, leaf_map, lend, merge, merges, own, weigh};
use crate::Rank;
use crate::law::Node;
use crate::schedule::algorithm::Context;
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::chunks::{Footprint, chunks};
use crate::schedule::{Buf, Content, Operand, PlanError};

pub(in crate::schedule) fn butterfly(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let groups = Groups::new(ctx);
    let chunk = ctx.chunk(b, &groups.footprint(ctx))?;
    call_roll(ctx, b);
    for piece in chunks(0..ctx.layout.count(), chunk) {
        exchange(ctx, b, &groups, piece);
    }
    for v in 0..groups.actors {
        let rank = groups.rank(v);
        for partner in (0..groups.rounds).map(|round| groups.rank(v ^ (1 << round))).chain(groups.folded(v)) {
            b.meet(rank, partner);
            b.meet(partner, rank);
        }
    }
    Ok(())
}

fn exchange(ctx: &Context<'_>, b: &mut Builder<'_>, groups: &Groups, piece: (u64, u64)) {
    let recorded: Vec<u32> = match b.only() {
        Some(rank) => vec![groups.actor(rank)],
        None => (0..groups.actors).collect(),
    };
    let mut slots: Vec<Vec<Buf>> = vec![Vec::new(); recorded.len()];
    let mut held: Vec<Vec<Operand>> = Vec::new();
    for &v in &recorded {
        let rank = groups.rank(v);
        let mut mine = own(ctx, rank, piece);
        if let Some(folded) = groups.folded(v) {
            lend(b, folded, &own(ctx, folded, piece), rank, &mut mine);
        }
        held.push(mine);
    }
    for round in 0..groups.rounds {
        for ((&v, held), slots) in recorded.iter().zip(&mut held).zip(&mut slots) {
            *held = merge(b, groups.rank(v), std::mem::take(held), groups.cover(round, v), slots);
        }
        let before = held.clone();
        let at = |v: u32| recorded.binary_search(&v).ok();
        let mut senders: Vec<u32> = recorded.iter().flat_map(|v| [*v, v ^ (1 << round)]).collect();
        senders.sort_unstable();
        senders.dedup();
        for v in senders {
            let partner = v ^ (1 << round);
            let elsewhere =
                |content: &Content| Operand { region: region(Buf::Out, piece.0, piece.1), content: *content };
            let operands = match at(v) {
                Some(index) => before[index].clone(),
                None => groups.cover(round, v).iter().map(elsewhere).collect(),
            };
            let mut nowhere = Vec::new();
            let into = at(partner).map_or(&mut nowhere, |index| &mut held[index]);
            lend(b, groups.rank(v), &operands, groups.rank(partner), into);
        }
    }
    let out = region(Buf::Out, piece.0, piece.1);
    for ((v, held), slots) in recorded.into_iter().zip(held).zip(slots) {
        let rank = groups.rank(v);
        b.reduce(rank, held, Content::Result, out);
        if let Some(folded) = groups.folded(v) {
            b.transfer(rank, out, folded, Place::At(out), Content::Result);
        }
        for slot in slots {
            b.free(rank, slot);
        }
    }
}

/// Who acts, and what each group holds before each round.
struct Groups {
    world_size: u32,
    /// The ranks that take part in the rounds, a power of two.
    actors: u32,
    rounds: u32,
    /// The joint cover of each group of `2^round` actors.
    covers: Vec<Vec<Vec<Content>>>,
}

impl Groups {
    fn new(ctx: &Context<'_>) -> Groups {
        let world_size = ctx.layout.world_size();
        let rounds = world_size.ilog2();
        let mut groups = Groups { world_size, actors: 1 << rounds, rounds, covers: Vec::new() };
        let map = leaf_map(ctx);
        for round in 0..rounds {
            let covers = (0..groups.actors >> round).map(|group| {
                let members = (group << round)..((group + 1) << round);
                let ranks = members.flat_map(|v| std::iter::once(groups.rank(v)).chain(groups.folded(v)));
                joint_cover(map, ranks)
            });
            let covers = covers.collect();
            groups.covers.push(covers);
        }
        groups
    }

    /// The rank of actor `v`.
    fn rank(&self, v: u32) -> Rank {
        v + v.min(self.world_size - self.actors)
    }

    /// The actor that `rank` is, or that stands in for it.
    fn actor(&self, rank: Rank) -> u32 {
        let more = self.world_size - self.actors;
        if rank < 2 * more { rank / 2 } else { rank - more }
    }

    /// The rank that actor `v` stands in for.
    fn folded(&self, v: u32) -> Option<Rank> {
        (v < self.world_size - self.actors).then(|| 2 * v + 1)
    }

    /// What actor `v` holds before a round.
    fn cover(&self, round: u32, v: u32) -> &[Content] {
        &self.covers[round as usize][(v >> round) as usize]
    }

    fn footprint(&self, ctx: &Context<'_>) -> Footprint {
        let covers = self.covers.iter().flatten().map(|cover| weigh(ctx, cover));
        let (message, lent) = heaviest(covers.chain([heaviest_parts(ctx)]));
        let slots = (0..self.actors).map(|v| {
            let mut held: Vec<Content> = ctx.layout.parts(self.rank(v)).to_vec();
            held.extend(self.folded(v).into_iter().flat_map(|folded| ctx.layout.parts(folded)));
            let mut slots = 0;
            for round in 0..self.rounds {
                slots += merges(self.cover(round, v), &held);
                held = self.cover(round, v).to_vec();
                held.extend(self.cover(round, v ^ (1 << round)));
            }
            slots
        });
        let node = Content::Node(Node::root(leaf_map(ctx).leaves()));
        Footprint {
            message: message.max(ctx.layout.bytes(Content::Result)),
            lent,
            slot: ctx.layout.bytes(node),
            slots: slots.max().unwrap_or(0),
        }
    }
}
