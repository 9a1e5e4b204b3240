//! Reductions in simulated worlds: the law's bits, whatever the world does that it may do.

mod sim_support;

use isobit_core::schedule::{Counts, Request};
use isobit_core::sim::{Random, Report};
use isobit_core::{Contract, Rank};
use sim_support::{
    any_calls, by_law, contract, draw, faults, leaf_map, leaves, limits, parts, result, results, run,
    topology,
};

/// A random reduction and its network: what came of it, and what each rank should have.
fn reduction(seed: u64) -> (Report, Vec<Vec<u8>>) {
    let mut random = Random::new(seed);
    let world_size = Rank::try_from(1 + draw(&mut random, 16)).unwrap();
    let number_of_leaves = match random.below(3) {
        0 => world_size,
        _ => u32::try_from(1 + draw(&mut random, 40)).unwrap(),
    };
    let contract: Contract = contract(&mut random, number_of_leaves);
    let map = leaf_map(&mut random, number_of_leaves, world_size);
    let (limits, topology) = (limits(&mut random), topology(&mut random, world_size));
    let counts: Vec<u64> = (0..world_size).map(|_| random.below(9)).collect();
    let count = counts.iter().sum();
    let root = Rank::try_from(draw(&mut random, world_size as usize)).unwrap();
    let leaves = leaves(&mut random, &contract, count);
    let whole = by_law(&contract, &leaves);
    let (request, expected) = match random.below(3) {
        0 => (Request::all_reduce(contract, &map, count), vec![whole; world_size as usize]),
        1 => {
            let expected = (0..world_size).map(|rank| if rank == root { whole.clone() } else { Vec::new() });
            (Request::reduce(contract, &map, root, count), expected.collect())
        }
        _ => {
            let mut rest = whole.as_slice();
            let mut block = |count: &u64| {
                let (block, after) =
                    rest.split_at(usize::try_from(*count).unwrap() * contract.dtype_out().size());
                rest = after;
                block.to_vec()
            };
            let expected = counts.iter().map(&mut block).collect();
            (Request::reduce_scatter(contract, &map, Counts::PerRank(&counts)), expected)
        }
    };
    let parts = parts(&contract, &map, &leaves);
    let calls = any_calls(&mut random, &request, &topology, &limits, &parts);
    let faults = faults(&mut random, &limits);
    (run(calls, &faults, seed), expected)
}

#[test]
fn every_rank_gets_the_bits_of_the_law() {
    for seed in 0..3000 {
        let (report, expected) = reduction(seed);
        assert!(result(report) == expected, "seed {seed}");
    }
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let digests: Vec<u64> = (0..100).map(|seed| reduction(seed).0.log_digest).collect();
    for (seed, digest) in (0..).zip(&digests) {
        assert_eq!(reduction(seed).0.log_digest, *digest, "seed {seed}");
    }
    let mut different = digests.clone();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() > 80, "different seeds are different runs");
}

/// The same calls on another network are other runs with the same results.
#[test]
fn ranks_that_run_ahead_wait_for_nobody_and_mix_up_nothing() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let world_size = Rank::try_from(1 + draw(&mut random, 6)).unwrap();
        let (limits, topology) = (limits(&mut random), topology(&mut random, world_size));
        let (mut calls, mut expected) = (vec![Vec::new(); world_size as usize], Vec::new());
        for _ in 0..6 {
            let contract = contract(&mut random, 2 * world_size);
            let map = leaf_map(&mut random, 2 * world_size, world_size);
            let count = random.below(30);
            let leaves = leaves(&mut random, &contract, count);
            let root = Rank::try_from(draw(&mut random, world_size as usize)).unwrap();
            let request = Request::reduce(contract, &map, root, count);
            let parts = parts(&contract, &map, &leaves);
            let call = any_calls(&mut random, &request, &topology, &limits, &parts);
            calls.iter_mut().zip(call).for_each(|(calls, call)| calls.push(call));
            expected.push((root, by_law(&contract, &leaves)));
        }
        let digests = [seed, seed + 1].map(|network| {
            let report = isobit_core::sim::simulate(calls.clone(), &faults(&mut random, &limits), network);
            let digest = report.log_digest;
            for (rank, results) in (0..).zip(results(report)) {
                for ((root, expected), result) in expected.iter().zip(results) {
                    let expected = if *root == rank { expected.as_slice() } else { &[] };
                    assert_eq!(result, expected, "seed {seed}, rank {rank}");
                }
            }
            digest
        });
        assert!(world_size == 1 || digests[0] != digests[1]);
    }
}
