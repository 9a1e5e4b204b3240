//! The shortest way from a call in Python to the runtime, for calls that ask for nothing unusual.
//!
//! Each function takes what the method of the Python class was given, as it was given, and makes the call if
//! the arrays are numpy's and lie as they should. Otherwise it makes none and returns `NotImplemented`: all other
//! arrays, options and mistakes are for the method itself. So there is no rule here that is not there.

use std::time::Duration;

use isobit::{Call, Communicator as Runtime, Error, Reduction};
use isobit_core::{Dtype, Order, Rank, ReduceOp};
use isobit_sys::{ReadSpan, WriteSpan};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::arguments::seconds;
use crate::buffer::{Shape, Usual};
use crate::communicator::Communicator;
use crate::lists::{bundle, call_each, flats, items};

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
    /// At most as many arguments as `positions`, and options of those names.
    fn parse(
        arguments: &'a Bound<'py, PyTuple>,
        options: &Bound<'py, PyDict>,
        positions: usize,
        names: &[&str],
    ) -> Option<Given<'a, 'py>> {
        let count = arguments.len();
        let mut given =
            Given { tensor: None, out: None, op: ReduceOp::Sum, order: Order::Tree, root: 0, timeout: None };
        if count > positions {
            return None;
        }
        if count > 0 {
            given.tensor = Some(arguments.get_borrowed_item(0).ok()?);
        }
        if count > 1 {
            given.out = Some(arguments.get_item(1).ok()?);
        }
        if !options.is_empty() {
            given.read(options, names)?;
        }
        Some(given)
    }

    fn read(&mut self, options: &Bound<'py, PyDict>, names: &[&str]) -> Option<()> {
        for (name, value) in options.iter() {
            let name = name.cast::<PyString>().ok()?.to_str().ok()?;
            if !names.contains(&name) {
                return None;
            }
            match name {
                "out" if self.out.is_none() => self.out = Some(value),
                "op" => self.op = ReduceOp::from_name(value.cast::<PyString>().ok()?.to_str().ok()?)?,
                "order" => self.order = Order::from_name(value.cast::<PyString>().ok()?.to_str().ok()?)?,
                "root" => self.root = value.extract().ok()?,
                "timeout" => self.timeout = Some(seconds("timeout", value.extract().ok()?).ok()?),
                _ => return None,
            }
        }
        Some(())
    }
}

fn plain(op: ReduceOp, order: Order, dtype: Dtype, out_dtype: Option<Dtype>) -> Reduction {
    Reduction { op, order, dtype, accumulate: None, out_dtype, divisor: None }
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
    let Some(Given { tensor: Some(tensor), out, op, order, timeout, .. }) =
        Given::parse(arguments, options, 2, &["out", "op", "order", "timeout"])
    else {
        return not_direct(py);
    };
    let out = out.filter(|out| !out.is_none()).unwrap_or_else(|| tensor.to_owned());
    if let Some(target) = Usual::writable(out.as_borrowed()) {
        let input = if tensor.is(&out) { Some(target) } else { Usual::of(tensor) };
        let Some((input, memory)) = input.and_then(|input| Some((input, input.with_out_alike(target)?)))
        else {
            return not_direct(py);
        };
        let reduction = plain(op, order, input.dtype, Some(target.dtype));
        communicator.get().session.call(py, &input.shape()?, timeout, |runtime, call| {
            memory.with_both(|input, out| runtime.all_reduce(input, out, &reduction, call))
        })?;
        return Ok(out);
    }
    each(communicator, &tensor, &out, timeout, |runtime, input, out, dtype, call| {
        runtime.all_reduce(input, out, &plain(op, order, dtype, None), call)
    })
}

