//! Accumulation: a rank's leaves, combined as they come into what the rank contributes.
//!
//! In tree order a leaf is combined with what is there as soon as it completes a node of four leaves or more,
//! so that up to three raw leaves and about `log2` of a rank's leaves as nodes are held at a time when
//! they come in order, more when they do not. (Four leaves in one pass move half the bytes that four
//! passes do; eight take as long as four, and hold more.) In exact order the leaves are held raw, or added
//! into one wide sum where that is smaller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use isobit_core::law::{LeafMap, LeafSet, Node, contributions, cover};
use isobit_core::schedule::Content;
use isobit_core::{Contract, Rank, law};
use isobit_sys::{Input, Kernels, Memory, ReadSpan, WriteSpan};

use super::Place;
use super::collectives::Reduction;
use crate::error::{Error, ErrorKind};

/// What one rank has of a reduction over `num_leaves` leaves, of `count` elements each.
///
/// ```
/// use isobit::{Call, Communicator, Dtype, ReduceOp, Reduction};
/// let mut comm = Communicator::solo();
/// let mut sum = comm.accumulator(&Reduction::new(ReduceOp::Sum, Dtype::F32), 3, 1).unwrap();
/// for leaf in [2, 0, 1] {
///     sum.add(leaf, (&(leaf as f32).to_le_bytes()[..]).into()).unwrap();
/// }
/// let mut out = [0; 4];
/// let mut call = Call { shape: &[1], timeout: None, interrupt: &mut || false };
/// comm.accumulated_all_reduce(sum, ReduceOp::Mean, None, (&mut out[..]).into(), &mut call).unwrap();
/// assert_eq!(f32::from_le_bytes(out), 1.0);
/// ```
#[derive(Debug)]
pub struct Accumulator {
    pub(super) reduction: Reduction,
    pub(super) contract: Contract,
    pub(super) map: LeafMap,
    rank: u32,
    pub(super) count: u64,
    pub(super) missing: Vec<u32>,
    /// What is held, by its first leaf.
    pub(super) held: BTreeMap<u32, (Content, Memory)>,
    spare: Spare,
}

/// How many leaves are combined in one pass, if they come in order.
const LEAVES_AT_ONCE: u32 = 4;

/// From how many bytes on partial sums go past the caches: the next leaf would push them out.
const STREAM_BYTES_MIN: usize = 8 << 20;

/// Memory of partial sums that were merged, for the next ones; of this accumulator and of those after it, so
/// that a training step touches no page for the first time.
#[derive(Clone, Debug, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<Memory>>>);

impl Spare {
    fn blocks(&self) -> MutexGuard<'_, Vec<Memory>> {
        // A list of blocks is whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of so many bytes; one that is new takes the place of those that are of no use any more.
    fn take(&self, bytes: usize, useful: [usize; 2]) -> Option<Memory> {
        let mut blocks = self.blocks();
        if let Some(place) = blocks.iter().position(|block| block.len() == bytes) {
            return Some(blocks.swap_remove(place));
        }
        blocks.retain(|block| useful.contains(&block.len()));
        Memory::zeroed(bytes)
    }

    fn give(&self, memory: Memory) {
        self.blocks().push(memory);
    }
}

impl Drop for Accumulator {
    fn drop(&mut self) {
        for (_, memory) in std::mem::take(&mut self.held).into_values() {
            self.spare.give(memory);
        }
    }
}

impl Accumulator {
    pub(super) fn new(
        reduction: Reduction,
        contract: Contract,
        map: LeafMap,
        rank: Rank,
        count: u64,
        spare: Spare,
    ) -> Accumulator {
        let missing = map.of(rank).iter().collect();
        Accumulator { reduction, contract, map, rank, count, missing, held: BTreeMap::new(), spare }
    }

    /// The bytes of a leaf, and of a sum of some.
    fn sizes(&self) -> Result<[usize; 2], Error> {
        let contributions = contributions(&self.contract, &self.map, self.rank);
        let sum = contributions.iter().find(|content| !matches!(content, Content::Leaf(_)));
        Ok([self.bytes(Content::Leaf(0))?, self.bytes(sum.copied().unwrap_or(Content::Leaf(0)))?])
    }

