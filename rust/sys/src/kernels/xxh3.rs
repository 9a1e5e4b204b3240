//! XXH3-64 (seed 0) of long inputs, alone or in the same loop as a copy of them.
//!
//! The hash takes stripes of 64 bytes into eight accumulators. An instruction set says how a stripe
//! is held in its registers; the order of the stripes, the keys and the ending are here. Every byte
//! that is copied is the byte that was summed: each is loaded once, but for the last stripe, which
//! overlaps the one before.

use xxhash_rust::const_xxh3::const_custom_default_secret;

use super::isa::{Isa, Job};
use super::stream::Trail;

/// Up to this many bytes the hash has other, shorter forms, which are the crate's.
pub(super) const SHORT_BYTES_MAX: usize = 240;

const STRIPE_BYTES: usize = 64;

/// Between two scramblings.
const STRIPES_OF_A_ROUND: usize = 16;

const PRIMES_32: [u64; 3] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d];
const PRIMES_64: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];
const AVALANCHE: u64 = 0x1656_6791_9e37_79f9;

/// The accumulators, or a stripe, or its key, as plain numbers.
pub(super) type Words = [u64; 8];

const START: Words = [
    PRIMES_32[2],
    PRIMES_64[0],
    PRIMES_64[1],
    PRIMES_64[2],
    PRIMES_64[3],
    PRIMES_32[1],
    PRIMES_64[4],
    PRIMES_32[0],
];

/// What scrambling multiplies by.
pub(super) const SCRAMBLE: u64 = PRIMES_32[0];

/// The stripe's key that starts at byte `at` of the default secret.
const fn key_at(at: usize) -> Words {
    let secret = const_custom_default_secret(0);
    let mut words = [0; 8];
    let mut byte = 0;
    while byte < STRIPE_BYTES {
        words[byte / 8] |= (secret[at + byte] as u64) << (8 * (byte % 8));
        byte += 1;
    }
    words
}

/// The keys of a round's stripes.
const KEYS: [Words; STRIPES_OF_A_ROUND] = {
    let mut keys = [[0; 8]; STRIPES_OF_A_ROUND];
    let mut i = 0;
    while i < keys.len() {
        keys[i] = key_at(8 * i);
        i += 1;
    }
    keys
};
const SCRAMBLE_KEY: Words = key_at(128);
const LAST_KEY: Words = key_at(121);
const MERGE_KEY: Words = key_at(11);

/// Eight 64-bit words in an instruction set's registers.
pub(super) trait Stripe: Copy {
    /// # Safety
    /// The set is available; 64 bytes can be read at `from`.
    unsafe fn load(from: *const u8) -> Self;

    /// # Safety
    /// The set is available; 64 bytes can be written at `to`.
    unsafe fn store(self, to: *mut u8);

    /// The accumulators `self` after one more stripe: to each word the product of the halves of the
    /// keyed word is added, and its neighbour of the pair.
    ///
    /// # Safety
    /// The set is available.
    unsafe fn absorb(self, data: Self, key: Self) -> Self;

    /// # Safety
    /// The set is available.
    unsafe fn scramble(self, key: Self) -> Self;

    /// Stores past the caches, where the set can, at an address that is a multiple of 64.
    ///
    /// # Safety
    /// As for `store`.
    #[inline(always)]
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe { self.store(to) };
    }

    /// Lets all later stores wait for those of `stream`.
    ///
    /// # Safety
    /// The set is available.
    #[inline(always)]
    unsafe fn fence() {}

    /// Copies a stripe and gives it.
    ///
    /// # Safety
    /// As for `load` and `store`, at places that are disjoint or the same.
    #[inline(always)]
    unsafe fn copy(from: *const u8, to: *mut u8) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let data = Self::load(from);
            data.store(to);
            data
        }
    }
}

impl Stripe for Words {
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Words {
        // SAFETY: as the caller promises; any bytes are words.
        unsafe { from.cast::<Words>().read_unaligned() }.map(u64::from_le)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe { to.cast::<Words>().write_unaligned(self.map(u64::to_le)) };
    }

    #[inline(always)]
    unsafe fn absorb(mut self, data: Words, key: Words) -> Words {
        for i in 0..8 {
            let keyed = data[i] ^ key[i];
            let product = (keyed & 0xffff_ffff).wrapping_mul(keyed >> 32);
            self[i] = self[i].wrapping_add(product.wrapping_add(data[i ^ 1]));
        }
        self
    }

