//! The sum or mean of two leaves of f32, straight from memory to memory: alone, or in the same loop as the checksum
//! of one of them, while the other waits for memory anyway.
//!
//! The sum of two f32 that f64 rounds is rounded to f32 as if it had not been rounded before, because f64 has more
//! than twice the precision and two bits: f32 makes it in one step. That is also the true sum rounded once, which is
//! what the exact order wants.
//!
//! So is half of it, where the sum does not overflow. All f32 are multiples of 2^-149. A sum below 2^-125 is exact,
//! since it has no more than 24 bits above that, and halving rounds once; any other is rounded once, and its half is a
//! normal number, which is exact. A sum that overflows is of numbers of 2^103 or more (the largest f32 is half a unit
//! in its last place, which is that, from being rounded to infinity), whose halves are exact and don't overflow
//! when added. Half an infinity is one.

use std::marker::PhantomData;

use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype, ReduceOp};

use super::element::{Element, F32};
use super::isa::{Isa, Job};
use super::xxh3::{Hash, STRIPE_BYTES, Stripe, Stripes};

/// What two leaves become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Becomes {
    Sum,
    Mean,
}

impl Becomes {
    /// What a reduction makes of two leaves of f32, if that is what it reduces.
    pub(super) fn of(contract: &Contract, contents: &[Content], target: Content) -> Option<Becomes> {
        let is_pair = matches!(contents, [Content::Leaf(_), Content::Leaf(_)])
            && target == Content::Result
            && (contract.dtype_in(), contract.dtype_out()) == (Dtype::F32, Dtype::F32);
        match (contract.op(), contract.divisor()) {
            (ReduceOp::Sum | ReduceOp::Mean, 1) if is_pair => Some(Becomes::Sum),
            // An accumulator of f32 overflows before it is divided.
            (ReduceOp::Mean, 2) if is_pair && contract.dtype_acc() != Some(Dtype::F32) => Some(Becomes::Mean),
            _ => None,
        }
    }
}

/// Half of the sum of two, rounded once.
#[inline(always)]
pub(super) fn mean_of_two(left: f32, right: f32) -> f32 {
    let (sum, of_halves) = (left + right, left * 0.5 + right * 0.5);
    if sum.is_infinite() { of_halves } else { sum * 0.5 }
}

/// Two leaves and what they become, of `len` bytes each.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) becomes: Becomes,
    pub(super) left: *const u8,
    pub(super) right: *const u8,
    pub(super) out: *mut u8,
    /// Where the leaf on the right is kept, if it is reduced in place; or null.
    pub(super) kept: *mut u8,
    pub(super) len: usize,
}

/// Without the law: for measuring what it costs.
const IS_PLAIN: bool = cfg!(feature = "unordered");

impl Pair {
    /// Reduces the elements in the 64 bytes at `at`, of which those on the left are given.
    ///
    /// # Safety
    /// The instruction set of `S` is available; the bytes are inside.
    #[inline(always)]
    unsafe fn reduce<S: Stripe, const MEAN: bool, const KEEP: bool>(self, at: usize, left: S) {
        // SAFETY: as the caller promises.
        unsafe {
            let right = S::load(self.right.add(at));
            if KEEP {
                right.store(self.kept.add(at));
            }
            let reduced = if MEAN { left.mean_f32(right) } else { left.add_f32(right, IS_PLAIN) };
            reduced.store(self.out.add(at));
        }
    }

    /// Reduces the elements in `start..end`, which are less than a stripe.
    ///
    /// # Safety
    /// The bytes are inside.
    #[inline(always)]
    unsafe fn reduce_few<const MEAN: bool, const KEEP: bool>(self, start: usize, end: usize) {
        let mut at = start;
        while at < end {
            // SAFETY: as the caller promises.
            unsafe {
                let [left, right] =
                    [self.left, self.right].map(|from| from.add(at).cast::<f32>().read_unaligned());
                if KEEP {
                    self.kept.add(at).cast::<f32>().write_unaligned(right);
                }
                let reduced = if MEAN { mean_of_two(left, right) } else { left + right };
                self.out.add(at).cast::<u32>().write_unaligned(F32::of_f32(reduced));
            }
            at += size_of::<f32>();
        }
    }
}

