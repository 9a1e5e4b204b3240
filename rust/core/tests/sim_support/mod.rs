//! Drawing worlds for the simulator: contracts, ownerships, tensors, sizes, algorithms, networks.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::sync::Arc;

use isobit_core::law::{LeafMap, LeafSet, contributions, fold, reduce};
use isobit_core::schedule::{Algorithm, Content, Layout, Limits, Request, Topology, plan};
use isobit_core::sim::{Buffers, Call, Faults, Outcome, Random, Report, simulate};
use isobit_core::wire::{Collective, Descriptor};
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp, float};

pub(crate) fn draw(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(limit as u64)).unwrap()
}

pub(crate) fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[draw(random, of.len())]
}

/// A network that shuffles arrivals, with no room to spare.
pub(crate) fn faults(random: &mut Random, limits: &Limits) -> Faults {
    Faults {
        delay_ns_max: pick(random, &[0, 100, 10_000]),
        work_ns_max: pick(random, &[0, 5_000]),
        pause_ns_max: pick(random, &[0, 1_000, 50_000]),
        window_bytes: limits.window_bytes,
        damage_ppm: pick(random, &[0, 100_000]),
        ..Faults::default()
    }
}

/// A contract over `leaves` leaves.
pub(crate) fn contract(random: &mut Random, leaves: u32) -> Contract {
    loop {
        let order = pick(random, &[Order::Tree, Order::Tree, Order::Exact]);
        let op = pick(random, ReduceOp::ALL);
        let mut spec = ContractSpec::new(op, order, leaves, pick(random, &Dtype::ALL));
        spec.accumulate = pick(random, &[None, None, Some(Dtype::F32), Some(Dtype::F64)]);
        spec.out_dtype = pick(random, &[None, None, Some(Dtype::F32), Some(Dtype::Bf16)]);
        if let Ok(contract) = Contract::new(spec) {
            return contract;
        }
    }
}

/// An ownership: contiguous or scattered, and some ranks own nothing.
pub(crate) fn leaf_map(random: &mut Random, leaves: u32, world_size: u32) -> LeafMap {
    if random.chance(500_000) {
        return LeafMap::even(leaves, world_size);
    }
    let mut owned = vec![Vec::new(); world_size as usize];
    let mut owner = 0;
    for leaf in 0..leaves {
        if leaf == 0 || random.chance(400_000) {
            owner = draw(random, world_size as usize);
        }
        owned[owner].push(leaf);
    }
    LeafMap::new(leaves, owned.into_iter().map(LeafSet::from_leaves).collect()).expect("a partition")
}

/// The bytes of a tensor: half of them any bits, half of them numbers near one.
pub(crate) fn tensor(random: &mut Random, dtype: Dtype, count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let near_one = (random.below(2048) as f64 - 1024.0) / 512.0;
        let bits = match dtype.is_float() && random.chance(500_000) {
            true => float::from_f64(dtype, near_one),
            false => random.next(),
        };
        bytes.extend(&bits.to_le_bytes()[..dtype.size()]);
    }
    bytes
}

/// The leaves of a reduction of `count` elements.
pub(crate) fn leaves(random: &mut Random, contract: &Contract, count: u64) -> Vec<Vec<u8>> {
    (0..contract.leaves()).map(|_| tensor(random, contract.dtype_in(), count)).collect()
}

