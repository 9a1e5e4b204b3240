//! The loops: each works on one block of elements, which stays in the first-level cache.
//!
//! A block is read from all inputs before any of it is written, so that the output may be the same
//! memory as an input, and intermediate values never leave the cache.

use std::mem::MaybeUninit;
use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::element::F32;
use super::element::{Accumulator, Element};
use super::fold::{FloatSum, Fold};
use super::isa::{Isa, Job};
use super::program::Pass;

/// Elements of a block.
pub(super) const BLOCK: usize = 512;

/// A cache line.
pub(super) const LINE_BYTES: usize = 64;

/// The blocks of `len` elements of `size` bytes at `first`, as their starts and lengths: from the
/// second on they start with a cache line, because loads across two lines that come from memory
/// cost more than the arithmetic.
pub(super) fn blocks(first: *const u8, size: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let head = BLOCK - first.addr() % LINE_BYTES / size;
    let starts = std::iter::once(0).chain((head..len).step_by(BLOCK));
    let end = move |start| if start == 0 { head } else { start + BLOCK };
    starts.filter(move |start| *start < len).map(move |start| (start, end(start).min(len) - start))
}

/// Asks for the elements of the next block that correspond to these `len`: while a loop works on
/// what the cache holds, the memory would be idle.
#[inline(always)]
pub(super) fn prefetch_next<I: Isa, T>(from: *const T, len: usize) {
    for line in (0..len * size_of::<T>()).step_by(LINE_BYTES) {
        I::prefetch(from.wrapping_add(BLOCK).cast::<u8>().wrapping_add(line));
    }
}

/// Room for a block of values of any type.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Slot(pub(super) [u64; BLOCK]);

impl Slot {
    pub(super) const ZERO: Slot = Slot([0; BLOCK]);
}

/// Where an input starts, and whether it holds leaves (or else inner nodes or wide sums).
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) start: *const u8,
    pub(super) is_leaf: bool,
}

/// Runs one pass of fold `F` on the elements `start..start + len` of the sources.
///
/// # Safety
/// The instruction set is available; each source has those elements; the slots that the pass names
/// exist and overlap no source; `len <= BLOCK`.
pub(super) type PassFn =
    unsafe fn(pass: Pass, sources: &[Source], start: usize, len: usize, slots: &mut [Slot]);

pub(super) unsafe fn pass<I: Isa, F: Fold>(
    pass: Pass,
    sources: &[Source],
    start: usize,
    len: usize,
    slots: &mut [Slot],
) {
    debug_assert!(len <= BLOCK);
    // SAFETY: as the caller promises; a slot has room for BLOCK values of at most eight bytes, and
    // any bits are a value of the plain numeric types that `F::Value` ranges over.
    unsafe {
        match pass {
            Pass::CombineSlot { from, to } => {
                assert!(from != to && from < slots.len() && to < slots.len());
                let base = slots.as_mut_ptr();
                let from = from_raw_parts(base.add(from).cast::<F::Value>(), len);
                let to = from_raw_parts_mut(base.add(to).cast::<F::Value>(), len);
                I::run(CombineSlot::<F> { from, to });
            }
            Pass::CombineInput { input, to } => {
                let source = sources[input];
                let to = from_raw_parts_mut(slots[to].0.as_mut_ptr().cast::<F::Value>(), len);
                if source.is_leaf {
                    I::run(CombineInput::<F> { from: source.start.cast::<F::Leaf>().add(start), to });
                } else {
                    I::run(CombineInput::<F::OfNodes> {
                        from: source.start.cast::<F::Node>().add(start),
                        to,
                    });
                }
            }
            Pass::Gather { first, count, to } => {
                let sources = &sources[first..first + count];
                let to = from_raw_parts_mut(slots[to].0.as_mut_ptr().cast::<F::Value>(), len);
                if sources[0].is_leaf {
                    gather::<I, F>(sources, start, to);
                } else {
                    gather::<I, F::OfNodes>(sources, start, to);
                }
            }
        }
    }
}

/// A block of widened leaves, on the cache's own borders.
#[repr(align(64))]
struct Wide(MaybeUninit<[f32; BLOCK]>);

