//! `_native.Communicator`: one method a collective, each a few lines around the runtime's own.

use isobit::{Call, Communicator as Runtime};
use isobit_core::{Dtype, Rank};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::accumulator::Accumulator;
use crate::arguments::{dtype_named, natural, reduction, seconds};
use crate::arrays::{check_dtypes, elements, input_array, out_array, pair, shape_of};
use crate::buffer::{Array, Held};
use crate::flight::FlightRecorder;
use crate::session::{Session, When};
use crate::work::Work;
use crate::{explain, joining};

/// One rank's membership in a group.
#[pyclass(frozen, module = "isobit._native")]
pub(crate) struct Communicator {
    pub(crate) session: Session,
    #[pyo3(get)]
    pub(crate) rank: Rank,
    #[pyo3(get)]
    pub(crate) world_size: u32,
    #[pyo3(get)]
    transport: String,
    #[pyo3(get)]
    flight_recorder: FlightRecorder,
}

impl Communicator {
    fn new(runtime: Runtime) -> Communicator {
        Communicator {
            rank: runtime.rank(),
            world_size: runtime.world_size(),
            transport: runtime.transport().to_owned(),
            flight_recorder: FlightRecorder::of(&runtime),
            session: Session::new(runtime),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "Python signatures")]
#[pymethods]
impl Communicator {
    /// A world of one.
    #[staticmethod]
    fn solo() -> Communicator {
        Communicator::new(Runtime::solo())
    }

    /// The ranks of a group inside this process, one for each of `n` threads.
    #[staticmethod]
    fn memory_group(n: u32) -> Vec<Communicator> {
        Runtime::memory_group(n).into_iter().map(Communicator::new).collect()
    }

    /// Joins the group of processes of this host that give the same `job`.
    #[staticmethod]
    fn connect(
        py: Python<'_>,
        job: String,
        rank: Rank,
        world_size: u32,
        timeout: f64,
    ) -> PyResult<Communicator> {
        Ok(Communicator::new(joining::connect(py, job, rank, world_size, timeout)?))
    }

    #[getter]
    fn epoch(&self, py: Python<'_>) -> PyResult<u32> {
        self.session.call(py, &shape_of(Vec::new())?, None, |runtime, _| Ok(runtime.epoch()))
    }

    fn set_timeout(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let timeout = seconds("timeout", timeout)?;
        self.session.call(py, &shape_of(Vec::new())?, None, |runtime, _| {
            runtime.set_timeout(timeout);
            Ok(())
        })
    }

    /// `shape` is what the ranks must agree on, the tensor's unless given.
    fn all_reduce(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        op: &str,
        order: &str,
        accumulate: Option<&str>,
        divisor: Option<&Bound<'_, PyAny>>,
        shape: Option<Vec<u64>>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let arrays = pair(tensor, Some(out))?;
        let reduction = reduction(op, order, accumulate, divisor, arrays.dtype, arrays.out_dtype)?;
        let shape = shape.map_or(Ok(arrays.shape), shape_of)?;
        self.session.run(py, arrays.held, shape, when, move |runtime, input, out, call| {
            runtime.all_reduce(present(input), present(out), &reduction, call)
        })
    }

    fn reduce(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        out: Option<&Bound<'_, PyAny>>,
        op: &str,
        order: &str,
        accumulate: Option<&str>,
        out_dtype: Option<&str>,
        divisor: Option<&Bound<'_, PyAny>>,
        root: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let root = self.session.rank_argument("root", root)?;
        let arrays = pair(tensor, out)?;
        let to = out_dtype.map(|name| dtype_named("out_dtype", name)).transpose()?.or(arrays.out_dtype);
        let reduction = reduction(op, order, accumulate, divisor, arrays.dtype, to)?;
        self.session.run(py, arrays.held, arrays.shape, when, move |runtime, input, out, call| {
            runtime.reduce(present(input), out, &reduction, root, call)
        })
    }

    fn reduce_scatter(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        op: &str,
        order: &str,
        accumulate: Option<&str>,
        divisor: Option<&Bound<'_, PyAny>>,
        counts: Option<Vec<u64>>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let (input, out) = (input_array(tensor)?, out_array(out)?);
        let reduction = reduction(op, order, accumulate, divisor, input.dtype, Some(out.dtype))?;
        let shape = input.shape.clone();
        let held = Held::new(Some(input), Some(out))?;
        self.session.run(py, held, shape, when, move |runtime, input, out, call| {
            runtime.reduce_scatter(present(input), present(out), &reduction, counts.as_deref(), call)
        })
    }

