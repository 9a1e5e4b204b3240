//! One user at a time, and only in the process that made it.
//!
//! A fork copies a communicator's state but not its place in the group: the child would write into its
//! parent's rings. `os.register_at_fork` counts forks here, so that the check of every call reads one
//! integer instead of asking the kernel for the process number.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use pyo3::exceptions::PyRuntimeError;
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
    fn lock(&self) -> PyResult<MutexGuard<'_, Option<T>>> {
        if self.forks != FORKS.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err(format!(
                "this {} belongs to the process that was forked: call isobit.init() in the child, \
                 or start the child with multiprocessing's 'spawn' method",
                self.what
            )));
        }
        match self.value.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(PyRuntimeError::new_err(format!(
                "this {} is in use by another thread: give each thread its own, or take turns",
                self.what
            ))),
        }
    }

    /// The value, for one call.
    pub(crate) fn in_use(&self, py: Python<'_>) -> PyResult<InUse<'_, T>> {
        let guard = self.lock()?;
        match *guard {
            Some(_) => Ok(InUse(guard)),
            None => Err(errors::closed(py, self.what)),
        }
    }

    /// The value, taken out for good.
    pub(crate) fn take(&self) -> PyResult<Option<T>> {
        Ok(self.lock()?.take())
    }
}

impl<T> InUse<'_, T> {
    pub(crate) fn get(&mut self) -> &mut T {
        self.0.as_mut().expect("in_use has checked that it is there")
    }
}
