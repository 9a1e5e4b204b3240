//! Which core a thread runs on, and leaving one that another needs.
//!
//! A scheduler may put two threads that wait for each other on one core while another is idle. It parts them after
//! some 10 ms; a thread that knows better need not wait for that.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The number of the core that this thread runs on.
pub fn current() -> usize {
    arch::current()
}

/// Moves this thread to another core, none of those that are `taken`, and lets it run where it might before: whether
/// there was one. A thread that is bound to its core stays.
pub fn leave(taken: impl Fn(usize) -> bool) -> bool {
    let Ok(allowed) = sched_getaffinity(None) else { return false };
    let (here, mut free) = (current(), allowed);
    (0..CpuSet::MAX_CPU).filter(|core| *core == here || taken(*core)).for_each(|core| free.unset(core));
    let is_moved = free.count() > 0 && sched_setaffinity(None, &free).is_ok();
    if is_moved {
        // What was allowed a moment ago can only be refused if it was taken away meanwhile.
        let _ = sched_setaffinity(None, &allowed);
    }
    is_moved
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::x86_64::{__cpuid, __rdtscp};
    use std::sync::OnceLock;

    const FEATURES_LEAF: u32 = 0x8000_0001;
    const HAS_RDTSCP: u32 = 1 << 27;
    /// Linux keeps the core's number in the lowest bits of what comes with the counter.
    const CORE: u32 = 0xfff;

    /// Not by way of the vDSO, which a process under valgrind does not have: looking for it, rustix ends the process.
    pub(super) fn current() -> usize {
        static HAS: OnceLock<bool> = OnceLock::new();
        let has = *HAS.get_or_init(|| {
            __cpuid(0x8000_0000).eax >= FEATURES_LEAF && __cpuid(FEATURES_LEAF).edx & HAS_RDTSCP != 0
        });
        if !has {
            return rustix::thread::sched_getcpu();
        }
        let mut number = 0;
        // SAFETY: the processor has the instruction, and Linux lets programs use it.
        unsafe { __rdtscp(&mut number) };
        (number & CORE) as usize
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod arch {
    pub(super) fn current() -> usize {
        rustix::thread::sched_getcpu()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_leaves_its_core_if_it_may_and_may_run_everywhere_after_that() {
        let allowed = sched_getaffinity(None).unwrap();
        assert_eq!(leave(|_| false), allowed.count() > 1);
        assert!(!leave(|_| true), "nowhere to go");
        assert!(sched_getaffinity(None).unwrap() == allowed);
    }

    #[test]
    fn a_thread_that_is_bound_stays() {
        std::thread::spawn(|| {
            let (here, mut bound) = (current(), CpuSet::new());
            bound.set(here);
            sched_setaffinity(None, &bound).unwrap();
            assert!(!leave(|_| false));
            assert_eq!(current(), here);
        })
        .join()
        .unwrap();
    }
}
