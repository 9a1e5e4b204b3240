//! Reductions: who merges which contributions. Whoever does, the tree is the same.

mod butterfly;
mod direct;
mod hierarchical;
mod lanes;
mod one_shot;
mod star;

pub(super) use butterfly::butterfly;
pub(super) use direct::direct;
pub(super) use hierarchical::hierarchical;
pub(super) use one_shot::one_shot;
pub(super) use star::star;

use super::algorithm::Context;
use super::builder::{Builder, Place, region};
use super::{Buf, Content, Operand, Region, roll_call};
use crate::law::{LeafMap, LeafSet, Node, cover};
use crate::{Order, Rank};

/// How many chunks the exchange of results lags behind that of contributions, so that a result that
/// is not finished yet does not hold up the contributions behind it.
const LAG: u64 = 2;

/// Calls the roll where the contributions alone would not show everyone that all are here: some rank has none, or there
/// is nothing to contribute to.
fn call_roll(ctx: &Context<'_>, b: &mut Builder<'_>) -> bool {
    let world_size = ctx.layout.world_size();
    let silent = ctx.layout.count() == 0 || (0..world_size).any(|rank| ctx.layout.parts(rank).is_empty());
    if silent {
        roll_call::all(b, world_size);
    }
    silent
}

/// A rank's own contributions to a chunk.
fn own(ctx: &Context<'_>, rank: Rank, (start, len): (u64, u64)) -> Vec<Operand> {
    (0..)
        .zip(ctx.layout.parts(rank))
        .map(|(part, content)| Operand { region: region(Buf::Part(part), start, len), content: *content })
        .collect()
}

/// `from` sends operands to `to`, which reads them where they arrive and adds them to `held`.
fn lend(b: &mut Builder<'_>, from: Rank, operands: &[Operand], to: Rank, held: &mut Vec<Operand>) {
    for operand in operands {
        let region = b.transfer(from, operand.region, to, Place::View, operand.content);
        held.push(Operand { region, content: operand.content });
    }
}

/// The bytes of an element of each content: the largest, and all together.
fn weigh<'c>(ctx: &Context<'_>, contents: impl IntoIterator<Item = &'c Content>) -> (u64, u64) {
    contents.into_iter().fold((0, 0), |(largest, sum), content| {
        let bytes = ctx.layout.bytes(*content);
        (largest.max(bytes), sum + bytes)
    })
}

/// The largest of the weights, each by itself.
fn heaviest(weights: impl IntoIterator<Item = (u64, u64)>) -> (u64, u64) {
    weights.into_iter().fold((0, 0), |(largest, sum), (l, s)| (largest.max(l), sum.max(s)))
}

/// The weight of the contributions of the rank whose are heaviest.
fn heaviest_parts(ctx: &Context<'_>) -> (u64, u64) {
    heaviest((0..ctx.layout.world_size()).map(|rank| weigh(ctx, ctx.layout.parts(rank))))
}

/// The leaf map of a reduction.
fn leaf_map<'a>(ctx: &Context<'a>) -> &'a LeafMap {
    ctx.layout.request().leaf_map.expect("the layout has checked that a reduction has a leaf map")
}

/// The cover of all leaves of some ranks.
fn joint_cover(map: &LeafMap, ranks: impl IntoIterator<Item = Rank>) -> Vec<Content> {
    let runs = ranks.into_iter().flat_map(|rank| map.of(rank).runs().iter().copied());
    cover(map.leaves(), &LeafSet::from_runs(runs)).into_iter().map(Content::of_node).collect()
}

/// What the contributions of some ranks are merged to: in tree order their cover, in exact order one
/// wide sum, unless there is but one contribution.
fn cover_of(ctx: &Context<'_>, ranks: impl IntoIterator<Item = Rank> + Clone) -> Vec<Content> {
    if ctx.layout.contract().is_none_or(|contract| contract.order() == Order::Tree) {
        return joint_cover(leaf_map(ctx), ranks);
    }
    let held: Vec<Content> =
        ranks.clone().into_iter().flat_map(|rank| ctx.layout.parts(rank)).copied().collect();
    match held[..] {
        [] | [_] => held,
        _ => vec![Content::Wide(ranks.into_iter().map(|rank| leaf_map(ctx).of(rank).len()).sum())],
    }
}

/// How many contents of a cover are not already among `held`: each takes a slot.
fn merges(cover: &[Content], held: &[Content]) -> u64 {
    cover.iter().filter(|content| !held.contains(content)).count() as u64
}

/// `rank` merges what it holds into `cover`. The new nodes are in slots, which are added to `slots`.
fn merge(
    b: &mut Builder<'_>,
    rank: Rank,
    mut held: Vec<Operand>,
    cover: &[Content],
    slots: &mut Vec<Buf>,
) -> Vec<Operand> {
    let mut merged = Vec::with_capacity(cover.len());
    for &target in cover {
        let (inside, outside): (Vec<Operand>, Vec<Operand>) =
            held.into_iter().partition(|operand| takes(target, operand.content));
        held = outside;
        if let [whole] = inside[..] {
            merged.push(whole);
            continue;
        }
        let slot = b.slot(rank);
        let out: Region = region(slot, 0, inside.first().map_or(0, |operand| operand.region.len));
        b.reduce(rank, inside, target, out);
        slots.push(slot);
        merged.push(Operand { region: out, content: target });
    }
    merged
}

/// Whether `content` is merged into `target`.
fn takes(target: Content, content: Content) -> bool {
    match target {
        Content::Wide(_) => true,
        _ => node_of(target).contains(node_of(content)),
    }
}

fn node_of(content: Content) -> Node {
    match content {
        Content::Leaf(leaf) => Node::leaf(leaf),
        Content::Node(node) => node,
        Content::Data | Content::Wide(_) | Content::Result => {
            unreachable!("only contributions in tree order are merged")
        }
    }
}
