//! What is read straight from the structs of numpy and of the interpreter, because asking takes longer than a call.
//!
//! numpy takes a tenth of a microsecond and more to export a buffer. Its arrays have had the same fields since its
//! version 1.7, and extensions that were compiled against its headers depend on them. Here they are compared with what
//! numpy says before they are believed; otherwise every array goes the slow way. Of the interpreter it is what PyO3
//! offers no safe and quick way to: the running frame, methods that take their arguments as they come, and letting go
//! of the interpreter in the midst of a call. With buffer.rs this is the only file outside `rust/sys` with `unsafe` in it.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::size_of;
use std::sync::OnceLock;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyFunction, PyString, PyType};

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
        if !object.is_exact_instance(ndarray.bind(py)) {
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

/// The interpreter during a call: held until the call waits.
pub(crate) struct Interpreter<'py> {
    py: Python<'py>,
    /// This thread's state, while other threads have the interpreter.
    saved: Cell<*mut ffi::PyThreadState>,
}

impl<'py> Interpreter<'py> {
    /// As this thread has it. Until the end of this value it must do nothing with the interpreter but by this value:
    /// PyO3 does not know when it has let go.
    pub(crate) fn held(py: Python<'py>) -> Interpreter<'py> {
        Interpreter { py, saved: Cell::new(std::ptr::null_mut()) }
    }

    /// Lets other threads have it from now on. Where they had it already, signals are heard in between.
    pub(crate) fn let_go(&self) -> PyResult<()> {
        let heard = if self.take_back() { self.py.check_signals() } else { Ok(()) };
        // SAFETY: this thread has the interpreter.
        self.saved.set(unsafe { ffi::PyEval_SaveThread() });
        heard
    }

    /// Waits for it, if others may have it: whether they might.
    fn take_back(&self) -> bool {
        let saved = self.saved.replace(std::ptr::null_mut());
        if !saved.is_null() {
            // SAFETY: it is the state with which this thread let go, and it is used once.
            unsafe { ffi::PyEval_RestoreThread(saved) };
        }
        !saved.is_null()
    }
}

impl Drop for Interpreter<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// A frame of Python code.
#[derive(Clone)]
pub(crate) struct Frame<'py>(Bound<'py, PyAny>);

impl<'py> Frame<'py> {
    /// That which is running, if there is one.
    pub(crate) fn present(py: Python<'py>) -> Option<Frame<'py>> {
        // SAFETY: this thread has the interpreter, which lends the frame.
        unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyEval_GetFrame().cast()) }.map(Frame)
    }

    /// That of its caller.
    pub(crate) fn back(&self) -> PyResult<Frame<'py>> {
        let back = self.0.getattr(intern!(self.0.py(), "f_back"))?;
        match back.is_none() {
            true => Err(PyRuntimeError::new_err("the outermost frame has none around it")),
            false => Ok(Frame(back)),
        }
    }

    /// The line that it is at, if that is known.
    pub(crate) fn line(&self) -> PyResult<Option<u32>> {
        self.0.getattr(intern!(self.0.py(), "f_lineno"))?.extract()
    }

    /// The code that it runs.
    pub(crate) fn code(&self) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: it is a frame, and alive; the code object is returned as a reference of its own.
        unsafe { Bound::from_owned_ptr_or_err(self.0.py(), ffi::PyFrame_GetCode(self.as_ptr()).cast()) }
    }

    /// The instruction of its code that it is at.
    pub(crate) fn instruction(&self) -> PyResult<i32> {
        match get_lasti() {
            // SAFETY: it is a frame, and alive.
            Some(instruction) => Ok(unsafe { instruction(self.as_ptr()) }),
            None => self.0.getattr("f_lasti")?.extract(),
        }
    }

    pub(crate) fn is(&self, other: &Frame<'_>) -> bool {
        self.0.is(&other.0)
    }

    fn as_ptr(&self) -> *mut ffi::PyFrameObject {
        self.0.as_ptr().cast()
    }
}

type GetLasti = unsafe extern "C" fn(*mut ffi::PyFrameObject) -> c_int;