/// What the law says.
pub(crate) fn by_law(contract: &Contract, leaves: &[Vec<u8>]) -> Vec<u8> {
    reduce(contract, &leaves.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Each rank's contributions, combined from the leaves that it owns.
pub(crate) fn parts(contract: &Contract, map: &LeafMap, leaves: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
    let combine = |rank: u32, content: Content| {
        let own: Vec<u32> = match content {
            Content::Leaf(leaf) => return leaves[leaf as usize].clone(),
            Content::Node(node) => (node.first()..node.end()).collect(),
            _ => map.of(rank).iter().collect(),
        };
        let inputs: Vec<(Content, &[u8])> =
            own.iter().map(|leaf| (Content::Leaf(*leaf), leaves[*leaf as usize].as_slice())).collect();
        fold(contract, &inputs, content)
    };
    (0..map.world_size())
        .map(|rank| contributions(contract, map, rank).into_iter().map(|part| combine(rank, part)).collect())
        .collect()
}

/// One rank's call of each rank, or `None` where the algorithm does not do it.
pub(crate) fn calls(
    random: &mut Random,
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
    algorithm: Algorithm,
    parts: &[Vec<Vec<u8>>],
) -> Option<Vec<Call>> {
    let schedule = plan(request, topology, limits, algorithm).ok()?;
    let layout = Layout::new(request, topology).expect("it was planned");
    let call = |(rank, program)| {
        let parts = parts[rank as usize].clone();
        let contents = layout.parts(rank).to_vec();
        let result = if request.contract.is_some() { Content::Result } else { Content::Data };
        let size = |content| usize::try_from(layout.bytes(content)).unwrap();
        let bytes = |elements: u64, content| usize::try_from(elements).unwrap() * size(content);
        assert_eq!(parts.len(), contents.len(), "the parts that the layout wants");
        let mut buffers = Buffers::new(parts, bytes(layout.out_len(rank), result));
        let shareable: Vec<usize> =
            (0..contents.len()).filter(|part| size(contents[*part]) == size(result)).collect();
        if let Some((part, out)) = layout.shifts(rank)
            && !shareable.is_empty()
            && layout.out_len(rank) > 0
            && (random.chance(500_000) || request.collective == Collective::Broadcast)
        {
            // At the root of a broadcast the result is the part itself.
            buffers = buffers.share(pick(random, &shareable), bytes(part, result), bytes(out, result));
        }
        let descriptor = Descriptor {
            collective: request.collective,
            contract: request.contract,
            dtype: request.dtype,
            root: request.root,
            count: layout.count(),
            shape: 0,
            layout: 0,
        };
        Call { program: Arc::new(program), descriptor, buffers }
    };
    Some((0..).zip(schedule.programs).map(call).collect())
}

/// The calls under an algorithm drawn among those that do it.
pub(crate) fn any_calls(
    random: &mut Random,
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
    parts: &[Vec<Vec<u8>>],
) -> Vec<Call> {
    let mut algorithms = Algorithm::ALL.to_vec();
    while !algorithms.is_empty() {
        let algorithm = algorithms.swap_remove(draw(random, algorithms.len()));
        if let Some(calls) = calls(random, request, topology, limits, algorithm, parts) {
            return calls;
        }
    }
    panic!("no algorithm does {request:?} within {limits:?}");
}

/// Ranks spread over a few machines.
pub(crate) fn topology(random: &mut Random, world_size: u32) -> Topology {
    let machines = 1 + random.below(4);
    Topology::new((0..world_size).map(|_| u32::try_from(random.below(machines)).unwrap()).collect())
}

/// Small messages and windows, so that a few elements take every path.
pub(crate) fn limits(random: &mut Random) -> Limits {
    let chunk_bytes = pick(random, &[280, 300, 512, 1 << 16]);
    Limits { chunk_bytes, window_bytes: chunk_bytes * pick(random, &[1, 2, 5]) }
}

/// One call of each rank, as each rank's only one.
pub(crate) fn run(calls: Vec<Call>, faults: &Faults, seed: u64) -> Report {
    simulate(calls.into_iter().map(|call| vec![call]).collect(), faults, seed)
}

/// Everybody's results, if everybody finished.
pub(crate) fn results(report: Report) -> Vec<Vec<Vec<u8>>> {
    let finished = |(rank, outcome)| match outcome {
        Outcome::Finished(results) => results,
        other => panic!("rank {rank} did not finish: {other:?}"),
    };
    report.outcomes.into_iter().enumerate().map(finished).collect()
}

/// Everybody's result of the only call.
pub(crate) fn result(report: Report) -> Vec<Vec<u8>> {
    results(report).into_iter().map(|mut results| results.swap_remove(0)).collect()
}
