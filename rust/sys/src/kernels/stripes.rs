//! Where a hash gets its stripes from, and what becomes of them on the way.
//!
//! A processor that loads what it may have just stored waits until it knows, and at first it compares no more of the
//! two addresses than their last twelve bits. Memory that is written at 64 bytes beyond what is read, but for multiples
//! of 4096, as two tensors of some allocators lie, makes each load wait for the store of the stripe before: up to more
//! than twice the time, in some processes and not in others. So stripes are loaded ahead of those that are stored, where
//! the registers are enough; where they are not, it was not seen to wait.

use super::xxh3::{STRIPE_BYTES, STRIPES_OF_A_ROUND, Stripe, Words, of};

/// A source of stripes. No closure, because compilers inline one of some length only once, and what is not inlined is
/// compiled without the instruction set.
pub(super) trait Stripes<S: Stripe>: Copy {
    /// What is loaded for a stripe.
    type Loaded: Copy;

    /// Whether anything is stored, for which the loads of others might wait.
    const STORES: bool = true;

    /// Loads for the stripe at a place; once for each, in order.
    ///
    /// # Safety
    /// The set is available; the place is inside.
    unsafe fn load(self, at: usize) -> Self::Loaded;

    /// Stores what becomes of the stripe, which it gives.
    ///
    /// # Safety
    /// As for `load`.
    unsafe fn store(self, at: usize, loaded: Self::Loaded) -> S;

    /// Both.
    ///
    /// # Safety
    /// As for `load`.
    #[inline(always)]
    unsafe fn take(self, at: usize) -> S {
        // SAFETY: as the caller promises.
        unsafe { self.store(at, self.load(at)) }
    }
}

/// Stripes that lie somewhere.
#[derive(Clone, Copy)]
pub(super) struct Lying(pub(super) *const u8);

impl<S: Stripe> Stripes<S> for Lying {
    type Loaded = S;

    const STORES: bool = false;

    #[inline(always)]
    unsafe fn load(self, at: usize) -> S {
        // SAFETY: as the caller promises.
        unsafe { S::load(self.0.add(at)) }
    }

    #[inline(always)]
    unsafe fn store(self, _: usize, loaded: S) -> S {
        loaded
    }
}

/// The same, which are copied on the way.
#[derive(Clone, Copy)]
pub(super) struct Copied {
    pub(super) src: *const u8,
    pub(super) dst: *mut u8,
}

impl<S: Stripe> Stripes<S> for Copied {
    type Loaded = S;

    #[inline(always)]
    unsafe fn load(self, at: usize) -> S {
        // SAFETY: as the caller promises.
        unsafe { S::load(self.src.add(at)) }
    }

    #[inline(always)]
    unsafe fn store(self, at: usize, loaded: S) -> S {
        // SAFETY: as the caller promises.
        unsafe { loaded.store(self.dst.add(at)) };
        loaded
    }

    #[inline(always)]
    unsafe fn take(self, at: usize) -> S {
        // SAFETY: as the caller promises.
        unsafe { S::copy(self.src.add(at), self.dst.add(at)) }
    }
}

/// The accumulators after one more stripe for each key, from a place on: to each word the products are added, and its
/// neighbour of the pair. The neighbours are added up first and swapped once, which takes fewer instructions.
///
/// # Safety
/// The instruction set of `S` is available; the stripes are inside.
#[inline(always)]
pub(super) unsafe fn absorb<S: Stripe, T: Stripes<S>>(sums: S, keys: &[Words], stripes: T, at: usize) -> S {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums = [sums, of(&[0; 8])];
        if S::LOADS_AHEAD && T::STORES && keys.len() == STRIPES_OF_A_ROUND {
            let mut next = load_group(stripes, at);
            for first in (0..STRIPES_OF_A_ROUND).step_by(GROUP) {
                let loaded = next;
                if first + GROUP < STRIPES_OF_A_ROUND {
                    next = load_group(stripes, at + (first + GROUP) * STRIPE_BYTES);
                }
                for (i, loaded) in loaded.into_iter().enumerate() {
                    let data = stripes.store(at + (first + i) * STRIPE_BYTES, loaded);
                    sums = absorb_one(sums, data, &keys[first + i]);
                }
            }
        } else {
            for (i, key) in keys.iter().enumerate() {
                sums = absorb_one(sums, stripes.take(at + i * STRIPE_BYTES), key);
            }
        }
        let [sums, neighbours] = sums;
        sums.add(neighbours.swap())
    }
}

/// # Safety
/// The instruction set of `S` is available.
#[inline(always)]
unsafe fn absorb_one<S: Stripe>([sums, neighbours]: [S; 2], data: S, key: &Words) -> [S; 2] {
    // SAFETY: as the caller promises.
    unsafe { [sums.add(data.products(of(key))), neighbours.add(data)] }
}

/// Lets the stripes in `start..end`, whole ones, become what they become, without a hash of them.
///
/// # Safety
/// The instruction set of `S` is available; the stripes are inside.
#[inline(always)]
pub(super) unsafe fn pass<S: Stripe>(stripes: impl Stripes<S>, start: usize, end: usize) {
    let mut at = start;
    // SAFETY: as the caller promises.
    unsafe {
        if S::LOADS_AHEAD && at + GROUP_BYTES <= end {
            let mut loaded = load_group(stripes, at);
            while at + 2 * GROUP_BYTES <= end {
                let next = load_group(stripes, at + GROUP_BYTES);
                store_group(stripes, at, loaded);
                (at, loaded) = (at + GROUP_BYTES, next);
            }
            store_group(stripes, at, loaded);
            at += GROUP_BYTES;
        }
        for at in (at..end).step_by(STRIPE_BYTES) {
            stripes.take(at);
        }
    }
}

/// So many stripes are loaded together, before what becomes of the group before is stored.
const GROUP: usize = 4;

const GROUP_BYTES: usize = GROUP * STRIPE_BYTES;

/// # Safety
/// The instruction set of `S` is available; the stripes are inside.
#[inline(always)]
unsafe fn load_group<S: Stripe, T: Stripes<S>>(stripes: T, at: usize) -> [T::Loaded; GROUP] {
    // SAFETY: as the caller promises.
    unsafe {
        [
            stripes.load(at),
            stripes.load(at + STRIPE_BYTES),
            stripes.load(at + 2 * STRIPE_BYTES),
            stripes.load(at + 3 * STRIPE_BYTES),
        ]
    }
}

/// # Safety
/// As for `load_group`.
#[inline(always)]
unsafe fn store_group<S: Stripe, T: Stripes<S>>(stripes: T, at: usize, loaded: [T::Loaded; GROUP]) {
    for (i, loaded) in loaded.into_iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe { stripes.store(at + i * STRIPE_BYTES, loaded) };
    }
}
