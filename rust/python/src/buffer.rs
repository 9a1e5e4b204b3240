//! Arrays: address, length, dtype and shape of what a caller passes.
//!
//! The fields of a numpy array where they are known, else the buffer protocol where there is one, else
//! `__array_interface__`: numpy refuses a buffer for the dtypes of ml_dtypes and for arrays of no dimension.
//! With raw.rs this is the only file outside `rust/sys` with `unsafe` in it: the spans over an array's
//! memory are made here and end here.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr::NonNull;

use isobit_core::Dtype;
use isobit_sys::{ReadSpan, WriteSpan};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::raw;

pyo3::create_exception!(
    _native,
    NeedsCopy,
    pyo3::exceptions::PyException,
    "An array's memory can't be used as it lies: strided, misaligned, or overlapping the other one."
);

/// numpy's limit on dimensions.
const DIMENSIONS_MAX: usize = 64;

/// How many dimensions need no allocation.
const DIMENSIONS_FEW: usize = 6;

/// The dimensions of an array.
#[derive(Clone)]
pub(crate) enum Shape {
    Few { dimensions: [u64; DIMENSIONS_FEW], len: usize },
    Many(Box<[u64]>),
}

impl Shape {
    pub(crate) fn from_dimensions(given: impl ExactSizeIterator<Item = u64>) -> PyResult<Shape> {
        match given.len() {
            len @ 0..=DIMENSIONS_FEW => {
                let mut dimensions = [0; DIMENSIONS_FEW];
                dimensions.iter_mut().zip(given).for_each(|(slot, dimension)| *slot = dimension);
                Ok(Shape::Few { dimensions, len })
            }
            ..=DIMENSIONS_MAX => Ok(Shape::Many(given.collect())),
            len => Err(PyValueError::new_err(format!(
                "{len} dimensions: at most {DIMENSIONS_MAX} are supported"
            ))),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u64] {
        match self {
            Shape::Few { dimensions, len } => &dimensions[..*len],
            Shape::Many(dimensions) => dimensions,
        }
    }
}

/// What keeps an array's memory where it is.
enum Hold {
    /// An export; the array can't be resized while it lives.
    Buffer { _export: PyUntypedBuffer },
    /// A numpy array, whose memory lives as long as it does; numpy resizes none that others refer to.
    Numpy { _owner: Py<PyAny> },
}

/// What is seen of an object without asking it.
enum Known {
    Usable(Array),
    NeedsCopy,
    /// It must be asked.
    No,
}

/// The dense memory of one array, which stays valid while this lives.
pub(crate) struct Array {
    address: usize,
    bytes: usize,
    readonly: bool,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Shape,
    _hold: Hold,
}

impl Array {
    /// The array behind `object`; `name` is the argument's, for messages.
    pub(crate) fn get(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Array> {
        match Array::of_numpy(object) {
            Known::Usable(array) => return Ok(array),
            Known::NeedsCopy => return Err(NeedsCopy::new_err(name.to_owned())),
            Known::No => {}
        }
        // Memory of a mapped file can vanish: the Python layer has the kernel copy it.
        if !object.is_exact_instance(ndarray(object.py())?) && is_mapped(object)? {
            return Err(NeedsCopy::new_err(name.to_owned()));
        }
        match PyUntypedBuffer::get(object) {
            Ok(buffer) => Array::from_buffer(name, buffer),
            Err(_) => Array::from_interface(name, object),
        }
    }

    /// The array behind `object`, to be written to.
    pub(crate) fn get_mut(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Array> {
        let array = Array::get(name, object)?;
        if array.readonly {
            return Err(PyTypeError::new_err(format!(
                "{name} is read-only: give an array that can be written, or out="
            )));
        }
        Ok(array)
    }

    /// The array behind `object`, if it is numpy's, as usual, and can be used as it lies.
    pub(crate) fn usual(object: &Bound<'_, PyAny>) -> Option<Array> {
        match Array::of_numpy(object) {
            Known::Usable(array) => Some(array),
            Known::NeedsCopy | Known::No => None,
        }
    }

    /// As `usual`, to be written to.
    pub(crate) fn usual_mut(object: &Bound<'_, PyAny>) -> Option<Array> {
        Array::usual(object).filter(|array| !array.readonly)
    }

    fn of_numpy(object: &Bound<'_, PyAny>) -> Known {
        let Some(found) = raw::numpy_array(object) else { return Known::No };
        let Some(dtype) = known_dtype(object.py(), found.dtype) else { return Known::No };
        if !found.dense || found.address % dtype.size() != 0 {
            return Known::NeedsCopy;
        }
        Known::Usable(Array {
            address: found.address,
            bytes: dtype.size() * found.shape.as_slice().iter().product::<u64>() as usize,
            readonly: found.readonly,
            dtype,
            shape: found.shape,
            _hold: Hold::Numpy { _owner: object.clone().unbind() },
        })
    }

    fn from_buffer(name: &str, buffer: PyUntypedBuffer) -> PyResult<Array> {
        let dtype = dtype_of_format(buffer.format(), buffer.item_size())
            .ok_or_else(|| unsupported(name, &buffer.format().to_string_lossy()))?;
        if !buffer.is_c_contiguous() {
            return Err(NeedsCopy::new_err(name.to_owned()));
        }
        Array::checked(
            name,
            Array {
                address: buffer.buf_ptr().addr(),
                bytes: buffer.len_bytes(),
                readonly: buffer.readonly(),
                dtype,
                shape: Shape::from_dimensions(buffer.shape().iter().map(|&dimension| dimension as u64))?,
                _hold: Hold::Buffer { _export: buffer },
            },
        )
    }

    fn from_interface(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Array> {
        let py = object.py();
        // What is no numpy array the Python layer turns into one, or refuses.
        let Ok(interface) = object.getattr(intern!(py, "__array_interface__")) else {
            return Err(NeedsCopy::new_err(name.to_owned()));
        };
        // Only of numpy's own arrays is it known that the memory lives as long as the object: a
        // numpy scalar, for one, hands out an address that is free again. numpy adopts the others.
        if !object.is_exact_instance(ndarray(py)?) {
            return Err(NeedsCopy::new_err(name.to_owned()));
        }
        let interface = interface.cast_into::<PyDict>()?;
        let item = |key: &'static str| match interface.get_item(PyString::intern(py, key))? {
            Some(found) => Ok(found),
            None => Err(not_an_array(name, object)),
        };
        let typestr = item("typestr")?.extract::<PyBackedStr>()?;
        let dtype = match dtype_of_typestr(&typestr) {
            Some(dtype) => dtype,
            None => foreign_dtype(name, object)?,
        };
        if !item("strides")?.is_none() {
            return Err(NeedsCopy::new_err(name.to_owned()));
        }
        let (address, readonly): (usize, bool) = item("data")?.extract()?;
        let dimensions = item("shape")?.cast_into::<PyTuple>()?;
        let dimensions =
            dimensions.iter().map(|dimension| dimension.extract()).collect::<PyResult<Vec<u64>>>()?;
        let count =
            dimensions.iter().try_fold(1_usize, |count, &dimension| count.checked_mul(dimension as usize));
        let bytes = count
            .and_then(|count| count.checked_mul(dtype.size()))
            .ok_or_else(|| not_an_array(name, object))?;
        let shape = Shape::from_dimensions(dimensions.into_iter())?;
        let hold = Hold::Numpy { _owner: object.clone().unbind() };
        Array::checked(name, Array { address, bytes, readonly, dtype, shape, _hold: hold })
    }

    fn checked(name: &str, array: Array) -> PyResult<Array> {
        match array.address % array.dtype.size() {
            0 => Ok(array),
            _ => Err(NeedsCopy::new_err(name.to_owned())),
        }
    }

    /// Fails unless the two are the same memory, element for element, or have none in common.
    pub(crate) fn check_apart(&self, out: &Array) -> PyResult<()> {
        let same = self.address == out.address && self.bytes == out.bytes && self.dtype == out.dtype;
        let apart = self.address + self.bytes <= out.address || out.address + out.bytes <= self.address;
        if same || apart { Ok(()) } else { Err(NeedsCopy::new_err("out")) }
    }

    fn region(&self) -> Region {
        Region { address: self.address, bytes: self.bytes }
    }
}

/// An array's memory while it is held; unlike a span it may pass to a closure that runs detached.
#[derive(Clone, Copy)]
struct Region {
    address: usize,
    bytes: usize,
}

impl Region {
    fn start(self) -> NonNull<u8> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(self.address)).unwrap_or(NonNull::dangling())
    }

