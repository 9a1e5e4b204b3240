//! `_native.Communicator`: one method a collective, each a few lines around the runtime's own.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use isobit::transport::shm::{ShmConfig, ShmOptions};
use isobit::{Call, Communicator as Runtime, Error};
use isobit_core::{Dtype, Rank};
use isobit_sys::{ReadSpan, WriteSpan};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::accumulator::Accumulator;
use crate::arguments::{dtype_named, natural, reduction, seconds};
use crate::arrays::{check_dtypes, input_array, out_array, pair, shape_of};
use crate::buffer::{Array, Shape, detached};
use crate::errors::exception;
use crate::guard::Guarded;

/// How soon a signal ends the wait for the other ranks.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// One rank's membership in a group.
#[pyclass(frozen, module = "isobit._native")]
pub(crate) struct Communicator {
    runtime: Guarded<Runtime>,
    #[pyo3(get)]
    rank: Rank,
    #[pyo3(get)]
    world_size: u32,
    #[pyo3(get)]
    transport: String,
}

impl Communicator {
    fn new(runtime: Runtime) -> Communicator {
        Communicator {
            rank: runtime.rank(),
            world_size: runtime.world_size(),
            transport: runtime.transport().to_owned(),
            runtime: Guarded::new("communicator", runtime),
        }
    }

