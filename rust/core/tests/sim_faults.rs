//! Faults in simulated worlds: healed, or ended with the right error on every rank; never a hang,
//! never a wrong value.

mod sim_support;

use isobit_core::engine::MismatchKind;
use isobit_core::law::LeafMap;
use isobit_core::schedule::{Algorithm, Limits, Program, Request, Topology, plan};
use isobit_core::sim::{Call, Crash, Failure, Faults, Outcome, Random, Report, Stall, simulate};
use isobit_core::wire::Collective;
use isobit_core::{Contract, ContractSpec, Dtype, Order, Rank, ReduceOp};
use sim_support::{by_law, calls, draw, leaves, parts, pick};

const CALLS: usize = 4;

/// Ranks that all_reduce a few times in a row: their calls, and the result of each.
struct World {
    world_size: Rank,
    calls: Vec<Vec<Call>>,
    expected: Vec<Vec<u8>>,
}

impl World {
    /// Under `algorithm`, with messages of at most 64 bytes.
    fn new(random: &mut Random, world_size: Rank, algorithm: Algorithm) -> World {
        let (topology, map) = (Topology::single_node(world_size), LeafMap::one_each(world_size));
        let limits = Limits { chunk_bytes: 64, window_bytes: 128 };
        let mut world =
            World { world_size, calls: vec![Vec::new(); world_size as usize], expected: Vec::new() };
        for _ in 0..CALLS {
            let contract = sum(world_size);
            let leaves = leaves(random, &contract, 40);
            let request = Request::all_reduce(contract, &map, 40);
            let parts = parts(&contract, &map, &leaves);
            let call =
                calls(random, &request, &topology, &limits, algorithm, &parts).expect("it does all_reduce");
            world.calls.iter_mut().zip(call).for_each(|(calls, call)| calls.push(call));
            world.expected.push(by_law(&contract, &leaves));
        }
        world
    }

    fn drawn(random: &mut Random) -> World {
        let world_size = Rank::try_from(2 + draw(random, 6)).unwrap();
        let algorithm = pick(random, &[Algorithm::OneShot, Algorithm::Direct, Algorithm::Butterfly]);
        World::new(random, world_size, algorithm)
    }

    fn any_rank(&self, random: &mut Random) -> Rank {
        Rank::try_from(draw(random, self.world_size as usize)).unwrap()
    }

    /// The failures, with the ranks that ended with them; whoever finished has the right values.
    fn failures(&self, report: Report) -> Vec<(Rank, Failure)> {
        let failure = |(rank, outcome)| match outcome {
            Outcome::Failed { failure, .. } => Some((rank, failure)),
            Outcome::Finished(results) => {
                assert!(results == self.expected, "rank {rank} finished with a wrong value");
                None
            }
            Outcome::Crashed | Outcome::Stalled => None,
        };
        (0..).zip(report.outcomes).filter_map(failure).collect()
    }
}

fn sum(leaves: Rank) -> Contract {
    Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, leaves, Dtype::F32)).unwrap()
}

#[test]
fn damage_is_healed_by_asking_once_more() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let world = World::drawn(&mut random);
        let faults = Faults { damage_ppm: 300_000, window_bytes: 128, ..Faults::default() };
        let report = simulate(world.calls.clone(), &faults, seed);
        assert!(report.outcomes.iter().all(|outcome| *outcome == Outcome::Finished(world.expected.clone())));
    }
}

#[test]
fn what_is_damaged_twice_is_corruption_on_every_rank() {
    let mut found = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let world = World::drawn(&mut random);
        let faults = Faults { damage_ppm: 20_000, damage_again_ppm: 1_000_000, ..Faults::default() };
        let failures = world.failures(simulate(world.calls.clone(), &faults, seed));
        for (_, failure) in &failures {
            let Failure::Corruption { from, to, .. } = failure else { panic!("seed {seed}: {failure}") };
            assert_ne!(from, to);
        }
        found += usize::from(failures.len() == world.world_size as usize);
    }
    assert!(found > 200, "most runs see damage, and then nobody finishes: {found}");
}

