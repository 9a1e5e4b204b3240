//! Instruction sets: the same source, compiled once for each.
//!
//! A [`Job`] is a loop in plain Rust whose `run` is inlined everywhere. An instruction set compiles
//! it inside a function that has the set's features, so that the loop is vectorised with them. Rust
//! never fuses a multiplication with an addition and never reorders additions, so each set computes
//! the same bits. To add a set, add a file with one `impl Isa` and name it in `Kernels::available`.

use super::xxh3::{Stripe, Words};

/// Work to be compiled for an instruction set. `run` must be `#[inline(always)]`.
pub(super) trait Job {
    fn run(self);
}

/// An instruction set.
pub(super) trait Isa: 'static {
    const NAME: &'static str;

    /// How it holds a stripe of a checksum's input.
    type Stripe: Stripe;

    /// The set for the operations that are rare: this one, or an older one whose loops are compiled
    /// anyway, so that there is less to compile and to ship.
    type Plain: Isa;

    /// Whether this processor has it.
    fn is_available() -> bool;

    /// Runs `job`, compiled for this set.
    ///
    /// # Safety
    /// The processor must have the set.
    unsafe fn run<J: Job>(job: J);

    /// Asks for the cache line at `address`, which need not exist.
    fn prefetch(address: *const u8) {
        let _ = address;
    }

    /// Widens as many leading elements of f16 as it likes and returns how many: for a set that has
    /// an instruction for it, which compilers don't find.
    ///
    /// # Safety
    /// The processor must have the set; both pointers are good for `len` elements and disjoint.
    unsafe fn widen_f16(from: *const u16, to: *mut f32, len: usize) -> usize {
        let _ = (from, to, len);
        0
    }
}

/// What every processor of the target has.
pub(super) struct Scalar;

impl Isa for Scalar {
    const NAME: &'static str = "scalar";

    type Stripe = Words;
    type Plain = Scalar;

    fn is_available() -> bool {
        true
    }

    /// Not inlined, so that each loop is compiled once, as in the other sets.
    #[inline(never)]
    unsafe fn run<J: Job>(job: J) {
        job.run();
    }
}