    /// The leaves that this rank owns.
    pub fn leaves(&self) -> &LeafSet {
        self.map.of(self.rank)
    }

    /// The leaves that were not added yet.
    pub fn missing(&self) -> &[u32] {
        &self.missing
    }

    /// How many elements a leaf has.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds one of this rank's leaves; they may come in any order, each once. The leaf is copied or
    /// combined before this returns.
    pub fn add(&mut self, leaf: u32, values: ReadSpan<'_>) -> Result<(), Error> {
        let bytes = self.bytes(Content::Leaf(leaf))?;
        if values.len() != bytes {
            return Err(
                self.wrong(format!("leaf {leaf} has {} bytes, the others have {bytes}", values.len()))
            );
        }
        let Ok(place) = self.missing.binary_search(&leaf) else {
            let message = if self.leaves().contains(leaf) {
                format!("leaf {leaf} was added before")
            } else {
                format!(
                    "leaf {leaf} is not this rank's: it owns {:?} of {}",
                    self.leaves().runs(),
                    self.map.leaves()
                )
            };
            return Err(self.wrong(message));
        };
        let wide =
            matches!(contributions(&self.contract, &self.map, self.rank).first(), Some(Content::Wide(_)));
        match self.contract.dtype_acc() {
            Some(_) => self.add_to_tree(leaf, values)?,
            None if wide => self.add_wide(leaf, values)?,
            None => {
                self.hold(leaf, Content::Leaf(leaf), &[Input { content: Content::Leaf(leaf), span: values }])?
            }
        }
        self.missing.remove(place);
        Ok(())
    }

    /// Combines the leaf with what is held, up to the largest node that is complete now.
    fn add_to_tree(&mut self, leaf: u32, values: ReadSpan<'_>) -> Result<(), Error> {
        let mut node = Node::leaf(leaf);
        while let Some(parent) = node.parent(self.map.leaves()) {
            let (left, right) = parent.children().expect("a parent has children");
            if !self.is_held(if left == node { right } else { left }) {
                break;
            }
            node = parent;
        }
        let raw = Input { content: Content::Leaf(leaf), span: values };
        let waits = node.leaves() < LEAVES_AT_ONCE && self.missing.len() > 1;
        if node.is_leaf() || waits {
            return self.hold(leaf, Content::Leaf(leaf), &[raw]);
        }
        self.merge(node, Some(raw))
    }

    /// Whether all leaves of a node are held, as whatever nodes.
    fn is_held(&self, node: Node) -> bool {
        let mut next = node.first();
        for (&first, (content, _)) in self.held.range(node.first()..node.end()) {
            if first != next {
                return false;
            }
            next = end(*content);
        }
        next == node.end()
    }

    /// Puts a node in the place of what is held of it, and of a leaf that is just added: in the memory of the first
    /// part that is as large.
    fn merge(&mut self, node: Node, added: Option<Input<'_>>) -> Result<(), Error> {
        let target = Content::of_node(node);
        let bytes = self.bytes(target)?;
        let held = self.held.range(node.first()..node.end());
        let mut inputs: Vec<Input<'_>> = held
            .map(|(_, (content, memory))| Input { content: *content, span: memory.span().into() })
            .chain(added)
            .collect();
        inputs.sort_unstable_by_key(|input| first(input.content));
        let parts: Vec<u32> = self.held.range(node.first()..node.end()).map(|(first, _)| *first).collect();
        let place = parts.iter().copied().find(|part| self.held[part].1.len() == bytes);
        let fresh = match place {
            Some(place) => {
                self.kernel(target, &inputs, self.held[&place].1.span(), false)?;
                None
            }
            None => Some(self.compute(target, &inputs)?),
        };
        drop(inputs);
        let of_place = place.and_then(|place| self.held.remove(&place)).map(|(_, memory)| memory);
        let memory = fresh.or(of_place).expect("a sum has memory, its own or a part's");
        for part in parts {
            if let Some((_, memory)) = self.held.remove(&part) {
                self.spare.give(memory);
            }
        }
        self.held.insert(node.first(), (target, memory));
        Ok(())
    }

