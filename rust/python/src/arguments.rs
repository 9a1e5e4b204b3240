//! Arguments that are not arrays: names of operations and dtypes, divisors, counts, seconds.

use std::time::Duration;

use isobit::Reduction;
use isobit_core::{Dtype, Order, ReduceOp};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;

/// The longest deadline that a call may ask for: a year.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

fn named<T: Copy>(
    argument: &str,
    given: &str,
    found: Option<T>,
    all: &[T],
    name: fn(T) -> &'static str,
) -> PyResult<T> {
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|&value| name(value)).collect();
        PyValueError::new_err(format!("{argument}={given:?} is none of {}", names.join(", ")))
    })
}

fn dtype(argument: &str, given: Option<&str>) -> PyResult<Option<Dtype>> {
    given.map(|given| named(argument, given, Dtype::from_name(given), &Dtype::ALL, Dtype::name)).transpose()
}

/// The reduction of leaves of `leaf` to `out`.
pub(crate) fn reduction(
    op: &str,
    order: &str,
    accumulate: Option<&str>,
    divisor: Option<&Bound<'_, PyAny>>,
    leaf: Dtype,
    out: Option<Dtype>,
) -> PyResult<Reduction> {
    Ok(Reduction {
        op: named("op", op, ReduceOp::from_name(op), ReduceOp::ALL, ReduceOp::name)?,
        order: named("order", order, Order::from_name(order), Order::ALL, Order::name)?,
        dtype: leaf,
        accumulate: dtype("accumulate", accumulate)?,
        out_dtype: out,
        divisor: divisor.map(|given| natural("divisor", given)).transpose()?,
    })
}

/// The dtype called `given`.
pub(crate) fn dtype_named(argument: &str, given: &str) -> PyResult<Dtype> {
    named(argument, given, Dtype::from_name(given), &Dtype::ALL, Dtype::name)
}

/// An integer that is not negative and fits.
pub(crate) fn natural<T>(argument: &str, given: &Bound<'_, PyAny>) -> PyResult<T>
where
    T: for<'a, 'py> FromPyObject<'a, 'py, Error = PyErr>,
{
    given.extract::<T>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(given.py()) {
            PyValueError::new_err(format!("{argument}={given} is negative or too large"))
        } else {
            PyTypeError::new_err(format!("{argument} must be an integer, not {given:?}"))
        }
    })
}

/// A deadline in seconds.
pub(crate) fn seconds(argument: &str, given: f64) -> PyResult<Duration> {
    if given > 0.0 && given <= SECONDS_MAX {
        return Ok(Duration::from_secs_f64(given));
    }
    Err(PyValueError::new_err(format!(
        "{argument}={given} must be seconds, more than 0 and at most {SECONDS_MAX}"
    )))
}