    fn all_gather(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        shape: Vec<u64>,
        counts: Option<Vec<u64>>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let (input, out) = (input_array(tensor)?, out_array(out)?);
        check_dtypes(&input, &out)?;
        let dtype = input.dtype;
        let held = Held::new(Some(input), Some(out))?;
        self.session.run(py, held, shape_of(shape)?, when, move |runtime, input, out, call| {
            runtime.all_gather(present(input), present(out), dtype, counts.as_deref(), call)
        })
    }

    fn gather(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        out: Option<&Bound<'_, PyAny>>,
        shape: Vec<u64>,
        root: &Bound<'_, PyAny>,
        counts: Option<Vec<u64>>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let root = self.session.rank_argument("root", root)?;
        let input = input_array(tensor)?;
        let out = out.map(out_array).transpose()?;
        out.as_ref().map_or(Ok(()), |out| check_dtypes(&input, out))?;
        let dtype = input.dtype;
        let held = Held::new(Some(input), out)?;
        self.session.run(py, held, shape_of(shape)?, when, move |runtime, input, out, call| {
            runtime.gather(present(input), out, dtype, root, counts.as_deref(), call)
        })
    }

    fn scatter(
        &self,
        py: Python<'_>,
        tensor: Option<&Bound<'_, PyAny>>,
        out: &Bound<'_, PyAny>,
        shape: Vec<u64>,
        root: &Bound<'_, PyAny>,
        counts: Option<Vec<u64>>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let root = self.session.rank_argument("root", root)?;
        let input = tensor.map(input_array).transpose()?;
        let out = out_array(out)?;
        input.as_ref().map_or(Ok(()), |input| check_dtypes(input, &out))?;
        let dtype = out.dtype;
        let held = Held::new(input, Some(out))?;
        self.session.run(py, held, shape_of(shape)?, when, move |runtime, input, out, call| {
            runtime.scatter(input, present(out), dtype, root, counts.as_deref(), call)
        })
    }

    /// `shape` as in `all_reduce`.
    fn broadcast(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        root: &Bound<'_, PyAny>,
        shape: Option<Vec<u64>>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let root = self.session.rank_argument("root", root)?;
        let buffer = Array::get_mut("tensor", tensor)?;
        let (dtype, shape) = (buffer.dtype, shape.map_or_else(|| Ok(buffer.shape.clone()), shape_of)?);
        let held = Held::new(None, Some(buffer))?;
        self.session.run(py, held, shape, when, move |runtime, _, buffer, call| {
            runtime.broadcast(present(buffer), dtype, root, call)
        })
    }

    fn all_to_all(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        shape: Vec<u64>,
        send_counts: Option<Vec<u64>>,
        recv_counts: Option<Vec<u64>>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let (input, out) = (input_array(tensor)?, out_array(out)?);
        check_dtypes(&input, &out)?;
        let dtype = input.dtype;
        let held = Held::apart(input, out)?;
        self.session.run(py, held, shape_of(shape)?, when, move |runtime, input, out, call| {
            let (send, recv) = (send_counts.as_deref(), recv_counts.as_deref());
            runtime.all_to_all(present(input), present(out), dtype, send, recv, call)
        })
    }

    fn barrier(&self, py: Python<'_>, timeout: Option<f64>, background: bool) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let (held, shape) = (Held::new(None, None)?, shape_of(Vec::new())?);
        self.session.run(py, held, shape, when, |runtime, _, _, call| runtime.barrier(call))
    }

    fn send(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
        tag: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let (to, tag) = (self.session.rank_argument("dst", dst)?, natural("tag", tag)?);
        let input = input_array(tensor)?;
        let (dtype, shape) = (input.dtype, input.shape.clone());
        let held = Held::new(Some(input), None)?;
        self.session.run(py, held, shape, when, move |runtime, input, _, call| {
            runtime.send(present(input), dtype, to, tag, call)
        })
    }

    fn recv(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        src: &Bound<'_, PyAny>,
        tag: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let (from, tag) = (self.session.rank_argument("src", src)?, natural("tag", tag)?);
        let out = Array::get_mut("tensor", tensor)?;
        let (dtype, shape) = (out.dtype, out.shape.clone());
        let held = Held::new(None, Some(out))?;
        self.session.run(py, held, shape, when, move |runtime, _, out, call| {
            runtime.recv(present(out), dtype, from, tag, call)
        })
    }

    /// The leaves that this rank owns, as runs `first..end`.
    fn leaves(&self, py: Python<'_>, num_leaves: &Bound<'_, PyAny>) -> PyResult<Vec<(u32, u32)>> {
        let any = reduction("sum", "tree", None, None, Dtype::F32, None)?;
        let leaves = natural("num_leaves", num_leaves)?;
        self.session.call(py, &shape_of(Vec::new())?, None, |runtime, _| {
            Ok(runtime.accumulator(&any, leaves, 0)?.leaves().runs().to_vec())
        })
    }