/// # Safety
/// The instruction set is available; the pair's bytes are there, whole elements, and the output is disjoint from
/// the leaves or the same memory.
pub(super) unsafe fn reduce<I: Isa>(pair: Pair) {
    // SAFETY: as the caller promises.
    unsafe {
        match pair.becomes {
            Becomes::Sum => I::run(Reduce::<I::Stripe, false>(pair, PhantomData)),
            Becomes::Mean => I::run(Reduce::<I::Stripe, true>(pair, PhantomData)),
        }
    }
}

struct Reduce<S, const MEAN: bool>(Pair, PhantomData<S>);

impl<S: Stripe, const MEAN: bool> Job for Reduce<S, MEAN> {
    #[inline(always)]
    fn run(self) {
        let pair = self.0;
        // Stores across two lines cost more than the arithmetic, if there are more than a few.
        let few = if pair.len < STRIPE_BYTES { pair.len } else { pair.out.align_offset(STRIPE_BYTES) };
        let head = few.min(pair.len);
        let head = if head.is_multiple_of(size_of::<f32>()) { head } else { 0 };
        let end = head + (pair.len - head) / STRIPE_BYTES * STRIPE_BYTES;
        // SAFETY: a `Reduce` runs where its set is available; all of this is inside.
        unsafe {
            pair.reduce_few::<MEAN, false>(0, head);
            for at in (head..end).step_by(STRIPE_BYTES) {
                pair.reduce::<S, MEAN, false>(at, S::load(pair.left.add(at)));
            }
            pair.reduce_few::<MEAN, false>(end, pair.len);
        }
    }
}

/// Reduces, gives the checksum of the leaf on the left and keeps that on the right, if it is to be kept.
///
/// # Safety
/// As for [`reduce`]; they are more than `SHORT_BYTES_MAX` bytes, the output is disjoint from the left leaf, and where
/// the right one is kept there is room for it, which is disjoint from all of them.
pub(super) unsafe fn reduce_summed<I: Isa>(pair: Pair) -> u64 {
    let mut of = Hash::new(pair.len);
    let hash = &mut of;
    // SAFETY: as the caller promises.
    unsafe {
        match (pair.becomes, pair.kept.is_null()) {
            (Becomes::Sum, true) => I::run(Summed::<I::Stripe, false, false> { pair, hash, of: PhantomData }),
            (Becomes::Sum, false) => I::run(Summed::<I::Stripe, false, true> { pair, hash, of: PhantomData }),
            (Becomes::Mean, true) => I::run(Summed::<I::Stripe, true, false> { pair, hash, of: PhantomData }),
            (Becomes::Mean, false) => I::run(Summed::<I::Stripe, true, true> { pair, hash, of: PhantomData }),
        }
    }
    of.value()
}

/// The stripes of the leaf on the left, which are reduced on the way.
#[derive(Clone, Copy)]
struct Reduced<const MEAN: bool, const KEEP: bool>(Pair);

impl<S: Stripe, const MEAN: bool, const KEEP: bool> Stripes<S> for Reduced<MEAN, KEEP> {
    #[inline(always)]
    unsafe fn take(self, at: usize) -> S {
        // SAFETY: as the caller promises.
        unsafe {
            let left = S::load(self.0.left.add(at));
            self.0.reduce::<S, MEAN, KEEP>(at, left);
            left
        }
    }
}

struct Summed<'a, S, const MEAN: bool, const KEEP: bool> {
    pair: Pair,
    hash: &'a mut Hash,
    of: PhantomData<S>,
}

impl<S: Stripe, const MEAN: bool, const KEEP: bool> Job for Summed<'_, S, MEAN, KEEP> {
    #[inline(always)]
    fn run(self) {
        let pair = self.pair;
        // SAFETY: a `Summed` runs where its set is available; all of this is inside.
        unsafe {
            let last = pair.left.add(pair.len - STRIPE_BYTES);
            let end = self.hash.finish::<S>(Reduced::<MEAN, KEEP>(pair), last);
            pair.reduce_few::<MEAN, KEEP>(end, pair.len);
        }
    }
}
