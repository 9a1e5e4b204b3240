//! A clock that costs a few nanoseconds to read: the processor's counter, where it runs evenly.
//!
//! Asking the kernel's clock takes longer than a small message does. Ticks have no unit; a [`Clock`]
//! turns them into nanoseconds, by comparison with the kernel's clock over the whole time since it was made.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The counter now. It never goes back on one thread.
///
/// ```
/// let first = isobit_sys::clock::ticks();
/// assert!(isobit_sys::clock::ticks() >= first);
/// ```
pub fn ticks() -> u64 {
    if is_even() { arch::counter() } else { fallback() }
}

/// Nanoseconds since the first call, where the processor's counter is no clock.
#[cold]
fn fallback() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Whether the counter runs at one rate, whatever the processor does.
fn is_even() -> bool {
    static EVEN: OnceLock<bool> = OnceLock::new();
    *EVEN.get_or_init(arch::is_even)
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::x86_64::{__cpuid, _rdtsc};

    const POWER_LEAF: u32 = 0x8000_0007;
    const INVARIANT_TSC: u32 = 1 << 8;

    pub(super) fn is_even() -> bool {
        __cpuid(0x8000_0000).eax >= POWER_LEAF && __cpuid(POWER_LEAF).edx & INVARIANT_TSC != 0
    }

    pub(super) fn counter() -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it.
        unsafe { _rdtsc() }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod arch {
    pub(super) fn is_even() -> bool {
        false
    }

    pub(super) fn counter() -> u64 {
        super::fallback()
    }
}

/// Turns ticks into nanoseconds since the Unix epoch, by the time of day when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_ticks: u64,
    start_ns: u64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let (start, start_ticks) = (Instant::now(), ticks());
        Clock { start, start_ticks, start_ns: since.map_or(0, |since| since.as_nanos() as u64) }
    }

    /// How ticks convert now: the longer the clock has run, the better it knows.
    pub fn scale(&self) -> Scale {
        let (elapsed_ns, elapsed) = (self.start.elapsed().as_nanos(), ticks() - self.start_ticks);
        Scale { clock: *self, elapsed_ns, elapsed: u128::from(elapsed.max(1)) }
    }
}

/// One conversion of ticks: it keeps their order.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    clock: Clock,
    elapsed_ns: u128,
    elapsed: u128,
}

impl Scale {
    /// When the counter stood at so many ticks.
    pub fn ns(&self, at: u64) -> u64 {
        let since = u128::from(at.saturating_sub(self.clock.start_ticks)) * self.elapsed_ns / self.elapsed;
        self.clock.start_ns + since as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_the_time_of_day() {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let before = now();
        let clock = Clock::start();
        let (first, second) = (ticks(), ticks());
        while now() < before + 10_000 {}
        let scale = clock.scale();
        let at = [before, scale.ns(first), scale.ns(second), now()];
        // The rate is known as well as two looks at two clocks can be at one time.
        const SLACK_NS: u64 = 1_000_000;
        assert!(at.windows(2).all(|pair| pair[0] <= pair[1] + SLACK_NS), "{at:?}");
    }
}
