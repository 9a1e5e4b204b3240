//! Arrays: address, length, dtype and shape of what a caller passes.
//!
//! The fields of a numpy array where they are known, else the buffer protocol where there is one, else
//! `__array_interface__`: numpy refuses a buffer for the dtypes of ml_dtypes and for arrays of no dimension.
//! Besides `raw/` this is the only file outside `rust/sys` with `unsafe` in it: the spans over an array's
//! memory are made here and end here.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;

use isobit::SEVERAL_TENSORS;
use isobit_core::Dtype;
use isobit_sys::{ReadSpan, WriteSpan};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::dtypes::{dtype_of_format, dtype_of_typestr, foreign_dtype, known_dtype, unsupported};
use crate::raw::NumpyArray;

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

/// The dimensions of an array, or of several.
#[derive(Clone)]
pub(crate) enum Shape {
    Few { dimensions: [u64; DIMENSIONS_FEW], len: usize },
    Many(Box<[u64]>),
}

impl Shape {
    pub(crate) const POINT: Shape = Shape::Few { dimensions: [0; DIMENSIONS_FEW], len: 0 };

    #[inline]
    pub(crate) fn from_slice(given: &[u64]) -> PyResult<Shape> {
        if given.len() > DIMENSIONS_FEW {
            return Shape::many(given);
        }
        let mut dimensions = [0; DIMENSIONS_FEW];
        dimensions.iter_mut().zip(given).for_each(|(slot, &dimension)| *slot = dimension);
        Ok(Shape::Few { dimensions, len: given.len() })
    }

    #[cold]
    fn many(given: &[u64]) -> PyResult<Shape> {
        match given.len() {
            ..=DIMENSIONS_MAX => Ok(Shape::Many(given.into())),
            _ if given[0] == SEVERAL_TENSORS => Ok(Shape::Many(given.into())),
            len => Err(PyValueError::new_err(format!(
                "{len} dimensions: at most {DIMENSIONS_MAX} are supported"
            ))),
        }
    }

    /// How many rows an array of it has; one of no dimension counts as one row.
    pub(crate) fn rows(&self) -> u64 {
        self.as_slice().first().copied().unwrap_or(1)
    }

