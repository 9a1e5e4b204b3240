//! Bytes on the wire: the formulas of `docs/algorithms.md` hold, and its table is what the planner does.

mod schedule_support;

use std::fmt::Write;

use isobit_core::law::LeafMap;
use isobit_core::schedule::{Algorithm, Cost, Counts, Layout, Limits, Request, Topology, cost, plan_rank};
use isobit_core::{Dtype, Order, Rank};
use schedule_support::sum;

fn costs(request: &Request<'_>, topology: &Topology, algorithm: Algorithm) -> Vec<Cost> {
    let layout = Layout::new(request, topology).unwrap();
    (0..topology.world_size())
        .map(|rank| {
            let program = plan_rank(request, topology, &Limits::default(), algorithm, rank).unwrap();
            cost(&layout, &program)
        })
        .collect()
}

/// Elements of the tensor: divisible by every number of ranks tried, and by the grain of slices.
const COUNT: u64 = 64 * 3 * 5 * 64;
const BYTES: u64 = 4 * COUNT;

/// `world_size` ranks on `machines` machines, neighbours together.
fn topology(world_size: u32, machines: u32) -> Topology {
    Topology::new((0..world_size).map(|rank| rank / (world_size / machines)).collect())
}

#[test]
fn reductions_send_what_the_formulas_say() {
    for (world_size, machines) in [(2, 1), (3, 3), (4, 2), (5, 1), (8, 2), (16, 4)] {
        let map = LeafMap::one_each(world_size);
        let contract = sum(Order::Tree, world_size, Dtype::F32);
        let topology = topology(world_size, machines);
        let (n, m) = (u64::from(world_size), u64::from(machines));
        let all_reduce = Request::all_reduce(contract, &map, COUNT);
        let each = |request: &Request<'_>, algorithm, expected: u64| {
            for cost in costs(request, &topology, algorithm) {
                assert_eq!(cost.bytes_sent, expected, "{algorithm} {n}");
                assert_eq!(cost.bytes_received, expected, "{algorithm} {n}");
            }
        };
        each(&all_reduce, Algorithm::OneShot, (n - 1) * BYTES);
        each(&all_reduce, Algorithm::Direct, 2 * (n - 1) * BYTES / n);
        let scattered = Request::reduce_scatter(contract, &map, Counts::Same(COUNT / n));
        each(&scattered, Algorithm::Direct, (n - 1) * BYTES / n);
        if n.is_power_of_two() {
            // A leaf in f32, then inner nodes in f64.
            each(&all_reduce, Algorithm::Butterfly, BYTES + 2 * BYTES * (u64::from(n.ilog2()) - 1));
        }
        if m > 1 && m < n {
            // A machine's leaves are merged to one inner node in f64.
            let hierarchical = 2 * (n - m) * BYTES / n + (2 + 1) * (m - 1) * BYTES / n;
            each(&all_reduce, Algorithm::Hierarchical, hierarchical);
        }
        let reduce = costs(&Request::reduce(contract, &map, 0, COUNT), &topology, Algorithm::Direct);
        assert_eq!(reduce[0].bytes_sent, (n - 1) * BYTES / n);
        assert!(reduce[1..].iter().all(|cost| cost.bytes_sent == BYTES));
    }
}

#[test]
fn a_hierarchical_schedule_has_messages_for_the_machine_and_for_machines_not_for_all_ranks() {
    for (world_size, machines) in [(64, 8), (256, 16), (512, 64), (512, 512), (512, 1)] {
        let topology = topology(world_size, machines);
        let groups = topology.groups();
        let (local, many) = (groups.machines()[0].len() as u64, groups.machines().len() as u64);
        let map = LeafMap::one_each(world_size);
        let block = Counts::Same(16);
        let count = 16 * u64::from(world_size);
        for order in [Order::Tree, Order::Exact] {
            let contract = sum(order, world_size, Dtype::F32);
            let most = |request: &Request<'_>, rank| {
                let layout = Layout::new(request, &topology).unwrap();
                let limits = Limits::default();
                let program = plan_rank(request, &topology, &limits, Algorithm::Hierarchical, rank).unwrap();
                let cost = cost(&layout, &program);
                cost.messages_sent.max(cost.messages_received)
            };
            for rank in [0, 1, world_size / 2, world_size - 1] {
                // A wide sum is ten times as long as a leaf, so lanes may be cut into a few bundles.
                let bundles = if order == Order::Exact { 4 } else { 1 };
                let once = bundles * (local + many);
                let all_reduce = most(&Request::all_reduce(contract, &map, count), rank);
                assert!(all_reduce <= 2 * once, "{all_reduce} of {local} and {many}");
                assert!(most(&Request::reduce(contract, &map, 0, count), rank) <= 2 * once);
                assert!(most(&Request::reduce_scatter(contract, &map, block), rank) <= once);
                assert!(most(&Request::all_gather(Dtype::F32, block), rank) <= 2 * (local + many));
            }
        }
    }
}

#[test]
fn blocks_cross_to_another_machine_once() {
    let topology = topology(48, 6);
    let request = Request::all_gather(Dtype::F32, Counts::Same(COUNT));
    let between = |algorithm| -> u64 {
        let limits = Limits::default();
        let mut elements = 0;
        for rank in 0..48 {
            for step in plan_rank(&request, &topology, &limits, algorithm, rank).unwrap().steps {
                if let isobit_core::schedule::Action::Send { to, src, .. } = step.action
                    && topology.machine_of(rank) != topology.machine_of(to)
                {
                    elements += src.len;
                }
            }
        }
        elements
    };
    assert_eq!(between(Algorithm::Hierarchical), 6 * 40 * COUNT);
    assert_eq!(between(Algorithm::Direct), 8 * between(Algorithm::Hierarchical));
}

