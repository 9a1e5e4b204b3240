//! What is in memory, symbolically: for every element, what it is of which element of the tensor.

use std::collections::BTreeMap;

use crate::Rank;
use crate::law::{LeafSet, Node};
use crate::schedule::{Buf, Content, Layout, Program, Region};
use crate::wire::Collective;

/// What a value is, but for its element.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// Never written, or overwritten.
    Nothing,
    /// Data of this rank's part.
    Data(Rank),
    /// The value of this node.
    Node(Node),
    /// The exact sum of these leaves.
    Bag(LeafSet),
    /// The finished result.
    Result,
}

impl Kind {
    /// Whether it is what a step claims.
    pub(super) fn is(&self, content: Content) -> bool {
        match (self, content) {
            (Kind::Data(_), Content::Data) | (Kind::Result, Content::Result) => true,
            (Kind::Node(node), Content::Leaf(leaf)) => *node == Node::leaf(leaf),
            (Kind::Node(node), Content::Node(claimed)) => !node.is_leaf() && *node == claimed,
            (Kind::Bag(leaves), Content::Wide(count)) => leaves.len() == count,
            _ => false,
        }
    }
}

/// A kind's number; 0 is `Nothing`.
pub(super) type KindId = u32;

/// One symbolic value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Value {
    pub(super) kind: KindId,
    pub(super) element: u64,
}

pub(super) const NOTHING: Value = Value { kind: 0, element: 0 };

/// All kinds met so far.
pub(super) struct Kinds {
    all: Vec<Kind>,
    ids: BTreeMap<Kind, KindId>,
}

impl Kinds {
    pub(super) fn new() -> Kinds {
        let mut kinds = Kinds { all: Vec::new(), ids: BTreeMap::new() };
        kinds.id(Kind::Nothing);
        kinds
    }

    pub(super) fn id(&mut self, kind: Kind) -> KindId {
        let next = KindId::try_from(self.all.len()).expect("kinds are few");
        *self.ids.entry(kind.clone()).or_insert_with(|| {
            self.all.push(kind);
            next
        })
    }

    pub(super) fn get(&self, id: KindId) -> &Kind {
        &self.all[id as usize]
    }

    pub(super) fn describe(&self, value: Value) -> String {
        match self.get(value.kind) {
            Kind::Nothing => "nothing".to_owned(),
            kind => format!("{kind:?} of element {}", value.element),
        }
    }
}

/// The memory of one rank.
pub(super) struct Memory<'a> {
    layout: &'a Layout<'a>,
    rank: Rank,
    parts: Vec<KindId>,
    out: Vec<Value>,
    views: Vec<Vec<Value>>,
    /// Each slot's values, and the size of the elements it was last written with.
    slots: Vec<(u64, Vec<Value>)>,
}

