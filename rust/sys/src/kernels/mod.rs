//! The kernels: reductions, conversions and copies, bit-equal to `isobit_core::law` on every
//! instruction set.
//!
//! A reduction runs block by block: a few fused loops combine a block of all inputs in registers and
//! in the first-level cache, and the result is rounded and written once.

mod block;
mod element;
mod exact;
mod exact_block;
mod fold;
mod isa;
mod program;
mod table;
#[cfg(target_arch = "x86_64")]
mod x86;
mod xxh3;

use isobit_core::law::{Node, element_bytes, fold_steps};
use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype, Order, ReduceOp};
use thiserror::Error;

use crate::fpenv::Guard;
use crate::{ReadSpan, WriteSpan};
use block::{BLOCK, LoadFn, Slot, Source, StoreFn, blocks};
use exact_block::{Plan, Scratch, SumFn};
use isa::{Isa, Scalar};
use program::Program;
use table::FoldLoops;

/// An input of a reduction.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What it holds.
    pub content: Content,
    /// Its elements.
    pub span: ReadSpan<'a>,
}

/// Why a reduction can't be carried out. All of them are mistakes of the caller, not of the data.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum KernelError {
    /// The contents can't be combined to the target.
    #[error("inputs {inputs:?} do not tile {target:?} in the tree of {leaves} leaves: check the schedule")]
    DoNotTile {
        /// The inputs' contents.
        inputs: Vec<Content>,
        /// What was to be computed.
        target: Content,
        /// The contract's number of leaves.
        leaves: u32,
    },
    /// A span has the wrong length.
    #[error("input {input} has {found} bytes, but the output of {out} bytes needs {expected} of it")]
    Length {
        /// Which input.
        input: usize,
        /// The length it should have, in bytes.
        expected: usize,
        /// The length it has.
        found: usize,
        /// The output's length.
        out: usize,
    },
    /// The output's length is no multiple of its element's size.
    #[error("the output's {out} bytes are no whole number of elements of {element} bytes")]
    Ragged {
        /// The output's length in bytes.
        out: usize,
        /// The size of its elements.
        element: usize,
    },
    /// The output overlaps an input other than element for element.
    #[error("the output overlaps input {input}, but not element for element: give it memory of its own")]
    Overlap {
        /// Which input.
        input: usize,
    },
}

/// The kernels of one instruction set.
///
/// ```
/// use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp, schedule::Content};
/// use isobit_sys::{Input, Kernels};
/// let contract = Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, 2, Dtype::U8)).unwrap();
/// let (a, b, mut out) = ([1u8, 2, 3], [10u8, 20, 255], [0u8; 3]);
/// let inputs = [
///     Input { content: Content::Leaf(0), span: a.as_slice().into() },
///     Input { content: Content::Leaf(1), span: b.as_slice().into() },
/// ];
/// let kernels = Kernels::best();
/// kernels.reduce(&contract, &inputs, Content::Result, out.as_mut_slice().into()).unwrap();
/// assert_eq!(out, [11, 22, 2]);
/// ```
pub struct Kernels {
    name: &'static str,
    fold_loops: fn(ReduceOp, Dtype, Dtype) -> FoldLoops,
    result_store: fn(Dtype, Dtype) -> StoreFn,
    float_load: fn(Dtype, Dtype) -> LoadFn,
    exact_sum: fn(&Contract, usize) -> Option<(Plan, SumFn)>,
    long_checksum: unsafe fn(*const u8, *mut u8, usize) -> u64,
    long_copy_checksum: unsafe fn(*const u8, *mut u8, usize) -> u64,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kernels").field(&self.name).finish()
    }
}

static SCALAR: Kernels = Kernels::of::<Scalar>();
#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = Kernels::of::<x86::Avx2>();
#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = Kernels::of::<x86::Avx512>();

impl Kernels {
    const fn of<I: Isa>() -> Kernels {
        Kernels {
            name: I::NAME,
            fold_loops: table::fold_loops::<I>,
            result_store: table::result_store::<I>,
            float_load: table::float_load::<I>,
            exact_sum: table::exact_sum::<I>,
            long_checksum: xxh3::sum::<I, false>,
            long_copy_checksum: xxh3::sum::<I, true>,
        }
    }

