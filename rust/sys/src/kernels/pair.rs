//! The sum or mean of two leaves of f32 or bf16, straight from memory to memory: alone, or in the same loop as the
//! checksum of one of them, while the other waits for memory anyway.
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
//!
//! The sum of two bf16 that f32 rounds is rounded to bf16 as if it had not been rounded before, since f32 has more than
//! twice the precision of bf16, too, and the same exponents: whatever the accumulator, and in the exact order, it is the
//! true sum rounded once. Half of it is exact in f32; where the sum overflows it is infinite, which is what an
//! accumulator of f32 has, and no other.

use std::array::from_fn;
use std::marker::PhantomData;

use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype, ReduceOp};

use super::element::{Bf16, Element, F32};
use super::isa::{Isa, Job};
use super::stripes::{Lying, Stripes, pass};
use super::xxh3::{Hash, STRIPE_BYTES, Stripe};

/// What two leaves become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Becomes {
    Sum,
    Mean,
    SumOfBf16,
    MeanOfBf16,
}

impl Becomes {
    /// What a reduction makes of two leaves of f32 or bf16, if that is what it reduces.
    pub(super) fn of(contract: &Contract, contents: &[Content], target: Content) -> Option<Becomes> {
        let is_pair = matches!(contents, [Content::Leaf(_), Content::Leaf(_)]) && target == Content::Result;
        if !is_pair || contract.dtype_in() != contract.dtype_out() {
            return None;
        }
        let is_in_f32 = contract.dtype_acc() == Some(Dtype::F32);
        match (contract.dtype_in(), contract.op(), contract.divisor()) {
            (Dtype::F32, ReduceOp::Sum | ReduceOp::Mean, 1) => Some(Becomes::Sum),
            // An accumulator of f32 overflows before it is divided.
            (Dtype::F32, ReduceOp::Mean, 2) if !is_in_f32 => Some(Becomes::Mean),
            (Dtype::Bf16, ReduceOp::Sum | ReduceOp::Mean, 1) => Some(Becomes::SumOfBf16),
            (Dtype::Bf16, ReduceOp::Mean, 2) if is_in_f32 => Some(Becomes::MeanOfBf16),
            _ => None,
        }
    }
}

/// What becomes of two elements.
trait Two: Copy {
    type Bits: Copy;

    fn of(left: Self::Bits, right: Self::Bits) -> Self::Bits;

    /// The same of all elements in two stripes.
    ///
    /// # Safety
    /// The instruction set of `S` is available.
    unsafe fn of_stripes<S: Stripe>(left: S, right: S) -> S;
}

#[derive(Clone, Copy)]
struct OfF32<const MEAN: bool>;

impl<const MEAN: bool> Two for OfF32<MEAN> {
    type Bits = u32;

    #[inline(always)]
    fn of(left: u32, right: u32) -> u32 {
        let (left, right) = (f32::from_bits(left), f32::from_bits(right));
        F32::of_f32(if MEAN { mean_of_two(left, right) } else { left + right })
    }

    #[inline(always)]
    unsafe fn of_stripes<S: Stripe>(left: S, right: S) -> S {
        // SAFETY: as the caller promises.
        unsafe { if MEAN { left.mean_f32(right) } else { left.add_f32(right, IS_PLAIN) } }
    }
}

#[derive(Clone, Copy)]
struct OfBf16<const MEAN: bool>;

impl<const MEAN: bool> Two for OfBf16<MEAN> {
    type Bits = u16;

    #[inline(always)]
    fn of(left: u16, right: u16) -> u16 {
        reduce_two_bf16::<MEAN>(left, right)
    }

    #[inline(always)]
    unsafe fn of_stripes<S: Stripe>(left: S, right: S) -> S {
        // SAFETY: as the caller promises.
        unsafe { left.reduce_bf16::<MEAN>(right) }
    }
}

/// The sum of two bf16 in f32, or half of it, rounded to bf16.
#[inline(always)]
pub(super) fn reduce_two_bf16<const MEAN: bool>(left: u16, right: u16) -> u16 {
    let sum = Bf16::to_f32(left) + Bf16::to_f32(right);
    Bf16::of_f32(if MEAN { sum * 0.5 } else { sum })
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
    /// Whether the output goes past the caches; then nothing is kept.
    pub(super) is_streamed: bool,
}

/// Without the law: for measuring what it costs.
const IS_PLAIN: bool = cfg!(feature = "unordered");

