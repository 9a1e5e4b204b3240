//! x86-64's instruction sets. Not among the features: FMA, and AVX512-BF16, whose conversion
//! flushes subnormals.

use std::arch::x86_64::*;

use super::element::{F32_NAN, F64_NAN};
use super::isa::{Isa, Job};
use super::xxh3::{SCRAMBLE, Stripe};

/// AVX2 with F16C.
pub(super) struct Avx2;

impl Isa for Avx2 {
    const NAME: &'static str = "avx2";

    type Stripe = Stripe256;
    type Plain = Avx2;

    fn is_available() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
    }

    unsafe fn run<J: Job>(job: J) {
        #[target_feature(enable = "avx2,f16c")]
        fn inner<J: Job>(job: J) {
            job.run();
        }
        // SAFETY: the caller knows that the processor has the set.
        unsafe { inner(job) }
    }

    #[inline(always)]
    fn prefetch(address: *const u8) {
        // SAFETY: every x86-64 processor has the instruction, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }

    unsafe fn widen_f16(from: *const u16, to: *mut f32, len: usize) -> usize {
        const LANES: usize = 8;

        /// # Safety
        /// Both pointers are good for `len` elements.
        #[target_feature(enable = "avx2,f16c")]
        unsafe fn inner(from: *const u16, to: *mut f32, len: usize) -> usize {
            let whole = len - len % LANES;
            for i in (0..whole).step_by(LANES) {
                // SAFETY: `LANES` elements from `i` on are inside both.
                unsafe { _mm256_storeu_ps(to.add(i), _mm256_cvtph_ps(_mm_loadu_si128(from.add(i).cast()))) };
            }
            whole
        }
        // SAFETY: the caller knows that the processor has the set, and the pointers' extent.
        unsafe { inner(from, to, len) }
    }
}

/// AVX-512 F, BW, DQ and VL.
pub(super) struct Avx512;

impl Isa for Avx512 {
    const NAME: &'static str = "avx512";

    type Stripe = __m512i;
    type Plain = Avx2;

    fn is_available() -> bool {
        Avx2::is_available()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    }

    unsafe fn run<J: Job>(job: J) {
        #[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        fn inner<J: Job>(job: J) {
            job.run();
        }
        // SAFETY: the caller knows that the processor has the set.
        unsafe { inner(job) }
    }

    #[inline(always)]
    fn prefetch(address: *const u8) {
        // SAFETY: every x86-64 processor has the instruction, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }

    unsafe fn widen_f16(from: *const u16, to: *mut f32, len: usize) -> usize {
        const LANES: usize = 16;

        /// # Safety
        /// Both pointers are good for `len` elements.
        #[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn inner(from: *const u16, to: *mut f32, len: usize) -> usize {
            let whole = len - len % LANES;
            for i in (0..whole).step_by(LANES) {
                // SAFETY: `LANES` elements from `i` on are inside both.
                unsafe {
                    _mm512_storeu_ps(to.add(i), _mm512_cvtph_ps(_mm256_loadu_si256(from.add(i).cast())))
                };
            }
            whole
        }
        // SAFETY: the caller knows that the processor has the set, and the pointers' extent.
        unsafe { inner(from, to, len) }
    }
}

impl Stripe for __m512i {
    const LOADS_AHEAD: bool = true;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: as the caller promises.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: as the caller promises; the fence comes with `fence`.
        unsafe { _mm512_stream_si512(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn fence() {
        // SAFETY: every x86-64 processor has it.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn products(self, key: Self) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let keyed = _mm512_xor_si512(self, key);
            _mm512_mul_epu32(keyed, _mm512_srli_epi64::<32>(keyed))
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as the caller promises.
        unsafe { _mm512_add_epi64(self, other) }
    }

    #[inline(always)]
    unsafe fn swap(self) -> Self {
        // SAFETY: as the caller promises.
        unsafe { _mm512_shuffle_epi32::<_MM_PERM_BADC>(self) }
    }

    #[inline(always)]
    unsafe fn add_f32(self, other: Self, is_plain: bool) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let sum = _mm512_add_ps(_mm512_castsi512_ps(self), _mm512_castsi512_ps(other));
            if is_plain { _mm512_castps_si512(sum) } else { canonical_512(sum) }
        }
    }

