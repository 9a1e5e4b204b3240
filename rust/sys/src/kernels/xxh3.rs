//! XXH3-64 (seed 0) of long inputs, alone or in the same loop as a copy of them.
//!
//! The hash takes stripes of 64 bytes into eight accumulators. An instruction set says how a stripe
//! is held in its registers; the keys, the rounds and the ending are here, and in `stripes.rs` where stripes
//! come from and how they are taken in. Every byte
//! that is copied or reduced is the byte that was summed: each is loaded once, but for the last stripe,
//! which overlaps the one before.

use xxhash_rust::const_xxh3::const_custom_default_secret;

use super::element::{Element, F32, F64};
use super::isa::{Isa, Job};
use super::pair::{mean_of_two, reduce_two_bf16};
use super::stream::Trail;
use super::stripes::{Copied, Lying, Stripes, absorb};

/// Up to this many bytes the hash has other, shorter forms, which are the crate's.
pub(super) const SHORT_BYTES_MAX: usize = 240;

pub(super) const STRIPE_BYTES: usize = 64;

/// Between two scramblings.
pub(super) const STRIPES_OF_A_ROUND: usize = 16;

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
    /// Whether its registers are enough to load stripes ahead of those that are stored.
    const LOADS_AHEAD: bool;

    /// # Safety
    /// The set is available; 64 bytes can be read at `from`.
    unsafe fn load(from: *const u8) -> Self;

    /// # Safety
    /// The set is available; 64 bytes can be written at `to`.
    unsafe fn store(self, to: *mut u8);

    /// Of each keyed word of the stripe the product of its halves.
    ///
    /// # Safety
    /// The set is available.
    unsafe fn products(self, key: Self) -> Self;

    /// # Safety
    /// The set is available.
    unsafe fn add(self, other: Self) -> Self;

    /// The two words of each pair in each other's place.
    ///
    /// # Safety
    /// The set is available.
    unsafe fn swap(self) -> Self;

    /// The sums of sixteen f32 each, as the law has them; with a NaN as it comes if `is_plain`.
    ///
    /// # Safety
    /// The set is available.
    unsafe fn add_f32(self, other: Self, is_plain: bool) -> Self;

    /// Half of the sums of sixteen f32 each, as [`mean_of_two`] has them, with the canonical NaN.
    ///
    /// # Safety
    /// The set is available.
    unsafe fn mean_f32(self, other: Self) -> Self;

    /// The sums of thirty-two bf16 each in f32, or half of them, rounded to bf16 as the law has it.
    ///
    /// # Safety
    /// The set is available.
    unsafe fn reduce_bf16<const MEAN: bool>(self, other: Self) -> Self;

    /// The sums of eight f64 each; with a NaN as it comes if `is_plain`, else the canonical one.
    ///
    /// # Safety
    /// The set is available.
    unsafe fn add_f64(self, other: Self, is_plain: bool) -> Self;

    /// Sixteen f32 as f64.
    ///
    /// # Safety
    /// The set is available.
    unsafe fn widen_f32(self) -> [Self; 2];

    /// Thirty-two bf16 as f32.
    ///
    /// # Safety
    /// The set is available.
    unsafe fn widen_bf16(self) -> [Self; 2];

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
    const LOADS_AHEAD: bool = false;

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
    unsafe fn products(self, key: Words) -> Words {
        std::array::from_fn(|i| {
            let keyed = self[i] ^ key[i];
            (keyed & 0xffff_ffff).wrapping_mul(keyed >> 32)
        })
    }

    #[inline(always)]
    unsafe fn add(self, other: Words) -> Words {
        std::array::from_fn(|i| self[i].wrapping_add(other[i]))
    }

    #[inline(always)]
    unsafe fn swap(self) -> Words {
        std::array::from_fn(|i| self[i ^ 1])
    }

    #[inline(always)]
    unsafe fn add_f32(self, other: Words, is_plain: bool) -> Words {
        by_halves(self, other, |left, right| {
            let sum = left + right;
            if is_plain { sum.to_bits() } else { F32::of_f32(sum) }
        })
    }

    #[inline(always)]
    unsafe fn mean_f32(self, other: Words) -> Words {
        by_halves(self, other, |left, right| F32::of_f32(mean_of_two(left, right)))
    }

    #[inline(always)]
    unsafe fn reduce_bf16<const MEAN: bool>(self, other: Words) -> Words {
        let of = |left: u64, right: u64, shift| {
            let reduced = reduce_two_bf16::<MEAN>((left >> shift) as u16, (right >> shift) as u16);
            u64::from(reduced) << shift
        };
        std::array::from_fn(|i| {
            [0, 16, 32, 48].into_iter().fold(0, |word, shift| word | of(self[i], other[i], shift))
        })
    }

    #[inline(always)]
    unsafe fn add_f64(self, other: Words, is_plain: bool) -> Words {
        std::array::from_fn(|i| {
            let sum = f64::from_bits(self[i]) + f64::from_bits(other[i]);
            if is_plain { sum.to_bits() } else { F64::of_f64(sum) }
        })
    }

    #[inline(always)]
    unsafe fn widen_f32(self) -> [Words; 2] {
        let element = |i: usize| f32::from_bits((self[i / 2] >> (32 * (i % 2))) as u32);
        [0, 8].map(|first| std::array::from_fn(|i| f64::from(element(first + i)).to_bits()))
    }

    #[inline(always)]
    unsafe fn widen_bf16(self) -> [Words; 2] {
        let element = |i: usize| u64::from((self[i / 4] >> (16 * (i % 4))) as u16) << 16;
        [0, 16]
            .map(|first| std::array::from_fn(|i| element(first + 2 * i) | element(first + 2 * i + 1) << 32))
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

/// What becomes of the two f32 in each word.
#[inline(always)]
fn by_halves(left: Words, right: Words, of: impl Fn(f32, f32) -> u32) -> Words {
    let of = |left, right| u64::from(of(f32::from_bits(left as u32), f32::from_bits(right as u32)));
    std::array::from_fn(|i| of(left[i], right[i]) | of(left[i] >> 32, right[i] >> 32) << 32)
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
    let mut hash = Hash::new(len);
    // SAFETY: as the caller promises.
    unsafe { I::run(Sum::<I::Stripe, WHAT> { src, dst, hash: &mut hash, of: std::marker::PhantomData }) };
    hash.value()
}

/// A hash on its way.
pub(super) struct Hash {
    words: Words,
    len: usize,
    /// How many rounds are behind it.
    rounds: usize,
}

/// Bytes between two scramblings.
const ROUND_BYTES: usize = STRIPES_OF_A_ROUND * STRIPE_BYTES;

impl Hash {
    /// Of so many bytes.
    pub(super) fn new(len: usize) -> Hash {
        debug_assert!(len > SHORT_BYTES_MAX);
        Hash { words: START, len, rounds: 0 }
    }

    /// The whole stripes but the last one, which is the last 64 bytes even if that is a whole stripe of its own.
    fn stripes(&self) -> usize {
        (self.len - 1) / STRIPE_BYTES
    }

    /// Takes in the whole rounds before `end`. `after` is told how far it is after each round.
    ///
    /// # Safety
    /// The instruction set of `S` is available.
    #[inline(always)]
    pub(super) unsafe fn follow<S: Stripe>(
        &mut self,
        end: usize,
        stripes: impl Stripes<S>,
        mut after: impl FnMut(usize),
    ) {
        let end = (end / ROUND_BYTES).min(self.stripes() / STRIPES_OF_A_ROUND);
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums: S = of(&self.words);
            for round in self.rounds..end {
                let at = round * ROUND_BYTES;
                sums = absorb(sums, &KEYS, stripes, at);
                sums = sums.scramble(of(&SCRAMBLE_KEY));
                after(at + ROUND_BYTES);
            }
            sums.store(self.words.as_mut_ptr().cast());
        }
        self.rounds = end.max(self.rounds);
    }

    /// Takes in the rest: the whole stripes, and the last one, which lies at `last`. Gives where the whole stripes end.
    ///
    /// # Safety
    /// The instruction set of `S` is available; 64 bytes can be read at `last`.
    #[inline(always)]
    pub(super) unsafe fn finish<S: Stripe>(&mut self, stripes: impl Stripes<S>, last: *const u8) -> usize {
        let count = self.stripes();
        // SAFETY: as the caller promises.
        unsafe {
            self.follow(self.len, stripes, |_| ());
            let at = self.rounds * ROUND_BYTES;
            let mut sums: S = of(&self.words);
            sums = absorb(sums, &KEYS[..count % STRIPES_OF_A_ROUND], stripes, at);
            sums = absorb(sums, &[LAST_KEY], Lying(last), 0);
            sums.store(self.words.as_mut_ptr().cast());
        }
        count * STRIPE_BYTES
    }

    /// The hash, when all is in.
    pub(super) fn value(&self) -> u64 {
        let pairs = self.words.chunks_exact(2).zip(MERGE_KEY.chunks_exact(2));
        let merged = pairs.fold((self.len as u64).wrapping_mul(PRIMES_64[0]), |sum, (words, keys)| {
            let product = u128::from(words[0] ^ keys[0]) * u128::from(words[1] ^ keys[1]);
            sum.wrapping_add(product as u64 ^ (product >> 64) as u64)
        });
        let mixed = (merged ^ (merged >> 37)).wrapping_mul(AVALANCHE);
        mixed ^ (mixed >> 32)
    }
}