/// `PyFrame_GetLasti`, which is public but not in the stable ABI: an interpreter may be without it.
fn get_lasti() -> Option<GetLasti> {
    unsafe extern "C" {
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    static FOUND: OnceLock<Option<GetLasti>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: no handle means all that is loaded, and the name ends with a zero.
        let found = unsafe { dlsym(std::ptr::null_mut(), c"PyFrame_GetLasti".as_ptr()) };
        // SAFETY: the function of that name has had this signature since it came, with Python 3.11.
        (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, GetLasti>(found) })
    })
}

/// A method that asks another function first.
///
/// A function of Python's that passes on what it was given builds a tuple and a dictionary of it, and a frame for itself:
/// that takes longer than all checks of a call. So this is a callable of its own kind, which binds as a function does.
#[repr(C)]
struct Method {
    object: ffi::PyObject,
    vectorcall: VectorCall,
    /// The code of the function that is asked first, and its module.
    direct: ffi::PyCFunctionFastWithKeywords,
    module: *mut ffi::PyObject,
    /// The names of its arguments after the first.
    names: [*mut ffi::PyObject; NAMES.len()],
    /// The function that is called where that returns `NotImplemented`.
    otherwise: *mut ffi::PyObject,
    /// `types.MethodType`.
    bound: *mut ffi::PyObject,
}

/// What the functions take that are asked first, besides the object whose method it is: those of `given.rs`.
const NAMES: [&CStr; 6] = [c"tensor", c"out", c"op", c"order", c"root", c"timeout"];

/// How many of these may be given without their names.
const POSITIONS: usize = 2;

type VectorCall = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    usize,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// Bits of the public API that PyO3 does not name for Python 3.11, where they are as they have been since 3.8.
const HAVE_VECTORCALL: c_uint = 1 << 11;
const ARGUMENTS_OFFSET: usize = 1 << (usize::BITS - 1);

unsafe extern "C" {
    /// Public since Python 3.9, and in the stable ABI since 3.12.
    fn PyObject_Vectorcall(
        callable: *mut ffi::PyObject,
        arguments: *const *mut ffi::PyObject,
        count: usize,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
}

/// `otherwise` as a method that asks `direct`, a function of this module, first: what that has no answer to, it is
/// asked itself. In everything else it is `otherwise`.
#[pyfunction]
pub(crate) fn shortcut<'py>(
    direct: &Bound<'py, PyCFunction>,
    otherwise: &Bound<'py, PyFunction>,
) -> PyResult<Bound<'py, PyAny>> {
    static METHOD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = direct.py();
    let class = METHOD.get_or_try_init(py, || method_class(py))?.bind(py);
    let bound = py.import("types")?.getattr("MethodType")?;
    let names = NAMES.map(|name| PyString::intern(py, &name.to_string_lossy()).into_any());
    let direct = direct.clone().into_any();
    // SAFETY: `direct` is a builtin function.
    let (code, flags, module) = unsafe {
        let direct = direct.as_ptr();
        (
            ffi::PyCFunction_GetFunction(direct),
            ffi::PyCFunction_GetFlags(direct),
            ffi::PyCFunction_GetSelf(direct),
        )
    };
    let Some(code) = code.filter(|_| flags == ffi::METH_FASTCALL | ffi::METH_KEYWORDS) else {
        return Err(PyTypeError::new_err("direct must take its arguments in an array"));
    };
    // SAFETY: a function with these flags has this signature.
    let code = unsafe { std::mem::transmute::<ffi::PyCFunction, ffi::PyCFunctionFastWithKeywords>(code) };
    // SAFETY: the class's objects are as large as `Method`, and a new one's own fields are nobody's yet. The references
    // are never given back: a method is made once for a class, and lives as long as this library.
    unsafe {
        let made = Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(class.as_type_ptr(), 0))?;
        let method = made.as_ptr().cast::<Method>();
        (&raw mut (*method).vectorcall).write(vectorcall);
        (&raw mut (*method).direct).write(code);
        (&raw mut (*method).module).write(module);
        (&raw mut (*method).names).write(names.map(Bound::into_ptr));
        (&raw mut (*method).otherwise).write(otherwise.clone().into_any().into_ptr());
        (&raw mut (*method).bound).write(bound.into_ptr());
        std::mem::forget(direct);
        Ok(made)
    }
}

