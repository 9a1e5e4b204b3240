//! Moving data in simulated worlds: every element arrives where it should.

mod sim_support;

use isobit_core::schedule::{Counts, Request};
use isobit_core::sim::Random;
use isobit_core::{Dtype, Rank};
use sim_support::{any_calls, draw, faults, limits, pick, result, run, tensor, topology};

/// The bytes of each rank's tensor cut into blocks of `counts` elements.
fn cut(bytes: &[u8], counts: &[u64], size: usize) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let block = |count: &u64| {
        let (block, after) = rest.split_at(usize::try_from(*count).unwrap() * size);
        rest = after;
        block.to_vec()
    };
    counts.iter().map(block).collect()
}

/// A random movement: what came of it, and what each rank should have.
fn movement(seed: u64) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut random = Random::new(seed);
    let world_size = Rank::try_from(1 + draw(&mut random, 16)).unwrap();
    let ranks = world_size as usize;
    let dtype = pick(&mut random, &Dtype::ALL);
    let (limits, topology) = (limits(&mut random), topology(&mut random, world_size));
    let uneven =
        |random: &mut Random| if random.chance(300_000) { random.below(200) } else { random.below(3) };
    let counts: Vec<u64> = (0..world_size).map(|_| uneven(&mut random)).collect();
    let matrix: Vec<Vec<u64>> =
        (0..ranks).map(|_| (0..ranks).map(|_| uneven(&mut random)).collect()).collect();
    let pairs = |from: Rank, to: Rank| matrix[from as usize][to as usize];
    let root = Rank::try_from(draw(&mut random, ranks)).unwrap();
    let blocks: Vec<Vec<u8>> = counts.iter().map(|count| tensor(&mut random, dtype, *count)).collect();
    let whole = blocks.concat();
    let count = counts.iter().sum();
    let nothing = vec![Vec::new(); ranks];
    let only = |rank: Rank, tensor: &Vec<u8>| {
        let mut all = nothing.clone();
        all[rank as usize] = tensor.clone();
        all
    };
    let own = |tensors: &[Vec<u8>]| tensors.iter().map(|tensor| vec![tensor.clone()]).collect::<Vec<_>>();
    let at_root = || {
        let mut parts = vec![Vec::new(); ranks];
        parts[root as usize] = vec![whole.clone()];
        parts
    };
    let (request, parts, expected) = match random.below(7) {
        0 => (Request::all_gather(dtype, Counts::PerRank(&counts)), own(&blocks), vec![whole.clone(); ranks]),
        1 => (Request::gather(dtype, root, Counts::PerRank(&counts)), own(&blocks), only(root, &whole)),
        2 => (Request::scatter(dtype, root, Counts::PerRank(&counts)), at_root(), blocks.clone()),
        3 => (Request::broadcast(dtype, root, count), at_root(), vec![whole.clone(); ranks]),
        4 => (Request::barrier(), vec![Vec::new(); ranks], nothing.clone()),
        5 if ranks > 1 => {
            let to = (root + 1) % world_size;
            (Request::send_recv(dtype, root, to, count), at_root(), only(to, &whole))
        }
        _ => {
            let tensors: Vec<Vec<u8>> =
                matrix.iter().map(|row| tensor(&mut random, dtype, row.iter().sum())).collect();
            let cuts: Vec<Vec<Vec<u8>>> =
                tensors.iter().zip(&matrix).map(|(tensor, row)| cut(tensor, row, dtype.size())).collect();
            let expected =
                (0..ranks).map(|to| cuts.iter().flat_map(|cut| cut[to].clone()).collect()).collect();
            (Request::all_to_all(dtype, Counts::Matrix(&pairs)), own(&tensors), expected)
        }
    };
    let calls = any_calls(&mut random, &request, &topology, &limits, &parts);
    let faults = faults(&mut random, &limits);
    (result(run(calls, &faults, seed)), expected)
}

#[test]
fn every_element_arrives_where_it_should() {
    for seed in 0..3000 {
        let (found, expected) = movement(seed);
        assert!(found == expected, "seed {seed}");
    }
}
