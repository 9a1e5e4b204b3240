//! Hierarchical all_gather: each group gathers its blocks, groups exchange them, and each group spreads
//! what it got.
//!
//! A block crosses to another group once, where every pair of ranks would send it once a rank. Between
//! groups the blocks of a group travel together, cut into a few shares if groups are larger than they
//! are many. Each share has one sender and one receiver, who passes it on to the group.

use std::ops::Range;

use super::direct;
use crate::Rank;
use crate::schedule::algorithm::Context;
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::chunks::chunks;
use crate::schedule::{Buf, Content, PlanError, Topology, roll_call};

/// Every rank gets every block.
pub(in crate::schedule) fn all_gather(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let groups = ctx.topology.groups();
    // Where there is nothing to save every rank hears every other, and writes only then.
    if !groups.is_divided() {
        return direct::all_gather(ctx, b);
    }
    let chunk = ctx.data_chunk(b)?;
    let shares = Shares::new(&groups);
    let recorded = b.only().map(|rank| groups.machine_of(rank));
    let concerns = |group: usize| recorded.is_none_or(|recorded| recorded == group);
    let local = |ranks: &[Rank], distance: usize| -> Vec<(usize, Rank)> {
        (0..ranks.len()).map(|place| (place, ranks[(place + distance) % ranks.len()])).collect()
    };
    let own: Vec<&[Rank]> =
        (0..shares.groups.len()).filter(|g| concerns(*g)).map(|g| shares.groups[g].as_slice()).collect();
    roll_call::all(b, ctx.layout.world_size());
    for rank in b.recorded() {
        let block = ctx.layout.block(rank);
        let len = block.end - block.start;
        b.copy(rank, region(Buf::Part(0), 0, len), region(Buf::Out, block.start, len), Content::Data);
    }
    for ranks in &own {
        for distance in 1..ranks.len() {
            for (place, to) in local(ranks, distance) {
                let (from, block) = (ranks[place], ctx.layout.block(ranks[place]));
                for (start, len) in chunks(block.clone(), chunk) {
                    let src = region(Buf::Part(0), start - block.start, len);
                    b.transfer(from, src, to, Place::At(region(Buf::Out, start, len)), Content::Data);
                }
                b.meet(from, to);
            }
        }
    }
    let send = |b: &mut Builder<'_>, from: Rank, to: Rank, runs: &[Range<u64>]| {
        for run in runs {
            for (start, len) in chunks(run.clone(), chunk) {
                let at = region(Buf::Out, start, len);
                b.transfer(from, at, to, Place::At(at), Content::Data);
            }
        }
        b.meet(from, to);
    };
    let many = shares.groups.len();
    for distance in 1..many {
        for group in 0..many {
            let target = (group + distance) % many;
            if !concerns(group) && !concerns(target) {
                continue;
            }
            for share in 0..shares.each {
                let from = shares.handler(group, target * shares.each + share);
                let to = shares.handler(target, group * shares.each + share);
                if b.records(from) || b.records(to) {
                    let members = shares.members(group * shares.each + share);
                    send(b, from, to, &runs(ctx, members.iter().copied()));
                }
            }
        }
    }
    for ranks in &own {
        let got: Vec<Vec<Range<u64>>> =
            (0..ranks.len()).map(|place| runs(ctx, shares.received(&groups, ranks, place))).collect();
        for distance in 1..ranks.len() {
            for (place, to) in local(ranks, distance) {
                send(b, ranks[place], to, &got[place]);
            }
        }
    }
    Ok(())
}

/// The shares of all groups' blocks: `each` a group, numbered through.
struct Shares<'a> {
    groups: &'a [Vec<Rank>],
    each: usize,
}

impl<'a> Shares<'a> {
    fn new(groups: &'a Topology) -> Shares<'a> {
        let groups = groups.machines();
        let smallest = groups.iter().map(Vec::len).min().unwrap_or(1);
        Shares { groups, each: (smallest / groups.len()).max(1) }
    }

    /// Whose blocks a share is.
    fn members(&self, share: usize) -> &'a [Rank] {
        let (ranks, share) = (&self.groups[share / self.each], share % self.each);
        &ranks[share * ranks.len() / self.each..(share + 1) * ranks.len() / self.each]
    }

    /// The rank of `group` that receives a share of another group, or sends that group one.
    fn handler(&self, group: usize, share: usize) -> Rank {
        let ranks = &self.groups[group];
        ranks[share * ranks.len() / (self.groups.len() * self.each)]
    }

    /// Whose blocks the rank at `place` of a group has received from other groups.
    fn received(&self, groups: &Topology, ranks: &[Rank], place: usize) -> Vec<Rank> {
        let home = groups.machine_of(ranks[place]);
        let mine = |share: &usize| share / self.each != home && self.handler(home, *share) == ranks[place];
        let shares = (0..self.groups.len() * self.each).filter(mine);
        shares.flat_map(|share| self.members(share).iter().copied()).collect()
    }
}

/// Where the blocks of some ranks lie in the result, neighbours together.
fn runs(ctx: &Context<'_>, ranks: impl IntoIterator<Item = Rank>) -> Vec<Range<u64>> {
    let mut ranks: Vec<Rank> = ranks.into_iter().collect();
    ranks.sort_unstable();
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in ranks.into_iter().map(|rank| ctx.layout.block(rank)).filter(|block| !block.is_empty()) {
        match runs.last_mut() {
            Some(last) if last.end == block.start => last.end = block.end,
            _ => runs.push(block),
        }
    }
    runs
}
