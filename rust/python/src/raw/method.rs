//! A kind of method that asks native code before Python builds anything for it.

use std::any::Any;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::mem::size_of;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFunction, PyString, PyType};

use crate::direct::Direct;
use crate::given::{Arguments, Given};
use crate::handle::Handle;

/// A method that asks another function first.
///
/// A function of Python's that passes on what it was given builds a tuple and a dictionary of it, and a frame for itself:
/// that takes longer than all checks of a call. So this is a callable of its own kind, which binds as a function does.
#[repr(C)]
struct Method {
    object: ffi::PyObject,
    vectorcall: VectorCall,
    /// What is asked first.
    direct: &'static Direct,
    /// The names of its arguments after the first.
    names: [*mut ffi::PyObject; NAMES.len()],
    /// The function that is called where that made no call.
    otherwise: *mut ffi::PyObject,
    /// `types.MethodType`.
    bound: *mut ffi::PyObject,
}

/// What those that are asked first take, besides the object whose method it is: the fields of `Arguments`.
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

/// `otherwise` as a method that asks the shortest way of that name first: what that leaves, it is asked itself. In
/// everything else it is `otherwise`.
#[pyfunction]
pub(crate) fn shortcut<'py>(name: &str, otherwise: &Bound<'py, PyFunction>) -> PyResult<Bound<'py, PyAny>> {
    static METHOD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = otherwise.py();
    let direct = Direct::of_name(name)
        .ok_or_else(|| PyTypeError::new_err(format!("{name:?} has no shorter way than itself")))?;
    let class = METHOD.get_or_try_init(py, || method_class(py))?.bind(py);
    let bound = py.import("types")?.getattr("MethodType")?;
    let names = NAMES.map(|name| PyString::intern(py, &name.to_string_lossy()).into_any());
    // SAFETY: the class's objects are as large as `Method`, and a new one's own fields are nobody's yet. The references
    // are never given back: a method is made once for a class, and lives as long as this library.
    unsafe {
        let made = Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(class.as_type_ptr(), 0))?;
        let method = made.as_ptr().cast::<Method>();
        (&raw mut (*method).vectorcall).write(vectorcall);
        (&raw mut (*method).direct).write(direct);
        (&raw mut (*method).names).write(names.map(Bound::into_ptr));
        (&raw mut (*method).otherwise).write(otherwise.clone().into_any().into_ptr());
        (&raw mut (*method).bound).write(bound.into_ptr());
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
        // Of what may change the interpreter remembers no method: it would look for it in every call.
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR | ffi::Py_TPFLAGS_IMMUTABLETYPE)
            as c_uint
            | HAVE_VECTORCALL,
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
    // SAFETY: `method` is a `Method`, whose fields `shortcut` has set, and the arguments are the interpreter's, which
    // this thread has.
    unsafe {
        let method = &*method.cast::<Method>();
        // PyO3 is not told: a `Py` that is dropped here, as no usual call has one, is let go when PyO3 is called next.
        let py = Python::assume_attached();
        if let Some((object, given)) = in_order(py, method, arguments, count & !ARGUMENTS_OFFSET, names) {
            let made = catch_unwind(AssertUnwindSafe(|| match handle(&object) {
                Some(handle) => method.direct.make(handle, &given),
                None => Ok(None),
            }));
            match made.unwrap_or_else(|panic| Err(panicked(panic))) {
                Ok(Some(result)) => return result.into_ptr(),
                Ok(None) => {}
                Err(error) => {
                    error.restore(py);
                    return std::ptr::null_mut();
                }
            }
        }
        PyObject_Vectorcall(method.otherwise, arguments, count, names)
    }
}

/// The object whose method it is, and the arguments in their places; `None` if any is not one of the method's own, or
/// there twice.
///
/// # Safety
/// As `vectorcall`.
#[inline]
unsafe fn in_order<'a, 'py>(
    py: Python<'py>,
    method: &Method,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> Option<(Borrowed<'a, 'py, PyAny>, Arguments<'a, 'py>)> {
    if count == 0 || count > POSITIONS + 1 {
        return None;
    }
    // SAFETY: there are `count` arguments, then as many as there are names, which are a tuple of strings or null. They
    // are lent until the call ends.
    unsafe {
        let mut given = [None; NAMES.len()];
        for (place, given) in given.iter_mut().take(count - 1).enumerate() {
            *given = Some(Borrowed::from_ptr(py, *arguments.add(1 + place)));
        }
        let named = if names.is_null() { 0 } else { ffi::PyTuple_Size(names) };
        for place in 0..named {
            // Names in a program are interned: any others take the long way.
            let name = ffi::PyTuple_GetItem(names, place);
            let at = method.names.iter().position(|&own| own == name)?;
            let argument = Borrowed::from_ptr(py, *arguments.add(count + place as usize));
            if given[at].replace(argument).is_some() {
                return None;
            }
        }
        let [tensor, out, op, order, root, timeout] = given.map(Given);
        Some((Borrowed::from_ptr(py, *arguments), Arguments { tensor, out, op, order, root, timeout }))
    }
}

/// `object`, if it has a membership.
#[inline]
fn handle<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, Handle>> {
    static USUAL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = object.py();
    if USUAL.get(py).is_some_and(|usual| object.get_type_ptr().addr() == usual.as_ptr().addr()) {
        // SAFETY: another object of its very class is one.
        return Some(unsafe { object.cast_unchecked() });
    }
    let handle = object.cast().ok()?;
    USUAL.get_or_init(py, || object.get_type().unbind());
    Some(handle)
}

/// What PyO3 makes of a panic in a function of its own.
#[cold]
fn panicked(panic: Box<dyn Any + Send>) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic from Rust code");
    PanicException::new_err(text.to_owned())
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
