//! The extension module `isobit._native`: arguments, the interpreter's lock, errors. No logic.
//!
//! It knows no rule about values, ranks or schedules: it turns Python objects into the
//! runtime's types, lets other Python threads run meanwhile, and turns errors into
//! exceptions. The public API, with its documentation, is the Python package above it.
#![deny(unsafe_code)]

mod accumulator;
mod arguments;
mod arrays;
mod buffer;
mod communicator;
mod direct;
mod dtypes;
mod errors;
mod explain;
mod flight;
mod given;
mod guard;
mod handle;
mod joining;
mod lists;
mod plan;
mod raw;
mod session;
mod work;

use pyo3::prelude::*;

const _: () = assert!(
    !isobit_sys::IS_FOR_MEASURING,
    "the extension is built with its checks, its law and its recorder"
);

/// The module's table of contents.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::accumulator::Accumulator;
    #[pymodule_export]
    use crate::buffer::NeedsCopy;
    #[pymodule_export]
    use crate::communicator::Communicator;
    #[pymodule_export]
    use crate::flight::{FlightRecorder, dump_flight_recorders};
    #[pymodule_export]
    use crate::guard::forked;
    #[pymodule_export]
    use crate::handle::Handle;
    #[pymodule_export]
    use crate::plan::{default_constants, plan};
    #[pymodule_export]
    use crate::raw::shortcut;
    #[pymodule_export]
    use crate::work::Work;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("SEVERAL_TENSORS", isobit::SEVERAL_TENSORS)?;
        crate::guard::register(module)
    }
}