/// The passes of a sum of floats of format `E`, a small one: the leaves are widened to f32 first, a
/// block of each, because widening takes more instructions than the addition and some instruction
/// sets have one for it.
pub(super) unsafe fn pass_through_f32<I: Isa, E: Element, A: Accumulator>(
    pass: Pass,
    sources: &[Source],
    start: usize,
    len: usize,
    slots: &mut [Slot],
) {
    let (first, count, narrow) = match pass {
        Pass::Gather { first, count, to } => (first, count, Pass::Gather { first: 0, count, to }),
        Pass::CombineInput { input, to } => (input, 1, Pass::CombineInput { input: 0, to }),
        Pass::CombineSlot { .. } => (0, 0, pass),
    };
    let sources = &sources[first..first + count];
    // SAFETY: as the caller promises; the widened blocks are as long as the block.
    unsafe {
        if sources.first().is_some_and(|source| source.is_leaf) {
            let mut wide = [const { Wide(MaybeUninit::uninit()) }; 8];
            let mut wide_sources = [Source { start: std::ptr::null(), is_leaf: true }; 8];
            for ((source, wide), wide_source) in sources.iter().zip(&mut wide).zip(&mut wide_sources) {
                let wide = wide.0.as_mut_ptr().cast::<f32>();
                let from = source.start.cast::<E::Bits>().add(start);
                prefetch_next::<I, _>(from, len);
                E::widen_block::<I>(from, wide, len);
                wide_source.start = wide.cast();
            }
            self::pass::<I, FloatSum<F32, A, 8>>(narrow, &wide_sources[..count], 0, len, slots);
        } else {
            self::pass::<I, FloatSum<F32, A, 8>>(narrow, sources, start, len, slots);
        }
    }
}

/// Widens `len` elements of format `E` to f32.
///
/// # Safety
/// The instruction set is available; both pointers are good for `len` elements and disjoint.
pub(super) unsafe fn widen_block<I: Isa, E: Element>(from: *const E::Bits, to: *mut f32, len: usize) {
    // SAFETY: as the caller promises; any bits are an f32, and nothing reads them before `Load`
    // has written them.
    unsafe {
        let values = from_raw_parts_mut(to, len);
        I::run(Load::<f32, E> { from, values });
    }
}

struct CombineSlot<'a, F: Fold> {
    from: &'a [F::Value],
    to: &'a mut [F::Value],
}

impl<F: Fold> Job for CombineSlot<'_, F> {
    #[inline(always)]
    fn run(self) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to = F::combine(*to, *from);
        }
    }
}

struct CombineInput<'a, F: Fold> {
    from: *const F::Leaf,
    to: &'a mut [F::Value],
}

impl<F: Fold> Job for CombineInput<'_, F> {
    #[inline(always)]
    fn run(self) {
        for (i, to) in self.to.iter_mut().enumerate() {
            // SAFETY: the source has as many elements as the block.
            *to = F::combine(*to, F::leaf(unsafe { self.from.add(i).read_unaligned() }));
        }
    }
}

/// The left-full tree over `COUNT` inputs, element by element.
struct Gather<'a, F: Fold, const COUNT: usize> {
    from: [*const F::Leaf; COUNT],
    to: &'a mut [F::Value],
}

impl<F: Fold, const COUNT: usize> Job for Gather<'_, F, COUNT> {
    #[inline(always)]
    fn run(self) {
        for (i, to) in self.to.iter_mut().enumerate() {
            // SAFETY: every source has as many elements as the block.
            let load = |k: usize| F::leaf(unsafe { self.from[k].add(i).read_unaligned() });
            let two = |k: usize| F::combine(load(k), load(k + 1));
            let four = |k: usize| F::combine(two(k), two(k + 2));
            *to = match COUNT {
                1 => load(0),
                2 => two(0),
                3 => F::combine(two(0), load(2)),
                4 => four(0),
                5 => F::combine(four(0), load(4)),
                6 => F::combine(four(0), two(4)),
                7 => F::combine(four(0), F::combine(two(4), load(6))),
                8 => F::combine(four(0), four(4)),
                _ => unreachable!("no pass gathers more than eight inputs"),
            };
        }
    }
}

/// # Safety
/// As for [`PassFn`].
unsafe fn gather<I: Isa, F: Fold>(sources: &[Source], start: usize, to: &mut [F::Value]) {
    /// # Safety
    /// As for [`PassFn`].
    #[inline(always)]
    unsafe fn of<I: Isa, F: Fold, const COUNT: usize>(sources: &[Source], start: usize, to: &mut [F::Value]) {
        // SAFETY: as the caller promises.
        let from = std::array::from_fn(|k| unsafe { sources[k].start.cast::<F::Leaf>().add(start) });
        // SAFETY: as the caller promises.
        unsafe { I::run(Gather::<F, COUNT> { from, to }) };
    }
    // SAFETY: as the caller promises.
    unsafe {
        match sources.len() {
            1 => of::<I, F, 1>(sources, start, to),
            2 => of::<I, F, 2>(sources, start, to),
            count if F::WIDTH == 8 => match count {
                3 => of::<I, F, 3>(sources, start, to),
                4 => of::<I, F, 4>(sources, start, to),
                5 => of::<I, F, 5>(sources, start, to),
                6 => of::<I, F, 6>(sources, start, to),
                7 => of::<I, F, 7>(sources, start, to),
                8 => of::<I, F, 8>(sources, start, to),
                _ => unreachable!("no pass gathers more than eight inputs"),
            },
            _ => unreachable!("no pass gathers more inputs than its fold's width"),
        }
    }
}