    /// The shape of as many rows of the same kind.
    pub(crate) fn with_rows(&self, rows: u64) -> Shape {
        let mut shape = self.clone();
        match &mut shape {
            Shape::Few { dimensions, len } => (dimensions[0], *len) = (rows, (*len).max(1)),
            Shape::Many(dimensions) => dimensions[0] = rows,
        }
        shape
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

/// The dense memory of one array, which stays valid while this lives.
pub(crate) struct Array {
    region: Region,
    readonly: bool,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Shape,
    _hold: Hold,
}

impl Array {
    /// The array behind `object`; `name` is the argument's, for messages.
    pub(crate) fn get(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Array> {
        if let Some(usual) = Usual::of(object.as_borrowed()) {
            return Ok(Array {
                region: usual.region,
                readonly: usual.array.is_readonly(),
                dtype: usual.dtype,
                shape: usual.shape()?,
                _hold: Hold::Numpy { _owner: object.clone().unbind() },
            });
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

    fn from_buffer(name: &str, buffer: PyUntypedBuffer) -> PyResult<Array> {
        let dtype = dtype_of_format(buffer.format(), buffer.item_size())
            .ok_or_else(|| unsupported(name, &buffer.format().to_string_lossy()))?;
        if !buffer.is_c_contiguous() {
            return Err(NeedsCopy::new_err(name.to_owned()));
        }
        Array::checked(
            name,
            Array {
                region: Region { address: buffer.buf_ptr().addr(), bytes: buffer.len_bytes() },
                readonly: buffer.readonly(),
                dtype,
                shape: Shape::from_slice(
                    &buffer.shape().iter().map(|&length| length as u64).collect::<Vec<_>>(),
                )?,
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
        let shape = Shape::from_slice(&dimensions)?;
        let hold = Hold::Numpy { _owner: object.clone().unbind() };
        Array::checked(name, Array { region: Region { address, bytes }, readonly, dtype, shape, _hold: hold })
    }

    fn checked(name: &str, array: Array) -> PyResult<Array> {
        match array.region.address % array.dtype.size() {
            0 => Ok(array),
            _ => Err(NeedsCopy::new_err(name.to_owned())),
        }
    }
}

/// An array of numpy's own class that can be used as it lies, for a call that ends before the array does.
#[derive(Clone, Copy)]
pub(crate) struct Usual<'a> {
    array: NumpyArray<'a>,
    region: Region,
    pub(crate) dtype: Dtype,
}

impl<'a> Usual<'a> {
    /// `object`, if it is one.
    #[inline]
    pub(crate) fn of(object: Borrowed<'a, '_, PyAny>) -> Option<Usual<'a>> {
        let array = NumpyArray::of(object)?;
        let dtype = known_dtype(object.py(), array.dtype())?;
        let region = Region { address: array.address(), bytes: array.elements() * dtype.size() };
        let usable = array.is_dense() && region.address.is_multiple_of(dtype.size());
        usable.then_some(Usual { array, region, dtype })
    }

    /// `object`, if it is one that can be written to.
    pub(crate) fn writable(object: Borrowed<'a, '_, PyAny>) -> Option<Usual<'a>> {
        Usual::of(object).filter(|usual| !usual.array.is_readonly())
    }

    pub(crate) fn shape(self) -> PyResult<Shape> {
        self.array.shape()
    }

    /// Adds how many dimensions it has, and them.
    pub(crate) fn describe(self, words: &mut Vec<u64>) {
        self.array.describe(words);
    }

    /// Itself, to be read and written; it comes from `writable`.
    pub(crate) fn in_place(self) -> Lent<'a> {
        Lent { input: Some(self.region), out: Some(self.region), owners: PhantomData }
    }

    /// Itself, to be read.
    pub(crate) fn to_read(self) -> Lent<'a> {
        Lent { input: Some(self.region), out: None, owners: PhantomData }
    }

    /// Itself to be read, and another, which comes from `writable`, to be written: the same or one apart.
    pub(crate) fn with_out(self, out: Usual<'a>) -> Option<Lent<'a>> {
        let fit = self.region.goes_with(out.region, self.dtype == out.dtype);
        fit.then_some(Lent { input: Some(self.region), out: Some(out.region), owners: PhantomData })
    }

    /// As `with_out`, for two that can't be the same.
    pub(crate) fn with_out_apart(self, out: Usual<'a>) -> Option<Lent<'a>> {
        self.with_out(out).filter(|_| self.region.goes_with(out.region, false))
    }

    /// As `with_out`, for two of one shape.
    pub(crate) fn with_out_alike(self, out: Usual<'a>) -> Option<Lent<'a>> {
        self.with_out(out).filter(|_| self.array.is_of_shape(out.array))
    }
}

/// An array's memory while it is held; unlike a span it may pass to a closure that runs detached.
#[derive(Clone, Copy)]
struct Region {
    address: usize,
    bytes: usize,
}

impl Region {
    /// Whether the two are the same memory, element for element, or have none in common.
    fn goes_with(self, out: Region, same_dtype: bool) -> bool {
        let same = self.address == out.address && self.bytes == out.bytes && same_dtype;
        same || self.address + self.bytes <= out.address || out.address + out.bytes <= self.address
    }

    fn start(self) -> NonNull<u8> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(self.address)).unwrap_or(NonNull::dangling())
    }

    fn read<'a>(self) -> ReadSpan<'a> {
        // SAFETY: only `Lent::with` calls this, for spans that end before the arrays do, which
        // hold their memory. Another Python thread that writes to the array during the call
        // breaks the documented rule of every collective library, as it would for numpy.
        unsafe { ReadSpan::from_raw(self.start(), self.bytes) }
    }

    fn write<'a>(self) -> WriteSpan<'a> {
        // SAFETY: as in `read`; who made the `Lent` has checked that the memory may be written.
        unsafe { WriteSpan::from_raw(self.start(), self.bytes) }
    }
}

/// The memory that one call reads and writes, while its owners are there.
pub(crate) struct Lent<'a> {
    input: Option<Region>,
    out: Option<Region>,
    owners: PhantomData<&'a Array>,
}

impl Lent<'_> {
    /// Runs `work` on the memory.
    #[inline]
    pub(crate) fn with<R>(
        &self,
        work: impl for<'a> FnOnce(Option<ReadSpan<'a>>, Option<WriteSpan<'a>>) -> R,
    ) -> R {
        work(self.input.map(Region::read), self.out.map(Region::write))
    }

    /// As `with`, where there is something to read and something to write.
    #[inline]
    pub(crate) fn with_both<R>(&self, work: impl for<'a> FnOnce(ReadSpan<'a>, WriteSpan<'a>) -> R) -> R {
        self.with(|input, out| match (input, out) {
            (Some(input), Some(out)) => work(input, out),
            _ => unreachable!("both were lent"),
        })
    }
}

/// Memory of its own for the data of several arrays, one after the other; aligned for every dtype.
pub(crate) struct Flat {
    memory: Vec<u64>,
    /// How many bytes have been written.
    bytes: usize,
}

impl Flat {
    /// Memory for what the arrays have to be read.
    pub(crate) fn for_inputs(arrays: &[Lent<'_>]) -> PyResult<Flat> {
        let bytes: usize = arrays.iter().filter_map(|lent| lent.input).map(|input| input.bytes).sum();
        let mut memory = Vec::new();
        memory.try_reserve_exact(bytes.div_ceil(size_of::<u64>())).map_err(|_| {
            PyMemoryError::new_err(format!("no memory for {bytes} bytes of arrays in one piece"))
        })?;
        Ok(Flat { memory, bytes: 0 })
    }

    /// Reads the arrays.
    pub(crate) fn gather(&mut self, arrays: &[Lent<'_>]) {
        let room = self.memory.capacity() * size_of::<u64>();
        self.bytes = 0;
        for input in arrays.iter().filter_map(|lent| lent.input) {
            assert!(input.bytes <= room - self.bytes, "more arrays than there was memory asked for");
            // SAFETY: the input's owner is there while it is lent. This memory is nobody else's and has room for so
            // many bytes after those that were written.
            unsafe {
                let next = self.memory.as_mut_ptr().cast::<u8>().add(self.bytes);
                std::ptr::copy_nonoverlapping(input.start().as_ptr(), next, input.bytes);
            }
            self.bytes += input.bytes;
        }
    }

    /// Runs `work` on the data, in place.
    pub(crate) fn with<R>(&mut self, work: impl for<'a> FnOnce(ReadSpan<'a>, WriteSpan<'a>) -> R) -> R {
        let start = NonNull::new(self.memory.as_mut_ptr()).unwrap_or(NonNull::dangling()).cast();
        // SAFETY: the memory is this value's own, borrowed until the spans end, and so much of it has been written.
        let out = unsafe { WriteSpan::from_raw(start, self.bytes) };
        work(out.into(), out)
    }

    /// Writes it to where the same arrays are to be written.
    pub(crate) fn spread(&self, arrays: &[Lent<'_>]) {
        let mut start = 0;
        for out in arrays.iter().filter_map(|lent| lent.out) {
            assert!(out.bytes <= self.bytes - start, "more arrays than were read");
            // SAFETY: the output's owner is there while it is lent, and who lent it has checked that it may be written.
            // So many bytes of this memory, which is nobody else's, have been written.
            unsafe {
                let next = self.memory.as_ptr().cast::<u8>().add(start);
                std::ptr::copy_nonoverlapping(next, out.start().as_ptr(), out.bytes);
            }
            start += out.bytes;
        }
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
        if let (Some(input), Some(out)) = (&input, &out)
            && !input.region.goes_with(out.region, input.dtype == out.dtype)
        {
            return Err(NeedsCopy::new_err("out"));
        }
        Ok(Held { input, out, in_place: false })
    }

    /// As `new`, for a call whose input and output can't be the same memory.
    pub(crate) fn apart(input: Array, out: Array) -> PyResult<Held> {
        if input.region.address == out.region.address && input.region.bytes > 0 {
            return Err(NeedsCopy::new_err("out"));
        }
        Held::new(Some(input), Some(out))
    }

    /// One array, from `get_mut`, that is read and written.
    pub(crate) fn in_place(array: Array) -> Held {
        Held { input: Some(array), out: None, in_place: true }
    }

    /// Their memory.
    pub(crate) fn lend(&self) -> Lent<'_> {
        let out = if self.in_place { &self.input } else { &self.out };
        assert!(out.as_ref().is_none_or(|array| !array.readonly), "an output array was not checked");
        let region = |array: &Option<Array>| array.as_ref().map(|array| array.region);
        Lent { input: region(&self.input), out: region(out), owners: PhantomData }
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

fn not_an_array(name: &str, object: &Bound<'_, PyAny>) -> PyErr {
    let kind = object.get_type().name().map_or_else(|_| "object".to_owned(), |kind| kind.to_string());
    PyTypeError::new_err(format!("{name} must be an array (numpy, or anything with a buffer), not {kind}"))
}
