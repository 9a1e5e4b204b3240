//! Planning one rank of thousands takes little memory. It is tested here, not where plans are made,
//! because counting memory takes an allocator, and that `unsafe` code.

mod counting;

use counting::{Counting, most_used};
use isobit_core::law::LeafMap;
use isobit_core::schedule::{Counts, Limits, Request, Topology, choose, plan_rank};
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RANKS: u32 = 4096;
const BYTES_MAX: usize = 100 << 20;

// One test, because another thread's memory would be counted, too.
#[test]
fn a_rank_of_four_thousand_plans_within_a_hundred_mebibytes() {
    let limits = Limits::default();
    // Of up to 1 GiB; of 256 MiB where a rank's contributions are as long as ten tensors.
    let large = 1 << 28;
    for (machines, leaves, largest) in [
        (512, RANKS, large),
        (64, RANKS, large),
        (1, RANKS, large),
        (RANKS, RANKS, large),
        (512, 1 << 20, large / 4),
    ] {
        let topology = Topology::new((0..RANKS).map(|rank| rank / (RANKS / machines)).collect());
        let map = LeafMap::even(leaves, RANKS);
        for elements in [0, 1024, 1 << 18, largest] {
            let block = Counts::Same(elements / u64::from(RANKS));
            let mut requests = vec![
                Request::all_gather(Dtype::F32, block),
                Request::gather(Dtype::F32, 0, block),
                Request::scatter(Dtype::F32, 0, block),
                Request::all_to_all(Dtype::F32, block),
                Request::broadcast(Dtype::F32, 0, elements),
                Request::barrier(),
            ];
            for order in [Order::Tree, Order::Exact] {
                let spec = ContractSpec::new(ReduceOp::Sum, order, leaves, Dtype::F32);
                let contract = Contract::new(spec).unwrap();
                requests.push(Request::all_reduce(contract, &map, elements));
                requests.push(Request::reduce(contract, &map, 0, elements));
                requests.push(Request::reduce_scatter(contract, &map, block));
            }
            for request in &requests {
                for rank in [0, 1000] {
                    let (algorithm, most) = most_used(|| {
                        let algorithm = choose(request, &topology, &limits).unwrap();
                        plan_rank(request, &topology, &limits, algorithm, rank).unwrap();
                        algorithm
                    });
                    assert!(
                        most <= BYTES_MAX,
                        "{} of {elements} by {algorithm} on {machines} machines: {most} bytes for rank {rank}",
                        request.collective
                    );
                }
            }
        }
    }
}