/// # Safety
/// The instruction set of `S` is available.
#[inline(always)]
pub(super) unsafe fn of<S: Stripe>(words: &Words) -> S {
    // SAFETY: as the caller promises; words have 64 bytes.
    unsafe { S::load(words.as_ptr().cast()) }
}

struct Sum<'a, S, const WHAT: u8> {
    src: *const u8,
    dst: *mut u8,
    hash: &'a mut Hash,
    of: std::marker::PhantomData<S>,
}

impl<S: Stripe, const WHAT: u8> Job for Sum<'_, S, WHAT> {
    #[inline(always)]
    fn run(self) {
        let Sum { src, dst, hash, .. } = self;
        let len = hash.len;
        // SAFETY: a `Sum` runs where its set is available; every stripe lies inside the `len` bytes.
        unsafe {
            let last = src.add(len - STRIPE_BYTES);
            match WHAT {
                COPY => {
                    hash.finish::<S>(Copied { src, dst }, last);
                    S::copy(last, dst.add(len - STRIPE_BYTES));
                }
                STREAM => {
                    // What was just summed is still in the first-level cache.
                    let mut trail = Trail::new(src, dst, len);
                    hash.follow::<S>(len, Lying(src), |end| trail.follow::<S>(end));
                    hash.finish::<S>(Lying(src), last);
                    trail.finish::<S>();
                    S::fence();
                }
                _ => {
                    hash.finish::<S>(Lying(src), last);
                }
            }
        }
    }
}

/// Takes the whole rounds before `end` into the hash of what is at `src`.
///
/// # Safety
/// The instruction set is available; `src` is readable for as many bytes as the hash is of.
pub(super) unsafe fn follow<I: Isa>(hash: &mut Hash, src: *const u8, end: usize) {
    // SAFETY: as the caller promises.
    unsafe { I::run(Follow::<I::Stripe> { hash, src, end, of: std::marker::PhantomData }) };
}

struct Follow<'a, S> {
    hash: &'a mut Hash,
    src: *const u8,
    end: usize,
    of: std::marker::PhantomData<S>,
}

impl<S: Stripe> Job for Follow<'_, S> {
    #[inline(always)]
    fn run(self) {
        let Follow { hash, src, end, .. } = self;
        // SAFETY: a `Follow` runs where its set is available; every stripe lies inside the bytes.
        unsafe {
            if end < hash.len {
                hash.follow::<S>(end, Lying(src), |_| ());
            } else {
                hash.finish::<S>(Lying(src), src.add(hash.len - STRIPE_BYTES));
            }
        }
    }
}
