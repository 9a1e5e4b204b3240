//! One-shot: everyone who gets the result receives every contribution and finishes by itself.

use super::{call_roll, heaviest_parts, lend, own};
use crate::Rank;
use crate::schedule::algorithm::Context;
use crate::schedule::builder::{Builder, region};
use crate::schedule::chunks::{Footprint, chunks};
use crate::schedule::{Buf, Content, Operand, PlanError, roll_call};

pub(in crate::schedule) fn one_shot(ctx: &Context<'_>, b: &mut Builder<'_>) -> Result<(), PlanError> {
    let (message, lent) = heaviest_parts(ctx);
    let chunk = ctx.chunk(b, &Footprint { message, lent, slot: 0, slots: 0 })?;
    let called = call_roll(ctx, b);
    let world_size = ctx.layout.world_size();
    let finishes = |rank: Rank| ctx.layout.request().root.is_none_or(|root| root == rank);
    for piece in chunks(0..ctx.layout.count(), chunk) {
        let mut held: Vec<Vec<Operand>> = vec![Vec::new(); world_size as usize];
        for distance in 1..world_size {
            for (from, to) in b.rotation(distance).filter(|(_, to)| finishes(*to)) {
                lend(b, from, &own(ctx, from, piece), to, &mut held[to as usize]);
            }
        }
        if let Some(root) = ctx.layout.request().root.filter(|_| piece.0 == 0 && !called) {
            roll_call::down(b, &ctx.calls(root));
        }
        for rank in b.recorded().filter(|rank| finishes(*rank)) {
            let mut inputs = own(ctx, rank, piece);
            inputs.append(&mut held[rank as usize]);
            b.reduce(rank, inputs, Content::Result, region(Buf::Out, piece.0, piece.1));
        }
    }
    for distance in 1..world_size {
        for (from, to) in b.rotation(distance).filter(|(_, to)| finishes(*to)) {
            b.meet(from, to);
        }
    }
    Ok(())
}
