//! The floating-point environment: round to nearest even, subnormals kept, whatever the caller set.
//!
//! A thread may have armed flush-to-zero, denormals-are-zero or another rounding mode (a library
//! linked with fast-math start-up code does so for the whole process). The law knows none of these,
//! so every kernel works inside a [`Guard`].

/// Keeps the law's floating-point environment until it is dropped, then restores the caller's.
#[derive(Debug)]
pub(crate) struct Guard {
    caller: Option<arch::Control>,
}

impl Guard {
    /// Checks the environment and sets the law's own where the caller's differs.
    pub(crate) fn enter() -> Guard {
        let caller = arch::read();
        if arch::is_default(caller) {
            return Guard { caller: None };
        }
        arch::write(arch::DEFAULT);
        Guard { caller: Some(caller) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(caller) = self.caller {
            arch::write(caller);
        }
    }
}

/// Does some arithmetic: whether all of it was exact. Says no where the processor can't tell.
///
/// `work` calls its arithmetic through a function pointer, which keeps it between the two looks at
/// the flags: the compiler moves no such call across them.
pub(crate) fn is_exact(work: impl FnOnce()) -> bool {
    arch::write(arch::without_inexact(arch::read()));
    work();
    arch::is_exact(arch::read())
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::asm;

    /// MXCSR.
    pub(super) type Control = u32;

    /// Every exception masked, round to nearest even, FTZ and DAZ off, no sticky flag.
    pub(super) const DEFAULT: Control = 0x1f80;

    const STICKY_FLAGS: Control = 0x3f;

    /// Sticky: some result since it was cleared was rounded.
    const INEXACT: Control = 0x20;

    pub(super) fn is_default(control: Control) -> bool {
        control & !STICKY_FLAGS == DEFAULT
    }

    pub(super) fn without_inexact(control: Control) -> Control {
        control & !INEXACT
    }

    pub(super) fn is_exact(control: Control) -> bool {
        control & INEXACT == 0
    }

    pub(super) fn read() -> Control {
        let mut control: Control = 0;
        // SAFETY: stores MXCSR into the four bytes pointed to.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack, preserves_flags)) };
        control
    }

    pub(super) fn write(control: Control) {
        // SAFETY: loads MXCSR from four readable bytes with a value that was read from it or is
        // `DEFAULT`. The block is a memory barrier to the compiler: the kernels' loads and stores,
        // and so the arithmetic between them, stay on their side of it.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use std::arch::asm;

    /// FPCR.
    pub(super) type Control = u64;

    /// No trap, round to nearest even, FZ, FZ16, AH and DN off.
    pub(super) const DEFAULT: Control = 0;

    pub(super) fn is_default(control: Control) -> bool {
        control == DEFAULT
    }

    /// The flags are in another register, FPSR, which nothing here reads yet.
    pub(super) fn without_inexact(control: Control) -> Control {
        control
    }

    pub(super) fn is_exact(_: Control) -> bool {
        false
    }

    pub(super) fn read() -> Control {
        let control: Control;
        // SAFETY: reads a control register.
        unsafe { asm!("mrs {}, fpcr", out(reg) control, options(nostack, preserves_flags)) };
        control
    }

    pub(super) fn write(control: Control) {
        // SAFETY: writes a control register with a value that was read from it or is `DEFAULT`; a
        // memory barrier to the compiler, as on x86-64.
        unsafe { asm!("msr fpcr, {}", in(reg) control, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    /// No control register that this crate knows.
    pub(super) type Control = ();

    pub(super) const DEFAULT: Control = ();

    pub(super) fn is_default(_: Control) -> bool {
        true
    }

    pub(super) fn without_inexact(_: Control) -> Control {}

    pub(super) fn is_exact(_: Control) -> bool {
        false
    }

    pub(super) fn read() -> Control {}

    pub(super) fn write(_: Control) {}
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{Guard, arch, is_exact};

    #[test]
    fn the_guard_sets_the_laws_environment_and_restores_the_callers() {
        let before = arch::read();
        for armed in [0x9fc0, 0x3f80, 0x5f80, 0x7f80, 0x1fc0, 0x9f80] {
            arch::write(armed);
            let inside = {
                let _guard = Guard::enter();
                arch::read()
            };
            let after = arch::read();
            arch::write(before);
            assert!(arch::is_default(inside), "{armed:#x} left {inside:#x}");
            assert_eq!(after, armed);
        }
    }

    #[test]
    fn arithmetic_is_exact_if_nothing_rounded() {
        let add = |a: f64, b: f64| {
            let add: fn(f64, f64) -> f64 = std::hint::black_box(|a, b| a + b);
            is_exact(|| {
                std::hint::black_box(add(std::hint::black_box(a), std::hint::black_box(b)));
            })
        };
        assert!(add(1.0, 2.0));
        assert!(!add(1.0, 1e-300));
        assert!(add(f64::INFINITY, 1.0), "a flag of before is no flag of now");
    }
}
