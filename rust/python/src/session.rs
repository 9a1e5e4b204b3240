//! How calls are made: detached from the interpreter, at once or in the background, with signals heard.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use isobit::{Call, Communicator as Runtime, Error, ErrorKind, Progress};
use isobit_core::Rank;
use isobit_sys::{ReadSpan, WriteSpan};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arguments::{natural, seconds};
use crate::arrays::shape_of;
use crate::buffer::{Held, Shape};
use crate::errors::exception;
use crate::flight::caller;
use crate::guard::Guarded;
use crate::raw::Interpreter;
use crate::work::Work;

/// A communicator of Python's, without its methods.
pub(crate) struct Session {
    pub(crate) progress: Guarded<Progress>,
    world_size: u32,
    abort: isobit::AbortHandle,
}

/// When a call is to be done.
pub(crate) struct When {
    pub(crate) timeout: Option<Duration>,
    background: bool,
}

impl When {
    pub(crate) fn new(timeout: Option<f64>, background: bool) -> PyResult<When> {
        Ok(When { timeout: timeout.map(|given| seconds("timeout", given)).transpose()?, background })
    }
}

/// A signal handler's exception, kept until the call has ended.
pub(crate) fn listen(raised: &Cell<Option<PyErr>>) -> bool {
    let error = Python::attach(|py| py.check_signals()).err();
    let heard = error.is_some();
    raised.set(error);
    heard
}

/// What became of a call; none if a signal stopped its wait for others.
fn outcome<T>(py: Python<'_>, result: Option<Result<T, Error>>, raised: Option<PyErr>) -> PyResult<T> {
    match result {
        Some(result) => result.map_err(|error| exception(py, &error, raised)),
        None => Err(raised.expect("an interrupted wait was interrupted by a signal")),
    }
}

impl Session {
    pub(crate) fn new(runtime: Runtime) -> Session {
        let world_size = runtime.world_size();
        let progress = Progress::new(runtime);
        let abort = progress.abort_handle();
        Session { progress: Guarded::new("communicator", progress), world_size, abort }
    }

    /// Makes one call, after all that were issued before, and listens for signals meanwhile.
    pub(crate) fn call<T: Send>(
        &self,
        py: Python<'_>,
        shape: &Shape,
        timeout: Option<Duration>,
        work: impl Send + FnOnce(&mut Runtime, &mut Call<'_>) -> Result<T, Error>,
    ) -> PyResult<T> {
        let mut in_use = self.progress.in_use(py)?;
        let progress = in_use.get();
        let site = caller(py);
        let (result, raised) = py.detach(|| {
            let raised = Cell::new(None);
            let result = progress.call(&mut || listen(&raised), |runtime| {
                let interrupt = &mut || listen(&raised);
                runtime.call_from(site);
                work(runtime, &mut Call { shape: shape.as_slice(), timeout, interrupt })
            });
            (result, raised.into_inner())
        });
        outcome(py, result, raised)
    }

    /// As `call`, for a call that is likely not to wait: only when it does, or has much to do, do other threads of
    /// Python's run. To let them and to take turns with them again takes longer than all else here.
    pub(crate) fn call_at_once<T>(
        &self,
        py: Python<'_>,
        shape: &Shape,
        timeout: Option<Duration>,
        work: impl Send + FnOnce(&mut Runtime, &mut Call<'_>) -> Result<T, Error>,
    ) -> PyResult<T> {
        let mut in_use = self.progress.in_use(py)?;
        let progress = in_use.get();
        let site = caller(py);
        let raised = Cell::new(None);
        let interpreter = Interpreter::held(py);
        let listen = || {
            let heard = interpreter.let_go();
            // The first one ends the call: none is replaced, which would take the interpreter.
            heard.is_err_and(|error| {
                raised.set(Some(error));
                true
            })
        };
        let result = progress.call(&mut || listen(), |runtime| {
            let interrupt = &mut || listen();
            runtime.call_from(site);
            work(runtime, &mut Call { shape: shape.as_slice(), timeout, interrupt })
        });
        drop(interpreter);
        outcome(py, result, raised.into_inner())
    }

    /// Makes one collective call on the arrays, now or in the background.
    pub(crate) fn run(
        &self,
        py: Python<'_>,
        held: Held,
        shape: Shape,
        when: When,
        work: impl Send
        + 'static
        + for<'a> FnOnce(
            &mut Runtime,
            Option<ReadSpan<'a>>,
            Option<WriteSpan<'a>>,
            &mut Call<'_>,
        ) -> Result<(), Error>,
    ) -> PyResult<Option<Work>> {
        let When { timeout, background } = when;
        if !background {
            let held = &held;
            let call = |runtime: &mut Runtime, call: &mut Call<'_>| {
                held.lend().with(|input, out| work(runtime, input, out, call))
            };
            return self.call(py, &shape, timeout, call).map(|()| None);
        }
        let held = Arc::new(held);
        let job_held = Arc::clone(&held);
        let site = caller(py);
        let job = move |runtime: &mut Runtime| {
            let mut call = Call { shape: shape.as_slice(), timeout, interrupt: &mut || false };
            runtime.call_from(site);
            job_held.lend().with(|input, out| work(runtime, input, out, &mut call))
        };
        let mut in_use = self.progress.in_use(py)?;
        let progress = in_use.get();
        let submitted = py.detach(|| progress.submit(Box::new(job)));
        Ok(Some(Work::new(submitted, held)))
    }

    /// Refuses this rank's next collective: the others are told `message` instead of waiting.
    pub(crate) fn refuse(
        &self,
        py: Python<'_>,
        operation: String,
        message: String,
        memory: bool,
    ) -> PyResult<()> {
        let kind = if memory { ErrorKind::Memory } else { ErrorKind::Value };
        self.call(py, &shape_of(Vec::new())?, None, move |runtime, _| {
            let (rank, epoch) = (runtime.rank(), runtime.epoch());
            let operation = Some(operation);
            runtime.refuse(&Error { kind, message, rank, peer: None, operation, sequence: None, epoch });
            Ok(())
        })
    }

    /// Ends the group's work, during a call of another thread, too.
    pub(crate) fn abort(&self, py: Python<'_>, reason: &str) -> PyResult<()> {
        if self.progress.is_inherited() {
            return self.progress.in_use(py).map(drop);
        }
        self.abort.abort(reason);
        // A call in progress sees to it; without one the other ranks must be told here.
        if let Ok(mut in_use) = self.progress.in_use(py) {
            let progress = in_use.get();
            py.detach(|| progress.call(&mut || false, |runtime| runtime.abort(reason)));
        }
        Ok(())
    }

    /// Leaves the group; calls in the background that are not done fail.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(progress) = self.progress.take(py)? {
            py.detach(move || progress.close());
        }
        Ok(())
    }

    pub(crate) fn rank_argument(&self, argument: &str, given: &Bound<'_, PyAny>) -> PyResult<Rank> {
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

impl Drop for Session {
    fn drop(&mut self) {
        if self.progress.is_inherited() {
            return self.progress.leak();
        }
        // The thread that carries out calls may wait for the interpreter before it ends.
        Python::attach(|py| {
            let _ = self.close(py);
        });
    }
}
