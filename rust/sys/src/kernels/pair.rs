//! The sum of two leaves of f32, straight from memory to memory: alone, or in the same loop as the checksum of
//! one of them, while the other waits for memory anyway.
//!
//! The sum of two f32 that f64 rounds is rounded to f32 as if it had not been rounded before, because f64 has more
//! than twice the precision and two bits: f32 makes it in one step.

use std::marker::PhantomData;

use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype, Order, ReduceOp};

use super::element::{Element, F32};
use super::isa::{Isa, Job};
use super::xxh3::{Hash, STRIPE_BYTES, Stripe};

/// Whether a reduction is the sum of two leaves of f32.
pub(super) fn is_pair(contract: &Contract, contents: &[Content], target: Content) -> bool {
    matches!(contents, [Content::Leaf(_), Content::Leaf(_)])
        && target == Content::Result
        && (contract.op(), contract.order()) == (ReduceOp::Sum, Order::Tree)
        && (contract.dtype_in(), contract.dtype_out()) == (Dtype::F32, Dtype::F32)
}

/// Two leaves and their sum, of `len` bytes each.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) left: *const u8,
    pub(super) right: *const u8,
    pub(super) out: *mut u8,
    pub(super) len: usize,
}

/// Without the law: for measuring what it costs.
const IS_PLAIN: bool = cfg!(feature = "unordered");

impl Pair {
    /// The sum of the elements in the 64 bytes at `at`, of which those on the left are given.
    ///
    /// # Safety
    /// The instruction set of `S` is available; the bytes are inside.
    #[inline(always)]
    unsafe fn add<S: Stripe>(self, at: usize, left: S) {
        // SAFETY: as the caller promises.
        unsafe { left.add_f32(S::load(self.right.add(at)), IS_PLAIN).store(self.out.add(at)) };
    }

    /// The sums of the elements in `start..end`, which are less than a stripe.
    ///
    /// # Safety
    /// The bytes are inside.
    #[inline(always)]
    unsafe fn add_few(self, start: usize, end: usize) {
        for at in (start..end).step_by(size_of::<f32>()) {
            // SAFETY: as the caller promises.
            unsafe {
                let [left, right] =
                    [self.left, self.right].map(|from| from.add(at).cast::<f32>().read_unaligned());
                self.out.add(at).cast::<u32>().write_unaligned(F32::of_f32(left + right));
            }
        }
    }
}

/// Adds.
///
/// # Safety
/// The instruction set is available; the pair's bytes are there, whole elements, and the output is disjoint from
/// the leaves or the same memory.
pub(super) unsafe fn add<I: Isa>(pair: Pair) {
    // SAFETY: as the caller promises.
    unsafe { I::run(Add::<I::Stripe>(pair, PhantomData)) };
}

struct Add<S>(Pair, PhantomData<S>);

impl<S: Stripe> Job for Add<S> {
    #[inline(always)]
    fn run(self) {
        let pair = self.0;
        // Stores across two lines cost more than the arithmetic.
        let head = pair.out.align_offset(STRIPE_BYTES).min(pair.len);
        let head = if head.is_multiple_of(size_of::<f32>()) { head } else { 0 };
        let end = head + (pair.len - head) / STRIPE_BYTES * STRIPE_BYTES;
        // SAFETY: an `Add` runs where its set is available; all of this is inside.
        unsafe {
            pair.add_few(0, head);
            for at in (head..end).step_by(STRIPE_BYTES) {
                pair.add(at, S::load(pair.left.add(at)));
            }
            pair.add_few(end, pair.len);
        }
    }
}

/// Adds and gives the checksum of the leaf on the left.
///
/// # Safety
/// As for [`add`]; they are more than `SHORT_BYTES_MAX` bytes, and the output is disjoint from the left leaf.
pub(super) unsafe fn add_summed<I: Isa>(pair: Pair) -> u64 {
    let mut hash = Hash::new(pair.len);
    // SAFETY: as the caller promises.
    unsafe { I::run(AddSummed::<I::Stripe> { pair, hash: &mut hash, of: PhantomData }) };
    hash.value()
}

struct AddSummed<'a, S> {
    pair: Pair,
    hash: &'a mut Hash,
    of: PhantomData<S>,
}

impl<S: Stripe> Job for AddSummed<'_, S> {
    #[inline(always)]
    fn run(self) {
        let pair = self.pair;
        // SAFETY: an `AddSummed` runs where its set is available; all of this is inside.
        unsafe {
            let take = |at| {
                let left = S::load(pair.left.add(at));
                pair.add(at, left);
                left
            };
            let end = self.hash.finish(take, pair.left.add(pair.len - STRIPE_BYTES));
            pair.add_few(end, pair.len);
        }
    }
}
