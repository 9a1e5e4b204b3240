//! The shortest way from a call in Python to the runtime, for calls that ask for nothing unusual.
//!
//! Each function takes what the method of the Python class was given, as it was given, and makes the call if
//! the arrays are numpy's and lie as they should. Otherwise it makes none and returns `None`: all other
//! arrays, options and mistakes are for the method itself. So there is no rule here that is not there.

use std::time::Duration;

use isobit::{Call, Communicator as Runtime, Error, Reduction};
use isobit_core::{Dtype, Order, ReduceOp};
use isobit_sys::{ReadSpan, WriteSpan};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::buffer::{Shape, Usual};
use crate::communicator::Communicator;
use crate::given::{Arguments, Usuals};
use crate::handle::Handle;
use crate::lists::{bundle, call_each, flats, items};

/// What the call returns, if it was made.
type Outcome<'py> = PyResult<Option<Bound<'py, PyAny>>>;

/// The shortest way of one method.
pub(crate) struct Direct {
    name: &'static str,
    make: for<'a, 'py> fn(&Bound<'py, Communicator>, &Arguments<'a, 'py>) -> Outcome<'py>,
}

static DIRECTS: [Direct; 7] = [
    Direct { name: "all_reduce", make: all_reduce },
    Direct { name: "reduce", make: reduce },
    Direct { name: "reduce_scatter", make: reduce_scatter },
    Direct { name: "all_gather", make: all_gather },
    Direct { name: "all_to_all", make: all_to_all },
    Direct { name: "broadcast", make: broadcast },
    Direct { name: "barrier", make: barrier },
];

impl Direct {
    /// That of the method of that name.
    pub(crate) fn of_name(name: &str) -> Option<&'static Direct> {
        DIRECTS.iter().find(|direct| direct.name == name)
    }

    /// Makes the call, and tells the other ranks if it failed here alone, as the method would.
    pub(crate) fn make<'py>(
        &self,
        object: &Bound<'py, Handle>,
        arguments: &Arguments<'_, 'py>,
    ) -> Outcome<'py> {
        let py = object.py();
        (self.make)(object.get().native.bind(py), arguments).inspect_err(|error| {
            // What it raises itself says nothing about the call.
            let _ = object.call_method1(intern!(py, "_refuse"), (self.name, error.value(py)));
        })
    }
}

fn plain(op: ReduceOp, order: Order, dtype: Dtype, out_dtype: Option<Dtype>) -> Reduction {
    Reduction { op, order, dtype, accumulate: None, out_dtype, divisor: None }
}

/// `Communicator.all_reduce`.
fn all_reduce<'py>(communicator: &Bound<'py, Communicator>, arguments: &Arguments<'_, 'py>) -> Outcome<'py> {
    let py = communicator.py();
    let Some(Usuals { tensor, out, op, order, timeout, .. }) = arguments.usual(&[arguments.root]) else {
        return Ok(None);
    };
    let out = out.unwrap_or(tensor);
    if let Some(target) = Usual::writable(out) {
        let input = if tensor.is(out) { Some(target) } else { Usual::of(tensor) };
        let Some((input, memory)) = input.and_then(|input| Some((input, input.with_out_alike(target)?)))
        else {
            return Ok(None);
        };
        let reduction = plain(op, order, input.dtype, Some(target.dtype));
        communicator.get().session.call_at_once(py, &input.shape()?, timeout, |runtime, call| {
            memory.with_both(|input, out| runtime.all_reduce(input, out, &reduction, call))
        })?;
        return Ok(Some(out.to_owned()));
    }
    each(communicator, &tensor, &out, timeout, |runtime, input, out, dtype, call| {
        runtime.all_reduce(input, out, &plain(op, order, dtype, None), call)
    })
}