impl<'a> Memory<'a> {
    pub(super) fn new(
        layout: &'a Layout<'a>,
        rank: Rank,
        program: &Program,
        kinds: &mut Kinds,
    ) -> Memory<'a> {
        let map = layout.request().leaf_map;
        let kind = |content: &Content| match (content, map) {
            (Content::Leaf(leaf), _) => Kind::Node(Node::leaf(*leaf)),
            (Content::Node(node), _) => Kind::Node(*node),
            (Content::Wide(_), Some(map)) => Kind::Bag(map.of(rank).clone()),
            _ => Kind::Data(rank),
        };
        let parts: Vec<KindId> = layout.parts(rank).iter().map(|part| kinds.id(kind(part))).collect();
        let mut out = vec![NOTHING; index(layout.out_len(rank))];
        if layout.request().collective == Collective::Broadcast && layout.is_root(rank) {
            out = (0..layout.count()).map(|element| Value { kind: parts[0], element }).collect();
        }
        let views = vec![Vec::new(); program.views as usize];
        let slots = vec![(0, Vec::new()); program.slot_bytes.len()];
        Memory { layout, rank, parts, out, views, slots }
    }

    pub(super) fn read(&self, region: Region, content: Content) -> Vec<Value> {
        (region.start..region.start + region.len).map(|at| self.value(region.buf, at, content)).collect()
    }

    fn value(&self, buf: Buf, at: u64, content: Content) -> Value {
        match buf {
            Buf::Part(part) => {
                let own = Value { kind: self.parts[part as usize], element: at };
                let shared =
                    self.layout.shifts(self.rank).and_then(|(part, out)| (at + part).checked_sub(out));
                match shared.and_then(|at| self.out.get(index(at))) {
                    Some(&over) if over != NOTHING && over != own => NOTHING,
                    _ => own,
                }
            }
            Buf::Out => self.out[index(at)],
            Buf::View(view) => self.views[view as usize].get(index(at)).copied().unwrap_or(NOTHING),
            Buf::Slot(slot) => {
                let (bytes, values) = &self.slots[slot as usize];
                let value = values.get(index(at)).copied().unwrap_or(NOTHING);
                if *bytes == self.layout.bytes(content) { value } else { NOTHING }
            }
        }
    }

    pub(super) fn write(&mut self, region: Region, content: Content, values: &[Value]) {
        let (start, end) = (index(region.start), index(region.start + region.len));
        match region.buf {
            _ if values.is_empty() => {}
            Buf::Part(_) => unreachable!("the form was checked: parts are not written"),
            Buf::Out => self.out[start..end].copy_from_slice(values),
            Buf::View(view) => self.views[view as usize] = values.to_vec(),
            Buf::Slot(slot) => {
                let size = self.layout.bytes(content);
                let (bytes, held) = &mut self.slots[slot as usize];
                if *bytes != size {
                    held.clear();
                    *bytes = size;
                }
                held.resize(held.len().max(end), NOTHING);
                held[start..end].copy_from_slice(values);
            }
        }
    }

    /// Forgets a view that was given back.
    pub(super) fn release(&mut self, view: u32) {
        self.views[view as usize] = Vec::new();
    }

    /// The first element of the result that is not what the request says.
    pub(super) fn wrong_result(&self, kinds: &mut Kinds) -> Option<(u64, Value)> {
        let wanted = self.wanted(kinds);
        (0..)
            .zip(self.out.iter().zip(wanted))
            .find(|(_, (found, wanted))| *found != wanted)
            .map(|(element, (found, _))| (element, *found))
    }

    /// The result that the request asks for.
    fn wanted(&self, kinds: &mut Kinds) -> Vec<Value> {
        let (layout, rank) = (self.layout, self.rank);
        let mut run = |kind: Kind, elements: std::ops::Range<u64>| -> Vec<Value> {
            let kind = kinds.id(kind);
            elements.map(|element| Value { kind, element }).collect()
        };
        let root = layout.request().root.unwrap_or(0);
        match layout.request().collective {
            _ if self.out.is_empty() => Vec::new(),
            Collective::AllReduce | Collective::Reduce => run(Kind::Result, 0..layout.count()),
            Collective::ReduceScatter => run(Kind::Result, layout.block(rank)),
            Collective::Broadcast | Collective::PointToPoint => run(Kind::Data(root), 0..layout.count()),
            Collective::Scatter => run(Kind::Data(root), layout.block(rank)),
            Collective::AllGather | Collective::Gather => (0..layout.world_size())
                .flat_map(|from| run(Kind::Data(from), 0..layout.part_len(from)))
                .collect(),
            Collective::AllToAll => (0..layout.world_size())
                .flat_map(|from| {
                    let before: u64 = (0..rank).map(|to| layout.pair(from, to)).sum();
                    run(Kind::Data(from), before..before + layout.pair(from, rank))
                })
                .collect(),
            Collective::Barrier => Vec::new(),
        }
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("verified schedules fit in memory")
}
