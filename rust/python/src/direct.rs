//! The shortest way from a call in Python to the runtime, for calls that ask for nothing unusual.
//!
//! Each function takes what the method of the Python class was given, as it was given, and makes the call if
//! the arrays are numpy's and lie as they should. Otherwise it makes none and returns `NotImplemented`: all other
//! arrays, options and mistakes are for the method itself. So there is no rule here that is not there.

use std::time::Duration;

use isobit::Reduction;
use isobit_core::{Order, Rank, ReduceOp};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::arguments::seconds;
use crate::arrays::usual_pair;
use crate::buffer::{Array, Held, Shape};
use crate::communicator::Communicator;

type Outcome<'py> = PyResult<Bound<'py, PyAny>>;

/// Arguments and options, if they are of the usual kind.
struct Given<'a, 'py> {
    tensor: Option<Borrowed<'a, 'py, PyAny>>,
    out: Option<Bound<'py, PyAny>>,
    op: ReduceOp,
    order: Order,
    root: Rank,
    timeout: Option<Duration>,
}

impl<'a, 'py> Given<'a, 'py> {
    fn parse(
        arguments: &'a Bound<'py, PyTuple>,
        options: &Bound<'py, PyDict>,
        names: &[&str],
    ) -> Option<Given<'a, 'py>> {
        let mut given = Given {
            tensor: arguments.get_borrowed_item(0).ok(),
            out: arguments.get_item(1).ok(),
            op: ReduceOp::Sum,
            order: Order::Tree,
            root: 0,
            timeout: None,
        };
        if options.is_empty() {
            return Some(given);
        }
        for (name, value) in options.iter() {
            let name = name.cast::<PyString>().ok()?.to_str().ok()?;
            if !names.contains(&name) {
                return None;
            }
            match name {
                "out" if given.out.is_none() => given.out = Some(value),
                "op" => given.op = ReduceOp::from_name(value.cast::<PyString>().ok()?.to_str().ok()?)?,
                "order" => given.order = Order::from_name(value.cast::<PyString>().ok()?.to_str().ok()?)?,
                "root" => given.root = value.extract().ok()?,
                "timeout" => given.timeout = Some(seconds("timeout", value.extract().ok()?).ok()?),
                _ => return None,
            }
        }
        Some(given)
    }
}

fn not_direct(py: Python<'_>) -> Outcome<'_> {
    Ok(py.NotImplemented().into_bound(py))
}

/// `Communicator.all_reduce`.
#[pyfunction]
pub(crate) fn direct_all_reduce<'py>(
    communicator: &Bound<'py, Communicator>,
    arguments: &Bound<'py, PyTuple>,
    options: &Bound<'py, PyDict>,
) -> Outcome<'py> {
    let py = communicator.py();
    let names = ["out", "op", "order", "timeout"];
    let Some(Given { tensor: Some(tensor), out, op, order, timeout, .. }) =
        Given::parse(arguments, options, &names).filter(|_| arguments.len() <= 2)
    else {
        return not_direct(py);
    };
    let out = out.filter(|out| !out.is_none()).unwrap_or_else(|| tensor.to_owned());
    let Some(arrays) = usual_pair(&tensor, &out) else { return not_direct(py) };
    let reduction = Reduction {
        op,
        order,
        dtype: arrays.dtype,
        accumulate: None,
        out_dtype: arrays.out_dtype,
        divisor: None,
    };
    communicator.get().session.call(py, &arrays.shape, timeout, |runtime, call| {
        arrays.held.with(|input, out| match (input, out) {
            (Some(input), Some(out)) => runtime.all_reduce(input, out, &reduction, call),
            _ => unreachable!("a pair has both"),
        })
    })?;
    Ok(out)
}

/// `Communicator.broadcast`.
#[pyfunction]
pub(crate) fn direct_broadcast<'py>(
    communicator: &Bound<'py, Communicator>,
    arguments: &Bound<'py, PyTuple>,
    options: &Bound<'py, PyDict>,
) -> Outcome<'py> {
    let py = communicator.py();
    let Some(Given { tensor: Some(tensor), root, timeout, .. }) =
        Given::parse(arguments, options, &["root", "timeout"]).filter(|_| arguments.len() == 1)
    else {
        return not_direct(py);
    };
    let Some(buffer) = Array::usual_mut(&tensor).filter(|_| root < communicator.get().world_size) else {
        return not_direct(py);
    };
    let (dtype, shape) = (buffer.dtype, buffer.shape.clone());
    let held = Held::in_place(buffer);
    communicator.get().session.call(py, &shape, timeout, |runtime, call| {
        held.with(|_, out| runtime.broadcast(out.expect("it was passed"), dtype, root, call))
    })?;
    Ok(tensor.to_owned())
}

/// `Communicator.barrier`.
#[pyfunction]
pub(crate) fn direct_barrier<'py>(
    communicator: &Bound<'py, Communicator>,
    arguments: &Bound<'py, PyTuple>,
    options: &Bound<'py, PyDict>,
) -> Outcome<'py> {
    let py = communicator.py();
    let Some(Given { timeout, .. }) =
        Given::parse(arguments, options, &["timeout"]).filter(|_| arguments.is_empty())
    else {
        return not_direct(py);
    };
    let shape = Shape::from_dimensions([].into_iter())?;
    communicator.get().session.call(py, &shape, timeout, |runtime, call| runtime.barrier(call))?;
    Ok(py.None().into_bound(py))
}