/// `Communicator.reduce`.
fn reduce<'py>(communicator: &Bound<'py, Communicator>, arguments: &Arguments<'_, 'py>) -> Outcome<'py> {
    let py = communicator.py();
    let Some(Usuals { tensor, out, op, order, root, timeout }) = arguments.usual(&[]) else {
        return Ok(None);
    };
    let communicator = communicator.get();
    let Some(input) = Usual::of(tensor).filter(|_| root < communicator.world_size) else {
        return Ok(None);
    };
    let out = out.unwrap_or(tensor);
    let (memory, to) = if communicator.rank == root {
        let target = Usual::writable(out);
        (target.and_then(|target| input.with_out_alike(target)), target.map(|target| target.dtype))
    } else {
        (Some(input.to_read()), None)
    };
    let Some(memory) = memory else { return Ok(None) };
    let reduction = plain(op, order, input.dtype, to);
    communicator.session.call_at_once(py, &input.shape()?, timeout, |runtime, call| {
        memory.with(|input, out| runtime.reduce(input.expect("it was lent"), out, &reduction, root, call))
    })?;
    Ok(Some(if communicator.rank == root { out.to_owned() } else { py.None().into_bound(py) }))
}

/// `Communicator.reduce_scatter`.
fn reduce_scatter<'py>(
    communicator: &Bound<'py, Communicator>,
    arguments: &Arguments<'_, 'py>,
) -> Outcome<'py> {
    let py = communicator.py();
    let Some(Usuals { tensor, out, op, order, timeout, .. }) = arguments.usual(&[arguments.root]) else {
        return Ok(None);
    };
    let Some(input) = Usual::of(tensor) else { return Ok(None) };
    let (shape, ranks) = (input.shape()?, u64::from(communicator.get().world_size));
    if shape.as_slice().is_empty() || !shape.rows().is_multiple_of(ranks) {
        return Ok(None);
    }
    let own = shape.with_rows(shape.rows() / ranks);
    let Some(out) = output(tensor, out, &own) else { return Ok(None) };
    let target = Usual::writable(out.as_borrowed());
    let Some((target, memory)) = target.and_then(|target| Some((target, input.with_out(target)?))) else {
        return Ok(None);
    };
    let reduction = plain(op, order, input.dtype, Some(target.dtype));
    communicator.get().session.call_at_once(py, &shape, timeout, |runtime, call| {
        memory.with_both(|input, out| runtime.reduce_scatter(input, out, &reduction, None, call))
    })?;
    Ok(Some(out))
}

/// `Communicator.all_gather`.
fn all_gather<'py>(communicator: &Bound<'py, Communicator>, arguments: &Arguments<'_, 'py>) -> Outcome<'py> {
    let py = communicator.py();
    let unknown = [arguments.op, arguments.order, arguments.root];
    let Some(Usuals { tensor, out, timeout, .. }) = arguments.usual(&unknown) else {
        return Ok(None);
    };
    let Some(input) = Usual::of(tensor) else { return Ok(None) };
    let shape = input.shape()?;
    let Some(rows) = shape.rows().checked_mul(u64::from(communicator.get().world_size)) else {
        return Ok(None);
    };
    let total = shape.with_rows(rows);
    let Some(out) = output(tensor, out, &total) else { return Ok(None) };
    let target = Usual::writable(out.as_borrowed()).filter(|target| target.dtype == input.dtype);
    let Some(memory) = target.and_then(|target| input.with_out(target)) else { return Ok(None) };
    communicator.get().session.call_at_once(py, &total, timeout, |runtime, call| {
        memory.with_both(|from, to| runtime.all_gather(from, to, input.dtype, None, call))
    })?;
    Ok(Some(out))
}

/// `Communicator.all_to_all`.
fn all_to_all<'py>(communicator: &Bound<'py, Communicator>, arguments: &Arguments<'_, 'py>) -> Outcome<'py> {
    let py = communicator.py();
    let unknown = [arguments.op, arguments.order, arguments.root];
    let Some(Usuals { tensor, out, timeout, .. }) = arguments.usual(&unknown) else {
        return Ok(None);
    };
    let Some(input) = Usual::of(tensor) else { return Ok(None) };
    let (shape, ranks) = (input.shape()?, u64::from(communicator.get().world_size));
    if shape.as_slice().is_empty() || !shape.rows().is_multiple_of(ranks) {
        return Ok(None);
    }
    let Some(out) = output(tensor, out, &shape) else { return Ok(None) };
    let target = Usual::writable(out.as_borrowed()).filter(|target| target.dtype == input.dtype);
    let Some(memory) = target.and_then(|target| input.with_out_apart(target)) else { return Ok(None) };
    communicator.get().session.call_at_once(py, &shape, timeout, |runtime, call| {
        memory.with_both(|from, to| runtime.all_to_all(from, to, input.dtype, None, None, call))
    })?;
    Ok(Some(out))
}

