//! Star: everyone sends to rank 0, which sends everyone all of it.

use crate::schedule::algorithm::{Context, STAR_ROOT as ROOT};
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::chunks::chunks;
use crate::schedule::{Buf, Content, PlanError, roll_call};

/// The first piece of each block waits where it came until there is one from each, as in a gather; and so does the
/// first piece of the result, which shows that all are in this call.
pub(in crate::schedule) fn all_gather(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let chunk = ctx.data_chunk(b)?;
    let others = 1..ctx.layout.world_size();
    let pieces = |rank| {
        let begin = ctx.layout.block(rank).start;
        chunks(0..ctx.layout.part_len(rank), chunk)
            .map(move |(start, len)| (region(Buf::Part(0), start, len), region(Buf::Out, begin + start, len)))
    };
    let mut held = Vec::new();
    for from in others.clone() {
        if let Some((src, out)) = pieces(from).next() {
            held.push((b.transfer(from, src, ROOT, Place::View, Content::Data), out));
        }
        b.meet(from, ROOT);
    }
    b.gate(ROOT);
    for (src, out) in held.into_iter().chain(pieces(ROOT)) {
        b.copy(ROOT, src, out, Content::Data);
    }
    for from in others.clone() {
        for (src, out) in pieces(from).skip(1) {
            b.transfer(from, src, ROOT, Place::At(out), Content::Data);
        }
    }
    for (start, len) in chunks(0..ctx.layout.count(), chunk) {
        let out = region(Buf::Out, start, len);
        for to in others.clone() {
            if start > 0 {
                b.transfer(ROOT, out, to, Place::At(out), Content::Data);
                continue;
            }
            let first = b.transfer(ROOT, out, to, Place::View, Content::Data);
            b.gate(to);
            b.copy(to, first, out, Content::Data);
        }
    }
    b.fence(ROOT);
    for to in others {
        b.meet(ROOT, to);
    }
    Ok(())
}

/// Rank 0 tells everyone once it has heard of everyone.
pub(in crate::schedule) fn barrier(ctx: &Context<'_>, b: &mut Builder<'_>) {
    let edges = roll_call::flat(ROOT, ctx.layout.world_size());
    roll_call::up(b, &edges);
    roll_call::down(b, &edges);
}