    /// Merges what waits for more leaves that do not come: what is held is then what the rank contributes.
    pub(super) fn complete(&mut self) -> Result<(), Error> {
        if self.contract.dtype_acc().is_none() {
            return Ok(());
        }
        for node in cover(self.map.leaves(), self.map.of(self.rank)) {
            if self.held.get(&node.first()).is_none_or(|(content, _)| *content != Content::of_node(node)) {
                self.merge(node, None)?;
            }
        }
        Ok(())
    }

    /// Adds the leaf to the one wide sum.
    fn add_wide(&mut self, leaf: u32, values: ReadSpan<'_>) -> Result<(), Error> {
        let raw = Input { content: Content::Leaf(leaf), span: values };
        match self.held.pop_first() {
            None => self.hold(0, Content::Wide(1), &[raw]),
            Some((_, (Content::Wide(leaves), memory))) => {
                let sum = Input { content: Content::Wide(leaves), span: memory.span().into() };
                let target = Content::Wide(leaves + 1);
                self.kernel(target, &[sum, raw], memory.span(), false)?;
                self.held.insert(0, (target, memory));
                Ok(())
            }
            Some(_) => unreachable!("a wide sum is all that is held beside no raw leaves"),
        }
    }

    fn hold(&mut self, at: u32, target: Content, inputs: &[Input<'_>]) -> Result<(), Error> {
        let memory = self.compute(target, inputs)?;
        self.held.insert(at, (target, memory));
        Ok(())
    }

    fn compute(&self, target: Content, inputs: &[Input<'_>]) -> Result<Memory, Error> {
        let bytes = self.bytes(target)?;
        let memory = self.spare.take(bytes, self.sizes()?).ok_or_else(|| {
            self.place().error(
                ErrorKind::Memory,
                None,
                format!("no memory for {bytes} bytes of partial sums"),
            )
        })?;
        match (inputs, target) {
            ([raw], Content::Leaf(_)) if bytes >= STREAM_BYTES_MIN => {
                Kernels::best().stream(raw.span, memory.span());
            }
            ([raw], Content::Leaf(_)) => Kernels::best().copy(raw.span, memory.span()),
            _ => self.kernel(target, inputs, memory.span(), bytes >= STREAM_BYTES_MIN)?,
        }
        Ok(memory)
    }

    fn kernel(
        &self,
        target: Content,
        inputs: &[Input<'_>],
        out: WriteSpan<'_>,
        is_streamed: bool,
    ) -> Result<(), Error> {
        let contents: Vec<Content> = inputs.iter().map(|input| input.content).collect();
        let spans: Vec<ReadSpan<'_>> = inputs.iter().map(|input| input.span).collect();
        let result = Kernels::best().prepare(&self.contract, &contents, target).and_then(|prepared| {
            if is_streamed { prepared.run_streamed(&spans, out) } else { prepared.run(&spans, out) }
        });
        result.map_err(|error| self.wrong(error.to_string()))
    }

    fn bytes(&self, content: Content) -> Result<usize, Error> {
        let size = law::element_bytes(content, Some(&self.contract), self.contract.dtype_in());
        let bytes = usize::try_from(self.count).ok().and_then(|count| count.checked_mul(size));
        bytes.ok_or_else(|| self.wrong(format!("{} elements exceed the address space", self.count)))
    }

    fn place(&self) -> Place {
        Place { rank: self.rank, epoch: 0, operation: Some("accumulate".to_owned()), sequence: None }
    }

    fn wrong(&self, message: String) -> Error {
        self.place().error(ErrorKind::Value, None, message)
    }
}

fn first(content: Content) -> u32 {
    node_of(content).first()
}

fn end(content: Content) -> u32 {
    node_of(content).end()
}

fn node_of(content: Content) -> Node {
    match content {
        Content::Leaf(leaf) => Node::leaf(leaf),
        Content::Node(node) => node,
        Content::Data | Content::Wide(_) | Content::Result => unreachable!("the tree has leaves and nodes"),
    }
}
