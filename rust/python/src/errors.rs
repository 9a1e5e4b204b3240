//! The runtime's errors as the exceptions of `isobit.errors`.

use isobit::{Error, ErrorKind};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

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
    }
    let class = py.import("isobit.errors")?.getattr(class)?;
    Ok(PyErr::from_value(class.call((message,), Some(&arguments))?))
}

/// The exception for `error`; `interruption` is what a signal handler raised during the call.
pub(crate) fn exception(py: Python<'_>, error: &Error, interruption: Option<PyErr>) -> PyErr {
    match (error.kind, interruption) {
        (ErrorKind::Interrupted, Some(raised)) => raised,
        (ErrorKind::Value, _) => PyValueError::new_err(error.message.clone()),
        (ErrorKind::Memory, _) => PyMemoryError::new_err(error.to_string()),
        (kind, _) => {
            build(py, class_name(kind), &error.to_string(), Some(error)).unwrap_or_else(|failure| failure)
        }
    }
}

/// The exception for using what was closed.
pub(crate) fn closed(py: Python<'_>, what: &str) -> PyErr {
    build(py, "Error", &format!("the {what} is closed"), None).unwrap_or_else(|failure| failure)
}
