//! Accumulation: a rank's leaves, combined as they come into what the rank contributes.
//!
//! In tree order a leaf is combined with what is there as soon as it completes a node, so that about
//! `log2` of a rank's leaves are held at a time when they come in order, more when they do not. In
//! exact order the leaves are held raw, or added into one wide sum where that is smaller.

use std::collections::BTreeMap;

use isobit_core::law::{LeafMap, LeafSet, Node, contributions};
use isobit_core::schedule::Content;
use isobit_core::wire::Collective;
use isobit_core::{Contract, ReduceOp, law};
use isobit_sys::{Input, Kernels, Memory, ReadSpan, WriteSpan};

use super::collectives::Reduction;
use super::operation::Call;
use super::signature::{Amounts, Signature};
use super::{Communicator, Place};
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
    reduction: Reduction,
    contract: Contract,
    map: LeafMap,
    rank: u32,
    count: u64,
    missing: Vec<u32>,
    /// What is held, by its first leaf.
    held: BTreeMap<u32, (Content, Memory)>,
}

impl Accumulator {
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

    /// Combines the leaf with the held nodes, up to the largest node that is complete now.
    fn add_to_tree(&mut self, leaf: u32, values: ReadSpan<'_>) -> Result<(), Error> {
        let mut node = Node::leaf(leaf);
        let mut inputs = vec![Content::Leaf(leaf)];
        while let Some(parent) = node.parent(self.map.leaves()) {
            let (left, right) = parent.children().expect("a parent has children");
            let sibling = Content::of_node(if left == node { right } else { left });
            if self.held.get(&first(sibling)).is_none_or(|(content, _)| *content != sibling) {
                break;
            }
            inputs.push(sibling);
            node = parent;
        }
        inputs.sort_unstable_by_key(|content| first(*content));
        let spans: Vec<Input<'_>> = (inputs.iter())
            .map(|&content| Input {
                content,
                span: if content == Content::Leaf(leaf) {
                    values
                } else {
                    self.held[&first(content)].1.span().into()
                },
            })
            .collect();
        let target = Content::of_node(node);
        let memory = self.compute(target, &spans)?;
        drop(spans);
        for content in inputs {
            self.held.remove(&first(content));
        }
        self.held.insert(first(target), (target, memory));
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
                self.kernel(target, &[sum, raw], memory.span())?;
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
        let memory = Memory::zeroed(bytes).ok_or_else(|| {
            self.place().error(
                ErrorKind::Memory,
                None,
                format!("no memory for {bytes} bytes of partial sums"),
            )
        })?;
        match (inputs, target) {
            ([raw], Content::Leaf(_)) => Kernels::best().copy(raw.span, memory.span()),
            _ => self.kernel(target, inputs, memory.span())?,
        }
        Ok(memory)
    }

    fn kernel(&self, target: Content, inputs: &[Input<'_>], out: WriteSpan<'_>) -> Result<(), Error> {
        let result = Kernels::best().reduce(&self.contract, inputs, target, out);
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
    match content {
        Content::Leaf(leaf) => leaf,
        Content::Node(node) => node.first(),
        Content::Data | Content::Wide(_) | Content::Result => unreachable!("the tree has leaves and nodes"),
    }
}

impl Communicator {
    /// What this rank adds its leaves to: `num_leaves` leaves of `count` elements, owned in
    /// contiguous runs by rank. `reduction.op` is a sum or a mean here.
    pub fn accumulator(
        &self,
        reduction: &Reduction,
        num_leaves: u32,
        count: u64,
    ) -> Result<Accumulator, Error> {
        let wrong = |message: String| self.wrong(Collective::AllReduce, message);
        if !matches!(reduction.op, ReduceOp::Sum | ReduceOp::Mean) {
            return Err(wrong(format!(
                "accumulation is for op 'sum' and 'mean', not for '{}'",
                reduction.op
            )));
        }
        let partial = Reduction { op: ReduceOp::Sum, out_dtype: None, divisor: None, ..*reduction };
        let contract = partial.contract(num_leaves).map_err(wrong)?;
        let map = LeafMap::even(num_leaves, self.world_size());
        let missing = map.of(self.rank()).iter().collect();
        let (reduction, rank) = (*reduction, self.rank());
        Ok(Accumulator { reduction, contract, map, rank, count, missing, held: BTreeMap::new() })
    }

    /// Everyone gets the sum or mean of all leaves.
    pub fn accumulated_all_reduce(
        &mut self,
        accumulator: Accumulator,
        op: ReduceOp,
        divisor: Option<u64>,
        out: WriteSpan<'_>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        self.calling(|comm| {
            let counts = Amounts::Same(accumulator.count);
            comm.accumulated(Collective::AllReduce, accumulator, (op, divisor), counts, out, call)
        })
    }

    /// Each rank gets its block of the sum or mean of all leaves; blocks as in `reduce_scatter`.
    pub fn accumulated_reduce_scatter(
        &mut self,
        accumulator: Accumulator,
        op: ReduceOp,
        divisor: Option<u64>,
        out: WriteSpan<'_>,
        counts: Option<&[u64]>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        self.calling(|comm| {
            let counts = comm.blocks_of(Collective::ReduceScatter, accumulator.count, counts)?;
            comm.accumulated(Collective::ReduceScatter, accumulator, (op, divisor), counts, out, call)
        })
    }

    fn accumulated(
        &mut self,
        collective: Collective,
        accumulator: Accumulator,
        (op, divisor): (ReduceOp, Option<u64>),
        counts: Amounts,
        out: WriteSpan<'_>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let reduction = Reduction { op, divisor, ..accumulator.reduction };
        let contract = reduction
            .contract(accumulator.map.leaves())
            .map_err(|message| self.wrong(collective, message))?;
        if !matches!(op, ReduceOp::Sum | ReduceOp::Mean) {
            return Err(
                self.wrong(collective, format!("what was accumulated gives 'sum' or 'mean', not '{op}'"))
            );
        }
        if let [leaf, ..] = accumulator.missing[..] {
            let message = format!(
                "{} of this rank's leaves were not added, leaf {leaf} first",
                accumulator.missing.len()
            );
            return Err(self.wrong(collective, message));
        }
        let elements = match collective {
            Collective::AllReduce => accumulator.count,
            _ => self.block(&counts),
        };
        self.check_len(collective, "out", out.len(), elements, contract.dtype_out())?;
        let parts: Vec<ReadSpan<'_>> =
            accumulator.held.values().map(|(_, memory)| memory.span().into()).collect();
        let leaf_map = Some(accumulator.map.clone());
        let signature = Signature { leaf_map, ..Signature::reduction(collective, contract, counts) };
        self.perform(signature, 0, &parts, out, call)
    }
}
