//! `_native.Work`: a call that goes on while its caller computes.

use std::sync::{Arc, Mutex, PoisonError};

use isobit::{Error, Work as Runtime};
use pyo3::prelude::*;

use crate::arguments::seconds;
use crate::buffer::Held;
use crate::errors::exception;

/// A call in progress, or done.
#[pyclass(frozen, module = "isobit._native")]
pub(crate) struct Work {
    runtime: Runtime,
    /// Its arrays. The call itself holds them too; but who lets go last must have the interpreter, and the
    /// thread that carries out calls would have to wait for it after each.
    held: Mutex<Option<Arc<Held>>>,
}

impl Work {
    pub(crate) fn new(runtime: Runtime, held: Arc<Held>) -> Work {
        Work { runtime, held: Mutex::new(Some(held)) }
    }

    fn release(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[pymethods]
impl Work {
    fn is_completed(&self) -> bool {
        let completed = self.runtime.is_completed();
        if completed {
            self.release();
        }
        completed
    }

    /// Whether it is done; raises what it failed with.
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let timeout = timeout.map(|given| seconds("timeout", given)).transpose()?;
        let (result, raised) = py.detach(|| {
            let mut raised = None;
            let mut interrupt = || {
                raised = Python::attach(|py| py.check_signals()).err();
                raised.is_some()
            };
            let result: Option<Result<(), Error>> = self.runtime.wait(timeout, &mut interrupt);
            (result, raised)
        });
        if result.is_some() {
            self.release();
        }
        match (result, raised) {
            (Some(Err(error)), _) => Err(exception(py, &error, None)),
            (None, Some(raised)) => Err(raised),
            (result, _) => Ok(result.is_some()),
        }
    }

    /// What it failed with, if it has.
    fn exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let error = self.runtime.result()?.err()?;
        self.release();
        Some(exception(py, &error, None).into_value(py).into_any())
    }
}