    /// An accumulator for this rank's leaves, each of `shape` and `dtype`.
    fn accumulator(
        &self,
        py: Python<'_>,
        num_leaves: &Bound<'_, PyAny>,
        order: &str,
        accumulate: Option<&str>,
        out_dtype: Option<&str>,
        dtype: &str,
        shape: Vec<u64>,
    ) -> PyResult<Accumulator> {
        let dtype = dtype_named("dtype", dtype)?;
        let out = out_dtype.map(|name| dtype_named("out_dtype", name)).transpose()?;
        let reduction = reduction("sum", order, accumulate, None, dtype, out)?;
        let leaves = natural("num_leaves", num_leaves)?;
        let (count, shape) = (elements(&shape)?, shape_of(shape)?);
        let make = |runtime: &mut Runtime, _: &mut Call<'_>| runtime.accumulator(&reduction, leaves, count);
        Ok(Accumulator::new(self.session.call(py, &shape, None, make)?, dtype, shape))
    }

    fn accumulated_all_reduce(
        &self,
        py: Python<'_>,
        accumulator: &Accumulator,
        out: &Bound<'_, PyAny>,
        op: &str,
        divisor: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let held = Held::new(None, Some(out_array(out)?))?;
        let asked = reduction(op, "tree", None, divisor, accumulator.dtype, None)?;
        let taken = accumulator.take(py)?;
        self.session.run(py, held, accumulator.shape.clone(), when, move |runtime, _, out, call| {
            runtime.accumulated_all_reduce(taken, asked.op, asked.divisor, present(out), call)
        })
    }

    fn accumulated_reduce_scatter(
        &self,
        py: Python<'_>,
        accumulator: &Accumulator,
        out: &Bound<'_, PyAny>,
        op: &str,
        divisor: Option<&Bound<'_, PyAny>>,
        counts: Option<Vec<u64>>,
        timeout: Option<f64>,
        background: bool,
    ) -> PyResult<Option<Work>> {
        let when = When::new(timeout, background)?;
        let held = Held::new(None, Some(out_array(out)?))?;
        let asked = reduction(op, "tree", None, divisor, accumulator.dtype, None)?;
        let taken = accumulator.take(py)?;
        self.session.run(py, held, accumulator.shape.clone(), when, move |runtime, _, out, call| {
            let counts = counts.as_deref();
            runtime.accumulated_reduce_scatter(taken, asked.op, asked.divisor, present(out), counts, call)
        })
    }

    /// Splits the group by color; a rank without one joins none.
    fn split(
        &self,
        py: Python<'_>,
        color: Option<&Bound<'_, PyAny>>,
        key: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Option<Communicator>> {
        let color = color.map(|color| natural("color", color)).transpose()?;
        let (key, timeout) = (natural("key", key)?, When::new(timeout, false)?.timeout);
        let made = self.session.call(py, &shape_of(Vec::new())?, timeout, move |runtime, call| {
            runtime.split(color, key, call)
        })?;
        Ok(made.map(Communicator::new))
    }

    /// The group of some ranks; `None` on the others.
    fn new_group(
        &self,
        py: Python<'_>,
        ranks: Vec<u32>,
        timeout: Option<f64>,
    ) -> PyResult<Option<Communicator>> {
        let timeout = When::new(timeout, false)?.timeout;
        let made = self.session.call(py, &shape_of(Vec::new())?, timeout, move |runtime, call| {
            runtime.new_group(&ranks, call)
        })?;
        Ok(made.map(Communicator::new))
    }

    /// What a call would do.
    fn explain<'py>(
        &self,
        py: Python<'py>,
        collective: &str,
        count: u64,
        dtype: &str,
        op: &str,
        order: &str,
        accumulate: Option<&str>,
        out_dtype: Option<&str>,
        num_leaves: Option<u32>,
        root: u32,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (dtype, out) =
            (dtype_named("dtype", dtype)?, out_dtype.map(|name| dtype_named("out_dtype", name)).transpose()?);
        let reduction = reduction(op, order, accumulate, None, dtype, out)?;
        let told = self.session.call(py, &shape_of(Vec::new())?, None, |runtime, _| {
            runtime.explain(collective, &reduction, count, num_leaves, root)
        })?;
        explain::dictionary(py, &told)
    }

    /// Refuses this rank's next collective: the others are told `message` instead of waiting.
    fn refuse(&self, py: Python<'_>, operation: String, message: String, memory: bool) -> PyResult<()> {
        self.session.refuse(py, operation, message, memory)
    }

    fn abort(&self, py: Python<'_>, reason: &str) -> PyResult<()> {
        self.session.abort(py, reason)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.session.close(py)
    }
}

fn present<T>(span: Option<T>) -> T {
    span.expect("this operation's array was passed")
}
