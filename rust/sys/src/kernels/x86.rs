//! x86-64's instruction sets. Not among the features: FMA, and AVX512-BF16, whose conversion
//! flushes subnormals.

use std::arch::x86_64::{
    _mm_loadu_si128, _mm256_cvtph_ps, _mm256_loadu_si256, _mm256_storeu_ps, _mm512_cvtph_ps, _mm512_storeu_ps,
};

use super::isa::{Isa, Job};

/// AVX2 with F16C.
pub(super) struct Avx2;

impl Isa for Avx2 {
    const NAME: &'static str = "avx2";

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
