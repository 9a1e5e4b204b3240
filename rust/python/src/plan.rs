//! What algorithms should take on any number of ranks: the core's model, as dictionaries.

use isobit_core::law::LeafMap;
use isobit_core::schedule::{
    Algorithm, Constants, Counts, LeafCost, Limits, Machine, Outlook, Prediction, Request, Topology,
    leaf_cost, outlook,
};
use isobit_core::wire::Collective;
use isobit_core::{Contract, ContractSpec, Dtype};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::arguments::{dtype_named, reduction};

/// The model's constants when nothing else is given.
#[pyfunction]
pub(crate) fn default_constants(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    named(py, Constants::default().named())
}

/// What each algorithm should take, and which is chosen; `count` is of the whole tensor, or of all blocks.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "Python passes them by name")]
#[pyo3(signature = (*, ranks, nodes, collective, count, dtype, op, order, num_leaves, constants, cores, cache_bytes))]
pub(crate) fn plan<'py>(
    py: Python<'py>,
    ranks: u32,
    nodes: u32,
    collective: &str,
    count: u64,
    dtype: &str,
    op: &str,
    order: &str,
    num_leaves: u32,
    constants: &Bound<'py, PyDict>,
    cores: Option<u32>,
    cache_bytes: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let constants = Constants::from_names(|name| match constants.get_item(name)? {
        Some(value) => value.extract(),
        None => Err(wrong(format!("constants lack {name}"))),
    })?;
    let dtype = dtype_named("dtype", dtype)?;
    let reduction = reduction(op, order, None, None, dtype, None)?;
    let Some(collective) = Collective::ALL.iter().copied().find(|known| known.name() == collective) else {
        return Err(wrong(format!("there is no collective {collective:?}")));
    };
    if nodes == 0 || nodes > ranks || num_leaves == 0 {
        return Err(wrong(format!(
            "{ranks} ranks on {nodes} nodes with {num_leaves} leaves: each needs one"
        )));
    }
    let spec = ContractSpec::new(reduction.op, reduction.order, num_leaves, dtype);
    let world = World { ranks, nodes, collective, count, dtype, spec };
    let machine = Machine { cores, cache_bytes };
    let (told, leaves) = py.detach(|| world.outlook(&constants, &machine)).map_err(wrong)?;
    let rows = told.predictions.iter().map(|(algorithm, prediction)| row(py, *algorithm, prediction));
    let found = PyDict::new(py);
    found.set_item("algorithm", told.chosen.name())?;
    found.set_item("reason", told.reason)?;
    found.set_item("multiplier", leaves.map(|leaves| leaves.multiplier))?;
    found.set_item("nearest_ranks", leaves.map(|leaves| leaves.ranks_nearest))?;
    found.set_item("nearest_ranks_multiplier", leaves.map(|leaves| leaves.ranks_multiplier))?;
    found.set_item("nearest_leaves", leaves.map(|leaves| leaves.leaves_nearest))?;
    found.set_item("predictions", PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)?)?;
    Ok(found)
}

/// A call of a group that is not there.
struct World {
    ranks: u32,
    nodes: u32,
    collective: Collective,
    count: u64,
    dtype: Dtype,
    spec: ContractSpec,
}

impl World {
    /// Ranks fill their machines one after the other, leaves are spread evenly, the root is rank 0.
    fn outlook(
        &self,
        constants: &Constants,
        machine: &Machine,
    ) -> Result<(Outlook, Option<LeafCost>), String> {
        let World { ranks, nodes, collective, count, dtype, spec } = *self;
        let home = |rank| u64::from(rank) * u64::from(nodes) / u64::from(ranks);
        let topology = Topology::new((0..ranks).filter_map(|rank| u32::try_from(home(rank)).ok()).collect());
        let map = LeafMap::even(spec.leaves, ranks);
        let contract = || Contract::new(spec).map_err(|error| error.to_string());
        let block = Counts::Same(count / u64::from(ranks));
        let request = match collective {
            Collective::AllReduce => Request::all_reduce(contract()?, &map, count),
            Collective::Reduce => Request::reduce(contract()?, &map, 0, count),
            Collective::ReduceScatter => Request::reduce_scatter(contract()?, &map, block),
            Collective::AllGather => Request::all_gather(dtype, block),
            Collective::Gather => Request::gather(dtype, 0, block),
            Collective::Scatter => Request::scatter(dtype, 0, block),
            Collective::Broadcast => Request::broadcast(dtype, 0, count),
            Collective::AllToAll => Request::all_to_all(dtype, block),
            Collective::Barrier => Request::barrier(),
            Collective::PointToPoint => Request::send_recv(dtype, 0, ranks - 1, count),
        };
        let told = outlook(&request, &topology, &Limits::default(), constants, machine);
        let leaves = request.contract.map(|contract| leaf_cost(&contract, spec.leaves, ranks));
        Ok((told.map_err(|error| error.to_string())?, leaves))
    }
}

fn row<'py>(py: Python<'py>, algorithm: Algorithm, told: &Prediction) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("algorithm", algorithm.name())?;
    found.set_item("steps", told.steps)?;
    found.set_item("messages_sent", told.messages_sent)?;
    found.set_item("bytes_within", told.bytes_within)?;
    found.set_item("bytes_between", told.bytes_between)?;
    found.set_item("staging_bytes", told.staging_bytes)?;
    found.set_item("time_us", told.time_us)?;
    let names = Constants::default().named().map(|(name, _)| name);
    found.set_item("terms", named(py, names.into_iter().zip(told.terms.0))?)?;
    Ok(found)
}

fn named<'py>(
    py: Python<'py>,
    values: impl IntoIterator<Item = (&'static str, f64)>,
) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    for (name, value) in values {
        found.set_item(name, value)?;
    }
    Ok(found)
}

fn wrong(message: String) -> PyErr {
    PyValueError::new_err(message)
}
