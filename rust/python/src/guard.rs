//! One user at a time, and only in the process that made it.
//!
//! A fork copies a communicator's state but not its place in the group: the child would write into its
//! parent's rings. `os.register_at_fork` counts forks here, so that the check of every call reads one
//! integer instead of asking the kernel for the process number.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use pyo3::prelude::*;

use crate::errors;

static FORKS: AtomicU32 = AtomicU32::new(0);

/// Called in the child of every fork.
#[pyfunction]
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Asks the interpreter to call [`forked`] in the child of every fork.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let arguments = pyo3::types::PyDict::new(py);
    arguments.set_item("after_in_child", module.getattr("forked")?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&arguments))?;
    Ok(())
}

/// A value that one thread of one process uses at a time; `None` once it is closed or consumed.
pub(crate) struct Guarded<T> {
    value: Mutex<Option<T>>,
    forks: u32,
    what: &'static str,
}

/// The lock of a [`Guarded`] whose value is there.
pub(crate) struct InUse<'a, T>(MutexGuard<'a, Option<T>>);

impl<T> Guarded<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Guarded<T> {
        Guarded { value: Mutex::new(Some(value)), forks: FORKS.load(Ordering::Relaxed), what }
    }

    /// The value's lock, whether or not the value is still there.
    #[inline(always)]
    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Option<T>>> {
        if self.is_inherited() {
            return Err(errors::forked(py, self.what));
        }
        match self.value.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(errors::in_use(py, self.what)),
        }
    }

    /// Whether this process is a forked child of the one that made it.
    pub(crate) fn is_inherited(&self) -> bool {
        self.forks != FORKS.load(Ordering::Relaxed)
    }

    /// The value, for one call.
    #[inline(always)]
    pub(crate) fn in_use(&self, py: Python<'_>) -> PyResult<InUse<'_, T>> {
        let guard = self.lock(py)?;
        match *guard {
            Some(_) => Ok(InUse(guard)),
            None => Err(errors::closed(py, self.what)),
        }
    }

    /// Forgets the value: nothing of it may run in a forked child, where its threads are not.
    pub(crate) fn leak(&mut self) {
        let value = self.value.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::forget(value.take());
    }

    /// The value, taken out for good.
    pub(crate) fn take(&self, py: Python<'_>) -> PyResult<Option<T>> {
        Ok(self.lock(py)?.take())
    }
}

impl<T> InUse<'_, T> {
    pub(crate) fn get(&mut self) -> &mut T {
        self.0.as_mut().expect("in_use has checked that it is there")
    }
}
