//! Large simulated worlds: one collective without faults, its bits against the law, and what it sent.

use isobit_core::law::LeafMap;
use isobit_core::schedule::{Algorithm, Counts, Limits, Request, Topology, choose};
use isobit_core::sim::{Faults, Random, Report, Traffic};
use isobit_core::wire::Collective;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};

use crate::sim_support::{by_law, calls, parts, result, run};

/// The collectives whose schedules need not grow with the number of ranks.
pub(crate) const COLLECTIVES: [Collective; 8] = [
    Collective::AllReduce,
    Collective::Reduce,
    Collective::ReduceScatter,
    Collective::AllGather,
    Collective::Gather,
    Collective::Scatter,
    Collective::Broadcast,
    Collective::Barrier,
];

/// `world_size` ranks on `machines` machines, neighbours together.
pub(crate) fn topology(world_size: u32, machines: u32) -> Topology {
    Topology::new((0..world_size).map(|rank| rank / (world_size / machines)).collect())
}

/// f32 of either sign and very different sizes, so that every other order of additions shows.
fn numbers(random: &mut Random, count: u64) -> Vec<u8> {
    let number = |random: &mut Random| {
        let bits = u32::try_from(random.next() >> 32).expect("32 bits");
        (bits & 0x807f_ffff) | ((116 + (bits >> 23) % 24) << 23)
    };
    (0..count).flat_map(|_| number(random).to_le_bytes()).collect()
}

/// One collective of `each` elements a rank, with the algorithm that is chosen.
///
/// # Panics
/// If a rank does not finish, or has a wrong bit.
pub(crate) fn check(
    collective: Collective,
    order: Order,
    topology: &Topology,
    each: u64,
) -> (Algorithm, Vec<Traffic>) {
    let (world_size, random) = (topology.world_size(), &mut Random::new(each));
    let ranks = world_size as usize;
    let spec = ContractSpec::new(ReduceOp::Sum, order, world_size, Dtype::F32);
    let accumulate = (order == Order::Tree).then_some(Dtype::F32);
    let contract = Contract::new(ContractSpec { accumulate, ..spec }).expect("a sum of f32");
    let map = LeafMap::one_each(world_size);
    let (block, count, root) = (Counts::Same(each), each * u64::from(world_size), world_size / 3);
    let request = match collective {
        Collective::AllReduce => Request::all_reduce(contract, &map, count),
        Collective::Reduce => Request::reduce(contract, &map, root, count),
        Collective::ReduceScatter => Request::reduce_scatter(contract, &map, block),
        Collective::AllGather => Request::all_gather(Dtype::F32, block),
        Collective::Gather => Request::gather(Dtype::F32, root, block),
        Collective::Scatter => Request::scatter(Dtype::F32, root, block),
        Collective::Broadcast => Request::broadcast(Dtype::F32, root, count),
        _ => Request::barrier(),
    };
    let only = |tensor: &Vec<u8>| {
        let mut all = vec![Vec::new(); ranks];
        all[root as usize] = tensor.clone();
        all
    };
    let at_root = |tensor: &Vec<u8>| {
        let mut all = vec![Vec::new(); ranks];
        all[root as usize] = vec![tensor.clone()];
        all
    };
    let cut = |whole: &[u8]| whole.chunks(4 * usize::try_from(each).unwrap()).map(<[u8]>::to_vec).collect();
    let (given, expected): (Vec<Vec<Vec<u8>>>, Vec<Vec<u8>>) = if request.contract.is_some() {
        let leaves: Vec<Vec<u8>> = (0..ranks).map(|_| numbers(random, count)).collect();
        let whole = by_law(&contract, &leaves);
        let expected = match collective {
            Collective::AllReduce => vec![whole; ranks],
            Collective::Reduce => only(&whole),
            _ => cut(&whole),
        };
        (parts(&contract, &map, &leaves), expected)
    } else {
        let whole = numbers(random, count);
        let blocks: Vec<Vec<u8>> = cut(&whole);
        let own = || blocks.iter().map(|block| vec![block.clone()]).collect();
        match collective {
            Collective::AllGather => (own(), vec![whole; ranks]),
            Collective::Gather => (own(), only(&whole)),
            Collective::Scatter => (at_root(&whole), blocks),
            Collective::Broadcast => (at_root(&whole), vec![whole; ranks]),
            _ => (vec![Vec::new(); ranks], vec![Vec::new(); ranks]),
        }
    };
    let limits = Limits::default();
    let algorithm = choose(&request, topology, &limits).expect("there is a plan");
    let calls = calls(random, &request, topology, &limits, algorithm, &given).expect("there is a plan");
    drop(given);
    let report: Report = run(calls, &Faults { timeout_ns: u64::MAX / 2, ..Faults::default() }, each);
    let traffic = report.traffic.clone();
    assert!(result(report) == expected, "{collective} by {algorithm} on {ranks} ranks: a wrong bit");
    (algorithm, traffic)
}
