//! A reduction made ready: which loops run over which inputs is settled once, so that a call of a few
//! elements costs little more than its arithmetic.

use std::cell::RefCell;

use isobit_core::law::{Node, element_bytes, fold_steps};
use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype, Order, ReduceOp};

use super::block::{BLOCK, Finish, Slot, Source, StoreFn, blocks};
use super::exact_block::{Plan, Scratch, SumFn};
use super::isa::Isa;
use super::merge::{self, Merge, Places};
use super::pair::{self, Becomes, Pair};
use super::program::Program;
use super::table::FoldLoops;
use super::xxh3::{self, Hash, SHORT_BYTES_MAX};
use super::{KernelError, Kernels, exact, may_alias, stream};
use crate::fpenv::Guard;
use crate::{ReadSpan, WriteSpan};

/// How many inputs go without an allocation.
const FEW: usize = 8;

thread_local! {
    /// Where blocks of values wait for each other. Kept, because clearing it costs more than a small
    /// reduction does.
    static SLOTS: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Option<Box<Scratch>>> = const { RefCell::new(None) };
}

/// A reduction of inputs of given contents to a target; see [`Kernels::prepare`].
pub struct Prepared {
    contract: Contract,
    contents: Vec<Content>,
    target: Content,
    /// Bytes of an element of each input, and of the output.
    sizes: Vec<usize>,
    out_size: usize,
    passes: Passes,
    way: Way,
    #[cfg(feature = "unordered")]
    unordered: Option<super::unordered::AddFn>,
}

/// How an output is written beside the checksum of an input.
#[derive(Clone, Copy)]
pub enum Written<'a> {
    /// As usual.
    Cached,
    /// As usual; what it overwrites is kept here: memory as long as the output, which overlaps nothing.
    Keeping(WriteSpan<'a>),
    /// Past the caches: for much that nobody reads soon.
    Streamed,
}

/// An instruction set's loops over memory, besides those of the blocks.
#[derive(Clone, Copy)]
pub(super) struct Passes {
    /// Copies bytes past the caches; a fence must follow.
    pub(super) stream: StreamFn,
    pub(super) fence: unsafe fn(),
    pair: unsafe fn(Pair),
    pair_summed: unsafe fn(Pair) -> u64,
    merge: unsafe fn(Merge, Places<'_>),
    /// Takes what lies before `end` into a checksum.
    pub(super) follow: unsafe fn(&mut Hash, *const u8, usize),
}

type StreamFn = unsafe fn(*const u8, *mut u8, usize);

impl Passes {
    pub(super) const fn of<I: Isa>() -> Passes {
        Passes {
            stream: stream::copy::<I>,
            fence: stream::fence::<I>,
            pair: pair::reduce::<I>,
            pair_summed: pair::reduce_summed::<I>,
            merge: merge::merge::<I>,
            follow: xxh3::follow::<I>,
        }
    }
}

enum Way {
    Pair(Becomes),
    Merge(Merge),
    Tree { program: Program, loops: FoldLoops, finish: Finish },
    Exact { vectorised: Option<(Plan, SumFn, StoreFn)> },
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} to {:?}", self.contents, self.target)
    }
}

impl Kernels {
    /// Readies the reduction of inputs of these contents, which tile `target` in ascending order.
    ///
    /// ```
    /// use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp, schedule::Content};
    /// use isobit_sys::Kernels;
    /// let contract = Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, 2, Dtype::U8)).unwrap();
    /// let contents = [Content::Leaf(0), Content::Leaf(1)];
    /// let sum = Kernels::best().prepare(&contract, &contents, Content::Result).unwrap();
    /// let (a, b, mut out) = ([1u8, 2, 3], [10u8, 20, 255], [0u8; 3]);
    /// sum.run(&[a.as_slice().into(), b.as_slice().into()], out.as_mut_slice().into()).unwrap();
    /// assert_eq!(out, [11, 22, 2]);
    /// ```
    pub fn prepare(
        &self,
        contract: &Contract,
        contents: &[Content],
        target: Content,
    ) -> Result<Prepared, KernelError> {
        let bytes = |content| element_bytes(content, Some(contract), contract.dtype_in());
        let way = match contract.order() {
            Order::Tree => self.tree_way(contract, contents, target),
            Order::Exact => self.exact_way(contract, contents, target),
        };
        let way = way.ok_or_else(|| KernelError::DoNotTile {
            inputs: contents.to_vec(),
            target,
            leaves: contract.leaves(),
        })?;
        Ok(Prepared {
            contract: *contract,
            contents: contents.to_vec(),
            target,
            sizes: contents.iter().map(|content| bytes(*content)).collect(),
            out_size: bytes(target),
            passes: self.passes,
            way,
            #[cfg(feature = "unordered")]
            unordered: (self.unordered)(contract, contents, target),
        })
    }

