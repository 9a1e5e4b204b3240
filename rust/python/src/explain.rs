//! What a call would do, as a dictionary.

use isobit::Explanation;
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(crate) fn dictionary<'py>(py: Python<'py>, told: &Explanation) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("algorithm", told.algorithm)?;
    found.set_item("steps", told.steps)?;
    found.set_item("messages_sent", told.cost.messages_sent)?;
    found.set_item("messages_received", told.cost.messages_received)?;
    found.set_item("bytes_sent", told.cost.bytes_sent)?;
    found.set_item("bytes_received", told.cost.bytes_received)?;
    found.set_item("bytes_reduced", told.cost.bytes_reduced)?;
    found.set_item("staging_bytes", told.cost.staging_bytes)?;
    let leaves = told.leaves;
    found.set_item("num_leaves", leaves.map(|leaves| leaves.leaves))?;
    found.set_item("multiplier", leaves.map(|leaves| leaves.multiplier))?;
    found.set_item("nearest_ranks", leaves.map(|leaves| leaves.ranks_nearest))?;
    found.set_item("nearest_ranks_multiplier", leaves.map(|leaves| leaves.ranks_multiplier))?;
    found.set_item("nearest_leaves", leaves.map(|leaves| leaves.leaves_nearest))?;
    Ok(found)
}