    fn read<'a>(self) -> ReadSpan<'a> {
        // SAFETY: only `Held::with` calls this, for spans that end before the arrays do, which
        // hold their memory. Another Python thread that writes to the array during the call
        // breaks the documented rule of every collective library, as it would for numpy.
        unsafe { ReadSpan::from_raw(self.start(), self.bytes) }
    }

    fn write<'a>(self) -> WriteSpan<'a> {
        // SAFETY: as in `read`; `get_mut` has checked that the memory may be written.
        unsafe { WriteSpan::from_raw(self.start(), self.bytes) }
    }
}

/// The arrays of one call, held until it is done.
pub(crate) struct Held {
    input: Option<Array>,
    out: Option<Array>,
    in_place: bool,
}

impl Held {
    /// What a call reads and what it writes. `out` comes from `get_mut`.
    pub(crate) fn new(input: Option<Array>, out: Option<Array>) -> PyResult<Held> {
        if let (Some(input), Some(out)) = (&input, &out) {
            input.check_apart(out)?;
        }
        Ok(Held { input, out, in_place: false })
    }

    /// As `new`, for a call whose input and output can't be the same memory.
    pub(crate) fn apart(input: Array, out: Array) -> PyResult<Held> {
        if input.address == out.address && input.bytes > 0 {
            return Err(NeedsCopy::new_err("out"));
        }
        Held::new(Some(input), Some(out))
    }