impl Pair {
    /// Where the output's first whole line begins, if it goes past the caches: it can't if no element begins there.
    fn first_line<T: Two>(self) -> Option<usize> {
        let head = self.out.align_offset(STRIPE_BYTES);
        (self.is_streamed && head.is_multiple_of(size_of::<T::Bits>())).then_some(head.min(self.len))
    }

    /// Reduces the output's whole lines from `start` on that end before `end` past the caches: where the next begins.
    ///
    /// # Safety
    /// The instruction set of `S` is available; the bytes are inside, and `start` is where a line begins.
    #[inline(always)]
    unsafe fn stream<S: Stripe, T: Two>(self, start: usize, end: usize) -> usize {
        let mut at = start;
        while at + STRIPE_BYTES <= end {
            // SAFETY: as the caller promises.
            unsafe {
                let [left, right] = [self.left, self.right].map(|from| S::load(from.add(at)));
                T::of_stripes(left, right).stream(self.out.add(at));
            }
            at += STRIPE_BYTES;
        }
        at
    }

    /// Reduces the elements in `start..end`, which are less than a stripe.
    ///
    /// # Safety
    /// The bytes are inside.
    #[inline(always)]
    unsafe fn reduce_few<T: Two, const KEEP: bool>(self, start: usize, end: usize) {
        let mut at = start;
        let group = TOGETHER * size_of::<T::Bits>();
        while at + group <= end {
            let each = |left: [_; TOGETHER], right: [_; TOGETHER]| from_fn(|i| T::of(left[i], right[i]));
            // SAFETY: as the caller promises.
            unsafe { self.reduce_at::<[T::Bits; TOGETHER], KEEP>(at, each) };
            at += group;
        }
        while at < end {
            // SAFETY: as the caller promises.
            unsafe { self.reduce_at::<_, KEEP>(at, T::of) };
            at += size_of::<T::Bits>();
        }
    }

    /// Reduces what is at `at`: as many bytes as `B` has.
    ///
    /// # Safety
    /// The bytes are inside.
    #[inline(always)]
    unsafe fn reduce_at<B: Copy, const KEEP: bool>(self, at: usize, of: impl Fn(B, B) -> B) {
        // SAFETY: as the caller promises.
        unsafe {
            let [left, right] = [self.left, self.right].map(|from| from.add(at).cast::<B>().read_unaligned());
            if KEEP {
                self.kept.add(at).cast::<B>().write_unaligned(right);
            }
            self.out.add(at).cast::<B>().write_unaligned(of(left, right));
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
            Becomes::Sum => I::run(Reduce::<I::Stripe, OfF32<false>>(pair, PhantomData)),
            Becomes::Mean => I::run(Reduce::<I::Stripe, OfF32<true>>(pair, PhantomData)),
            Becomes::SumOfBf16 => I::run(Reduce::<I::Stripe, OfBf16<false>>(pair, PhantomData)),
            Becomes::MeanOfBf16 => I::run(Reduce::<I::Stripe, OfBf16<true>>(pair, PhantomData)),
        }
    }
}

/// So many elements of less than a stripe are reduced together, which any processor has instructions for.
const TOGETHER: usize = 4;

/// From so many bytes on an output is written line by line.
const ALIGNED_BYTES_MIN: usize = 1024;

struct Reduce<S, T>(Pair, PhantomData<(S, T)>);

impl<S: Stripe, T: Two> Job for Reduce<S, T> {
    #[inline(always)]
    fn run(self) {
        let pair = self.0;
        if let Some(head) = pair.first_line::<T>() {
            // SAFETY: as below.
            unsafe {
                pair.reduce_few::<T, false>(0, head);
                let end = pair.stream::<S, T>(head, pair.len);
                pair.reduce_few::<T, false>(end, pair.len);
                return S::fence();
            }
        }
        // Stores across two lines cost more than the arithmetic, if there are more than a few.
        let head = if pair.len < ALIGNED_BYTES_MIN { 0 } else { pair.out.align_offset(STRIPE_BYTES) };
        let head = if head.is_multiple_of(size_of::<T::Bits>()) { head } else { 0 };
        let end = head + (pair.len - head) / STRIPE_BYTES * STRIPE_BYTES;
        // SAFETY: a `Reduce` runs where its set is available; all of this is inside.
        unsafe {
            pair.reduce_few::<T, false>(0, head);
            pass::<S>(Reduced::<T, false>(pair, PhantomData), head, end);
            pair.reduce_few::<T, false>(end, pair.len);
        }
    }
}