/// The array for a result of `shape`: the one given, if it has that shape, or a new one of the tensor's dtype.
fn output<'py>(
    tensor: Borrowed<'_, 'py, PyAny>,
    given: Option<Borrowed<'_, 'py, PyAny>>,
    shape: &Shape,
) -> Option<Bound<'py, PyAny>> {
    static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = tensor.py();
    match given {
        Some(out) => {
            let fits = Usual::of(out)?.shape().ok()?.as_slice() == shape.as_slice();
            fits.then(|| out.to_owned())
        }
        None => {
            let dimensions = PyTuple::new(py, shape.as_slice()).ok()?;
            let dtype = tensor.getattr(intern!(py, "dtype")).ok()?;
            EMPTY.import(py, "numpy", "empty").ok()?.call1((dimensions, dtype)).ok()
        }
    }
}

/// A call on a list of arrays and a list of those to be written, which may be the same.
// Apart, or every other call would make room for all that this one needs.
#[cold]
#[inline(never)]
fn each<'py>(
    communicator: &Bound<'py, Communicator>,
    tensors: &Bound<'py, PyAny>,
    outs: &Bound<'py, PyAny>,
    timeout: Option<Duration>,
    make: impl Send + Fn(&mut Runtime, ReadSpan<'_>, WriteSpan<'_>, Dtype, &mut Call<'_>) -> Result<(), Error>,
) -> Outcome<'py> {
    let py = communicator.py();
    // The lists may change meanwhile: these are ours.
    let Some((tensors, outs)) = items(tensors).zip(items(outs)) else { return Ok(None) };
    let Some(bundles) = bundle(&tensors, &outs) else { return Ok(None) };
    let mut flats = flats(&bundles)?;
    communicator.get().session.call(py, &Shape::POINT, timeout, |runtime, call| {
        call_each(&bundles, &mut flats, runtime, call, make)
    })?;
    Ok(Some(outs.to_list().into_any()))
}

/// `Communicator.broadcast`.
fn broadcast<'py>(communicator: &Bound<'py, Communicator>, arguments: &Arguments<'_, 'py>) -> Outcome<'py> {
    let py = communicator.py();
    let unknown = [arguments.out, arguments.op, arguments.order];
    let Some(Usuals { tensor, root, timeout, .. }) = arguments.usual(&unknown) else {
        return Ok(None);
    };
    if root >= communicator.get().world_size {
        return Ok(None);
    }
    let Some(buffer) = Usual::writable(tensor) else {
        return each(communicator, &tensor, &tensor, timeout, |runtime, _, buffer, dtype, call| {
            runtime.broadcast(buffer, dtype, root, call)
        });
    };
    let memory = buffer.in_place();
    communicator.get().session.call_at_once(py, &buffer.shape()?, timeout, |runtime, call| {
        memory.with(|_, out| runtime.broadcast(out.expect("it is in place"), buffer.dtype, root, call))
    })?;
    Ok(Some(tensor.to_owned()))
}

/// `Communicator.barrier`.
fn barrier<'py>(communicator: &Bound<'py, Communicator>, arguments: &Arguments<'_, 'py>) -> Outcome<'py> {
    let py = communicator.py();
    let unknown = [arguments.tensor, arguments.out, arguments.op, arguments.order, arguments.root];
    let Some(timeout) = arguments.timeout().filter(|_| !unknown.iter().any(|given| given.is_there())) else {
        return Ok(None);
    };
    communicator
        .get()
        .session
        .call_at_once(py, &Shape::POINT, timeout, |runtime, call| runtime.barrier(call))?;
    Ok(Some(py.None().into_bound(py)))
}
