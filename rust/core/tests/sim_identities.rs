//! The identities that follow from the value law, on whole simulated worlds.

mod sim_support;

use isobit_core::law::LeafMap;
use isobit_core::schedule::{Counts, Request, Topology};
use isobit_core::sim::{Faults, Random};
use isobit_core::{Contract, Rank};
use sim_support::{any_calls, contract, draw, leaf_map, leaves, limits, parts, result, run, topology};

/// A group of ranks that own the leaves in some way.
struct World {
    topology: Topology,
    map: LeafMap,
}

impl World {
    fn new(random: &mut Random, leaves: u32) -> World {
        let world_size = Rank::try_from(1 + draw(random, 16)).unwrap();
        World { topology: topology(random, world_size), map: leaf_map(random, leaves, world_size) }
    }

    fn run(&self, random: &mut Random, request: &Request<'_>, parts: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
        let limits = limits(random);
        let calls = any_calls(random, request, &self.topology, &limits, parts);
        let faults = Faults { window_bytes: limits.window_bytes, ..Faults::default() };
        result(run(calls, &faults, random.next()))
    }

    /// What everybody has after an all_reduce, which is one thing.
    fn all_reduce(&self, random: &mut Random, contract: &Contract, leaves: &[Vec<u8>]) -> Vec<u8> {
        let request = Request::all_reduce(*contract, &self.map, count(contract, leaves));
        let mut results = self.run(random, &request, &parts(contract, &self.map, leaves));
        results.dedup();
        assert_eq!(results.len(), 1, "all ranks have the same bits");
        results.swap_remove(0)
    }
}

fn count(contract: &Contract, leaves: &[Vec<u8>]) -> u64 {
    (leaves[0].len() / contract.dtype_in().size()) as u64
}

/// What each test draws: a contract, its leaves, and a world.
fn drawn(seed: u64) -> (Random, Contract, Vec<Vec<u8>>, World) {
    let mut random = Random::new(seed);
    let number = u32::try_from(1 + draw(&mut random, 24)).unwrap();
    let contract = contract(&mut random, number);
    let elements = random.below(60);
    let leaves = leaves(&mut random, &contract, elements);
    let world = World::new(&mut random, number);
    (random, contract, leaves, world)
}

#[test]
fn all_reduce_is_all_gather_of_reduce_scatter() {
    for seed in 0..400 {
        let (mut random, contract, leaves, world) = drawn(seed);
        let mut left = count(&contract, &leaves);
        let ranks = world.map.world_size();
        let mut counts: Vec<u64> = (1..ranks)
            .map(|_| {
                let block = random.below(left + 1);
                left -= block;
                block
            })
            .collect();
        counts.push(left);
        let counts = Counts::PerRank(&counts);
        let scatter = Request::reduce_scatter(contract, &world.map, counts);
        let blocks = world.run(&mut random, &scatter, &parts(&contract, &world.map, &leaves));
        let blocks: Vec<Vec<Vec<u8>>> = blocks.into_iter().map(|block| vec![block]).collect();
        let gathered = world.run(&mut random, &Request::all_gather(contract.dtype_out(), counts), &blocks);
        let reduced = world.all_reduce(&mut random, &contract, &leaves);
        assert!(gathered.iter().all(|result| *result == reduced), "seed {seed}");
    }
}

#[test]
fn all_reduce_is_broadcast_of_reduce() {
    for seed in 0..400 {
        let (mut random, contract, leaves, world) = drawn(seed);
        let (root, count) = (
            Rank::try_from(draw(&mut random, world.map.world_size() as usize)).unwrap(),
            count(&contract, &leaves),
        );
        let reduce = Request::reduce(contract, &world.map, root, count);
        let mut reduced = world.run(&mut random, &reduce, &parts(&contract, &world.map, &leaves));
        let mut tensors = vec![Vec::new(); reduced.len()];
        tensors[root as usize] = vec![std::mem::take(&mut reduced[root as usize])];
        let everywhere =
            world.run(&mut random, &Request::broadcast(contract.dtype_out(), root, count), &tensors);
        let reduced = world.all_reduce(&mut random, &contract, &leaves);
        assert!(everywhere.iter().all(|result| *result == reduced), "seed {seed}");
    }
}

#[test]
fn the_reduction_of_a_concatenation_is_the_concatenation_of_the_reductions() {
    for seed in 0..400 {
        let (mut random, contract, leaves, world) = drawn(seed);
        let middle = usize::try_from(random.below(count(&contract, &leaves) + 1)).unwrap();
        let middle = middle * contract.dtype_in().size();
        let side = |range: fn(&[u8], usize) -> &[u8]| {
            leaves.iter().map(|leaf| range(leaf, middle).to_vec()).collect::<Vec<_>>()
        };
        let sides = [side(|leaf, middle| &leaf[..middle]), side(|leaf, middle| &leaf[middle..])];
        let apart = sides.map(|side| world.all_reduce(&mut random, &contract, &side)).concat();
        assert_eq!(world.all_reduce(&mut random, &contract, &leaves), apart, "seed {seed}");
    }
}

#[test]
fn any_number_of_ranks_gives_the_bits_of_any_other() {
    for seed in 0..300 {
        let (mut random, contract, leaves, world) = drawn(seed);
        let reduced = world.all_reduce(&mut random, &contract, &leaves);
        for _ in 0..4 {
            let other = World::new(&mut random, contract.leaves());
            assert_eq!(other.all_reduce(&mut random, &contract, &leaves), reduced, "seed {seed}");
        }
    }
}
