//! What a sum costs without the law: plain f32 additions from left to right, straight into the output. No
//! accumulator that is wider, no canonical NaN, no guard of the rounding mode.
//!
//! Compiled with the feature `unordered` only, which is for measuring and never ships.

use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype, Order, ReduceOp};

use super::block::{Source, blocks};
use super::isa::{Isa, Job};
use super::prepared::is_leaf;

/// Adds `len` elements of f32 of every source.
///
/// # Safety
/// The instruction set is available; sources and output have so many elements, and the output is disjoint
/// from each source or the same memory.
pub(super) type AddFn = unsafe fn(sources: &[Source], len: usize, out: *mut u8);

/// How many sources one loop adds.
const SOURCES_MAX: usize = 4;

/// The loop for a reduction, if it is a sum of whole leaves of f32 that are few.
pub(super) fn of<I: Isa>(contract: &Contract, contents: &[Content], target: Content) -> Option<AddFn> {
    let is_plain = contract.op() == ReduceOp::Sum
        && contract.order() == Order::Tree
        && contract.dtype_in() == Dtype::F32
        && contract.dtype_out() == Dtype::F32
        && target == Content::Result
        && contents.iter().all(|content| is_leaf(*content));
    match contents.len() {
        2 if is_plain => Some(add::<I, 2>),
        3 if is_plain => Some(add::<I, 3>),
        SOURCES_MAX if is_plain => Some(add::<I, SOURCES_MAX>),
        _ => None,
    }
}

/// # Safety
/// As for [`AddFn`], with `COUNT` sources.
unsafe fn add<I: Isa, const COUNT: usize>(sources: &[Source], len: usize, out: *mut u8) {
    for (start, len) in blocks(sources[0].start, size_of::<f32>(), len) {
        // SAFETY: as the caller promises.
        unsafe {
            let from = std::array::from_fn(|source| sources[source].start.cast::<f32>().add(start));
            I::run(Add::<COUNT> { from, to: out.cast::<f32>().add(start), len });
        }
    }
}

struct Add<const COUNT: usize> {
    from: [*const f32; COUNT],
    to: *mut f32,
    len: usize,
}

impl<const COUNT: usize> Job for Add<COUNT> {
    #[inline(always)]
    fn run(self) {
        for i in 0..self.len {
            // SAFETY: an `Add` is made of sources and an output that have `len` elements.
            unsafe {
                let first = self.from[0].add(i).read_unaligned();
                let sum = self.from[1..].iter().fold(first, |sum, from| sum + from.add(i).read_unaligned());
                self.to.add(i).write_unaligned(sum);
            }
        }
    }
}
