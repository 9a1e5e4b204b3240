//! The runtime's errors as the exceptions of `isobit.errors`.

use isobit::{Error, ErrorKind};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::flight;

fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Timeout => "Timeout",
        ErrorKind::PeerLost => "PeerLost",
        ErrorKind::Desync => "Desync",
        ErrorKind::Corruption => "Corruption",
        ErrorKind::Aborted => "Aborted",
        ErrorKind::ContractMismatch => "ContractMismatch",
        ErrorKind::VersionMismatch => "VersionMismatch",
        ErrorKind::Auth => "AuthError",
        ErrorKind::Unavailable => "Unavailable",
        ErrorKind::RemoteArgument => "RemoteArgumentError",
        ErrorKind::Value | ErrorKind::Interrupted | ErrorKind::Memory => "Error",
    }
}

fn build(py: Python<'_>, class: &str, message: &str, details: Option<&Error>) -> PyResult<PyErr> {
    let arguments = PyDict::new(py);
    if let Some(error) = details {
        arguments.set_item("rank", error.rank)?;
        arguments.set_item("peer", error.peer)?;
        arguments.set_item("operation", error.operation.as_deref())?;
        arguments.set_item("sequence", error.sequence)?;
        arguments.set_item("epoch", error.epoch)?;
        arguments.set_item("flight", flight::record_of(error))?;
    }
    let class = py.import("isobit.errors")?.getattr(class)?;
    Ok(PyErr::from_value(class.call((message,), Some(&arguments))?))
}

/// The exception for `error`; `interruption` is what a signal handler raised during the call.
pub(crate) fn exception(py: Python<'_>, error: &Error, interruption: Option<PyErr>) -> PyErr {
    match (error.kind, interruption) {
        (ErrorKind::Interrupted, Some(raised)) => told(py, raised),
        (ErrorKind::Value, _) => told(py, PyValueError::new_err(error.message.clone())),
        (ErrorKind::Memory, _) => told(py, PyMemoryError::new_err(error.to_string())),
        (kind, _) => {
            build(py, class_name(kind), &error.to_string(), Some(error)).unwrap_or_else(|failure| failure)
        }
    }
}

/// Marks what the runtime has told the other ranks already, for the Python layer, which tells the rest.
fn told(py: Python<'_>, error: PyErr) -> PyErr {
    // An exception that takes no attribute is told twice, which costs an epoch and nothing else.
    let _ = error.value(py).setattr("isobit_told", true);
    error
}

/// The exception for a second thread.
pub(crate) fn in_use(py: Python<'_>, what: &str) -> PyErr {
    let message =
        format!("this {what} is in use by another thread: give each thread its own (split), or take turns");
    build(py, "ConcurrentUseError", &message, None).unwrap_or_else(|failure| failure)
}

/// The exception for a child of the process that the value belongs to.
pub(crate) fn forked(py: Python<'_>, what: &str) -> PyErr {
    let message = format!(
        "this {what} belongs to the process that was forked: call isobit.init() in the child, or start the \
         child with multiprocessing's 'spawn' method"
    );
    build(py, "ForkedProcessError", &message, None).unwrap_or_else(|failure| failure)
}

/// The exception for using what was closed.
pub(crate) fn closed(py: Python<'_>, what: &str) -> PyErr {
    build(py, "Error", &format!("the {what} is closed"), None).unwrap_or_else(|failure| failure)
}