/// `Communicator.reduce`.
#[pyfunction]
pub(crate) fn direct_reduce<'py>(
    communicator: &Bound<'py, Communicator>,
    arguments: &Bound<'py, PyTuple>,
    options: &Bound<'py, PyDict>,
) -> Outcome<'py> {
    let py = communicator.py();
    let Some(Given { tensor: Some(tensor), out, op, order, root, timeout }) =
        Given::parse(arguments, options, 2, &["out", "op", "order", "root", "timeout"])
    else {
        return not_direct(py);
    };
    let communicator = communicator.get();
    let Some(input) = Usual::of(tensor).filter(|_| root < communicator.world_size) else {
        return not_direct(py);
    };
    let out = out.filter(|out| !out.is_none()).unwrap_or_else(|| tensor.to_owned());
    let (memory, to) = if communicator.rank == root {
        let target = Usual::writable(out.as_borrowed());
        (target.and_then(|target| input.with_out_alike(target)), target.map(|target| target.dtype))
    } else {
        (Some(input.to_read()), None)
    };
    let Some(memory) = memory else { return not_direct(py) };
    let reduction = plain(op, order, input.dtype, to);
    communicator.session.call(py, &input.shape()?, timeout, |runtime, call| {
        memory.with(|input, out| runtime.reduce(input.expect("it was lent"), out, &reduction, root, call))
    })?;
    Ok(if communicator.rank == root { out } else { py.None().into_bound(py) })
}

/// `Communicator.reduce_scatter`.
#[pyfunction]
pub(crate) fn direct_reduce_scatter<'py>(
    communicator: &Bound<'py, Communicator>,
    arguments: &Bound<'py, PyTuple>,
    options: &Bound<'py, PyDict>,
) -> Outcome<'py> {
    let py = communicator.py();
    let Some(Given { tensor: Some(tensor), out, op, order, timeout, .. }) =
        Given::parse(arguments, options, 2, &["out", "op", "order", "timeout"])
    else {
        return not_direct(py);
    };
    let Some(input) = Usual::of(tensor) else { return not_direct(py) };
    let (shape, ranks) = (input.shape()?, u64::from(communicator.get().world_size));
    if shape.as_slice().is_empty() || !shape.rows().is_multiple_of(ranks) {
        return not_direct(py);
    }
    let own = shape.with_rows(shape.rows() / ranks);
    let Some(out) = output(tensor, out, &own) else { return not_direct(py) };
    let target = Usual::writable(out.as_borrowed());
    let Some((target, memory)) = target.and_then(|target| Some((target, input.with_out(target)?))) else {
        return not_direct(py);
    };
    let reduction = plain(op, order, input.dtype, Some(target.dtype));
    communicator.get().session.call(py, &shape, timeout, |runtime, call| {
        memory.with_both(|input, out| runtime.reduce_scatter(input, out, &reduction, None, call))
    })?;
    Ok(out)
}

/// `Communicator.all_gather`.
#[pyfunction]
pub(crate) fn direct_all_gather<'py>(
    communicator: &Bound<'py, Communicator>,
    arguments: &Bound<'py, PyTuple>,
    options: &Bound<'py, PyDict>,
) -> Outcome<'py> {
    let py = communicator.py();
    let Some(Given { tensor: Some(tensor), out, timeout, .. }) =
        Given::parse(arguments, options, 2, &["out", "timeout"])
    else {
        return not_direct(py);
    };
    let Some(input) = Usual::of(tensor) else { return not_direct(py) };
    let shape = input.shape()?;
    let Some(rows) = shape.rows().checked_mul(u64::from(communicator.get().world_size)) else {
        return not_direct(py);
    };
    let total = shape.with_rows(rows);
    let Some(out) = output(tensor, out, &total) else { return not_direct(py) };
    let target = Usual::writable(out.as_borrowed()).filter(|target| target.dtype == input.dtype);
    let Some(memory) = target.and_then(|target| input.with_out(target)) else { return not_direct(py) };
    communicator.get().session.call(py, &total, timeout, |runtime, call| {
        memory.with_both(|from, to| runtime.all_gather(from, to, input.dtype, None, call))
    })?;
    Ok(out)
}