    #[inline(always)]
    unsafe fn scramble(self, key: Words) -> Words {
        std::array::from_fn(|i| (self[i] ^ (self[i] >> 47) ^ key[i]).wrapping_mul(SCRAMBLE))
    }

    /// Compilers turn the default into eight moves of a word each; this they do in registers.
    #[inline(always)]
    unsafe fn copy(from: *const u8, to: *mut u8) -> Words {
        // SAFETY: as the caller promises.
        unsafe {
            std::ptr::copy(from, to, STRIPE_BYTES);
            Self::load(to)
        }
    }
}

/// Only the sum is wanted.
pub(super) const SUM: u8 = 0;
/// The bytes are copied as well.
pub(super) const COPY: u8 = 1;
/// The bytes are copied past the caches.
pub(super) const STREAM: u8 = 2;

/// The XXH3-64 of `len` bytes at `src`, which are copied to `dst` unless only the `SUM` is wanted.
///
/// # Safety
/// The instruction set is available; `len > SHORT_BYTES_MAX`; `src` is readable for `len` bytes and,
/// if they are copied, `dst` writable and disjoint, or the same for `COPY`.
pub(super) unsafe fn sum<I: Isa, const WHAT: u8>(src: *const u8, dst: *mut u8, len: usize) -> u64 {
    let mut words = START;
    // SAFETY: as the caller promises.
    unsafe {
        I::run(Sum::<I::Stripe, WHAT> { src, dst, len, words: &mut words, of: std::marker::PhantomData })
    };
    let pairs = words.chunks_exact(2).zip(MERGE_KEY.chunks_exact(2));
    let merged = pairs.fold((len as u64).wrapping_mul(PRIMES_64[0]), |sum, (words, keys)| {
        let product = u128::from(words[0] ^ keys[0]) * u128::from(words[1] ^ keys[1]);
        sum.wrapping_add(product as u64 ^ (product >> 64) as u64)
    });
    let mixed = (merged ^ (merged >> 37)).wrapping_mul(AVALANCHE);
    mixed ^ (mixed >> 32)
}

struct Sum<'a, S, const WHAT: u8> {
    src: *const u8,
    dst: *mut u8,
    len: usize,
    words: &'a mut Words,
    of: std::marker::PhantomData<S>,
}

impl<S: Stripe, const WHAT: u8> Job for Sum<'_, S, WHAT> {
    #[inline(always)]
    fn run(self) {
        let Sum { src, dst, len, .. } = self;
        // SAFETY: a `Sum` runs where its set is available; every stripe lies inside the `len` bytes.
        unsafe {
            let take =
                |at| if WHAT == COPY { S::copy(src.add(at), dst.add(at)) } else { S::load(src.add(at)) };
            let mut trail = (WHAT == STREAM).then(|| Trail::new(src, dst, len));
            let key = |words: &Words| S::load(words.as_ptr().cast());
            let mut sums = S::load(self.words.as_ptr().cast());
            // The last stripe is the last 64 bytes, even if that is a whole stripe of its own.
            let stripes = (len - 1) / STRIPE_BYTES;
            let round_bytes = STRIPES_OF_A_ROUND * STRIPE_BYTES;
            let rounds = stripes / STRIPES_OF_A_ROUND;
            for round in 0..rounds {
                for (i, words) in KEYS.iter().enumerate() {
                    sums = sums.absorb(take(round * round_bytes + i * STRIPE_BYTES), key(words));
                }
                sums = sums.scramble(key(&SCRAMBLE_KEY));
                // What was just summed is still in the first-level cache.
                if let Some(trail) = &mut trail {
                    trail.follow::<S>((round + 1) * round_bytes);
                }
            }
            for (i, words) in KEYS[..stripes % STRIPES_OF_A_ROUND].iter().enumerate() {
                sums = sums.absorb(take(rounds * round_bytes + i * STRIPE_BYTES), key(words));
            }
            sums = sums.absorb(take(len - STRIPE_BYTES), key(&LAST_KEY));
            sums.store(self.words.as_mut_ptr().cast());
            if let Some(trail) = trail {
                trail.finish::<S>();
            }
        }
    }
}
