//! Joining a group of processes, with signals heard while the others are awaited.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use isobit::Communicator as Runtime;
use isobit::transport::shm::{ShmConfig, ShmOptions};
use isobit_core::Rank;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::arguments::seconds;
use crate::errors::exception;

/// How soon a signal ends the wait for the other ranks.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

pub(crate) fn connect(
    py: Python<'_>,
    job: String,
    rank: Rank,
    world_size: u32,
    timeout: f64,
) -> PyResult<Runtime> {
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
    connected.map_err(|error| exception(py, &error, None))
}
