//! The fields of numpy's arrays.
//!
//! numpy takes a tenth of a microsecond and more to export a buffer. Its arrays have had the same fields since its
//! version 1.7, and extensions that were compiled against its headers depend on them. Here they are compared with what
//! numpy says before they are believed; otherwise every array goes the slow way.

use std::ffi::c_int;
use std::mem::size_of;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::buffer::Shape;

/// The beginning of numpy's `PyArrayObject`.
#[repr(C)]
struct Fields {
    object: ffi::PyObject,
    data: *const u8,
    dimensions_len: c_int,
    /// Never negative.
    dimensions: *const u64,
    strides: *const u64,
    base: *const ffi::PyObject,
    dtype: *const ffi::PyObject,
    flags: c_int,
}

const C_CONTIGUOUS: c_int = 0x1;
const WRITEABLE: c_int = 0x400;
const WARN_ON_WRITE: c_int = 1 << 31;

/// An array of numpy's own class, by its fields.
#[derive(Clone, Copy)]
pub(crate) struct NumpyArray<'a>(&'a Fields);

impl<'a> NumpyArray<'a> {
    /// `object`, if it is one, and the fields are where they should be.
    #[inline]
    pub(crate) fn of(object: Borrowed<'a, '_, PyAny>) -> Option<NumpyArray<'a>> {
        static NDARRAY: PyOnceLock<Option<Py<PyType>>> = PyOnceLock::new();
        let py = object.py();
        let ndarray = NDARRAY.get_or_init(py, || believed(py).unwrap_or(None)).as_ref()?;
        // As `is_exact_instance`, which takes a reference to its class.
        if object.get_type_ptr().addr() != ndarray.as_ptr().addr() {
            return None;
        }
        fields(object).filter(|fields| fields.flags & WARN_ON_WRITE == 0).map(NumpyArray)
    }

    pub(crate) fn address(self) -> usize {
        self.0.data.addr()
    }

    /// The address of the dtype object, which the array keeps alive.
    pub(crate) fn dtype(self) -> usize {
        self.0.dtype.addr()
    }

    pub(crate) fn is_dense(self) -> bool {
        self.0.flags & C_CONTIGUOUS != 0
    }

    pub(crate) fn is_readonly(self) -> bool {
        self.0.flags & WRITEABLE == 0
    }

    pub(crate) fn elements(self) -> usize {
        self.dimensions().iter().product::<u64>() as usize
    }

    pub(crate) fn shape(self) -> PyResult<Shape> {
        Shape::from_slice(self.dimensions())
    }

    /// Adds how many dimensions it has, and them.
    pub(crate) fn describe(self, words: &mut Vec<u64>) {
        words.push(self.dimensions().len() as u64);
        words.extend_from_slice(self.dimensions());
    }

    pub(crate) fn is_of_shape(self, other: NumpyArray<'_>) -> bool {
        self.dimensions() == other.dimensions()
    }

    /// Only for as long as no Python code can run: it could give the array another shape.
    fn dimensions(self) -> &'a [u64] {
        // SAFETY: they are the fields of an array of which `believed` has found that it has as many dimensions as it
        // says, and this thread has the interpreter and runs none of its code in the functions above.
        unsafe { dimensions(self.0) }
    }
}

fn fields<'a>(array: Borrowed<'a, '_, PyAny>) -> Option<&'a Fields> {
    // SAFETY: the callers have seen that it is an array of numpy's own class, whose instances `believed` has found to
    // be as large as this and of this layout. All fields are plain numbers and pointers, and the array lives.
    unsafe { array.as_ptr().cast::<Fields>().as_ref() }
}

/// # Safety
/// The fields must be those of an array, and nothing may change its shape meanwhile.
unsafe fn dimensions(fields: &Fields) -> &[u64] {
    match fields.dimensions_len {
        0 => &[],
        // SAFETY: the caller's promise.
        len => unsafe { std::slice::from_raw_parts(fields.dimensions, len as usize) },
    }
}

/// numpy's class of arrays, if the fields of some are what numpy says of them.
fn believed(py: Python<'_>) -> PyResult<Option<Py<PyType>>> {
    let numpy = py.import("numpy")?;
    let ndarray = numpy.getattr("ndarray")?.cast_into::<PyType>()?;
    let size: usize = ndarray.getattr("__basicsize__")?.extract()?;
    if size_of::<usize>() != 8 || size < size_of::<Fields>() {
        return Ok(None);
    }
    let options = PyDict::new(py);
    options.set_item("dtype", "i2")?;
    let dense = numpy.call_method("ones", ((2, 3, 4),), Some(&options))?;
    let transposed = dense.getattr("T")?;
    let readonly = numpy.call_method("frombuffer", (c"123456".to_bytes(),), Some(&options))?;
    let point = numpy.call_method1("array", (1.5,))?;
    for array in [dense, transposed, readonly, point] {
        if !array.is_exact_instance(&ndarray) || !is_as_expected(&array)? {
            return Ok(None);
        }
    }
    Ok(Some(ndarray.unbind()))
}

fn is_as_expected(array: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Some(fields) = fields(array.as_borrowed()) else { return Ok(false) };
    let shape: Vec<u64> = array.getattr("shape")?.extract()?;
    let flags: c_int = array.getattr("flags")?.getattr("num")?.extract()?;
    let (address, _): (usize, bool) = array.getattr("__array_interface__")?.get_item("data")?.extract()?;
    let alike = fields.data.addr() == address
        && fields.dimensions_len as usize == shape.len()
        && fields.dtype.addr() == array.getattr("dtype")?.as_ptr().addr()
        && fields.flags == flags
        && (shape.is_empty() || fields.strides == fields.dimensions.wrapping_add(shape.len()));
    // SAFETY: all that could be compared without following a pointer is as it should be.
    Ok(alike && unsafe { dimensions(fields) } == shape)
}
