//! `_native.Accumulator`: the leaves that this rank has added so far.

use isobit::Accumulator as Runtime;
use isobit_core::Dtype;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arguments::natural;
use crate::buffer::{Array, Held, Shape};
use crate::errors::{closed, exception};
use crate::guard::Guarded;

/// Combines a rank's leaves as they come, in any order.
#[pyclass(frozen, module = "isobit._native")]
pub(crate) struct Accumulator {
    runtime: Guarded<Runtime>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Shape,
}

impl Accumulator {
    pub(crate) fn new(runtime: Runtime, dtype: Dtype, shape: Shape) -> Accumulator {
        Accumulator { runtime: Guarded::new("accumulator", runtime), dtype, shape }
    }

    /// What was added, for the collective that ends it.
    pub(crate) fn take(&self, py: Python<'_>) -> PyResult<Runtime> {
        self.runtime.take(py)?.ok_or_else(|| closed(py, "accumulator"))
    }
}

#[pymethods]
impl Accumulator {
    /// Adds leaf number `leaf`.
    fn add(&self, py: Python<'_>, leaf: &Bound<'_, PyAny>, tensor: &Bound<'_, PyAny>) -> PyResult<()> {
        let leaf = natural("leaf", leaf)?;
        let array = Array::get("tensor", tensor)?;
        if array.dtype != self.dtype || array.shape.as_slice() != self.shape.as_slice() {
            return Err(PyValueError::new_err(format!(
                "leaf {leaf} is {} of shape {:?}, but {} of shape {:?} was said or added before: leaves must be alike",
                array.dtype,
                array.shape.as_slice(),
                self.dtype,
                self.shape.as_slice()
            )));
        }
        let held = Held::new(Some(array), None)?;
        let mut in_use = self.runtime.in_use(py)?;
        let runtime = in_use.get();
        let result =
            py.detach(|| held.lend().with(|input, _| runtime.add(leaf, input.expect("the leaf was passed"))));
        result.map_err(|error| exception(py, &error, None))
    }
}
