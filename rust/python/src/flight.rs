//! Call sites of Python code, and the flight recorder's text.
//!
//! A site is found by the code object and the instruction of the first frame outside of this package. Only
//! the first call from there asks for a line number and makes text.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use isobit::{Error, FlightRecorder as Runtime, OperationState, Site};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::raw;

/// How many sites are told apart; programs that make code as they run must not fill the memory.
const SITES_MAX: usize = 1 << 14;

/// What is known of an instruction. The code object is held, so that no other takes its address.
struct Known {
    _code: Py<PyAny>,
    /// None inside of this package.
    site: Option<Site>,
}

struct Frames {
    getframe: Py<PyAny>,
    package: String,
}

static FRAMES: PyOnceLock<Frames> = PyOnceLock::new();
static KNOWN: Mutex<Option<HashMap<(usize, i32), Known>>> = Mutex::new(None);

/// Where the Python code that is not this package's makes the present call.
pub(crate) fn caller(py: Python<'_>) -> Site {
    find(py).unwrap_or(Site::UNKNOWN)
}

fn find(py: Python<'_>) -> PyResult<Site> {
    let frames = FRAMES.get_or_try_init(py, || {
        let package: String = py.import("isobit")?.getattr("__file__")?.extract()?;
        let package = package.trim_end_matches("__init__.py").to_owned();
        let getframe = py.import("sys")?.getattr("_getframe")?.unbind();
        PyResult::Ok(Frames { getframe, package })
    })?;
    let mut frame = frames.getframe.bind(py).call0()?;
    loop {
        let (code, instruction) = raw::position(&frame)?;
        let key = (code.as_ptr() as usize, instruction);
        let known = KNOWN
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(|known| known.get(&key).map(|known| known.site));
        let site = match known {
            Some(site) => site,
            None => learn(py, &frame, code, key, &frames.package)?,
        };
        if let Some(site) = site {
            return Ok(site);
        }
        frame = frame.getattr(intern!(py, "f_back"))?;
    }
}

fn learn(
    py: Python<'_>,
    frame: &Bound<'_, PyAny>,
    code: Bound<'_, PyAny>,
    key: (usize, i32),
    package: &str,
) -> PyResult<Option<Site>> {
    let file: String = code.getattr(intern!(py, "co_filename"))?.extract()?;
    let site = if file.starts_with(package) {
        None
    } else {
        let line = frame.getattr(intern!(py, "f_lineno"))?.extract::<Option<u32>>()?;
        Some(Site::of(&file, line.unwrap_or(0)))
    };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if known.len() < SITES_MAX {
        known.insert(key, Known { _code: code.unbind(), site });
    }
    Ok(site)
}

/// A communicator's recorder, which can be read while the communicator is in a call.
#[pyclass(frozen, module = "isobit._native")]
#[derive(Clone)]
pub(crate) struct FlightRecorder(Runtime);

impl FlightRecorder {
    pub(crate) fn of(communicator: &isobit::Communicator) -> FlightRecorder {
        FlightRecorder(communicator.flight_recorder())
    }
}

#[pymethods]
impl FlightRecorder {
    /// As JSON lines.
    fn json(&self, reason: &str) -> String {
        self.0.json_lines(reason)
    }

    /// Written to a file.
    fn dump(&self, path: PathBuf, reason: &str) -> PyResult<()> {
        Ok(self.0.dump(&path, reason)?)
    }
}

/// The recorder that has `error` in it, as text.
pub(crate) fn record_of(error: &Error) -> Option<String> {
    let failed = |recorder: &Runtime| {
        let records = recorder.records();
        let is_it = |record: &&isobit::OperationRecord| {
            record.state == OperationState::Failed(error.kind)
                && (record.epoch, Some(record.sequence)) == (error.epoch, error.sequence)
        };
        records.iter().rev().find(is_it).and_then(|record| record.end_ns)
    };
    let recorders = isobit::flight_recorders();
    let own = recorders.iter().filter(|recorder| recorder.rank() == error.rank);
    let latest =
        own.filter_map(|recorder| Some((failed(recorder)?, recorder))).max_by_key(|(end, _)| *end)?;
    Some(latest.1.json_lines(error.kind.name()))
}

/// Writes a dump of every communicator of this process to a folder; returns the files.
#[pyfunction]
pub(crate) fn dump_flight_recorders(folder: PathBuf, reason: &str) -> PyResult<Vec<PathBuf>> {
    let recorders = isobit::flight_recorders();
    Ok(recorders.iter().map(|recorder| recorder.dump_to(&folder, reason)).collect::<Result<_, _>>()?)
}