    #[inline(always)]
    unsafe fn mean_f32(self, other: Self) -> Self {
        const INFINITIES: i32 = 0x18;
        // SAFETY: as the caller promises.
        unsafe {
            let (left, right) = (_mm512_castsi512_ps(self), _mm512_castsi512_ps(other));
            let half = _mm512_set1_ps(0.5);
            let sum = _mm512_add_ps(left, right);
            let of_halves = _mm512_add_ps(_mm512_mul_ps(left, half), _mm512_mul_ps(right, half));
            let is_infinite = _mm512_fpclass_ps_mask::<INFINITIES>(sum);
            canonical_512(_mm512_mask_mov_ps(_mm512_mul_ps(sum, half), is_infinite, of_halves))
        }
    }

    #[inline(always)]
    unsafe fn reduce_bf16<const MEAN: bool>(self, other: Self) -> Self {
        /// Of bf16 in the upper halves; the lower ones of what is given mean nothing.
        #[inline(always)]
        unsafe fn upper<const MEAN: bool>(left: __m512i, right: __m512i) -> __m512i {
            // SAFETY: as the caller promises.
            unsafe {
                let sum = _mm512_add_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right));
                let value = if MEAN { _mm512_mul_ps(sum, _mm512_set1_ps(0.5)) } else { sum };
                let bits = _mm512_castps_si512(value);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
                let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
                let nan = _mm512_set1_epi32(F32_NAN as i32);
                _mm512_mask_mov_epi32(_mm512_add_epi32(bits, half), is_nan, nan)
            }
        }
        // SAFETY: as the caller promises.
        unsafe {
            let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let high = upper::<MEAN>(_mm512_and_si512(self, mask), _mm512_and_si512(other, mask));
            let low = upper::<MEAN>(_mm512_slli_epi32::<16>(self), _mm512_slli_epi32::<16>(other));
            _mm512_or_si512(_mm512_and_si512(high, mask), _mm512_srli_epi32::<16>(low))
        }
    }

    #[inline(always)]
    unsafe fn add_f64(self, other: Self, is_plain: bool) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let sum = _mm512_add_pd(_mm512_castsi512_pd(self), _mm512_castsi512_pd(other));
            let is_nan = if is_plain { 0 } else { _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(sum, sum) };
            _mm512_mask_mov_epi64(_mm512_castpd_si512(sum), is_nan, _mm512_set1_epi64(F64_NAN as i64))
        }
    }

    #[inline(always)]
    unsafe fn widen_f32(self) -> [Self; 2] {
        // SAFETY: as the caller promises.
        unsafe {
            let values = _mm512_castsi512_ps(self);
            let halves = [_mm512_castps512_ps256(values), _mm512_extractf32x8_ps::<1>(values)];
            halves.map(|half| _mm512_castpd_si512(_mm512_cvtps_pd(half)))
        }
    }

    #[inline(always)]
    unsafe fn widen_bf16(self) -> [Self; 2] {
        // SAFETY: as the caller promises.
        unsafe {
            let halves = [_mm512_castsi512_si256(self), _mm512_extracti64x4_epi64::<1>(self)];
            halves.map(|half| _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        }
    }

    #[inline(always)]
    unsafe fn scramble(self, key: Self) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let mixed = _mm512_xor_si512(_mm512_xor_si512(self, _mm512_srli_epi64::<47>(self)), key);
            _mm512_mullo_epi64(mixed, _mm512_set1_epi64(SCRAMBLE as i64))
        }
    }
}

/// # Safety
/// The set is available.
#[inline(always)]
unsafe fn canonical_512(values: __m512) -> __m512i {
    // SAFETY: as the caller promises.
    unsafe {
        let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
        _mm512_mask_mov_epi32(_mm512_castps_si512(values), is_nan, _mm512_set1_epi32(F32_NAN as i32))
    }
}