    /// One array, from `get_mut`, that is read and written.
    pub(crate) fn in_place(array: Array) -> Held {
        Held { input: Some(array), out: None, in_place: true }
    }

    /// Runs `work` on the arrays' memory.
    pub(crate) fn with<R>(
        &self,
        work: impl for<'a> FnOnce(Option<ReadSpan<'a>>, Option<WriteSpan<'a>>) -> R,
    ) -> R {
        let out = if self.in_place { &self.input } else { &self.out };
        assert!(out.as_ref().is_none_or(|array| !array.readonly), "an output array was not checked");
        let read = self.input.as_ref().map(|array| array.region().read());
        work(read, out.as_ref().map(|array| array.region().write()))
    }
}

fn ndarray(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static NDARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    NDARRAY.import(py, "numpy", "ndarray")
}

fn is_mapped(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    static MEMMAP: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    object.is_instance(MEMMAP.import(object.py(), "numpy", "memmap")?)
}

/// The dtypes of ml_dtypes, whose arrays export no buffer.
const FOREIGN: [(&str, Dtype); 3] =
    [("bfloat16", Dtype::Bf16), ("float8_e4m3fn", Dtype::F8E4m3fn), ("float8_e5m2", Dtype::F8E5m2)];

/// numpy's objects for them, once seen.
static FOREIGN_SEEN: [PyOnceLock<Py<PyAny>>; FOREIGN.len()] = [const { PyOnceLock::new() }; FOREIGN.len()];

/// numpy's objects for its own.
static OWN: PyOnceLock<Vec<(Py<PyAny>, Dtype)>> = PyOnceLock::new();

/// The dtype whose object has that address.
fn known_dtype(py: Python<'_>, address: usize) -> Option<Dtype> {
    let own = OWN.get_or_init(py, || own_dtypes(py).unwrap_or_default());
    if let Some((_, dtype)) = own.iter().find(|(object, _)| object.as_ptr().addr() == address) {
        return Some(*dtype);
    }
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

fn foreign_dtype(name: &str, array: &Bound<'_, PyAny>) -> PyResult<Dtype> {
    let py = array.py();
    let own = array.getattr(intern!(py, "dtype"))?;
    let own_name = own.getattr(intern!(py, "name"))?.extract::<PyBackedStr>()?;
    let found = FOREIGN.iter().zip(&FOREIGN_SEEN).find(|((foreign, _), _)| **foreign == *own_name);
    let ((_, dtype), seen) = found.ok_or_else(|| unsupported(name, &own_name))?;
    seen.get_or_init(py, || own.unbind());
    Ok(*dtype)
}

fn dtype_of_format(format: &CStr, item_size: usize) -> Option<Dtype> {
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

fn dtype_of_typestr(typestr: &str) -> Option<Dtype> {
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

fn unsupported(name: &str, dtype: &str) -> PyErr {
    let supported: Vec<&str> = Dtype::ALL.into_iter().map(Dtype::name).collect();
    PyTypeError::new_err(format!(
        "{name} has elements of type {dtype:?}; supported, in little-endian byte order: {}",
        supported.join(", ")
    ))
}

fn not_an_array(name: &str, object: &Bound<'_, PyAny>) -> PyErr {
    let kind = object.get_type().name().map_or_else(|_| "object".to_owned(), |kind| kind.to_string());
    PyTypeError::new_err(format!("{name} must be an array (numpy, or anything with a buffer), not {kind}"))
}