#[test]
fn movements_send_what_the_formulas_say() {
    for world_size in [2_u32, 3, 4, 5, 8, 16] {
        let (topology, n) = (Topology::single_node(world_size), u64::from(world_size));
        let rounds = u64::from(world_size.next_power_of_two().ilog2());
        let sent = |request: &Request<'_>, algorithm| {
            costs(request, &topology, algorithm).iter().map(|cost| cost.bytes_sent).collect::<Vec<_>>()
        };
        let broadcast = Request::broadcast(Dtype::F32, 0, COUNT);
        assert_eq!(sent(&broadcast, Algorithm::Tree)[0], rounds * BYTES);
        assert_eq!(sent(&broadcast, Algorithm::Tree).iter().sum::<u64>(), (n - 1) * BYTES);
        assert_eq!(sent(&broadcast, Algorithm::Flat)[0], (n - 1) * BYTES);
        let block = Counts::Same(COUNT / n);
        let spread = vec![(n - 1) * BYTES / n; world_size as usize];
        assert_eq!(sent(&Request::all_gather(Dtype::F32, block), Algorithm::Direct), spread);
        assert_eq!(sent(&Request::all_to_all(Dtype::F32, block), Algorithm::Direct), spread);
        for algorithm in [Algorithm::Flat, Algorithm::Tree] {
            let block = Counts::Same(30);
            assert_eq!(sent(&Request::scatter(Dtype::F32, 0, block), algorithm)[0], (n - 1) * 120);
            assert_eq!(sent(&Request::gather(Dtype::F32, 0, block), algorithm)[world_size as usize - 1], 120);
        }
        let gathered =
            &costs(&Request::gather(Dtype::F32, 0, Counts::Same(30)), &topology, Algorithm::Tree)[0];
        assert_eq!((gathered.messages_received, gathered.bytes_received), (rounds, (n - 1) * 120));
        for cost in costs(&Request::barrier(), &topology, Algorithm::Dissemination) {
            assert_eq!((cost.messages_sent, cost.bytes_sent), (rounds, 0));
        }
    }
}

/// What the busiest rank sends and stages, a row for each algorithm.
fn table() -> String {
    let mut rows = String::from(
        "| ranks | collective | algorithm | messages | bytes sent, in tensors | staging, KiB |\n|---|---|---|---|---|---|\n",
    );
    for (world_size, machines) in [(2, 1), (3, 1), (4, 1), (8, 2), (16, 4)] {
        let topology = topology(world_size, machines);
        let map = LeafMap::one_each(world_size);
        let contract = sum(Order::Tree, world_size, Dtype::F32);
        let block = Counts::Same(COUNT / u64::from(world_size));
        let mut requests = vec![
            (Request::all_reduce(contract, &map, COUNT), vec![Algorithm::OneShot, Algorithm::Direct]),
            (Request::reduce(contract, &map, 0, COUNT), vec![Algorithm::Direct]),
            (Request::reduce_scatter(contract, &map, block), vec![Algorithm::Direct]),
            (Request::all_gather(Dtype::F32, block), vec![Algorithm::Direct]),
            (Request::broadcast(Dtype::F32, 0, COUNT), vec![Algorithm::Tree]),
        ];
        if world_size > 2 {
            requests[0].1.push(Algorithm::Butterfly);
        }
        if machines > 1 {
            requests[..4].iter_mut().for_each(|(_, algorithms)| algorithms.push(Algorithm::Hierarchical));
        }
        for (request, algorithms) in requests {
            for algorithm in algorithms {
                let costs = costs(&request, &topology, algorithm);
                let busiest = |of: fn(&Cost) -> u64| costs.iter().map(of).max().unwrap_or(0);
                let machines = if machines > 1 { format!(" on {machines} machines") } else { String::new() };
                writeln!(
                    rows,
                    "| {world_size}{machines} | {} | {algorithm} | {} | {:.3} | {} |",
                    request.collective,
                    busiest(|cost| cost.messages_sent),
                    busiest(|cost| cost.bytes_sent) as f64 / BYTES as f64,
                    busiest(|cost| cost.staging_bytes) / 1024,
                )
                .unwrap();
            }
        }
    }
    rows
}

#[test]
fn the_documented_table_is_what_is_planned() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/algorithms.md");
    let page = std::fs::read_to_string(page).unwrap();
    let table = table();
    assert!(page.contains(&table), "docs/algorithms.md should hold this table:\n\n{table}");
}

#[test]
fn merging_on_the_machine_lightens_the_links_between_machines() {
    // 96 leaves on 24 ranks in machines of 8: aligned covers merge to a few nodes a machine.
    let map = LeafMap::even(96, 24);
    let request = Request::all_reduce(sum(Order::Tree, 96, Dtype::F32), &map, COUNT);
    let topology = topology(24, 3);
    let between = |algorithm| {
        let layout = Layout::new(&request, &topology).unwrap();
        let crosses = |from: Rank, to: Rank| topology.machine_of(from) != topology.machine_of(to);
        let mut bytes = 0;
        for rank in 0..24 {
            let program = plan_rank(&request, &topology, &Limits::default(), algorithm, rank).unwrap();
            for step in &program.steps {
                if let isobit_core::schedule::Action::Send { to, src, content } = step.action
                    && crosses(rank, to)
                {
                    bytes += src.len * layout.bytes(content);
                }
            }
        }
        bytes
    };
    assert!(between(Algorithm::Direct) >= 4 * between(Algorithm::Hierarchical));
}
