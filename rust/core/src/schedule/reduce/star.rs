//! Star: rank 0 receives every contribution, finishes, and sends everyone the result. No other algorithm has so
//! few messages, and none gives one rank so many.

use super::{call_roll, heaviest_parts, lend, own};
use crate::schedule::algorithm::{Context, STAR_ROOT as ROOT};
use crate::schedule::builder::{Builder, Place, region};
use crate::schedule::chunks::{Footprint, chunks};
use crate::schedule::{Buf, Content, Operand, PlanError};

pub(in crate::schedule) fn star(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let (message, lent) = heaviest_parts(ctx);
    let message = message.max(ctx.layout.bytes(Content::Result));
    let chunk = ctx.chunk(b, &Footprint { message, lent, slot: 0, slots: 0 })?;
    call_roll(ctx, b);
    let others = 1..ctx.layout.world_size();
    for piece in chunks(0..ctx.layout.count(), chunk) {
        let mut inputs: Vec<Operand> = own(ctx, ROOT, piece);
        for from in others.clone() {
            lend(b, from, &own(ctx, from, piece), ROOT, &mut inputs);
        }
        let out = region(Buf::Out, piece.0, piece.1);
        b.reduce(ROOT, inputs, Content::Result, out);
        for to in others.clone() {
            b.transfer(ROOT, out, to, Place::At(out), Content::Result);
        }
    }
    for rank in others {
        b.meet(rank, ROOT);
        b.meet(ROOT, rank);
    }
    Ok(())
}
