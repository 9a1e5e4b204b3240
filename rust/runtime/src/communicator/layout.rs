//! Who owns or gets how much, as errors say it.
//!
//! A header has the digest of who owns which leaf, where leaves are accumulated, and of the counts a rank, where there
//! are any, in one word. What a rank owns follows from the number of leaves, and counts can be read.

use isobit_core::Rank;
use isobit_core::engine::Mismatch;
use isobit_core::law::LeafMap;
use isobit_core::wire::Descriptor;
use isobit_sys::os::lists::Lists;

use super::sites::joined;

/// What a digest stands for.
#[derive(PartialEq, Eq)]
struct Layout {
    /// Whether the leaves are those of an accumulation.
    accumulated: bool,
    /// How much each rank has, unless all have equally much.
    counts: Option<Vec<u64>>,
}

/// What two ranks' layouts are, as far as they differ.
pub(super) fn texts(mismatch: &Mismatch, world_size: u32, lists: &Lists) -> Option<[String; 2]> {
    let of = |rank, descriptor| layout_of(rank, descriptor, world_size, lists);
    let ours = of(mismatch.rank, &mismatch.our_descriptor)?;
    let theirs = of(mismatch.peer, &mismatch.their_descriptor)?;
    let (leaves, counts) = (ours.accumulated != theirs.accumulated, ours.counts != theirs.counts);
    let text = |layout: &Layout| {
        let of_leaves =
            if layout.accumulated { "leaves that were accumulated" } else { "a tensor of each rank" };
        let of_counts = match &layout.counts {
            Some(counts) => format!("[{}] elements a rank", joined(counts)),
            None => "equally many elements a rank".to_owned(),
        };
        match (leaves, counts) {
            (true, false) => of_leaves.to_owned(),
            (false, _) => of_counts,
            (true, true) => format!("{of_leaves}, {of_counts},"),
        }
    };
    Some([text(&ours), text(&theirs)])
}

fn layout_of(rank: Rank, descriptor: &Descriptor, world_size: u32, lists: &Lists) -> Option<Layout> {
    let layout = descriptor.layout;
    let owners = descriptor.contract.map(|contract| LeafMap::even(contract.leaves(), world_size).digest());
    [(false, 0), (true, owners.unwrap_or(0))].into_iter().find_map(|(accumulated, owners)| {
        let counts = match layout ^ owners {
            0 => None,
            of_counts => Some(lists.find(rank, of_counts)?),
        };
        Some(Layout { accumulated, counts })
    })
}
