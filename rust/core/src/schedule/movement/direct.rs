//! Every pair exchanges what concerns it, in rotation: at distance `d` rank `r` sends to `r + d`.
//! No rank is everyone's target at the same time.

use crate::Rank;
use crate::schedule::algorithm::Context;
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::chunks::chunks;
use crate::schedule::{Buf, Content, PlanError, Region};

/// Every rank sends its block to every other.
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
        if start == 0 {
            exchange_first(world_size, b, |from, _| part(from));
        } else {
            for distance in 1..world_size {
                for (from, to) in b.rotation(distance) {
                    if let Some((src, out)) = part(from) {
                        b.transfer(from, src, to, Place::At(out), Content::Data);
                    }
                }
            }
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

/// Every pair exchanges its first chunks, or that there are none. They wait where they came until there is one from each; but
/// for the last, which shows that there is.
fn exchange_first(
    world_size: u32,
    b: &mut Builder<'_>,
    first: impl Fn(Rank, Rank) -> Option<(Region, Region)>,
) {
    let mut held = Vec::new();
    for distance in 1..world_size {
        let is_last = distance + 1 == world_size;
        if is_last {
            b.recorded().for_each(|rank| b.gate(rank));
        }
        for (from, to) in b.rotation(distance) {
            let first = first(from, to);
            match first {
                Some((src, out)) if is_last => {
                    b.transfer(from, src, to, Place::At(out), Content::Data);
                }
                Some((src, out)) => {
                    held.push((to, b.transfer(from, src, to, Place::View, Content::Data), out))
                }
                None => b.meet(from, to),
            }
            // Later writes wait for one that has waited for others. This one has waited for nobody, or wrote nothing.
            if is_last && (world_size == 2 || first.is_none()) {
                b.gate(to);
            }
        }
    }
    for (rank, view, out) in held {
        b.copy(rank, view, out, Content::Data);
    }
}

/// Every rank sends each other rank its block; a message even for none, since only the two know.
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
    exchange_first(world_size, b, |from, to| pieces_of(from, to).next());
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