fn method_class(py: Python<'_>) -> PyResult<Py<PyType>> {
    let mut members = [
        ffi::PyMemberDef {
            name: c"__vectorcalloffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: std::mem::offset_of!(Method, vectorcall) as ffi::Py_ssize_t,
            flags: ffi::Py_READONLY,
            doc: std::ptr::null(),
        },
        ffi::PyMemberDef::default(),
    ];
    let slot = |slot, function| ffi::PyType_Slot { slot, pfunc: function };
    let mut slots = [
        slot(ffi::Py_tp_call, call as *mut c_void),
        slot(ffi::Py_tp_descr_get, bind as *mut c_void),
        slot(ffi::Py_tp_getattro, attribute as *mut c_void),
        slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
        slot(0, std::ptr::null_mut()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"isobit._native.Method".as_ptr(),
        basicsize: size_of::<Method>() as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR) as c_uint | HAVE_VECTORCALL,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: names are static, and the interpreter copies the rest. The slots' functions have the signatures of their
    // slots. With the offset of a vectorcall its flag is allowed, and a class without a base for its objects may say
    // that they bind as functions do, because `bind` does.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&mut spec))? };
    Ok(made.cast_into::<PyType>()?.unbind())
}

/// # Safety
/// As for every function that the interpreter calls: for an object of this class, with arguments as it promises.
unsafe extern "C" fn vectorcall(
    method: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `method` is a `Method`, whose fields `shortcut` has set, and the arguments are the interpreter's.
    unsafe {
        let method = &*method.cast::<Method>();
        if let Some(given) = in_order(method, arguments, count & !ARGUMENTS_OFFSET, names) {
            let result =
                (method.direct)(method.module, given.as_ptr(), given.len() as _, std::ptr::null_mut());
            if result != ffi::Py_NotImplemented() {
                return result;
            }
            ffi::Py_DecRef(result);
        }
        PyObject_Vectorcall(method.otherwise, arguments, count, names)
    }
}

/// The arguments as the function takes them that is asked first, `NotImplemented` for those not given; `None` if any is
/// not one of its own, or there twice.
///
/// # Safety
/// As `vectorcall`.
unsafe fn in_order(
    method: &Method,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> Option<[*mut ffi::PyObject; NAMES.len() + 1]> {
    if count == 0 || count > POSITIONS + 1 {
        return None;
    }
    // SAFETY: there are `count` arguments, then as many as there are names, which are a tuple of strings or null.
    unsafe {
        let absent = ffi::Py_NotImplemented();
        let mut given = [absent; NAMES.len() + 1];
        given[..count].copy_from_slice(std::slice::from_raw_parts(arguments, count));
        let named = if names.is_null() { 0 } else { ffi::PyTuple_Size(names) };
        for place in 0..named {
            // Names in a program are interned: any others take the long way.
            let name = ffi::PyTuple_GetItem(names, place);
            let at = method.names.iter().position(|&own| own == name)? + 1;
            if given[at] != absent {
                return None;
            }
            given[at] = *arguments.add(count + place as usize);
        }
        Some(given)
    }
}

/// # Safety
/// As `vectorcall`.
unsafe extern "C" fn call(
    method: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
    options: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `method` is a `Method`, whose fields `shortcut` has set; the arguments are passed on as they came.
    unsafe { ffi::PyObject_Call((*method.cast::<Method>()).otherwise, arguments, options) }
}

/// # Safety
/// As `vectorcall`.
unsafe extern "C" fn bind(
    method: *mut ffi::PyObject,
    object: *mut ffi::PyObject,
    _class: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `method` is a `Method`, whose fields `shortcut` has set, and `object` is none or an object.
    unsafe {
        if object.is_null() {
            ffi::Py_IncRef(method);
            return method;
        }
        let arguments = [method, object];
        PyObject_Vectorcall((*method.cast::<Method>()).bound, arguments.as_ptr(), 2, std::ptr::null_mut())
    }
}

/// # Safety
/// As `vectorcall`.
unsafe extern "C" fn attribute(method: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `method` is a `Method`, whose fields `shortcut` has set, and a name is a string.
    unsafe {
        if ffi::PyUnicode_CompareWithASCIIString(name, c"__class__".as_ptr()) == 0 {
            return ffi::PyObject_GenericGetAttr(method, name);
        }
        ffi::PyObject_GetAttr((*method.cast::<Method>()).otherwise, name)
    }
}
