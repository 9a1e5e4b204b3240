//! x86-64's instruction sets. Not among the features: FMA, and AVX512-BF16, whose conversion
//! flushes subnormals.

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
}
