//! Joining a group of processes, with signals heard while the others are awaited.

use std::cell::Cell;
use std::time::Instant;

use isobit::Communicator as Runtime;
use isobit::transport::shm::{ShmConfig, ShmOptions};
use isobit_core::Rank;
use pyo3::prelude::*;

use crate::arguments::seconds;
use crate::errors::exception;
use crate::session::listen;

pub(crate) fn connect(
    py: Python<'_>,
    job: String,
    rank: Rank,
    world_size: u32,
    timeout: f64,
) -> PyResult<Runtime> {
    let deadline = Instant::now() + seconds("timeout", timeout)?;
    let config = ShmConfig { job, rank, world_size, deadline, options: ShmOptions::for_ranks(world_size) };
    let (connected, raised) = py.detach(|| {
        let raised = Cell::new(None);
        let connected = Runtime::connect(&config, &mut || listen(&raised));
        (connected, raised.into_inner())
    });
    connected.map_err(|error| exception(py, &error, raised))
}
