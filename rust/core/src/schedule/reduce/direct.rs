//! Direct: every rank finishes its slice of the tensor, from everyone's contributions to it, and the
//! finished slices go to whoever gets the result.

use std::ops::Range;

use super::{LAG, call_roll, heaviest_parts, lend, own};
use crate::Rank;
use crate::schedule::algorithm::Context;
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::chunks::{Footprint, chunk_of, chunks_in};
use crate::schedule::{Buf, Content, Operand, PlanError, Region};
use crate::wire::Collective;

pub(in crate::schedule) fn direct(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let (message, lent) = heaviest_parts(ctx);
    let result = ctx.layout.bytes(Content::Result);
    let world_size = ctx.layout.world_size();
    let collective = ctx.layout.request().collective;
    // A slice finished for a root elsewhere is staged until it is sent.
    let slots = if collective == Collective::Reduce { LAG + 1 } else { 0 };
    let footprint = Footprint { message: message.max(result), lent, slot: result, slots };
    let chunk = ctx.chunk(b, &footprint)?;
    call_roll(ctx, b);
    let slice = |rank: Rank| match collective {
        Collective::ReduceScatter => ctx.layout.block(rank),
        _ => slice_of(ctx.layout.count(), world_size, rank),
    };
    let rounds = (0..world_size).map(|rank| chunks_in(&slice(rank), chunk)).max().unwrap_or(0);
    let mut finished: Vec<Vec<Finished>> = vec![Vec::new(); world_size as usize];
    for round in 0..rounds + LAG {
        let mut held: Vec<Vec<Operand>> = vec![Vec::new(); world_size as usize];
        for distance in 1..world_size {
            for (from, to) in b.rotation(distance) {
                if let Some(piece) = chunk_of(&slice(to), chunk, round) {
                    lend(b, from, &own(ctx, from, piece), to, &mut held[to as usize]);
                }
            }
        }
        for rank in 0..world_size {
            if let Some(piece) = chunk_of(&slice(rank), chunk, round) {
                let mut inputs = own(ctx, rank, piece);
                inputs.append(&mut held[rank as usize]);
                let out = result_place(ctx, b, rank, piece);
                b.reduce(rank, inputs, Content::Result, out);
                finished[rank as usize].push(Finished { piece, at: out });
            }
        }
        if let Some(ready) = round.checked_sub(LAG).and_then(|round| usize::try_from(round).ok()) {
            hand_out(ctx, b, &finished, ready);
        }
    }
    for distance in 1..world_size {
        for (from, to) in b.rotation(distance) {
            b.meet(from, to);
        }
    }
    Ok(())
}

/// A finished chunk and where its finisher has it.
#[derive(Clone, Copy)]
struct Finished {
    piece: (u64, u64),
    at: Region,
}

/// Where `rank` puts the result of a chunk: into `Out`, or into a slot if it is for a root elsewhere.
pub(super) fn result_place(
    ctx: &Context<'_>,
    b: &mut Builder<'_>,
    rank: Rank,
    (start, len): (u64, u64),
) -> Region {
    match ctx.layout.request().collective {
        Collective::ReduceScatter => region(Buf::Out, start - ctx.layout.block(rank).start, len),
        Collective::Reduce if !ctx.layout.is_root(rank) => region(b.slot(rank), 0, len),
        _ => region(Buf::Out, start, len),
    }
}

fn hand_out(ctx: &Context<'_>, b: &mut Builder<'_>, finished: &[Vec<Finished>], round: usize) {
    let request = ctx.layout.request();
    for distance in 1..ctx.layout.world_size() {
        for (from, to) in b.rotation(distance) {
            let wants = match request.collective {
                Collective::AllReduce => true,
                Collective::Reduce => ctx.layout.is_root(to),
                _ => false,
            };
            if let Some(Finished { piece: (start, len), at }) = finished[from as usize].get(round)
                && wants
            {
                b.transfer(from, *at, to, Place::At(region(Buf::Out, *start, *len)), Content::Result);
                b.free(from, at.buf);
            }
        }
    }
}

/// Slices begin at multiples of this many elements if the tensor is large enough.
const GRAIN: u64 = 64;

/// The slice of `rank`: as even as the grain allows.
pub(super) fn slice_of(count: u64, slices: u32, rank: u32) -> Range<u64> {
    let grain = if count >= GRAIN * u64::from(slices) { GRAIN } else { 1 };
    let (grains, slices, rank) = (count.div_ceil(grain), u64::from(slices), u64::from(rank));
    let begin = |rank: u64| ((grains / slices * rank + rank.min(grains % slices)) * grain).min(count);
    begin(rank)..begin(rank + 1)
}
