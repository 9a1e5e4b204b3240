//! Arguments that are arrays: what an operation reads, what it writes, and whether the two go together.

use isobit_core::Dtype;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::{Array, Held, Shape};

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
    Shape::from_slice(&given)
}

/// Input and output of one shape; one array where they are one object.
pub(crate) struct Pair {
    pub(crate) held: Held,
    pub(crate) shape: Shape,
    pub(crate) dtype: Dtype,
    /// The dtype of the output, where there is one.
    pub(crate) out_dtype: Option<Dtype>,
}

pub(crate) fn pair(tensor: &Bound<'_, PyAny>, out: Option<&Bound<'_, PyAny>>) -> PyResult<Pair> {
    if out.is_some_and(|out| tensor.is(out)) {
        let array = Array::get_mut("tensor", tensor)?;
        let (shape, dtype) = (array.shape.clone(), array.dtype);
        return Ok(Pair { held: Held::in_place(array), shape, dtype, out_dtype: Some(dtype) });
    }
    let input = input_array(tensor)?;
    let out = out.map(out_array).transpose()?;
    let (shape, dtype, out_dtype) = (input.shape.clone(), input.dtype, out.as_ref().map(|out| out.dtype));
    if let Some(out) = out.as_ref().filter(|out| out.shape.as_slice() != shape.as_slice()) {
        return Err(PyValueError::new_err(format!(
            "out has shape {:?}, tensor has {:?}: they must be equal",
            out.shape.as_slice(),
            shape.as_slice()
        )));
    }
    Ok(Pair { held: Held::new(input.into(), out)?, shape, dtype, out_dtype })
}

/// How many elements an array of that shape has.
pub(crate) fn elements(shape: &[u64]) -> PyResult<u64> {
    let count = shape.iter().try_fold(1_u64, |count, &dimension| count.checked_mul(dimension));
    count.ok_or_else(|| PyValueError::new_err(format!("shape {shape:?} has too many elements")))
}

/// Whether data can be moved from one to the other.
pub(crate) fn check_dtypes(input: &Array, out: &Array) -> PyResult<()> {
    if input.dtype == out.dtype {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("out is {}, tensor is {}: they must be equal", out.dtype, input.dtype)))
}
