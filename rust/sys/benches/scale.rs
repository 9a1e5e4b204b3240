//! Thousands of ranks: what planning one of them takes, and what all of them send in the simulated network.
//!
//! `cargo bench --bench scale -- plan` or `-- simulate` do one of the two. It is here because it reads a
//! clock and counts memory, which the core does not.

#[path = "../tests/counting/mod.rs"]
mod counting;
#[path = "../../core/tests/scale_support/mod.rs"]
mod scale_support;
#[path = "../../core/tests/sim_support/mod.rs"]
mod sim_support;

use std::time::Instant;

use counting::{Counting, most_used};
use isobit_core::law::LeafMap;
use isobit_core::schedule::{Counts, Limits, Request, choose, plan_rank};
use isobit_core::sim::Traffic;
use isobit_core::wire::Collective;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
use scale_support::{COLLECTIVES, check, topology};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WORLDS: [(u32, u32); 5] = [(512, 64), (4096, 512), (4096, 64), (4096, 4096), (4096, 1)];

/// Machines that divide nothing are left out: groups of neighbours stand in for them, 64 of 64 here.
const SIMULATED: [(u32, u32); 3] = [(512, 64), (4096, 64), (4096, 512)];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |what: &str| wanted.is_empty() || wanted.iter().any(|word| word == what);
    if wants("plan") {
        planning();
    }
    if wants("simulate") {
        simulation();
    }
}

fn planning() {
    println!(
        "Planning one rank, f32, one leaf a rank: the slowest of the first, the second and the last rank\n"
    );
    println!(
        "{:>5} {:>8}  {:<14} {:<5} {:>9}  {:<13} {:>7} {:>9} {:>9} {:>9}",
        "ranks", "machines", "collective", "order", "KiB", "algorithm", "steps", "messages", "ms", "peak MiB"
    );
    for (ranks, machines) in WORLDS {
        for kib in [4_u64, 1 << 10, 1 << 20] {
            for (collective, order) in COLLECTIVES
                .map(|collective| (collective, Order::Tree))
                .into_iter()
                .chain([(Collective::AllReduce, Order::Exact), (Collective::AllToAll, Order::Tree)])
            {
                plan_one(ranks, machines, kib, collective, order);
            }
        }
    }
}

fn plan_one(ranks: u32, machines: u32, kib: u64, collective: Collective, order: Order) {
    let (topology, limits) = (topology(ranks, machines), Limits::default());
    let map = LeafMap::one_each(ranks);
    let contract = Contract::new(ContractSpec::new(ReduceOp::Sum, order, ranks, Dtype::F32)).expect("f32");
    let count = kib * 256;
    let block = Counts::Same(count / u64::from(ranks));
    let request = match collective {
        Collective::AllReduce => Request::all_reduce(contract, &map, count),
        Collective::Reduce => Request::reduce(contract, &map, 0, count),
        Collective::ReduceScatter => Request::reduce_scatter(contract, &map, block),
        Collective::AllGather => Request::all_gather(Dtype::F32, block),
        Collective::Gather => Request::gather(Dtype::F32, 0, block),
        Collective::Scatter => Request::scatter(Dtype::F32, 0, block),
        Collective::Broadcast => Request::broadcast(Dtype::F32, 0, count),
        Collective::AllToAll => Request::all_to_all(Dtype::F32, block),
        _ => Request::barrier(),
    };
    let algorithm = choose(&request, &topology, &limits).expect("there is a plan");
    let (mut slowest, mut memory, mut steps, mut messages) = (0.0_f64, 0, 0, 0);
    for rank in [0, 1, ranks - 1] {
        let started = Instant::now();
        let plan = || plan_rank(&request, &topology, &limits, algorithm, rank).expect("there is a plan");
        let (program, most) = most_used(plan);
        slowest = slowest.max(started.elapsed().as_secs_f64());
        memory = memory.max(most);
        steps = steps.max(program.steps.len());
        let sends = program
            .steps
            .iter()
            .filter(|step| matches!(step.action, isobit_core::schedule::Action::Send { .. }));
        messages = messages.max(sends.count());
    }
    println!(
        "{ranks:>5} {machines:>8}  {:<14} {:<5} {kib:>9}  {:<13} {steps:>7} {messages:>9} {:>9.2} {:>9.2}",
        collective.to_string(),
        if order == Order::Exact { "exact" } else { "tree" },
        algorithm.name(),
        slowest * 1e3,
        memory as f64 / f64::from(1 << 20),
    );
}

fn simulation() {
    println!("\nSimulated without faults, every bit checked against the law; what a rank sends\n");
    println!(
        "{:>5} {:>8}  {:<14} {:<5} {:>9}  {:<13} {:>9} {:>9} {:>11} {:>11} {:>8}",
        "ranks",
        "machines",
        "collective",
        "order",
        "elements",
        "algorithm",
        "messages",
        "mean",
        "bytes",
        "mean",
        "seconds"
    );
    for (ranks, machines) in SIMULATED {
        for (collective, order) in COLLECTIVES
            .map(|collective| (collective, Order::Tree))
            .into_iter()
            .chain([(Collective::AllReduce, Order::Exact)])
        {
            // Of 9 elements a rank, and at 4 096 ranks of 2, an all_reduce is too large for a butterfly.
            let large = if ranks == 4096 { 2 } else { 9 };
            for each in if collective == Collective::AllReduce { vec![1, large] } else { vec![large] } {
                simulate_one(ranks, machines, collective, order, each);
            }
        }
    }
}

fn simulate_one(ranks: u32, machines: u32, collective: Collective, order: Order, each: u64) {
    let started = Instant::now();
    let (algorithm, sent) = check(collective, order, &topology(ranks, machines), each);
    let most = |of: fn(&Traffic) -> u64| sent.iter().map(of).max().unwrap_or(0);
    let mean = |of: fn(&Traffic) -> u64| sent.iter().map(of).sum::<u64>() as f64 / f64::from(ranks);
    println!(
        "{ranks:>5} {machines:>8}  {:<14} {:<5} {:>9}  {:<13} {:>9} {:>9.1} {:>11} {:>11.0} {:>8.1}",
        collective.to_string(),
        if order == Order::Exact { "exact" } else { "tree" },
        each * u64::from(ranks),
        algorithm.name(),
        most(|sent| sent.messages),
        mean(|sent| sent.messages),
        most(|sent| sent.bytes),
        mean(|sent| sent.bytes),
        started.elapsed().as_secs_f64(),
    );
}
