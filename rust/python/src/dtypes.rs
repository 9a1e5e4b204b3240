//! Dtypes by the names and objects that Python has for them.

use std::ffi::CStr;

use isobit_core::Dtype;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;

/// The dtypes of ml_dtypes, whose arrays export no buffer.
const FOREIGN: [(&str, Dtype); 3] =
    [("bfloat16", Dtype::Bf16), ("float8_e4m3fn", Dtype::F8E4m3fn), ("float8_e5m2", Dtype::F8E5m2)];

/// numpy's objects for them, once seen.
static FOREIGN_SEEN: [PyOnceLock<Py<PyAny>>; FOREIGN.len()] = [const { PyOnceLock::new() }; FOREIGN.len()];

/// numpy's objects for its own.
static OWN: PyOnceLock<Vec<(Py<PyAny>, Dtype)>> = PyOnceLock::new();

/// The dtype whose object has that address.
#[inline]
pub(crate) fn known_dtype(py: Python<'_>, address: usize) -> Option<Dtype> {
    let own = OWN.get_or_init(py, || own_dtypes(py).unwrap_or_default());
    let own = own.iter().find(|(object, _)| object.as_ptr().addr() == address);
    own.map(|(_, dtype)| *dtype).or_else(|| seen_dtype(py, address))
}

#[cold]
fn seen_dtype(py: Python<'_>, address: usize) -> Option<Dtype> {
    let mut foreign = FOREIGN.iter().zip(&FOREIGN_SEEN);
    let found = foreign.find(|(_, seen)| seen.get(py).is_some_and(|seen| seen.as_ptr().addr() == address))?;
    Some(found.0.1)
}

fn own_dtypes(py: Python<'_>) -> PyResult<Vec<(Py<PyAny>, Dtype)>> {
    let of_name = py.import("numpy")?.getattr("dtype")?;
    let mut found = Vec::new();
    for typestr in ["<f4", "<f8", "<f2", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1", "|b1"] {
        let object = of_name.call1((typestr,))?;
        found.extend(dtype_of_typestr(typestr).map(|dtype| (object.unbind(), dtype)));
    }
    Ok(found)
}

/// The dtype of an array of ml_dtypes, whose object is known from then on.
pub(crate) fn foreign_dtype(name: &str, array: &Bound<'_, PyAny>) -> PyResult<Dtype> {
    let py = array.py();
    let own = array.getattr(intern!(py, "dtype"))?;
    let own_name = own.getattr(intern!(py, "name"))?.extract::<PyBackedStr>()?;
    let found = FOREIGN.iter().zip(&FOREIGN_SEEN).find(|((foreign, _), _)| **foreign == *own_name);
    let ((_, dtype), seen) = found.ok_or_else(|| unsupported(name, &own_name))?;
    seen.get_or_init(py, || own.unbind());
    Ok(*dtype)
}

/// The dtype of a buffer's format.
pub(crate) fn dtype_of_format(format: &CStr, item_size: usize) -> Option<Dtype> {
    let letter = match format.to_bytes() {
        [letter] | [b'<' | b'=' | b'@' | b'|', letter] => *letter,
        _ => return None,
    };
    let kind = match letter {
        b'e' | b'f' | b'd' => b'f',
        b'b' | b'h' | b'i' | b'l' | b'q' | b'n' => b'i',
        b'B' | b'H' | b'I' | b'L' | b'Q' | b'N' => b'u',
        b'?' => b'b',
        _ => return None,
    };
    dtype_of_kind(kind, item_size)
}

/// The dtype that `__array_interface__` calls so.
pub(crate) fn dtype_of_typestr(typestr: &str) -> Option<Dtype> {
    match typestr.as_bytes() {
        [b'<' | b'|', kind, size @ b'1'..=b'8'] => dtype_of_kind(*kind, usize::from(size - b'0')),
        _ => None,
    }
}

fn dtype_of_kind(kind: u8, item_size: usize) -> Option<Dtype> {
    Some(match (kind, item_size) {
        (b'f', 2) => Dtype::F16,
        (b'f', 4) => Dtype::F32,
        (b'f', 8) => Dtype::F64,
        (b'i', 1) => Dtype::I8,
        (b'i', 2) => Dtype::I16,
        (b'i', 4) => Dtype::I32,
        (b'i', 8) => Dtype::I64,
        (b'u', 1) => Dtype::U8,
        (b'u', 2) => Dtype::U16,
        (b'u', 4) => Dtype::U32,
        (b'u', 8) => Dtype::U64,
        (b'b', 1) => Dtype::Bool,
        _ => return None,
    })
}

/// The error for any other.
pub(crate) fn unsupported(name: &str, dtype: &str) -> PyErr {
    let supported: Vec<&str> = Dtype::ALL.into_iter().map(Dtype::name).collect();
    PyTypeError::new_err(format!(
        "{name} has elements of type {dtype:?}; supported, in little-endian byte order: {}",
        supported.join(", ")
    ))
}