    /// The kernels of every instruction set that this processor has, the fastest last.
    pub fn available() -> Vec<&'static Kernels> {
        let mut sets = Vec::new();
        let mut add = |is_available: bool, kernels| is_available.then(|| sets.push(kernels));
        add(Scalar::is_available(), &SCALAR);
        #[cfg(target_arch = "x86_64")]
        {
            add(x86::Avx2::is_available(), &AVX2);
            add(x86::Avx512::is_available(), &AVX512);
        }
        sets
    }

    /// The fastest kernels that this processor can run.
    pub fn best() -> &'static Kernels {
        static BEST: std::sync::OnceLock<&Kernels> = std::sync::OnceLock::new();
        BEST.get_or_init(|| Kernels::available().pop().unwrap_or(&SCALAR))
    }

    /// The instruction set's name: `scalar`, `avx2`, `avx512`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Computes `target` from `inputs`, whose contents tile it in ascending order; the same bits as
    /// `isobit_core::law::fold`.
    ///
    /// `out` is disjoint from each input or the same memory, element for element.
    pub fn reduce(
        &self,
        contract: &Contract,
        inputs: &[Input<'_>],
        target: Content,
        out: WriteSpan<'_>,
    ) -> Result<(), KernelError> {
        let len = check(contract, inputs, target, out)?;
        let _environment = Guard::enter();
        match contract.order() {
            Order::Tree => self.reduce_tree(contract, inputs, target, out, len),
            Order::Exact => self.reduce_exact(contract, inputs, target, out, len),
        }
    }

    fn reduce_tree(
        &self,
        contract: &Contract,
        inputs: &[Input<'_>],
        target: Content,
        out: WriteSpan<'_>,
        len: usize,
    ) -> Result<(), KernelError> {
        let does_not_tile = || does_not_tile(contract, inputs, target);
        let node = |content| node_of(content, contract.leaves());
        let nodes: Option<Vec<Node>> = inputs.iter().map(|input| node(input.content)).collect();
        let steps = nodes
            .zip(node(target))
            .and_then(|(nodes, target)| fold_steps(target, &nodes))
            .ok_or_else(does_not_tile)?;
        let (dtype, acc) = (contract.dtype_in(), contract.dtype_acc().ok_or_else(does_not_tile)?);
        let loops = (self.fold_loops)(contract.op(), dtype, acc);
        let sources = sources_of(inputs);
        let program = Program::new(&steps, |input| sources[input].is_leaf, loops.width);
        let is_result = target == Content::Result;
        let finish = self.finish(contract, acc, is_result, loops);
        let mut few = [Slot::ZERO; 2];
        let mut many = Vec::new();
        let slots = if program.slots <= few.len() {
            &mut few[..]
        } else {
            many.resize(program.slots, Slot::ZERO);
            &mut many[..]
        };
        let out_size = if is_result { contract.dtype_out() } else { acc }.size();
        for (start, count) in blocks(sources[0].start, dtype.size(), len) {
            for pass in &program.passes {
                // SAFETY: a `Kernels` exists only where its instruction set does; `check` has
                // measured every input; the program names slots below `program.slots`; slots are
                // this function's own.
                unsafe { (loops.pass)(*pass, &sources, start, count, slots) };
            }
            // SAFETY: `check` has measured the output, whose elements are `out_size` bytes each.
            let place = unsafe { out.as_ptr().add(start * out_size) };
            // SAFETY: the instruction set exists; the output has `count` elements from there on;
            // slot 0 holds the fold's values.
            unsafe { finish.run(slots, count, place) };
        }
        Ok(())
    }

    fn reduce_exact(
        &self,
        contract: &Contract,
        inputs: &[Input<'_>],
        target: Content,
        out: WriteSpan<'_>,
        len: usize,
    ) -> Result<(), KernelError> {
        let contents: Vec<Content> = inputs.iter().map(|input| input.content).collect();
        if !exact::tile(contract, &contents, target) {
            return Err(does_not_tile(contract, inputs, target));
        }
        let sources = sources_of(inputs);
        let all_raw = sources.iter().all(|source| source.is_leaf);
        let out = out.as_ptr();
        let vectorised = (self.exact_sum)(contract, inputs.len());
        let Some((plan, sum)) = vectorised.filter(|_| all_raw && target == Content::Result) else {
            // SAFETY: `check` has measured the inputs and the output and how they overlap.
            unsafe { exact::reduce_scalar(contract, &sources, 0..len, target, out) };
            return Ok(());
        };
        let size = contract.dtype_out().size();
        let store = (self.result_store)(Dtype::F64, contract.dtype_out());
        let mut scratch = Scratch::new();
        let mut left_over = Vec::new();
        for (start, count) in blocks(sources[0].start, contract.dtype_in().size(), len) {
            // SAFETY: the instruction set exists, and `check` has measured the inputs.
            let some_are_left = unsafe { sum(plan, &sources, start, count, &mut scratch) };
            if some_are_left {
                let flagged = scratch.flags.0[..count].iter().enumerate().filter(|(_, flag)| **flag != 0);
                for (index, _) in flagged {
                    let mut bits = [0; 8];
                    let element = start + index..start + index + 1;
                    // SAFETY: the element exists, and a result has at most eight bytes.
                    unsafe { exact::reduce_scalar(contract, &sources, element, target, bits.as_mut_ptr()) };
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
        Ok(())
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

    /// The two halves of a conversion of floats, which meet in a type that holds both exactly.
    fn conversion(&self, from: Dtype, to: Dtype) -> (LoadFn, StoreFn) {
        let through = if from == Dtype::F64 || to == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
        ((self.float_load)(from, through), (self.result_store)(through, to))
    }

    /// Converts floats: exactly to a wider format, with one rounding to nearest even to a narrower
    /// one; a NaN becomes the canonical NaN. The spans are disjoint, or the same and the formats of
    /// one size. Panics if they do not match.
    pub fn convert(&self, from: Dtype, to: Dtype, input: ReadSpan<'_>, out: WriteSpan<'_>) {
        assert!(from.is_float() && to.is_float(), "conversions are between floats, not {from} and {to}");
        let len = out.len() / to.size();
        assert!(
            out.len() == len * to.size() && input.len() == len * from.size(),
            "{} bytes of {from} do not convert to {} bytes of {to}",
            input.len(),
            out.len()
        );
        assert!(
            may_alias(input, from.size(), out, to.size()),
            "a conversion's spans overlap, but not element for element"
        );
        let _environment = Guard::enter();
        let (load, store) = self.conversion(from, to);
        let mut slot = Slot::ZERO;
        for start in (0..len).step_by(BLOCK) {
            let count = BLOCK.min(len - start);
            // SAFETY: the instruction set exists and both spans were measured above.
            unsafe {
                load(input.as_ptr().add(start * from.size()), count, &mut slot);
                store(&mut slot, count, 1, out.as_ptr().add(start * to.size()));
            }
        }
    }

    /// Copies `src` to `dst`, disjoint or the same memory. Panics if their lengths differ or they
    /// overlap otherwise.
    pub fn copy(&self, src: ReadSpan<'_>, dst: WriteSpan<'_>) {
        check_copy(src, dst);
        if src.as_ptr() != dst.as_ptr().cast_const() {
            // SAFETY: both have the same length and are disjoint.
            unsafe { std::ptr::copy_nonoverlapping(src.as_ptr(), dst.as_ptr(), src.len()) };
        }
    }

    /// Copies as [`Kernels::copy`] does and returns the XXH3-64 of what was copied.
    pub fn copy_checksum(&self, src: ReadSpan<'_>, dst: WriteSpan<'_>) -> u64 {
        if src.len() <= xxh3::SHORT_BYTES_MAX {
            self.copy(src, dst);
            return self.checksum(dst.into());
        }
        check_copy(src, dst);
        // SAFETY: the instruction set exists; both spans have this length, and `check_copy` knows
        // how they overlap.
        unsafe { (self.long_copy_checksum)(src.as_ptr(), dst.as_ptr(), src.len()) }
    }

    /// The XXH3-64 of the span.
    pub fn checksum(&self, span: ReadSpan<'_>) -> u64 {
        let (start, len) = (span.as_ptr(), span.len());
        if len <= xxh3::SHORT_BYTES_MAX {
            // SAFETY: the bytes are readable, no other thread writes to them, and this one only
            // hashes while the slice lives.
            return xxhash_rust::xxh3::xxh3_64(unsafe { std::slice::from_raw_parts(start, len) });
        }
        // SAFETY: the instruction set exists, the span has this length, and nothing is written.
        unsafe { (self.long_checksum)(start, std::ptr::null_mut(), len) }
    }
}

/// How a block of values leaves.
enum Finish {
    Store(StoreFn, u64),
    Convert(StoreFn, LoadFn, StoreFn),
}

impl Finish {
    /// # Safety
    /// As for [`StoreFn`], with slot 0.
    unsafe fn run(&self, slots: &mut [Slot], len: usize, out: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe {
            match *self {
                Finish::Store(store, divisor) => store(&mut slots[0], len, divisor, out),
                Finish::Convert(own, load, store) => {
                    let mut bits = Slot::ZERO;
                    own(&mut slots[0], len, 1, bits.0.as_mut_ptr().cast());
                    load(bits.0.as_ptr().cast(), len, &mut slots[0]);
                    store(&mut slots[0], len, 1, out);
                }
            }
        }
    }
}

fn sources_of(inputs: &[Input<'_>]) -> Vec<Source> {
    let source = |input: &Input<'_>| Source {
        start: input.span.as_ptr(),
        is_leaf: matches!(input.content, Content::Leaf(_)),
    };
    inputs.iter().map(source).collect()
}

fn does_not_tile(contract: &Contract, inputs: &[Input<'_>], target: Content) -> KernelError {
    let inputs = inputs.iter().map(|input| input.content).collect();
    KernelError::DoNotTile { inputs, target, leaves: contract.leaves() }
}

fn node_of(content: Content, leaves: u32) -> Option<Node> {
    match content {
        Content::Leaf(leaf) => Node::new(leaf, leaf.checked_add(1)?, leaves),
        Content::Node(node) => Node::new(node.first(), node.end(), leaves),
        Content::Result => Some(Node::root(leaves)),
        Content::Data | Content::Wide(_) => None,
    }
}

/// Checks lengths and overlaps; returns the number of elements.
fn check(
    contract: &Contract,
    inputs: &[Input<'_>],
    target: Content,
    out: WriteSpan<'_>,
) -> Result<usize, KernelError> {
    let out_size = element_bytes(target, Some(contract), contract.dtype_in());
    let len = out.len() / out_size;
    if len * out_size != out.len() {
        return Err(KernelError::Ragged { out: out.len(), element: out_size });
    }
    for (index, input) in inputs.iter().enumerate() {
        let size = element_bytes(input.content, Some(contract), contract.dtype_in());
        if len.checked_mul(size) != Some(input.span.len()) {
            return Err(KernelError::Length {
                input: index,
                expected: len.saturating_mul(size),
                found: input.span.len(),
                out: out.len(),
            });
        }
        if !may_alias(input.span, size, out, out_size) {
            return Err(KernelError::Overlap { input: index });
        }
    }
    Ok(len)
}

/// Whether the spans are disjoint, or the same memory element for element.
fn may_alias(input: ReadSpan<'_>, input_size: usize, out: WriteSpan<'_>, out_size: usize) -> bool {
    let (a, b) = (input.as_ptr().addr(), out.as_ptr().addr());
    let disjoint = a + input.len() <= b || b + out.len() <= a;
    disjoint || (a == b && input_size == out_size)
}

fn check_copy(src: ReadSpan<'_>, dst: WriteSpan<'_>) {
    assert_eq!(src.len(), dst.len(), "a copy's source and destination differ in length");
    assert!(may_alias(src, 1, dst, 1), "a copy's source and destination overlap");
}