#[test]
fn a_crash_is_a_lost_peer_for_everybody_who_still_works() {
    let mut found = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let world = World::drawn(&mut random);
        let crash = Crash { rank: world.any_rank(&mut random), at_ns: random.below(200_000) };
        let faults = Faults { crash: Some(crash), ..Faults::default() };
        let report = simulate(world.calls.clone(), &faults, seed);
        let crashed = report.outcomes[crash.rank as usize] == Outcome::Crashed;
        for (rank, failure) in world.failures(report) {
            assert!(crashed, "nobody fails without a crash");
            assert_eq!(failure, Failure::PeerLost { rank: crash.rank }, "seed {seed}, rank {rank}");
            found += 1;
        }
    }
    assert!(found > 500, "{found}");
}

#[test]
fn a_rank_that_stands_still_is_named_at_the_deadline() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let direct = seed < 150;
        let world =
            if direct { World::new(&mut random, 4, Algorithm::OneShot) } else { World::drawn(&mut random) };
        let stall =
            Stall { rank: world.any_rank(&mut random), at_ns: random.below(60_000), for_ns: u64::MAX };
        let faults = Faults { stall: Some(stall), timeout_ns: 10_000_000, ..Faults::default() };
        let report = simulate(world.calls.clone(), &faults, seed);
        let ended_ns = report.ended_ns;
        assert_eq!(report.outcomes[stall.rank as usize], Outcome::Stalled);
        let failures = world.failures(report);
        assert_eq!(failures.len(), world.world_size as usize - 1, "seed {seed}: nobody else finishes");
        for (rank, failure) in failures {
            let Failure::Timeout { awaited, .. } = failure else { panic!("seed {seed}: {failure}") };
            // Where all exchange with all, only the still rank is waited for. In other schedules a
            // rank may wait for one that itself waits.
            let right = if direct { awaited == [stall.rank] } else { !awaited.is_empty() };
            assert!(right, "seed {seed}, rank {rank} waited for {awaited:?}");
        }
        assert!(ended_ns >= faults.timeout_ns);
    }
}

#[test]
fn a_rank_that_goes_on_in_time_does_no_harm() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let world = World::drawn(&mut random);
        let stall =
            Stall { rank: world.any_rank(&mut random), at_ns: random.below(60_000), for_ns: 5_000_000 };
        let faults = Faults { stall: Some(stall), timeout_ns: 10_000_000, ..Faults::default() };
        let report = simulate(world.calls.clone(), &faults, seed);
        assert!(report.outcomes.iter().all(|outcome| *outcome == Outcome::Finished(world.expected.clone())));
    }
}

#[test]
fn a_rank_that_goes_on_too_late_fails_like_the_others() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let world = World::drawn(&mut random);
        let stall = Stall { rank: world.any_rank(&mut random), at_ns: random.below(60_000), for_ns: 1 << 40 };
        let faults = Faults { stall: Some(stall), timeout_ns: 10_000_000, ..Faults::default() };
        let failures = world.failures(simulate(world.calls.clone(), &faults, seed));
        assert_eq!(failures.len(), world.world_size as usize, "seed {seed}");
        assert!(failures.iter().all(|(_, failure)| matches!(failure, Failure::Timeout { .. })));
    }
}

/// Everybody's mismatch; all of them have `odd` on one side.
fn desync(world: &World, odd: Rank, seed: u64) -> Vec<(MismatchKind, &'static str)> {
    let failures = world.failures(simulate(world.calls.clone(), &Faults::default(), seed));
    assert_eq!(failures.len(), world.world_size as usize, "seed {seed}: it ends on every rank");
    let named = |(_, failure)| match failure {
        Failure::Desync(mismatch) => {
            assert!(mismatch.rank == odd || mismatch.peer == odd, "seed {seed}: {mismatch}");
            assert_ne!(mismatch.rank, mismatch.peer);
            (mismatch.kind, mismatch.field)
        }
        other => panic!("seed {seed}: {other}"),
    };
    failures.into_iter().map(named).collect()
}