    fn tree_way(&self, contract: &Contract, contents: &[Content], target: Content) -> Option<Way> {
        let node = |content| node_of(content, contract.leaves());
        let nodes = contents.iter().map(|content| node(*content)).collect::<Option<Vec<Node>>>()?;
        let steps = fold_steps(node(target)?, &nodes)?;
        if let Some(becomes) = Becomes::of(contract, contents, target) {
            return Some(Way::Pair(becomes));
        }
        let acc = contract.dtype_acc()?;
        let loops = (self.fold_loops)(contract.op(), contract.dtype_in(), acc);
        let program = Program::new(&steps, |input| is_leaf(contents[input]), loops.width);
        if let Some(merge) = Merge::of(contract, contents, target, &program) {
            return Some(Way::Merge(merge));
        }
        let is_result = target == Content::Result;
        let finish = self.finish(contract, acc, is_result, loops);
        Some(Way::Tree { program, loops, finish })
    }

    fn exact_way(&self, contract: &Contract, contents: &[Content], target: Content) -> Option<Way> {
        if !exact::tile(contract, contents, target) {
            return None;
        }
        if let Some(becomes) = Becomes::of(contract, contents, target) {
            return Some(Way::Pair(becomes));
        }
        let all_raw = contents.iter().all(|content| is_leaf(*content));
        let vectorised = (self.exact_sum)(contract, contents.len())
            .filter(|_| all_raw && target == Content::Result)
            .map(|(plan, sum)| (plan, sum, (self.result_store)(Dtype::F64, contract.dtype_out())));
        Some(Way::Exact { vectorised })
    }

    fn finish(&self, contract: &Contract, acc: Dtype, is_result: bool, loops: FoldLoops) -> Finish {
        let rounds = contract.dtype_in().is_float()
            && matches!(contract.op(), ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Prod);
        let out = contract.dtype_out();
        match (is_result, rounds) {
            (true, true) => Finish::Store((self.result_store)(acc, out), contract.divisor()),
            (true, false) if out != acc => {
                let (load, store) = self.conversion(acc, out);
                Finish::Convert(loops.store_node, load, store)
            }
            _ => Finish::Store(loops.store_node, 1),
        }
    }
}

impl Prepared {
    /// Whether this is the reduction of these contents to that target.
    pub fn is_of(&self, contents: impl Iterator<Item = Content>, target: Content) -> bool {
        self.target == target && contents.eq(self.contents.iter().copied())
    }