/// A stripe in two registers.
#[derive(Clone, Copy)]
pub(super) struct Stripe256(__m256i, __m256i);

impl Stripe for Stripe256 {
    const LOADS_AHEAD: bool = false;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Stripe256(_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe {
            _mm256_storeu_si256(to.cast(), self.0);
            _mm256_storeu_si256(to.add(32).cast(), self.1);
        }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: as the caller promises; the fence comes with `fence`.
        unsafe {
            _mm256_stream_si256(to.cast(), self.0);
            _mm256_stream_si256(to.add(32).cast(), self.1);
        }
    }

    #[inline(always)]
    unsafe fn fence() {
        // SAFETY: every x86-64 processor has it.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn products(self, key: Self) -> Self {
        #[inline(always)]
        unsafe fn half(data: __m256i, key: __m256i) -> __m256i {
            // SAFETY: as the caller promises.
            unsafe {
                let keyed = _mm256_xor_si256(data, key);
                _mm256_mul_epu32(keyed, _mm256_srli_epi64::<32>(keyed))
            }
        }
        // SAFETY: as the caller promises.
        unsafe { Stripe256(half(self.0, key.0), half(self.1, key.1)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Stripe256(_mm256_add_epi64(self.0, other.0), _mm256_add_epi64(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn swap(self) -> Self {
        const PAIRS: i32 = 0b01_00_11_10;
        // SAFETY: as the caller promises.
        unsafe { Stripe256(_mm256_shuffle_epi32::<PAIRS>(self.0), _mm256_shuffle_epi32::<PAIRS>(self.1)) }
    }

    #[inline(always)]
    unsafe fn add_f32(self, other: Self, is_plain: bool) -> Self {
        #[inline(always)]
        unsafe fn half(left: __m256i, right: __m256i, is_plain: bool) -> __m256i {
            // SAFETY: as the caller promises.
            unsafe {
                let sum = _mm256_add_ps(_mm256_castsi256_ps(left), _mm256_castsi256_ps(right));
                if is_plain { _mm256_castps_si256(sum) } else { canonical_256(sum) }
            }
        }
        // SAFETY: as the caller promises.
        unsafe { Stripe256(half(self.0, other.0, is_plain), half(self.1, other.1, is_plain)) }
    }

    #[inline(always)]
    unsafe fn mean_f32(self, other: Self) -> Self {
        #[inline(always)]
        unsafe fn half(left: __m256i, right: __m256i) -> __m256i {
            // SAFETY: as the caller promises.
            unsafe {
                let (left, right) = (_mm256_castsi256_ps(left), _mm256_castsi256_ps(right));
                let half = _mm256_set1_ps(0.5);
                let sum = _mm256_add_ps(left, right);
                let of_halves = _mm256_add_ps(_mm256_mul_ps(left, half), _mm256_mul_ps(right, half));
                let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), sum);
                let is_infinite = _mm256_cmp_ps::<_CMP_EQ_OQ>(magnitude, _mm256_set1_ps(f32::INFINITY));
                canonical_256(_mm256_blendv_ps(_mm256_mul_ps(sum, half), of_halves, is_infinite))
            }
        }
        // SAFETY: as the caller promises.
        unsafe { Stripe256(half(self.0, other.0), half(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn reduce_bf16<const MEAN: bool>(self, other: Self) -> Self {
        /// Of bf16 in the upper halves; the lower ones of what is given mean nothing.
        #[inline(always)]
        unsafe fn upper<const MEAN: bool>(left: __m256i, right: __m256i) -> __m256i {
            // SAFETY: as the caller promises.
            unsafe {
                let sum = _mm256_add_ps(_mm256_castsi256_ps(left), _mm256_castsi256_ps(right));
                let value = if MEAN { _mm256_mul_ps(sum, _mm256_set1_ps(0.5)) } else { sum };
                let bits = _mm256_castps_si256(value);
                let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
                let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
                let rounded = _mm256_castsi256_ps(_mm256_add_epi32(bits, half));
                let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value);
                let nan = _mm256_castsi256_ps(_mm256_set1_epi32(F32_NAN as i32));
                _mm256_castps_si256(_mm256_blendv_ps(rounded, nan, is_nan))
            }
        }
        #[inline(always)]
        unsafe fn half<const MEAN: bool>(left: __m256i, right: __m256i) -> __m256i {
            // SAFETY: as the caller promises.
            unsafe {
                let mask = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                let high = upper::<MEAN>(_mm256_and_si256(left, mask), _mm256_and_si256(right, mask));
                let low = upper::<MEAN>(_mm256_slli_epi32::<16>(left), _mm256_slli_epi32::<16>(right));
                _mm256_blend_epi16::<0b1010_1010>(_mm256_srli_epi32::<16>(low), high)
            }
        }
        // SAFETY: as the caller promises.
        unsafe { Stripe256(half::<MEAN>(self.0, other.0), half::<MEAN>(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn add_f64(self, other: Self, is_plain: bool) -> Self {
        #[inline(always)]
        unsafe fn half(left: __m256i, right: __m256i, is_plain: bool) -> __m256i {
            // SAFETY: as the caller promises.
            unsafe {
                let sum = _mm256_add_pd(_mm256_castsi256_pd(left), _mm256_castsi256_pd(right));
                let nan = _mm256_castsi256_pd(_mm256_set1_epi64x(F64_NAN as i64));
                let is_nan =
                    if is_plain { _mm256_setzero_pd() } else { _mm256_cmp_pd::<_CMP_UNORD_Q>(sum, sum) };
                _mm256_castpd_si256(_mm256_blendv_pd(sum, nan, is_nan))
            }
        }
        // SAFETY: as the caller promises.
        unsafe { Stripe256(half(self.0, other.0, is_plain), half(self.1, other.1, is_plain)) }
    }

    #[inline(always)]
    unsafe fn widen_f32(self) -> [Self; 2] {
        #[inline(always)]
        unsafe fn half(values: __m256i) -> Stripe256 {
            // SAFETY: as the caller promises.
            unsafe {
                let values = _mm256_castsi256_ps(values);
                let [low, high] = [_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values)]
                    .map(|four| _mm256_castpd_si256(_mm256_cvtps_pd(four)));
                Stripe256(low, high)
            }
        }
        // SAFETY: as the caller promises.
        unsafe { [half(self.0), half(self.1)] }
    }

    #[inline(always)]
    unsafe fn widen_bf16(self) -> [Self; 2] {
        #[inline(always)]
        unsafe fn half(values: __m256i) -> Stripe256 {
            // SAFETY: as the caller promises.
            unsafe {
                let [low, high] = [_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values)]
                    .map(|eight| _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(eight)));
                Stripe256(low, high)
            }
        }
        // SAFETY: as the caller promises.
        unsafe { [half(self.0), half(self.1)] }
    }

    #[inline(always)]
    unsafe fn scramble(self, key: Self) -> Self {
        #[inline(always)]
        unsafe fn half(sums: __m256i, key: __m256i) -> __m256i {
            // SAFETY: as the caller promises.
            unsafe {
                let mixed = _mm256_xor_si256(_mm256_xor_si256(sums, _mm256_srli_epi64::<47>(sums)), key);
                // The factor has 32 bits, so that two products of halves make the product.
                let factor = _mm256_set1_epi64x(SCRAMBLE as i64);
                let high = _mm256_mul_epu32(_mm256_srli_epi64::<32>(mixed), factor);
                _mm256_add_epi64(_mm256_mul_epu32(mixed, factor), _mm256_slli_epi64::<32>(high))
            }
        }
        // SAFETY: as the caller promises.
        unsafe { Stripe256(half(self.0, key.0), half(self.1, key.1)) }
    }
}

/// # Safety
/// The set is available.
#[inline(always)]
unsafe fn canonical_256(values: __m256) -> __m256i {
    // SAFETY: as the caller promises.
    unsafe {
        let nan = _mm256_castsi256_ps(_mm256_set1_epi32(F32_NAN as i32));
        let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
        _mm256_castps_si256(_mm256_blendv_ps(values, nan, is_nan))
    }
}
