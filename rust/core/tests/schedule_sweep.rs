//! Every algorithm, every world size to 64, ownerships of every kind: the verifier accepts the
//! schedule, and each rank plans the same program by itself.

mod schedule_support;

use isobit_core::schedule::{Counts, Request, Topology};
use isobit_core::{Dtype, Order};
use schedule_support::{Choices, OWNERSHIPS, check, machines, ownership, sum};

const WORLD_SIZES: std::ops::RangeInclusive<u32> = 1..=64;

/// The numbers of leaves that are tried with a world size.
fn leaves(world_size: u32, choices: &mut Choices) -> [u32; 3] {
    let any = [1, 2, 3, 5, 7, 8, 12, 24, 48, 60, 64, 97];
    [
        world_size,
        any[usize::try_from(choices.below(12)).unwrap()],
        any[usize::try_from(choices.below(12)).unwrap()],
    ]
}

fn reductions(order: Order, dtype: Dtype) {
    for world_size in WORLD_SIZES {
        let choices = &mut Choices(world_size.into());
        for (index, leaves) in (0..).zip(leaves(world_size, choices)) {
            let kind = (u64::from(world_size) + index) % OWNERSHIPS;
            let map = ownership(kind, leaves, world_size, choices);
            let contract = sum(order, leaves, dtype);
            let topology = machines(world_size, choices);
            let slack = 1 + choices.below(3);
            let count = choices.below(2 * u64::from(world_size).min(9));
            check(&Request::all_reduce(contract, &map, count), &topology, slack);
            let root = choices.rank(world_size);
            check(&Request::reduce(contract, &map, root, count), &topology, slack);
            let counts = choices.counts(world_size, 3);
            check(&Request::reduce_scatter(contract, &map, Counts::PerRank(&counts)), &topology, slack);
        }
    }
}

#[test]
fn reductions_in_tree_order_compute_the_tree() {
    reductions(Order::Tree, Dtype::Bf16);
}

#[test]
fn reductions_in_exact_order_unite_all_leaves() {
    reductions(Order::Exact, Dtype::F32);
}

#[test]
fn slices_of_a_long_tensor_keep_to_the_grain() {
    for world_size in [1, 2, 3, 5, 8] {
        let map = ownership(0, 12, world_size, &mut Choices(0));
        let topology = Topology::new((0..world_size).map(|rank| rank / 2).collect());
        check(&Request::all_reduce(sum(Order::Tree, 12, Dtype::F32), &map, 700), &topology, 40);
    }
}

#[test]
fn blocks_move_to_where_they_belong() {
    for world_size in WORLD_SIZES {
        let choices = &mut Choices(world_size.into());
        let topology = machines(world_size, choices);
        for bound in [1, 4] {
            let counts = choices.counts(world_size, bound);
            let root = choices.rank(world_size);
            let counts = Counts::PerRank(&counts);
            check(&Request::all_gather(Dtype::I32, counts), &topology, 2);
            check(&Request::gather(Dtype::F16, root, counts), &topology, 2);
            check(&Request::scatter(Dtype::F16, root, counts), &topology, 2);
        }
        let root = choices.rank(world_size);
        check(&Request::broadcast(Dtype::F64, root, choices.below(9)), &topology, 2);
        check(&Request::gather(Dtype::U8, root, Counts::Same(3)), &topology, 1);
    }
}

#[test]
fn pairs_exchange_blocks_of_any_size() {
    for world_size in WORLD_SIZES {
        let choices = &mut Choices(world_size.into());
        let topology = Topology::single_node(world_size);
        // Mostly nothing, sometimes much.
        let matrix: Vec<Vec<u64>> = (0..world_size)
            .map(|_| (0..world_size).map(|_| choices.below(9).saturating_sub(6) * choices.below(4)).collect())
            .collect();
        let count = |from: u32, to: u32| matrix[from as usize][to as usize];
        check(&Request::all_to_all(Dtype::I16, Counts::Matrix(&count)), &topology, 1);
        check(&Request::all_to_all(Dtype::I16, Counts::Same(choices.below(3))), &topology, 1);
    }
}

#[test]
fn nobody_leaves_a_barrier_before_all_have_come() {
    for world_size in WORLD_SIZES {
        check(&Request::barrier(), &Topology::single_node(world_size), 1);
    }
}

#[test]
fn a_tensor_goes_from_one_rank_to_another() {
    for (from, to) in [(0, 1), (1, 0), (2, 4)] {
        for count in [0, 1, 10] {
            check(&Request::send_recv(Dtype::F32, from, to, count), &Topology::single_node(5), 3);
        }
    }
}