/// `Communicator.all_to_all`.
#[pyfunction]
pub(crate) fn direct_all_to_all<'py>(
    communicator: &Bound<'py, Communicator>,
    arguments: &Bound<'py, PyTuple>,
    options: &Bound<'py, PyDict>,
) -> Outcome<'py> {
    let py = communicator.py();
    let Some(Given { tensor: Some(tensor), out, timeout, .. }) =
        Given::parse(arguments, options, 2, &["out", "timeout"])
    else {
        return not_direct(py);
    };
    let Some(input) = Usual::of(tensor) else { return not_direct(py) };
    let (shape, ranks) = (input.shape()?, u64::from(communicator.get().world_size));
    if shape.as_slice().is_empty() || !shape.rows().is_multiple_of(ranks) {
        return not_direct(py);
    }
    let Some(out) = output(tensor, out, &shape) else { return not_direct(py) };
    let target = Usual::writable(out.as_borrowed()).filter(|target| target.dtype == input.dtype);
    let Some(memory) = target.and_then(|target| input.with_out_apart(target)) else { return not_direct(py) };
    communicator.get().session.call(py, &shape, timeout, |runtime, call| {
        memory.with_both(|from, to| runtime.all_to_all(from, to, input.dtype, None, None, call))
    })?;
    Ok(out)
}

/// The array for a result of `shape`: the one given, if it has that shape, or a new one of the tensor's dtype.
fn output<'py>(
    tensor: Borrowed<'_, 'py, PyAny>,
    given: Option<Bound<'py, PyAny>>,
    shape: &Shape,
) -> Option<Bound<'py, PyAny>> {
    static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = tensor.py();
    match given.filter(|out| !out.is_none()) {
        Some(out) => {
            let fits = Usual::of(out.as_borrowed())?.shape().ok()?.as_slice() == shape.as_slice();
            fits.then_some(out)
        }
        None => {
            let dimensions = PyTuple::new(py, shape.as_slice()).ok()?;
            let dtype = tensor.getattr(intern!(py, "dtype")).ok()?;
            EMPTY.import(py, "numpy", "empty").ok()?.call1((dimensions, dtype)).ok()
        }
    }
}

/// A call on a list of arrays and a list of those to be written, which may be the same.
fn each<'py>(
    communicator: &Bound<'py, Communicator>,
    tensors: &Bound<'py, PyAny>,
    outs: &Bound<'py, PyAny>,
    timeout: Option<Duration>,
    make: impl Send + Fn(&mut Runtime, ReadSpan<'_>, WriteSpan<'_>, Dtype, &mut Call<'_>) -> Result<(), Error>,
) -> Outcome<'py> {
    let py = communicator.py();
    // The lists may change meanwhile: these are ours.
    let Some((tensors, outs)) = items(tensors).zip(items(outs)) else { return not_direct(py) };
    let Some(bundles) = bundle(&tensors, &outs) else { return not_direct(py) };
    let mut flats = flats(&bundles)?;
    communicator.get().session.call(py, &Shape::POINT, timeout, |runtime, call| {
        call_each(&bundles, &mut flats, runtime, call, make)
    })?;
    Ok(outs.to_list().into_any())
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
        Given::parse(arguments, options, 1, &["root", "timeout"])
    else {
        return not_direct(py);
    };
    if root >= communicator.get().world_size {
        return not_direct(py);
    }
    let Some(buffer) = Usual::writable(tensor) else {
        return each(communicator, &tensor, &tensor, timeout, |runtime, _, buffer, dtype, call| {
            runtime.broadcast(buffer, dtype, root, call)
        });
    };
    let memory = buffer.in_place();
    communicator.get().session.call(py, &buffer.shape()?, timeout, |runtime, call| {
        memory.with(|_, out| runtime.broadcast(out.expect("it is in place"), buffer.dtype, root, call))
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
    let Some(Given { timeout, .. }) = Given::parse(arguments, options, 0, &["timeout"]) else {
        return not_direct(py);
    };
    communicator.get().session.call(py, &Shape::POINT, timeout, |runtime, call| runtime.barrier(call))?;
    Ok(py.None().into_bound(py))
}