    /// Computes the target from the inputs; the same bits as `isobit_core::law::fold`.
    ///
    /// `out` is disjoint from each input or the same memory, element for element.
    pub fn run(&self, inputs: &[ReadSpan<'_>], out: WriteSpan<'_>) -> Result<(), KernelError> {
        self.compute(inputs, out, Written::Cached, None).map(|_| ())
    }

    /// The same; what is computed goes past the caches: for much that nobody reads soon.
    pub fn run_streamed(&self, inputs: &[ReadSpan<'_>], out: WriteSpan<'_>) -> Result<(), KernelError> {
        self.compute(inputs, out, Written::Streamed, None).map(|_| ())
    }

    /// Whether `run_summed` can keep what it overwrites. Where it can't, nothing would be gained: its loops take longer
    /// to do so than a second pass over what the first has brought into the cache.
    pub fn can_keep(&self) -> bool {
        matches!(self.way, Way::Pair(_))
    }

    /// The same as `run`, and the XXH3-64 of the input `summed` besides, in the same pass. That input does not
    /// overlap the output. What is kept is another input, which is the output and can be kept.
    pub fn run_summed(
        &self,
        inputs: &[ReadSpan<'_>],
        summed: usize,
        out: WriteSpan<'_>,
        written: Written<'_>,
    ) -> Result<u64, KernelError> {
        let input = inputs[summed];
        assert!(input.is_disjoint(out), "the output overlaps the input whose checksum is wanted");
        if let Written::Keeping(kept) = written {
            let is_apart = |input: &ReadSpan<'_>| input.is_disjoint(kept);
            let is_room = kept.len() == out.len() && inputs.iter().all(is_apart);
            let is_in_place = self.can_keep() && !inputs[1 - summed].is_disjoint(out);
            assert!(is_room && is_in_place, "nothing can be kept, or not there");
        }
        if input.len() <= SHORT_BYTES_MAX {
            if let Written::Keeping(kept) = written {
                Kernels::best().copy(out.into(), kept);
            }
            self.run(inputs, out)?;
            return Ok(Kernels::best().checksum(input));
        }
        self.compute(inputs, out, written, Some(summed))
    }

    fn compute(
        &self,
        inputs: &[ReadSpan<'_>],
        out: WriteSpan<'_>,
        written: Written<'_>,
        summed: Option<usize>,
    ) -> Result<u64, KernelError> {
        #[cfg(feature = "unordered")]
        if let (Some(add), None) = (self.unordered, summed) {
            let len = self.check(inputs, out)?;
            let sources: Vec<Source> = self.sources(inputs).collect();
            // SAFETY: the instruction set exists; `check` has measured sources and output, and how they overlap.
            unsafe { add(&sources, len, out.as_ptr()) };
            return Ok(0);
        }
        if let (Way::Pair(becomes), [left, right]) = (&self.way, inputs)
            && self.is_pair([*left, *right], out)
        {
            let _environment = Guard::enter();
            return Ok(self.run_pair(*becomes, [*left, *right], summed, out, written));
        }
        self.compute_any(inputs, out, written, summed)
    }

    /// The same of what is no pair, or not as it should be.
    #[inline(never)]
    fn compute_any(
        &self,
        inputs: &[ReadSpan<'_>],
        out: WriteSpan<'_>,
        written: Written<'_>,
        summed: Option<usize>,
    ) -> Result<u64, KernelError> {
        let len = self.check(inputs, out)?;
        let _environment = Guard::enter();
        let stream = matches!(written, Written::Streamed).then_some(self.passes.stream);
        Ok(self.run_blocks(inputs, len, out, stream, summed.map(|input| inputs[input])))
    }

    fn sources(&self, inputs: &[ReadSpan<'_>]) -> impl Iterator<Item = Source> {
        let source = |(input, content): (&ReadSpan<'_>, &Content)| Source {
            start: input.as_ptr(),
            is_leaf: is_leaf(*content),
        };
        inputs.iter().zip(&self.contents).map(source)
    }

    /// Computes what is no pair, of inputs and an output that `check` has measured. Not inlined, because it takes
    /// pages of the stack.
    #[inline(never)]
    fn run_blocks(
        &self,
        inputs: &[ReadSpan<'_>],
        len: usize,
        out: WriteSpan<'_>,
        stream: Option<StreamFn>,
        summed: Option<ReadSpan<'_>>,
    ) -> u64 {
        let mut few = [Source { start: std::ptr::null(), is_leaf: true }; FEW];
        let mut many = Vec::new();
        let sources = match few.get_mut(..inputs.len()) {
            Some(few) => few,
            None => {
                many.resize(inputs.len(), few[0]);
                &mut many[..]
            }
        };
        sources.iter_mut().zip(self.sources(inputs)).for_each(|(place, source)| *place = source);
        let mut sum = Follower { of: summed, passes: self.passes, hash: None };
        match &self.way {
            Way::Pair(_) => unreachable!("a pair needs no blocks"),
            Way::Merge(merge) => {
                let step = if summed.is_some() { BLOCK } else { len.max(1) };
                for start in (0..len).step_by(step) {
                    let elements = start..(start + step).min(len);
                    sum.follow(elements.end, len);
                    let places =
                        Places { sources, out: out.as_ptr(), elements, is_streamed: stream.is_some() };
                    // SAFETY: the instruction set exists; `check` has measured inputs and output and how they overlap.
                    unsafe { (self.passes.merge)(*merge, places) };
                }
            }
            Way::Tree { program, loops, finish } => SLOTS.with_borrow_mut(|slots| {
                if slots.len() < program.slots {
                    slots.resize(program.slots, Slot::ZERO);
                }
                let size = self.contract.dtype_in().size();
                let mut block = stream.map(|stream| (stream, Slot::ZERO));
                for (start, count) in blocks(sources[0].start, size, len) {
                    sum.follow(start + count, len);
                    for pass in &program.passes {
                        // SAFETY: a `Prepared` exists only where its instruction set does; `check` has
                        // measured every input; the program names slots below `program.slots`; slots
                        // are this thread's own.
                        unsafe { (loops.pass)(*pass, sources, start, count, slots) };
                    }
                    // SAFETY: `check` has measured the output, whose elements are `out_size` bytes each.
                    let place = unsafe { out.as_ptr().add(start * self.out_size) };
                    // SAFETY: the instruction set exists; the output has `count` elements from there
                    // on, and a slot as many; slot 0 holds the fold's values.
                    unsafe {
                        match &mut block {
                            None => finish.run(slots, count, place),
                            Some((stream, block)) => {
                                let block = block.0.as_mut_ptr().cast::<u8>();
                                finish.run(slots, count, block);
                                stream(block, place, count * self.out_size);
                            }
                        }
                    }
                }
            }),
            Way::Exact { vectorised: Some((plan, add, store)) } => SCRATCH.with_borrow_mut(|scratch| {
                let scratch = scratch.get_or_insert_with(Scratch::new);
                self.run_exact(sources, (*plan, *add, *store), len, out, scratch, &mut sum);
            }),
            Way::Exact { vectorised: None } => {
                sum.follow(len, len);
                // SAFETY: `check` has measured the inputs and the output and how they overlap.
                unsafe {
                    exact::reduce_scalar(&self.contract, sources, 0..len, self.target, out.as_ptr());
                }
            }
        }
        if stream.is_some() {
            // SAFETY: the instruction set exists.
            unsafe { (self.passes.fence)() };
        }
        sum.hash.map_or(0, |hash| hash.value())
    }

    /// The order of two leaves does not matter: a NaN's payload, which alone depends on it, is lost.
    fn run_pair(
        &self,
        becomes: Becomes,
        leaves: [ReadSpan<'_>; 2],
        summed: Option<usize>,
        out: WriteSpan<'_>,
        written: Written<'_>,
    ) -> u64 {
        let first = summed.unwrap_or(0);
        let kept = if let Written::Keeping(kept) = written { kept.as_ptr() } else { std::ptr::null_mut() };
        let is_streamed = matches!(written, Written::Streamed);
        let [left, right] = leaves.map(ReadSpan::as_ptr);
        let (left, right) = if first == 0 { (left, right) } else { (right, left) };
        let pair = Pair { becomes, left, right, out: out.as_ptr(), kept, len: out.len(), is_streamed };
        // SAFETY: the instruction set exists; `is_pair` has measured leaves and output and how they overlap, and
        // `run_summed` how long the summed leaf is, that it overlaps nothing, and the room to keep the other in.
        unsafe {
            if summed.is_some() {
                return (self.passes.pair_summed)(pair);
            }
            (self.passes.pair)(pair);
        }
        0
    }

    fn run_exact(
        &self,
        sources: &[Source],
        (plan, sum, store): (Plan, SumFn, StoreFn),
        len: usize,
        out: WriteSpan<'_>,
        scratch: &mut Scratch,
        checksum: &mut Follower<'_>,
    ) {
        let (size, out) = (self.out_size, out.as_ptr());
        let mut left_over = Vec::new();
        for (start, count) in blocks(sources[0].start, self.contract.dtype_in().size(), len) {
            checksum.follow(start + count, len);
            // SAFETY: the instruction set exists, and `check` has measured the inputs.
            let some_are_left = unsafe { sum(plan, sources, start, count, scratch) };
            if some_are_left {
                let flagged = scratch.flags.0[..count].iter().enumerate().filter(|(_, flag)| **flag != 0);
                for (index, _) in flagged {
                    let mut bits = [0; 8];
                    let (element, to) = (start + index..start + index + 1, bits.as_mut_ptr());
                    // SAFETY: the element exists, and a result has at most eight bytes.
                    unsafe { exact::reduce_scalar(&self.contract, sources, element, self.target, to) };
                    left_over.push((index, bits));
                }
            }
            // SAFETY: `check` has measured the output, of elements of `size` bytes; the block's
            // inputs, which it may share memory with, have been read.
            unsafe {
                let place = out.add(start * size);
                store(scratch.sums(), count, 1, place);
                for (index, bits) in left_over.drain(..) {
                    std::ptr::copy_nonoverlapping(bits.as_ptr(), place.add(index * size), size);
                }
            }
        }
    }

    /// Whether `check` finds nothing wrong about a pair, told in less time: its elements are of one size, a power of two.
    #[inline]
    fn is_pair(&self, leaves: [ReadSpan<'_>; 2], out: WriteSpan<'_>) -> bool {
        let is_alike = |leaf: ReadSpan<'_>| leaf.len() == out.len() && may_alias(leaf, 1, out, 1);
        out.len() & (self.out_size - 1) == 0 && leaves.into_iter().all(is_alike)
    }

    /// Checks lengths and overlaps; returns the number of elements.
    fn check(&self, inputs: &[ReadSpan<'_>], out: WriteSpan<'_>) -> Result<usize, KernelError> {
        assert_eq!(inputs.len(), self.sizes.len(), "as many inputs as were prepared for");
        // Dividing takes longer than a small reduction does.
        let len = if self.out_size == 4 { out.len() / 4 } else { out.len() / self.out_size };
        if len * self.out_size != out.len() {
            return Err(KernelError::Ragged { out: out.len(), element: self.out_size });
        }
        for (index, (input, &size)) in inputs.iter().zip(&self.sizes).enumerate() {
            if len.checked_mul(size) != Some(input.len()) {
                return Err(KernelError::Length {
                    input: index,
                    expected: len.saturating_mul(size),
                    found: input.len(),
                    out: out.len(),
                });
            }
            if !may_alias(*input, size, out, self.out_size) {
                return Err(KernelError::Overlap { input: index });
            }
        }
        Ok(len)
    }
}

/// The checksum of an input, which follows the blocks that are about to be read: it brings them into the first-level
/// cache.
struct Follower<'a> {
    of: Option<ReadSpan<'a>>,
    passes: Passes,
    hash: Option<Hash>,
}

impl Follower<'_> {
    /// Takes in what lies before element `end` of `len`.
    fn follow(&mut self, end: usize, len: usize) {
        let Some(input) = self.of else { return };
        let hash = self.hash.get_or_insert_with(|| Hash::new(input.len()));
        // SAFETY: the instruction set exists, and the input is readable.
        unsafe { (self.passes.follow)(hash, input.as_ptr(), input.len() / len * end) };
    }
}

pub(super) fn is_leaf(content: Content) -> bool {
    matches!(content, Content::Leaf(_))
}

fn node_of(content: Content, leaves: u32) -> Option<Node> {
    match content {
        Content::Leaf(leaf) => Node::new(leaf, leaf.checked_add(1)?, leaves),
        Content::Node(node) => Node::new(node.first(), node.end(), leaves),
        Content::Result => Some(Node::root(leaves)),
        Content::Data | Content::Wide(_) => None,
    }
}
