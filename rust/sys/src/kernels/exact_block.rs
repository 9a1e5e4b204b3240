//! The exact order on blocks of raw leaves, in two vectorised tiers.
//!
//! First tier: the sum in f64. The processor's own inexact flag tells whether any addition of the
//! block rounded; if so, the spread of each element's exponents tells which can't have. Second
//! tier, for the elements that fail this: the sum as an unevaluated pair of f64,
//! with a test that the pair lost nothing. What fails both is left to the law's wide integers.

use std::slice::from_raw_parts_mut;

use super::block::{BLOCK, PassFn, Slot, Source, divide};
use super::element::Element;
use super::isa::{Isa, Job};
use super::program::Pass;
use crate::fpenv;

/// How many leaves of an 8- or 16-bit float other than bf16 f64 adds exactly, whatever they are:
/// they are multiples of 2^-24 below 2^16.
const SMALL_LEAVES_MAX: usize = 1 << 13;

/// Bits of a divisor's odd part up to which the quotient's own rounding can't lead the next one
/// astray. That could only happen if the quotient rounded to a border of two results, a number m of
/// at most 25 bits, without being it. But m times the divisor d is then on the grid of the f64, so
/// that a sum other than m * d differs from it by a unit in its last place at least; a d-th of that
/// is more than half a unit in the last place of m, and the quotient does not round to m.
const DIVISOR_BITS_MAX: u32 = 27;

/// What a block's sums become.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    divisor: u64,
    /// Whether the result is f64, so that the quotient is the last rounding.
    to_f64: bool,
    /// The passes of the tree's sum in f64.
    pass: PassFn,
}

impl Plan {
    /// The plan for `leaves` leaves, unless only the law's own integers can do it.
    pub(super) fn new<E: Element>(leaves: usize, divisor: u64, to_f64: bool, pass: PassFn) -> Option<Plan> {
        let odd_part = divisor >> divisor.trailing_zeros();
        let bits = u64::BITS - odd_part.leading_zeros();
        let always_fits = !E::NEEDS_SPREAD_TEST && leaves <= SMALL_LEAVES_MAX;
        let is_ours = (E::NEEDS_SPREAD_TEST || always_fits) && bits <= DIVISOR_BITS_MAX;
        is_ours.then_some(Plan { divisor, to_f64, pass })
    }
}

/// The state of a block: the two tiers' sums and what they know about them.
pub(super) struct Scratch {
    /// The sums, later the quotients; and room for more of them, the greatest and least magnitudes,
    /// or the second tier's sums.
    slots: [Slot; 2],
    /// Nonzero where the sums can't be trusted.
    pub(super) flags: Slot,
    /// Second tier: the pair's errors.
    low: Slot,
    /// Second tier: nonzero where the errors' sum lost something.
    lost: Slot,
}

impl Scratch {
    pub(super) fn new() -> Box<Scratch> {
        let zero = Slot::ZERO;
        Box::new(Scratch { slots: [zero; 2], flags: zero, low: zero, lost: zero })
    }

    pub(super) fn sums(&mut self) -> &mut Slot {
        &mut self.slots[0]
    }
}

/// Sums, and divides, the elements `start..start + len` of leaves: f64 values in `scratch.sums()`,
/// which need one more rounding to the result's dtype, to be trusted where `scratch.flags` is zero.
/// Returns whether some flag is not.
///
/// # Safety
/// The instruction set is available; each source has those elements; `len <= BLOCK`.
pub(super) type SumFn =
    unsafe fn(plan: Plan, sources: &[Source], start: usize, len: usize, scratch: &mut Scratch) -> bool;

