//! The atomics and the mutex of this module, which a model checker can take the place of.
//!
//! Under `cfg(loom)` they are loom's: `make loom` then runs the models of `os/models/` in every
//! interleaving, with every value that a load may see. Loom treats a sequentially consistent access
//! as one with acquire and release, and knows sequentially consistent fences: such accesses are here
//! made of both, as compilers make them (fence before the load, after the store).

#[cfg(not(all(test, loom)))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, fence},
};

#[cfg(all(test, loom))]
pub(super) use loom::sync::{Mutex, MutexGuard, atomic::fence};
#[cfg(all(test, loom))]
pub(crate) use modelled::AtomicU64;

#[cfg(all(test, loom))]
mod modelled {
    use std::sync::atomic::Ordering::{self, SeqCst};

    use loom::sync::atomic::fence;

    /// Loom's, with accesses that may be sequentially consistent.
    #[derive(Debug)]
    pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64);

    fn fence_for(order: Ordering) {
        if order == SeqCst {
            fence(SeqCst);
        }
    }

    impl AtomicU64 {
        pub(in crate::os) fn new(value: u64) -> AtomicU64 {
            AtomicU64(loom::sync::atomic::AtomicU64::new(value))
        }

        pub(in crate::os) fn load(&self, order: Ordering) -> u64 {
            fence_for(order);
            self.0.load(order)
        }

        pub(in crate::os) fn store(&self, value: u64, order: Ordering) {
            self.0.store(value, order);
            fence_for(order);
        }

        pub(in crate::os) fn swap(&self, value: u64, order: Ordering) -> u64 {
            let old = self.0.swap(value, order);
            fence_for(order);
            old
        }

        pub(in crate::os) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            let old = self.0.fetch_add(value, order);
            fence_for(order);
            old
        }

        pub(in crate::os) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            let old = self.0.fetch_max(value, order);
            fence_for(order);
            old
        }

        pub(in crate::os) fn compare_exchange(
            &self,
            old: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.0.compare_exchange(old, new, success, failure)
        }
    }
}
