//! Every pair exchanges what concerns it, in rotation: at distance `d` rank `r` sends to `r + d`.
//! No rank is everyone's target at the same time.

use crate::Rank;
use crate::schedule::algorithm::{Context, chunks};
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::{Buf, Content, PlanError, Region};

/// Every rank sends its block to every other. First chunks wait where they came until there is one from each.
pub(in crate::schedule) fn all_gather(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let world_size = ctx.layout.world_size();
    let longest = (0..world_size).map(|rank| ctx.layout.part_len(rank)).max().unwrap_or(0);
    let chunk = ctx.piece_exchanged(longest, ctx.data_chunk(b)?);
    for (start, _) in chunks(0..longest, chunk) {
        let part = |rank: Rank| {
            let len = ctx.layout.part_len(rank).saturating_sub(start).min(chunk);
            let out = region(Buf::Out, ctx.layout.block(rank).start + start, len);
            (len > 0).then_some((region(Buf::Part(0), start, len), out))
        };
        let mut held = Vec::new();
        for distance in 1..world_size {
            for (from, to) in b.rotation(distance) {
                match part(from) {
                    Some((src, out)) if start == 0 => {
                        held.push((to, b.transfer(from, src, to, Place::View, Content::Data), out));
                    }
                    Some((src, out)) => {
                        b.transfer(from, src, to, Place::At(out), Content::Data);
                    }
                    None => b.meet(from, to),
                }
            }
        }
        if start == 0 {
            store(b, held);
        }
        for rank in b.recorded() {
            if let Some((src, out)) = part(rank) {
                b.copy(rank, src, out, Content::Data);
            }
        }
    }
    for distance in 1..world_size {
        for (from, to) in b.rotation(distance) {
            b.meet(from, to);
        }
    }
    Ok(())
}

/// Has every rank store what it holds once it has received something of everyone.
fn store(b: &mut Builder<'_>, held: Vec<(Rank, Region, Region)>) {
    for rank in b.recorded() {
        b.gate(rank);
    }
    for (rank, view, out) in held {
        b.copy(rank, view, out, Content::Data);
    }
}

/// Every rank sends each other rank its block; a message even for none, since only the two know. First chunks
/// wait as in `all_gather`.
pub(in crate::schedule) fn all_to_all(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let chunk = ctx.data_chunk(b)?;
    let world_size = ctx.layout.world_size();
    let mut sums: Vec<Option<Sums>> = (0..world_size).map(|_| None).collect();
    for rank in b.recorded() {
        sums[rank as usize] = Some(Sums::new(ctx, rank)?);
    }
    let pieces_of = |from: Rank, to: Rank| {
        let src_at = sums[from as usize].as_ref().map_or(0, |sums| sums.sent[to as usize]);
        let dst_at = sums[to as usize].as_ref().map_or(0, |sums| sums.received[from as usize]);
        let len = ctx.layout.pair(from, to);
        chunks(0..len, ctx.piece_exchanged(len, chunk)).map(move |(start, len)| {
            (region(Buf::Part(0), src_at + start, len), region(Buf::Out, dst_at + start, len))
        })
    };
    let mut held = Vec::new();
    for distance in 1..world_size {
        for (from, to) in b.rotation(distance) {
            if let Some((src, dst)) = pieces_of(from, to).next() {
                held.push((to, b.transfer(from, src, to, Place::View, Content::Data), dst));
            }
            b.meet(from, to);
        }
    }
    store(b, held);
    for rank in b.recorded() {
        for (src, dst) in pieces_of(rank, rank) {
            b.copy(rank, src, dst, Content::Data);
        }
    }
    for distance in 1..world_size {
        for (from, to) in b.rotation(distance) {
            for (src, dst) in pieces_of(from, to).skip(1) {
                b.transfer(from, src, to, Place::At(dst), Content::Data);
            }
        }
    }
    Ok(())
}

/// Where a rank's blocks begin, in what it sends and in what it receives.
struct Sums {
    sent: Vec<u64>,
    received: Vec<u64>,
}

impl Sums {
    fn new(ctx: &Context<'_>, rank: Rank) -> Result<Sums, PlanError> {
        let begins = |count: &dyn Fn(Rank) -> u64| {
            let mut next = 0u64;
            (0..ctx.layout.world_size())
                .map(|other| {
                    let begin = next;
                    next = next.checked_add(count(other)).ok_or(PlanError::TooLarge)?;
                    Ok(begin)
                })
                .collect::<Result<Vec<u64>, PlanError>>()
        };
        Ok(Sums {
            sent: begins(&|to| ctx.layout.pair(rank, to))?,
            received: begins(&|from| ctx.layout.pair(from, rank))?,
        })
    }
}

/// One rank sends to another.
pub(in crate::schedule) fn send_recv(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let chunk = ctx.data_chunk(b)?;
    let request = ctx.layout.request();
    if let (Some(from), Some(to)) = (request.root, request.receiver) {
        for (start, len) in ctx.pieces(0..ctx.layout.count(), chunk) {
            let src = region(Buf::Part(0), start, len);
            b.transfer(from, src, to, Place::At(region(Buf::Out, start, len)), Content::Data);
        }
        b.meet(from, to);
    }
    Ok(())
}