pub(super) unsafe fn sum<I: Isa, E: Element>(
    plan: Plan,
    sources: &[Source],
    start: usize,
    len: usize,
    scratch: &mut Scratch,
) -> bool {
    assert!(len <= BLOCK);
    let Scratch { slots, flags, low, lost } = scratch;
    let flags = &mut flags.0[..len];
    let mut any = 0;
    // SAFETY: as the caller promises.
    unsafe {
        let spread_max = E::SPREAD_MAX - (sources.len().next_power_of_two().ilog2() as i16);
        if E::SPREAD_MAX == 0 || spread_max < 0 {
            // f64 leaves would fail the test nearly always; of too many leaves nobody passes it.
            flags.fill(1);
            any = 1;
        } else {
            let is_exact = fpenv::is_exact(|| first_sum(plan.pass, sources, start, len, slots));
            if E::NEEDS_SPREAD_TEST && !is_exact {
                any = judge::<I, E>(sources, start, spread_max, &mut slots[1], flags);
            } else {
                flags.fill(0);
            }
        }
        let [sums, high] = slots;
        let sums = &mut floats(sums)[..len];
        if any != 0 {
            let (high, low, lost) = (&mut floats(high)[..len], &mut floats(low)[..len], &mut lost.0[..len]);
            high.fill(-0.0);
            low.fill(-0.0);
            lost.fill(0);
            let mut rest = sources;
            while !rest.is_empty() {
                let (high, low, lost) = (&mut *high, &mut *low, &mut *lost);
                rest = match rest.len() {
                    4.. => add_pair::<I, E, 4>(rest, start, high, low, lost),
                    _ => add_pair::<I, E, 1>(rest, start, high, low, lost),
                };
            }
            let power_of_two = plan.divisor.is_power_of_two();
            any = 0;
            let any = &mut any;
            if plan.to_f64 {
                I::run(Merge::<true> { high, low, lost, sums, flags, power_of_two, any });
            } else {
                I::run(Merge::<false> { high, low, lost, sums, flags, power_of_two, any });
            }
        }
        divide::<I, f64>(sums, plan.divisor);
    }
    any != 0
}

fn floats(slot: &mut Slot) -> &mut [f64; BLOCK] {
    // SAFETY: the same size and alignment, and any bits are an f64.
    unsafe { &mut *(&raw mut slot.0).cast() }
}

/// The first tier's sum, in slot 0.
///
/// # Safety
/// As for [`SumFn`].
unsafe fn first_sum(pass: PassFn, sources: &[Source], start: usize, len: usize, slots: &mut [Slot; 2]) {
    // SAFETY: as the caller promises.
    unsafe {
        for (index, eight) in sources.chunks(8).enumerate() {
            let to = usize::from(index > 0);
            pass(Pass::Gather { first: 0, count: eight.len(), to }, eight, start, len, slots);
            if to == 1 {
                pass(Pass::CombineSlot { from: 1, to: 0 }, &[], start, len, slots);
            }
        }
    }
}

/// The sources' elements from `start` on; the last source stands in for those beyond it.
///
/// # Safety
/// As for [`SumFn`].
unsafe fn padded<E: Element, const COUNT: usize>(
    sources: &[Source],
    start: usize,
) -> [*const E::Bits; COUNT] {
    let source = |k: usize| sources[k.min(sources.len() - 1)].start.cast::<E::Bits>();
    // SAFETY: as the caller promises.
    std::array::from_fn(|k| unsafe { source(k).add(start) })
}

/// The greatest magnitude, and the least one but for zeros, less one: a zero becomes the greatest
/// of all, and so does not count.
#[inline(always)]
fn extremes<E: Element>(
    most: E::Magnitude,
    least: E::Magnitude,
    bits: E::Bits,
) -> (E::Magnitude, E::Magnitude) {
    let magnitude = E::magnitude(bits);
    (most.max(magnitude), least.min(E::less_one(magnitude)))
}

/// Flags the elements whose addends are spread over too many binades. Returns whether some are.
///
/// # Safety
/// As for [`SumFn`], where `flags` is as long as the block.
unsafe fn judge<I: Isa, E: Element>(
    sources: &[Source],
    start: usize,
    spread_max: i16,
    room: &mut Slot,
    flags: &mut [u64],
) -> u64 {
    const { assert!(2 * size_of::<E::Magnitude>() <= size_of::<u64>() || E::SPREAD_MAX == 0) };
    let (len, mut any) = (flags.len(), 0);
    // SAFETY: as the caller promises; the room is for two blocks of magnitudes of four bytes at
    // most, and any bits are a magnitude.
    unsafe {
        let room = room.0.as_mut_ptr().cast::<E::Magnitude>();
        let (most, least) = (from_raw_parts_mut(room, len), from_raw_parts_mut(room.add(BLOCK), len));
        most.fill(E::MAGNITUDES.0);
        least.fill(E::MAGNITUDES.1);
        for eight in sources.chunks(8) {
            I::run(Widen::<E> { from: padded::<E, 8>(eight, start), most, least });
        }
        I::run(Judge::<E> { most, least, flags, spread_max, any: &mut any });
    }
    any
}

/// Takes eight more addends into the extremes of each element.
struct Widen<'a, E: Element> {
    from: [*const E::Bits; 8],
    most: &'a mut [E::Magnitude],
    least: &'a mut [E::Magnitude],
}

