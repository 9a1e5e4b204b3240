//! Call sites of Python code, and the flight recorder's text.
//!
//! A site is found by the code object and the instruction of the first frame outside of this package. Only
//! the first call from there asks for a line number and makes text, and most are found by a look at where the
//! thread's last calls came from.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use isobit::{Error, FlightRecorder as Runtime, OperationState, Site};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::raw::{Frame, Place, place};

/// How many sites are told apart; programs that make code as they run must not fill the memory.
const SITES_MAX: usize = 1 << 14;

/// What is known of an instruction. The code object is held, so that no other takes its address.
struct Known {
    _code: Py<PyAny>,
    /// None inside of this package.
    site: Option<Site>,
}

/// The address of a code object and the number of an instruction.
type Key = (usize, i32);

static PACKAGE: PyOnceLock<String> = PyOnceLock::new();
static KNOWN: Mutex<Option<HashMap<Key, Known>>> = Mutex::new(None);

/// A small power of two: a loop has few calls in it.
const RECENT: usize = 32;

thread_local! {
    /// By a part of their places, sites that are among the known ones, whose code objects are held.
    static RECENTLY: [Cell<(Place, Site)>; RECENT] =
        const { [const { Cell::new(((0, 0), Site::UNKNOWN)) }; RECENT] };
}

/// Where the Python code that is not this package's makes the present call.
#[inline]
pub(crate) fn caller(py: Python<'_>) -> Site {
    let Some(place) = place(py) else { return Site::UNKNOWN };
    RECENTLY.with(|recent| {
        let recent = &recent[((place.0 / 16) ^ (place.1 as usize / 2)) % RECENT];
        let (found, site) = recent.get();
        if found == place {
            return site;
        }
        let (site, is_kept) = find(py).unwrap_or((Site::UNKNOWN, false));
        if is_kept {
            recent.set((place, site));
        }
        site
    })
}

fn position<'py>(frame: &Frame<'py>) -> PyResult<(Bound<'py, PyAny>, Key)> {
    let code = frame.code()?;
    let key = (code.as_ptr() as usize, frame.instruction()?);
    Ok((code, key))
}

/// The site, and whether it is that of the frame that runs and was known.
#[cold]
fn find(py: Python<'_>) -> PyResult<(Site, bool)> {
    let Some(first) = Frame::present(py) else { return Ok((Site::UNKNOWN, false)) };
    let package = PACKAGE.get_or_try_init(py, || {
        let package: String = py.import("isobit")?.getattr("__file__")?.extract()?;
        PyResult::Ok(package.trim_end_matches("__init__.py").to_owned())
    })?;
    let mut frame = first.clone();
    loop {
        let (code, key) = position(&frame)?;
        let known = KNOWN
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(|known| known.get(&key).map(|known| known.site));
        let (site, is_known) = match known {
            Some(site) => (site, true),
            None => (learn(py, &frame, code, key, package)?, false),
        };
        if let Some(site) = site {
            return Ok((site, is_known && frame.is(&first)));
        }
        frame = frame.back()?;
    }
}

fn learn(
    py: Python<'_>,
    frame: &Frame<'_>,
    code: Bound<'_, PyAny>,
    key: Key,
    package: &str,
) -> PyResult<Option<Site>> {
    let file: String = code.getattr(intern!(py, "co_filename"))?.extract()?;
    let site =
        if file.starts_with(package) { None } else { Some(Site::of(&file, frame.line()?.unwrap_or(0))) };
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