    /// Runs one operation detached, with its deadline, and listens for signals meanwhile.
    fn run(
        &self,
        py: Python<'_>,
        input: Option<&Array>,
        out: Option<&Array>,
        shape: &Shape,
        timeout: Option<f64>,
        work: impl Send
        + for<'a> FnOnce(
            &mut Runtime,
            Option<ReadSpan<'a>>,
            Option<WriteSpan<'a>>,
            &mut Call<'_>,
        ) -> Result<(), Error>,
    ) -> PyResult<()> {
        if let (Some(input), Some(out)) = (input, out) {
            input.check_apart(out)?;
        }
        let timeout = timeout.map(|given| seconds("timeout", given)).transpose()?;
        let mut in_use = self.runtime.in_use(py)?;
        let runtime = in_use.get();
        let (result, raised) = detached(py, input, out, move |input, out| {
            let mut raised = None;
            let mut interrupt = || {
                raised = Python::attach(|py| py.check_signals()).err();
                raised.is_some()
            };
            let mut call = Call { shape: shape.as_slice(), timeout, interrupt: &mut interrupt };
            let result = work(runtime, input, out, &mut call);
            (result, raised)
        });
        result.map_err(|error| exception(py, &error, raised))
    }

    fn rank_argument(&self, argument: &str, given: &Bound<'_, PyAny>) -> PyResult<Rank> {
        let rank = natural(argument, given)?;
        if rank < self.world_size {
            return Ok(rank);
        }
        let last = self.world_size - 1;
        Err(PyValueError::new_err(format!(
            "{argument}={rank} is no rank of this group: ranks are 0 to {last}"
        )))
    }
}

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
        let deadline = Instant::now() + seconds("timeout", timeout)?;
        let config = ShmConfig { job, rank, world_size, deadline, options: ShmOptions::default() };
        // On a thread of its own, so that this one can listen for signals. After a Ctrl-C it ends at the
        // latest at the deadline.
        let (sender, mut receiver) = mpsc::channel();
        thread::spawn(move || {
            // Nobody waits any more after a Ctrl-C: the communicator is dropped, and says goodbye.
            let _ = sender.send(Runtime::connect(&config));
        });
        let connected = loop {
            let receiver = &mut receiver;
            match py.detach(move || receiver.recv_timeout(SIGNALS_EVERY)) {
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PyRuntimeError::new_err("connecting panicked"));
                }
                Ok(connected) => break connected,
            }
        };
        Ok(Communicator::new(connected.map_err(|error| exception(py, &error, None))?))
    }

    #[getter]
    fn epoch(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.runtime.in_use(py)?.get().epoch())
    }

    fn set_timeout(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let timeout = seconds("timeout", timeout)?;
        self.runtime.in_use(py)?.get().set_timeout(timeout);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one Python signature")]
    fn all_reduce(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        op: &str,
        order: &str,
        accumulate: Option<&str>,
        divisor: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let (input, other) = pair(tensor, Some(out))?;
        let out = other.as_ref().unwrap_or(&input);
        let reduction = reduction(op, order, accumulate, divisor, input.dtype, Some(out.dtype))?;
        self.run(py, Some(&input), Some(out), &input.shape, timeout, |runtime, input, out, call| {
            runtime.all_reduce(present(input), present(out), &reduction, call)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one Python signature")]
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
    ) -> PyResult<()> {
        let root = self.rank_argument("root", root)?;
        let (input, other) = pair(tensor, out)?;
        let out = other.as_ref().or(out.map(|_| &input));
        let to = match (out_dtype, &out) {
            (Some(name), _) => Some(dtype_named("out_dtype", name)?),
            (None, out) => out.map(|out| out.dtype),
        };
        let reduction = reduction(op, order, accumulate, divisor, input.dtype, to)?;
        self.run(py, Some(&input), out, &input.shape, timeout, |runtime, input, out, call| {
            runtime.reduce(present(input), out, &reduction, root, call)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one Python signature")]
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
    ) -> PyResult<()> {
        let (input, out) = (input_array(tensor)?, out_array(out)?);
        let reduction = reduction(op, order, accumulate, divisor, input.dtype, Some(out.dtype))?;
        self.run(py, Some(&input), Some(&out), &input.shape, timeout, |runtime, input, out, call| {
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
    ) -> PyResult<()> {
        let (input, out) = (input_array(tensor)?, out_array(out)?);
        check_dtypes(&input, &out)?;
        let (dtype, shape) = (input.dtype, shape_of(shape)?);
        self.run(py, Some(&input), Some(&out), &shape, timeout, |runtime, input, out, call| {
            runtime.all_gather(present(input), present(out), dtype, counts.as_deref(), call)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one Python signature")]
    fn gather(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        out: Option<&Bound<'_, PyAny>>,
        shape: Vec<u64>,
        root: &Bound<'_, PyAny>,
        counts: Option<Vec<u64>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let root = self.rank_argument("root", root)?;
        let input = input_array(tensor)?;
        let out = out.map(out_array).transpose()?;
        out.as_ref().map_or(Ok(()), |out| check_dtypes(&input, out))?;
        let (dtype, shape) = (input.dtype, shape_of(shape)?);
        self.run(py, Some(&input), out.as_ref(), &shape, timeout, |runtime, input, out, call| {
            runtime.gather(present(input), out, dtype, root, counts.as_deref(), call)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one Python signature")]
    fn scatter(
        &self,
        py: Python<'_>,
        tensor: Option<&Bound<'_, PyAny>>,
        out: &Bound<'_, PyAny>,
        shape: Vec<u64>,
        root: &Bound<'_, PyAny>,
        counts: Option<Vec<u64>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let root = self.rank_argument("root", root)?;
        let input = tensor.map(input_array).transpose()?;
        let out = out_array(out)?;
        input.as_ref().map_or(Ok(()), |input| check_dtypes(input, &out))?;
        let (dtype, shape) = (out.dtype, shape_of(shape)?);
        self.run(py, input.as_ref(), Some(&out), &shape, timeout, |runtime, input, out, call| {
            runtime.scatter(input, present(out), dtype, root, counts.as_deref(), call)
        })
    }

    fn broadcast(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        root: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let root = self.rank_argument("root", root)?;
        let buffer = Array::get_mut("tensor", tensor)?;
        let dtype = buffer.dtype;
        self.run(py, None, Some(&buffer), &buffer.shape, timeout, |runtime, _, buffer, call| {
            runtime.broadcast(present(buffer), dtype, root, call)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one Python signature")]
    fn all_to_all(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        shape: Vec<u64>,
        send_counts: Option<Vec<u64>>,
        recv_counts: Option<Vec<u64>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let (input, out) = (input_array(tensor)?, out_array(out)?);
        check_dtypes(&input, &out)?;
        let (dtype, shape) = (input.dtype, shape_of(shape)?);
        self.run(py, Some(&input), Some(&out), &shape, timeout, |runtime, input, out, call| {
            let (send, recv) = (send_counts.as_deref(), recv_counts.as_deref());
            runtime.all_to_all(present(input), present(out), dtype, send, recv, call)
        })
    }

    fn barrier(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.run(py, None, None, &shape_of(Vec::new())?, timeout, |runtime, _, _, call| runtime.barrier(call))
    }

    fn send(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
        tag: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let (to, tag) = (self.rank_argument("dst", dst)?, natural("tag", tag)?);
        let input = input_array(tensor)?;
        let dtype = input.dtype;
        self.run(py, Some(&input), None, &input.shape, timeout, |runtime, input, _, call| {
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
    ) -> PyResult<()> {
        let (from, tag) = (self.rank_argument("src", src)?, natural("tag", tag)?);
        let out = Array::get_mut("tensor", tensor)?;
        let dtype = out.dtype;
        self.run(py, None, Some(&out), &out.shape, timeout, |runtime, _, out, call| {
            runtime.recv(present(out), dtype, from, tag, call)
        })
    }

    /// The leaves that this rank owns, as runs `first..end`.
    fn leaves(&self, py: Python<'_>, num_leaves: &Bound<'_, PyAny>) -> PyResult<Vec<(u32, u32)>> {
        let any = reduction("sum", "tree", None, None, Dtype::F32, None)?;
        let leaves = natural("num_leaves", num_leaves)?;
        let mut in_use = self.runtime.in_use(py)?;
        let made = in_use.get().accumulator(&any, leaves, 0);
        made.map(|made| made.leaves().runs().to_vec()).map_err(|error| exception(py, &error, None))
    }

    /// An accumulator for this rank's leaves, each of `shape` and `dtype`.
    #[expect(clippy::too_many_arguments, reason = "one Python signature")]
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
        let count = shape.iter().try_fold(1_u64, |count, &dimension| count.checked_mul(dimension));
        let count =
            count.ok_or_else(|| PyValueError::new_err(format!("shape {shape:?} has too many elements")))?;
        let mut in_use = self.runtime.in_use(py)?;
        let made = in_use.get().accumulator(&reduction, leaves, count);
        Ok(Accumulator::new(made.map_err(|error| exception(py, &error, None))?, dtype, shape_of(shape)?))
    }

    fn accumulated_all_reduce(
        &self,
        py: Python<'_>,
        accumulator: &Accumulator,
        out: &Bound<'_, PyAny>,
        op: &str,
        divisor: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let out = out_array(out)?;
        let asked = reduction(op, "tree", None, divisor, accumulator.dtype, None)?;
        let taken = accumulator.take(py)?;
        self.run(py, None, Some(&out), &accumulator.shape, timeout, move |runtime, _, out, call| {
            runtime.accumulated_all_reduce(taken, asked.op, asked.divisor, present(out), call)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one Python signature")]
    fn accumulated_reduce_scatter(
        &self,
        py: Python<'_>,
        accumulator: &Accumulator,
        out: &Bound<'_, PyAny>,
        op: &str,
        divisor: Option<&Bound<'_, PyAny>>,
        counts: Option<Vec<u64>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let out = out_array(out)?;
        let asked = reduction(op, "tree", None, divisor, accumulator.dtype, None)?;
        let taken = accumulator.take(py)?;
        self.run(py, None, Some(&out), &accumulator.shape, timeout, move |runtime, _, out, call| {
            let counts = counts.as_deref();
            runtime.accumulated_reduce_scatter(taken, asked.op, asked.divisor, present(out), counts, call)
        })
    }

    fn abort(&self, py: Python<'_>, reason: &str) -> PyResult<()> {
        self.runtime.in_use(py)?.get().abort(reason);
        Ok(())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(mut runtime) = self.runtime.take()? {
            py.detach(move || runtime.close());
        }
        Ok(())
    }
}

fn present<T>(span: Option<T>) -> T {
    span.expect("this operation's array was passed")
}