impl<E: Element> Job for Widen<'_, E> {
    #[inline(always)]
    fn run(self) {
        for (i, (most, least)) in self.most.iter_mut().zip(self.least).enumerate() {
            for from in self.from {
                // SAFETY: every source has as many elements as the block.
                (*most, *least) = extremes::<E>(*most, *least, unsafe { from.add(i).read_unaligned() });
            }
        }
    }
}

struct Judge<'a, E: Element> {
    most: &'a [E::Magnitude],
    least: &'a [E::Magnitude],
    flags: &'a mut [u64],
    spread_max: i16,
    any: &'a mut u64,
}

impl<E: Element> Job for Judge<'_, E> {
    #[inline(always)]
    fn run(self) {
        for ((flag, most), least) in self.flags.iter_mut().zip(self.most).zip(self.least) {
            *flag = u64::from(E::is_spread(*most, *least, self.spread_max));
            *self.any |= *flag;
        }
    }
}

/// # Safety
/// As for [`SumFn`].
#[inline(always)]
unsafe fn add_pair<'s, I: Isa, E: Element, const COUNT: usize>(
    sources: &'s [Source],
    start: usize,
    high: &mut [f64],
    low: &mut [f64],
    lost: &mut [u64],
) -> &'s [Source] {
    // SAFETY: as the caller promises.
    unsafe {
        let from = std::array::from_fn(|k| sources[k].start.cast::<E::Bits>().add(start));
        I::run(AddPair::<E, COUNT> { from, high, low, lost });
    }
    &sources[COUNT..]
}

struct AddPair<'a, E: Element, const COUNT: usize> {
    from: [*const E::Bits; COUNT],
    high: &'a mut [f64],
    low: &'a mut [f64],
    lost: &'a mut [u64],
}

/// `a + b`, rounded and the rounding's error, whose sum is exact unless something overflowed.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}

impl<E: Element, const COUNT: usize> Job for AddPair<'_, E, COUNT> {
    #[inline(always)]
    fn run(self) {
        let len = self.high.len();
        let (low, lost) = (&mut self.low[..len], &mut self.lost[..len]);
        for i in 0..len {
            let (mut sum, mut errors, mut is_lost) = (self.high[i], low[i], lost[i]);
            for from in self.from {
                // SAFETY: every source has as many elements as the block.
                let leaf = E::to_f64(unsafe { from.add(i).read_unaligned() });
                let (next, error) = two_sum(sum, leaf);
                let (more, beyond) = two_sum(errors, error);
                (sum, errors) = (next, more);
                // Of an infinity or a NaN, `beyond` is a NaN.
                is_lost |= beyond.to_bits() << 1;
            }
            (self.high[i], low[i], lost[i]) = (sum, errors, is_lost);
        }
    }
}

/// Takes over the second tier's sums where the first tier's are not to be trusted: correctly
/// rounded if the result is f64, else rounded to odd.
struct Merge<'a, const TO_F64: bool> {
    high: &'a [f64],
    low: &'a [f64],
    lost: &'a [u64],
    sums: &'a mut [f64],
    flags: &'a mut [u64],
    power_of_two: bool,
    any: &'a mut u64,
}

impl<const TO_F64: bool> Job for Merge<'_, TO_F64> {
    #[inline(always)]
    fn run(self) {
        let len = self.sums.len();
        let (high, low, lost, flags) =
            (&self.high[..len], &self.low[..len], &self.lost[..len], &mut self.flags[..len]);
        let mut any = 0;
        for i in 0..len {
            let (sum, rest) = two_sum(high[i], low[i]);
            // Adding a zero could change a zero's sign.
            let sum = if low[i] == 0.0 { high[i] } else { sum };
            let is_inexact = rest != 0.0;
            let (value, doubtful) = if TO_F64 {
                // A division would round a second time; a power of two does so only far down.
                let far_down = sum.abs() < 1e-250;
                (sum, is_inexact && (!self.power_of_two || far_down))
            } else {
                let bits = sum.to_bits();
                let even = bits & 1 == 0;
                let toward_zero = (rest.to_bits() ^ bits) >> 63;
                let odd = if toward_zero == 1 { bits.wrapping_sub(1) } else { bits.wrapping_add(1) };
                (f64::from_bits(if is_inexact && even { odd } else { bits }), false)
            };
            let is_ours = flags[i] != 0;
            let flag = u64::from(is_ours & ((lost[i] != 0) | doubtful));
            self.sums[i] = if is_ours { value } else { self.sums[i] };
            flags[i] = flag;
            any |= flag;
        }
        *self.any |= any;
    }
}