/// Writes a block of values to memory, divided by the divisor where there is one.
///
/// # Safety
/// The instruction set is available; `out` has room for `len` elements and does not overlap `slot`;
/// `len <= BLOCK`; the slot's first `len` values are of the function's type.
pub(super) type StoreFn = unsafe fn(slot: &mut Slot, len: usize, divisor: u64, out: *mut u8);

/// The values as inner nodes.
pub(super) unsafe fn store_node<I: Isa, F: Fold>(slot: &mut Slot, len: usize, _: u64, out: *mut u8) {
    // SAFETY: as the caller promises.
    unsafe {
        let values = from_raw_parts(slot.0.as_ptr().cast::<F::Value>(), len);
        I::run(StoreNode::<F> { values, out: out.cast() });
    }
}

struct StoreNode<'a, F: Fold> {
    values: &'a [F::Value],
    out: *mut F::Node,
}

impl<F: Fold> Job for StoreNode<'_, F> {
    #[inline(always)]
    fn run(self) {
        for (i, value) in self.values.iter().enumerate() {
            // SAFETY: the output has room for the block.
            unsafe { self.out.add(i).write_unaligned(F::to_node(*value)) };
        }
    }
}

/// Accumulators, divided and rounded to the result's format `E`.
pub(super) unsafe fn store_result<I: Isa, A: Accumulator, E: Element>(
    slot: &mut Slot,
    len: usize,
    divisor: u64,
    out: *mut u8,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let values = from_raw_parts_mut(slot.0.as_mut_ptr().cast::<A>(), len);
        divide::<I, A>(values, divisor);
        I::run(StoreResult::<A, E> { values, out: out.cast() });
    }
}

/// Divides by the divisor of a mean; a multiplication takes a quarter of the time.
///
/// # Safety
/// The instruction set is available.
pub(super) unsafe fn divide<I: Isa, A: Accumulator>(values: &mut [A], divisor: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        match A::of_reciprocal(divisor) {
            _ if divisor == 1 => {}
            Some(factor) => I::run(Multiply { values, factor }),
            None => I::run(Divide { values, divisor: A::of_divisor(divisor) }),
        }
    }
}

struct Multiply<'a, A> {
    values: &'a mut [A],
    factor: A,
}

impl<A: Accumulator> Job for Multiply<'_, A> {
    #[inline(always)]
    fn run(self) {
        for value in self.values {
            *value = value.mul(self.factor);
        }
    }
}

struct Divide<'a, A> {
    values: &'a mut [A],
    divisor: A,
}

impl<A: Accumulator> Job for Divide<'_, A> {
    #[inline(always)]
    fn run(self) {
        for value in self.values {
            *value = value.div(self.divisor);
        }
    }
}

struct StoreResult<'a, A, E: Element> {
    values: &'a [A],
    out: *mut E::Bits,
}

impl<A: Accumulator, E: Element> Job for StoreResult<'_, A, E> {
    #[inline(always)]
    fn run(self) {
        for (i, value) in self.values.iter().enumerate() {
            // SAFETY: the output has room for the block.
            unsafe { self.out.add(i).write_unaligned(value.narrow::<E>()) };
        }
    }
}

/// Reads a block of format `E` into accumulators.
///
/// # Safety
/// The instruction set is available; `input` has `len` elements and does not overlap `slot`;
/// `len <= BLOCK`.
pub(super) type LoadFn = unsafe fn(input: *const u8, len: usize, slot: &mut Slot);

pub(super) unsafe fn load<I: Isa, A: Accumulator, E: Element>(input: *const u8, len: usize, slot: &mut Slot) {
    // SAFETY: as the caller promises.
    unsafe {
        let values = from_raw_parts_mut(slot.0.as_mut_ptr().cast::<A>(), len);
        prefetch_next::<I, E::Bits>(input.cast(), len);
        I::run(Load::<A, E> { from: input.cast(), values });
    }
}

struct Load<'a, A, E: Element> {
    from: *const E::Bits,
    values: &'a mut [A],
}

impl<A: Accumulator, E: Element> Job for Load<'_, A, E> {
    #[inline(always)]
    fn run(self) {
        for (i, value) in self.values.iter_mut().enumerate() {
            // SAFETY: the input has as many elements as the block.
            *value = A::widen::<E>(unsafe { self.from.add(i).read_unaligned() });
        }
    }
}

/// How a block of values leaves.
pub(super) enum Finish {
    Store(StoreFn, u64),
    Convert(StoreFn, LoadFn, StoreFn),
}

impl Finish {
    /// # Safety
    /// As for [`StoreFn`], with slot 0.
    pub(super) unsafe fn run(&self, slots: &mut [Slot], len: usize, out: *mut u8) {
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
