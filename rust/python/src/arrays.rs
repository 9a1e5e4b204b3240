//! Arguments that are arrays: what an operation reads, what it writes, and whether the two go together.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::{Array, Shape};

/// The array that an operation reads.
pub(crate) fn input_array(object: &Bound<'_, PyAny>) -> PyResult<Array> {
    Array::get("tensor", object)
}

/// The array that an operation writes.
pub(crate) fn out_array(object: &Bound<'_, PyAny>) -> PyResult<Array> {
    Array::get_mut("out", object)
}

/// The shape that the ranks must agree on.
pub(crate) fn shape_of(given: Vec<u64>) -> PyResult<Shape> {
    Shape::from_dimensions(given.into_iter())
}

/// Input and output of one shape; no second array where they are one object.
pub(crate) fn pair(
    tensor: &Bound<'_, PyAny>,
    out: Option<&Bound<'_, PyAny>>,
) -> PyResult<(Array, Option<Array>)> {
    let Some(out) = out else { return Ok((input_array(tensor)?, None)) };
    if tensor.is(out) {
        return Ok((Array::get_mut("tensor", tensor)?, None));
    }
    let (input, out) = (input_array(tensor)?, out_array(out)?);
    let (ours, theirs) = (input.shape.as_slice(), out.shape.as_slice());
    if ours == theirs {
        return Ok((input, Some(out)));
    }
    Err(PyValueError::new_err(format!("out has shape {theirs:?}, tensor has {ours:?}: they must be equal")))
}

/// Whether data can be moved from one to the other.
pub(crate) fn check_dtypes(input: &Array, out: &Array) -> PyResult<()> {
    if input.dtype == out.dtype {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("out is {}, tensor is {}: they must be equal", out.dtype, input.dtype)))
}
