//! `_native.Handle`: what the classes of the Python API derive from, where a call finds its communicator.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::communicator::Communicator;

/// What has a rank's membership: a field of the object itself, which takes no look-up by name.
#[pyclass(frozen, subclass, module = "isobit._native")]
pub(crate) struct Handle {
    pub(crate) native: Py<Communicator>,
}

#[pymethods]
impl Handle {
    /// Those that derive from it take more.
    #[new]
    #[pyo3(signature = (native, *_rest, **_options))]
    fn new(
        native: Py<Communicator>,
        _rest: &Bound<'_, PyTuple>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> Handle {
        Handle { native }
    }

    #[getter(_native)]
    fn native(&self, py: Python<'_>) -> Py<Communicator> {
        self.native.clone_ref(py)
    }
}