/// Reduces, gives the checksum of the leaf on the left and keeps that on the right, if it is to be kept.
///
/// # Safety
/// As for [`reduce`]; they are more than `SHORT_BYTES_MAX` bytes, the output is disjoint from the left leaf, and where
/// the right one is kept there is room for it, which is disjoint from all of them.
pub(super) unsafe fn reduce_summed<I: Isa>(pair: Pair) -> u64 {
    // SAFETY: as the caller promises.
    unsafe {
        match pair.becomes {
            Becomes::Sum => summed::<I, OfF32<false>>(pair),
            Becomes::Mean => summed::<I, OfF32<true>>(pair),
            Becomes::SumOfBf16 => summed::<I, OfBf16<false>>(pair),
            Becomes::MeanOfBf16 => summed::<I, OfBf16<true>>(pair),
        }
    }
}

/// # Safety
/// As for [`reduce_summed`].
unsafe fn summed<I: Isa, T: Two>(pair: Pair) -> u64 {
    let mut hash = Hash::new(pair.len);
    let (of, into) = (PhantomData::<(I::Stripe, T)>, &mut hash);
    // SAFETY: as the caller promises.
    unsafe {
        if let Some(head) = pair.first_line::<T>() {
            I::run(Past { pair, head, hash: into, of });
        } else if pair.kept.is_null() {
            I::run(Summed::<_, _, false> { pair, hash: into, of });
        } else {
            I::run(Summed::<_, _, true> { pair, hash: into, of });
        }
    }
    hash.value()
}

/// The stripes of the leaf on the left, which are reduced on the way.
#[derive(Clone, Copy)]
struct Reduced<T, const KEEP: bool>(Pair, PhantomData<T>);

impl<S: Stripe, T: Two, const KEEP: bool> Stripes<S> for Reduced<T, KEEP> {
    type Loaded = [S; 2];

    #[inline(always)]
    unsafe fn load(self, at: usize) -> [S; 2] {
        // SAFETY: as the caller promises.
        unsafe { [self.0.left, self.0.right].map(|from| S::load(from.add(at))) }
    }

    #[inline(always)]
    unsafe fn store(self, at: usize, [left, right]: [S; 2]) -> S {
        // SAFETY: as the caller promises.
        unsafe {
            if KEEP {
                right.store(self.0.kept.add(at));
            }
            T::of_stripes(left, right).store(self.0.out.add(at));
        }
        left
    }
}

struct Summed<'a, S, T, const KEEP: bool> {
    pair: Pair,
    hash: &'a mut Hash,
    of: PhantomData<(S, T)>,
}

impl<S: Stripe, T: Two, const KEEP: bool> Job for Summed<'_, S, T, KEEP> {
    #[inline(always)]
    fn run(self) {
        let pair = self.pair;
        // SAFETY: a `Summed` runs where its set is available; all of this is inside.
        unsafe {
            let last = pair.left.add(pair.len - STRIPE_BYTES);
            let end = self.hash.finish::<S>(Reduced::<T, KEEP>(pair, PhantomData), last);
            pair.reduce_few::<T, KEEP>(end, pair.len);
        }
    }
}

/// As [`Summed`], with an output past the caches, whose lines are not those of the leaf on the left: they follow it by
/// what was just summed, which is still in the first-level cache.
struct Past<'a, S, T> {
    pair: Pair,
    head: usize,
    hash: &'a mut Hash,
    of: PhantomData<(S, T)>,
}

impl<S: Stripe, T: Two> Job for Past<'_, S, T> {
    #[inline(always)]
    fn run(self) {
        let Past { pair, head, hash, .. } = self;
        // SAFETY: a `Past` runs where its set is available; all of this is inside.
        unsafe {
            pair.reduce_few::<T, false>(0, head);
            let mut done = head;
            hash.follow::<S>(pair.len, Lying(pair.left), |end| done = pair.stream::<S, T>(done, end));
            hash.finish::<S>(Lying(pair.left), pair.left.add(pair.len - STRIPE_BYTES));
            done = pair.stream::<S, T>(done, pair.len);
            pair.reduce_few::<T, false>(done, pair.len);
            S::fence();
        }
    }
}
