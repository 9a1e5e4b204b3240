//! The interpreter during a call, and the frame that runs in it.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

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

/// What tells the place that runs from all others, as long as its code lives.
pub(crate) type Place = (usize, i32);

/// The place that runs, if Python code does. Nothing is made for it where the interpreter's structs are known.
#[inline]
pub(crate) fn place(py: Python<'_>) -> Option<Place> {
    // Not std's: who waits for it must let others have the interpreter.
    static IS_KNOWN: PyOnceLock<bool> = PyOnceLock::new();
    if *IS_KNOWN.get_or_init(py, || is_known(py).unwrap_or(false)) {
        // SAFETY: it is a 3.11, whose structs these are, and what they say was compared with what it says itself.
        return unsafe { running(py) }.map(|frame| (frame.instruction, 0));
    }
    asked_place(py)
}

#[cold]
fn asked_place(py: Python<'_>) -> Option<Place> {
    let frame = Frame::present(py)?;
    Some((frame.code().ok()?.as_ptr().addr(), frame.instruction().ok()?))
}

/// The beginning of a thread's state in Python 3.11: `PyThreadState`.
#[repr(C)]
struct Thread {
    _links: [*const c_void; 3],
    _numbers: [c_int; 7],
    running: *const Running,
}

/// `_PyCFrame` there.
#[repr(C)]
struct Running {
    _use_tracing: u8,
    /// Null where no Python code runs.
    frame: *const RunningFrame,
}

/// The beginning of `_PyInterpreterFrame` there: a frame as long as nobody has asked for an object.
#[repr(C)]
struct RunningFrame {
    _names: [*const c_void; 4],
    code: *const c_void,
    _object_and_previous: [*const c_void; 2],
    /// The address of the instruction, which is inside of the code object.
    instruction: usize,
}

/// # Safety
/// The interpreter must have these structs.
unsafe fn running<'py>(_py: Python<'py>) -> Option<&'py RunningFrame> {
    // SAFETY: this thread has the interpreter, and so a state, and the frame that runs while it calls is there until it
    // returns.
    unsafe { (*(*ffi::PyThreadState_Get().cast::<Thread>()).running).frame.as_ref() }
}

/// Whether the interpreter has these structs, and what they say of the present frame is what it says itself.
fn is_known(py: Python<'_>) -> PyResult<bool> {
    if (py.version_info().major, py.version_info().minor) != (3, 11) {
        return Ok(false);
    }
    // SAFETY: it is a 3.11, all of whose releases have them.
    let (Some(quick), Some(frame)) = (unsafe { running(py) }, Frame::present(py)) else { return Ok(false) };
    let code = frame.code()?;
    let start = quick.instruction.wrapping_sub(frame.instruction()? as usize);
    let size: usize = code.get_type().getattr("__basicsize__")?.extract()?;
    Ok(quick.code.addr() == code.as_ptr().addr() && start.wrapping_sub(quick.code.addr()) <= size)
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
