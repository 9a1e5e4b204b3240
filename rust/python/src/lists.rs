//! Lists of arrays as one exchange: those of one dtype travel together, and the bits are those of one call each.

use isobit::{Call, Communicator as Runtime, Error, SEVERAL_TENSORS};
use isobit_core::Dtype;
use isobit_sys::{ReadSpan, WriteSpan};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::buffer::{Flat, Lent, Usual};

/// The arrays of one dtype in a list.
pub(crate) struct Bundle<'a> {
    dtype: Dtype,
    lent: Vec<Lent<'a>>,
    /// What the ranks must agree on: how many arrays, and of each how many dimensions it has, and its dimensions.
    shapes: Vec<u64>,
}

/// The items of a list or a tuple, held.
pub(crate) fn items<'py>(given: &Bound<'py, PyAny>) -> Option<Bound<'py, PyTuple>> {
    match given.cast::<PyList>() {
        Ok(list) => Some(list.to_tuple()),
        Err(_) => given.cast::<PyTuple>().ok().cloned(),
    }
}

/// Arrays to be read, and for each that to be written, which may be the same; `None` if any is unusual.
pub(crate) fn bundle<'a>(
    tensors: &'a Bound<'_, PyTuple>,
    outs: &'a Bound<'_, PyTuple>,
) -> Option<Vec<Bundle<'a>>> {
    if tensors.is_empty() || tensors.len() != outs.len() {
        return None;
    }
    let mut bundles: Vec<Bundle<'a>> = Vec::new();
    for (tensor, out) in tensors.iter_borrowed().zip(outs.iter_borrowed()) {
        let target = Usual::writable(out)?;
        let input = if tensor.is(&*out) { target } else { Usual::of(tensor)? };
        if input.dtype != target.dtype {
            return None;
        }
        let place = bundles.iter().position(|bundle| bundle.dtype == input.dtype);
        let place = place.unwrap_or_else(|| {
            let shapes = vec![SEVERAL_TENSORS, 0];
            bundles.push(Bundle { dtype: input.dtype, lent: Vec::new(), shapes });
            bundles.len() - 1
        });
        let bundle = &mut bundles[place];
        bundle.lent.push(input.with_out_alike(target)?);
        bundle.shapes[1] += 1;
        input.describe(&mut bundle.shapes);
    }
    Some(bundles)
}

/// Memory for each bundle in one piece.
pub(crate) fn flats(bundles: &[Bundle<'_>]) -> PyResult<Vec<Flat>> {
    bundles.iter().map(|bundle| Flat::for_inputs(&bundle.lent)).collect()
}

/// Makes `call` once for each bundle, on all of it in one piece. Nothing is written unless all succeed.
pub(crate) fn call_each(
    bundles: &[Bundle<'_>],
    flats: &mut [Flat],
    runtime: &mut Runtime,
    call: &mut Call<'_>,
    make: impl Fn(&mut Runtime, ReadSpan<'_>, WriteSpan<'_>, Dtype, &mut Call<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    for (bundle, flat) in bundles.iter().zip(flats.iter_mut()) {
        let mut call = Call { shape: &bundle.shapes, timeout: call.timeout, interrupt: &mut *call.interrupt };
        flat.gather(&bundle.lent);
        flat.with(|input, out| make(runtime, input, out, bundle.dtype, &mut call))?;
    }
    for (bundle, flat) in bundles.iter().zip(flats) {
        flat.spread(&bundle.lent);
    }
    Ok(())
}
