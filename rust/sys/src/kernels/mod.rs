//! The kernels: reductions, conversions and copies, bit-equal to `isobit_core::law` on every
//! instruction set.
//!
//! A reduction runs block by block: a few fused loops combine a block of all inputs in registers and
//! in the first-level cache, and the result is rounded and written once.

mod beside;
mod block;
mod element;
mod exact;
mod exact_block;
mod fold;
mod isa;
mod merge;
mod pair;
mod prepared;
mod program;
mod stream;
mod stripes;
mod table;
#[cfg(feature = "unordered")]
mod unordered;
#[cfg(target_arch = "x86_64")]
mod x86;
mod xxh3;

use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype, ReduceOp};
use thiserror::Error;

use crate::fpenv::Guard;
use crate::{ReadSpan, WriteSpan};
pub use beside::Beside;
use block::{BLOCK, LoadFn, Slot, StoreFn};
use exact_block::{Plan, SumFn};
use isa::{Isa, Scalar};
pub use prepared::{Prepared, Written};
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
    #[cfg(feature = "unordered")]
    unordered: fn(&Contract, &[Content], Content) -> Option<unordered::AddFn>,
    long_checksum: unsafe fn(*const u8, *mut u8, usize) -> u64,
    long_copy_checksum: unsafe fn(*const u8, *mut u8, usize) -> u64,
    long_stream_checksum: unsafe fn(*const u8, *mut u8, usize) -> u64,
    passes: prepared::Passes,
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
            #[cfg(feature = "unordered")]
            unordered: unordered::of::<I>,
            long_checksum: xxh3::sum::<I, { xxh3::SUM }>,
            long_copy_checksum: xxh3::sum::<I, { xxh3::COPY }>,
            long_stream_checksum: xxh3::sum::<I, { xxh3::STREAM }>,
            passes: prepared::Passes::of::<I>(),
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
    #[inline]
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
        let contents: Vec<Content> = inputs.iter().map(|input| input.content).collect();
        let spans: Vec<ReadSpan<'_>> = inputs.iter().map(|input| input.span).collect();
        self.prepare(contract, &contents, target)?.run(&spans, out)
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
    #[inline]
    pub fn copy(&self, src: ReadSpan<'_>, dst: WriteSpan<'_>) {
        check_copy(src, dst);
        if src.as_ptr() != dst.as_ptr().cast_const() {
            src.copy_to(dst);
        }
    }

    /// Copies as [`Kernels::copy`] does and returns the XXH3-64 of what was copied.
    #[inline]
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

    /// Copies as [`Kernels::copy`] does, past the caches: for much that nobody reads soon.
    pub fn stream(&self, src: ReadSpan<'_>, dst: WriteSpan<'_>) {
        check_copy(src, dst);
        if src.as_ptr() != dst.as_ptr().cast_const() {
            self.stream_unfenced(src, dst);
            self.fence();
        }
    }

    /// Copies past the caches. Before anybody else may see it, a `fence` must follow: one for many copies, since it
    /// waits for memory. Panics if the spans differ in length or overlap.
    fn stream_unfenced(&self, src: ReadSpan<'_>, dst: WriteSpan<'_>) {
        assert!(src.len() == dst.len() && src.is_disjoint(dst), "a copy past the caches is to other memory");
        // SAFETY: the instruction set exists; both have the same length and are disjoint.
        unsafe { (self.passes.stream)(src.as_ptr(), dst.as_ptr(), src.len()) };
    }

    fn fence(&self) {
        // SAFETY: the instruction set exists.
        unsafe { (self.passes.fence)() };
    }

    /// Copies as [`Kernels::stream`] does and returns the XXH3-64 of what was copied.
    pub fn stream_checksum(&self, src: ReadSpan<'_>, dst: WriteSpan<'_>) -> u64 {
        if src.len() <= xxh3::SHORT_BYTES_MAX || src.as_ptr() == dst.as_ptr().cast_const() {
            return self.copy_checksum(src, dst);
        }
        check_copy(src, dst);
        // SAFETY: the instruction set exists; both spans have this length and are disjoint.
        unsafe { (self.long_stream_checksum)(src.as_ptr(), dst.as_ptr(), src.len()) }
    }

    /// The XXH3-64 of the span.
    #[inline]
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

/// Whether the spans are disjoint, or the same memory element for element.
#[inline]
fn may_alias(input: ReadSpan<'_>, input_size: usize, out: WriteSpan<'_>, out_size: usize) -> bool {
    let is_same = input.as_ptr() == out.as_ptr().cast_const();
    input.is_disjoint(out) || (is_same && input_size == out_size)
}

#[inline]
fn check_copy(src: ReadSpan<'_>, dst: WriteSpan<'_>) {
    assert!(src.len() == dst.len(), "a copy's source and destination differ in length");
    assert!(may_alias(src, 1, dst, 1), "a copy's source and destination overlap");
}
