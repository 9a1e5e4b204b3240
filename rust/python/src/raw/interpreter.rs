//! The interpreter during a call, and the frame that runs in it.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

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