#[test]
fn a_call_that_differs_is_a_desync_that_names_both_sides_on_every_rank() {
    type Change = fn(&mut Call);
    let changes: [(Change, MismatchKind, &str); 5] = [
        (|call| call.descriptor.collective = Collective::Reduce, MismatchKind::Operation, "collective"),
        (|call| call.descriptor.contract = Some(sum(99)), MismatchKind::Contract, "number of leaves"),
        (|call| call.descriptor.count = 41, MismatchKind::Operation, "count"),
        (|call| call.descriptor.shape = 1, MismatchKind::Operation, "shape"),
        (|call| call.descriptor.layout = 1, MismatchKind::Operation, "layout"),
    ];
    for seed in 0..100 {
        for (change, kind, field) in changes {
            let mut random = Random::new(seed);
            let mut world = World::drawn(&mut random);
            let odd = world.any_rank(&mut random);
            change(&mut world.calls[odd as usize][draw(&mut random, CALLS)]);
            for found in desync(&world, odd, seed) {
                assert_eq!(found, (kind, field), "seed {seed}");
            }
        }
    }
}

/// One rank's call exchanges no messages, so that its peers meet those of its next call, and it
/// meets theirs of the one before: only the sequence number can tell.
#[test]
fn a_call_that_one_rank_does_not_make_is_found_by_its_number() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut world = World::drawn(&mut random);
        let odd = world.any_rank(&mut random);
        let call = &mut world.calls[odd as usize][draw(&mut random, CALLS - 1)];
        call.program = Program::default().into();
        for found in desync(&world, odd, seed) {
            assert_eq!(found, (MismatchKind::Sequence, "sequence number"), "seed {seed}");
        }
    }
}

#[test]
fn a_rank_that_makes_a_call_less_is_waited_for_until_the_deadline() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let mut world = World::new(&mut random, 3, Algorithm::OneShot);
        let odd = world.any_rank(&mut random);
        world.calls[odd as usize].truncate(CALLS - 1);
        let report = simulate(world.calls.clone(), &Faults::default(), seed);
        let first = world.expected[..CALLS - 1].to_vec();
        for (rank, outcome) in (0..).zip(report.outcomes) {
            match outcome {
                Outcome::Finished(results) if rank == odd => assert_eq!(results, first),
                Outcome::Failed { failure: Failure::Timeout { sequence, awaited, .. }, .. } => {
                    assert_eq!((sequence, awaited), (CALLS as u64 - 1, vec![odd]), "seed {seed}");
                }
                other => panic!("seed {seed}, rank {rank}: {other:?}"),
            }
        }
    }
}

#[test]
fn ranks_with_other_message_sizes_are_told_to_agree() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let mut world = World::new(&mut random, 3, Algorithm::OneShot);
        let odd = world.any_rank(&mut random);
        let (topology, map) = (Topology::single_node(3), LeafMap::one_each(3));
        let limits = Limits { chunk_bytes: 32, window_bytes: 128 };
        let request = Request::all_reduce(sum(3), &map, 40);
        let plan = plan(&request, &topology, &limits, Algorithm::OneShot).unwrap();
        world.calls[odd as usize][0].program = plan.programs[odd as usize].clone().into();
        for found in desync(&world, odd, seed) {
            assert_eq!(found, (MismatchKind::Plan, "message length"), "seed {seed}");
        }
    }
}

#[test]
fn a_window_too_small_for_the_plan_ends_at_the_deadline_and_does_not_hang() {
    let mut random = Random::new(1);
    let world = World::new(&mut random, 4, Algorithm::Direct);
    let faults = Faults { window_bytes: 4, ..Faults::default() };
    let failures = world.failures(simulate(world.calls.clone(), &faults, 1));
    assert_eq!(failures.len(), 4);
    assert!(failures.iter().all(|(_, failure)| matches!(failure, Failure::Timeout { .. })));
}

#[test]
fn a_world_of_one_needs_no_network() {
    let mut random = Random::new(1);
    let world = World::new(&mut random, 1, Algorithm::OneShot);
    let report = simulate(world.calls, &Faults { window_bytes: 0, ..Faults::default() }, 1);
    assert_eq!(report.outcomes, [Outcome::Finished(world.expected)]);
}
