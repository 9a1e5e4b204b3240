//! The cost model: its steps are those of the schedules, its counts are the programs', and it grows as it should.

mod schedule_support;

use std::collections::BTreeMap;

use isobit_core::law::LeafMap;
use isobit_core::schedule::{
    Action, Algorithm, Constants, Counts, Layout, Limits, Machine, Prediction, Request, Schedule, Topology,
    choose, cost, outlook, plan, plan_rank, predict, steps,
};
use isobit_core::{Dtype, Order, Rank};
use schedule_support::sum;

/// The most messages that wait for one another: a receive for its send, a step for those before it.
fn longest_chain(schedule: &Schedule) -> u32 {
    let mut sends: BTreeMap<(Rank, Rank), Vec<u32>> = BTreeMap::new();
    let mut chains: Vec<Vec<u32>> = schedule.programs.iter().map(|p| vec![0; p.steps.len()]).collect();
    // As many passes as there are steps in the longest chain settle it.
    loop {
        let before = chains.clone();
        sends.clear();
        for (rank, program) in (0..).zip(&schedule.programs) {
            for (index, step) in program.steps.iter().enumerate() {
                let own = &chains[rank as usize];
                let earlier = step.after.iter().map(|earlier| own[*earlier as usize]).max().unwrap_or(0);
                let sent = matches!(step.action, Action::Send { .. });
                chains[rank as usize][index] = chains[rank as usize][index].max(earlier + u32::from(sent));
                if let Action::Send { to, .. } = step.action {
                    sends.entry((rank, to)).or_default().push(chains[rank as usize][index]);
                }
            }
        }
        let mut received: BTreeMap<(Rank, Rank), usize> = BTreeMap::new();
        for (rank, program) in (0..).zip(&schedule.programs) {
            for (index, step) in program.steps.iter().enumerate() {
                if let Action::Recv { from, .. } = step.action {
                    let next = received.entry((from, rank)).or_default();
                    let chain = &mut chains[rank as usize][index];
                    *chain = (*chain).max(sends[&(from, rank)][*next]);
                    *next += 1;
                }
            }
        }
        if chains == before {
            return chains.iter().flatten().copied().max().unwrap_or(0);
        }
    }
}

/// A request of each kind, with as few elements as every rank has a part of.
fn with_requests(world_size: u32, mut each: impl FnMut(&Request<'_>)) {
    let map = LeafMap::one_each(world_size);
    let contract = sum(Order::Tree, world_size, Dtype::F32);
    let count = u64::from(world_size);
    each(&Request::all_reduce(contract, &map, count));
    each(&Request::reduce(contract, &map, 0, count));
    each(&Request::reduce_scatter(contract, &map, Counts::Same(1)));
    each(&Request::all_gather(Dtype::F32, Counts::Same(1)));
    each(&Request::gather(Dtype::F32, 0, Counts::Same(1)));
    each(&Request::scatter(Dtype::F32, 0, Counts::Same(1)));
    each(&Request::broadcast(Dtype::F32, 0, 1));
    each(&Request::all_to_all(Dtype::F32, Counts::Same(1)));
    each(&Request::barrier());
}

#[test]
fn the_steps_are_the_messages_that_wait_for_one_another() {
    for world_size in [2, 3, 4, 7, 8, 16, 24] {
        for size in [1, 4, world_size] {
            let topology = Topology::new((0..world_size).map(|rank| rank / size).collect());
            with_requests(world_size, |request| {
                for algorithm in
                    Algorithm::ALL.into_iter().filter(|a| a.supports(request.collective, Order::Tree))
                {
                    let schedule = plan(request, &topology, &Limits::default(), algorithm).unwrap();
                    let told = steps(request, &topology, algorithm);
                    let (told, chain) = (told.within + told.between, longest_chain(&schedule));
                    let what = format!("{} by {algorithm}, {world_size} in {size}s", request.collective);
                    match algorithm {
                        // A round of a tree, which the roll call takes, too, is no shorter because a rank's own
                        // messages wait for no other.
                        Algorithm::Tree | Algorithm::Flat => {
                            assert!(chain <= told && told <= 2 * chain, "{what}: {told} {chain}")
                        }
                        Algorithm::OneShot if request.root.is_some() => {
                            assert!(chain <= told && told <= 2 * chain, "{what}: {told} {chain}")
                        }
                        // In the last round a rank may tell another what it has of that one alone.
                        Algorithm::Dissemination if !world_size.is_power_of_two() => {
                            assert!(chain <= told && told <= chain + 1, "{what}: {told} {chain}")
                        }
                        // Groups of one, or a finisher who aggregates, save a message here and there.
                        Algorithm::Hierarchical => {
                            assert!(chain <= told && told <= chain + 2, "{what}: {told} {chain}")
                        }
                        // The one rank in excess has a partner that need not wait for it.
                        Algorithm::Butterfly if !world_size.is_power_of_two() => {
                            assert!(chain <= told && told <= chain + 1, "{what}: {told} {chain}")
                        }
                        _ => assert_eq!(told, chain, "{what}"),
                    }
                }
            });
        }
    }
}

fn predicted(
    request: &Request<'_>,
    topology: &Topology,
    algorithm: Algorithm,
    machine: &Machine,
) -> Prediction {
    predict(request, topology, &Limits::default(), algorithm, &Constants::default(), machine).unwrap()
}

#[test]
fn a_prediction_counts_what_the_busiest_rank_sends() {
    let topology = Topology::new((0..24).map(|rank| rank / 8).collect());
    with_requests(24, |request| {
        let algorithm = choose(request, &topology, &Limits::default()).unwrap();
        let layout = Layout::new(request, &topology).unwrap();
        let found = predicted(request, &topology, algorithm, &Machine::default());
        let sent: Vec<(f64, f64)> = (0..24)
            .map(|rank| {
                let cost = cost(
                    &layout,
                    &plan_rank(request, &topology, &Limits::default(), algorithm, rank).unwrap(),
                );
                (cost.messages_sent as f64, cost.bytes_sent as f64)
            })
            .collect();
        let told = (found.messages_sent, found.bytes_within + found.bytes_between);
        assert!(sent.contains(&told), "{} by {algorithm}: {told:?}", request.collective);
    });
}

#[test]
fn what_is_too_long_to_be_planned_is_extrapolated() {
    let map = LeafMap::one_each(64);
    let topology = Topology::single_node(64);
    let request = Request::all_reduce(sum(Order::Tree, 64, Dtype::F32), &map, 1 << 28);
    let bytes = 63.0 * f64::from(1 << 30);
    let found = predicted(&request, &topology, Algorithm::OneShot, &Machine::default());
    assert!((found.bytes_within / bytes - 1.0).abs() < 1e-3, "{found:?}");
    assert!(
        (found.messages_sent / (bytes / Limits::default().chunk_bytes as f64) - 1.0).abs() < 1e-3,
        "{found:?}"
    );
}

#[test]
fn ranks_that_share_cores_or_fall_out_of_the_cache_take_longer() {
    let topology = Topology::single_node(4);
    let request = Request::all_gather(Dtype::F32, Counts::Same(1 << 20));
    let time = |cores, cache_bytes| {
        predicted(&request, &topology, Algorithm::Direct, &Machine { cores, cache_bytes }).time_us
    };
    let fits = 1 << 40;
    assert_eq!(time(None, fits), time(Some(4), fits));
    assert!(time(Some(2), fits) > 2.0 * time(Some(4), fits));
    assert!(time(Some(4), 1 << 20) > time(Some(4), fits));
}

#[test]
fn the_choice_is_among_the_predictions() {
    let topology = Topology::new((0..24).map(|rank| rank / 8).collect());
    with_requests(24, |request| {
        let told =
            outlook(request, &topology, &Limits::default(), &Constants::default(), &Machine::default())
                .unwrap();
        assert_eq!(told.chosen, choose(request, &topology, &Limits::default()).unwrap());
        assert!(told.predictions.iter().any(|(algorithm, _)| *algorithm == told.chosen));
    });
}

#[test]
fn constants_come_back_by_their_names() {
    let named = Constants::default().named();
    let value = |name| named.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or(name);
    assert_eq!(Constants::from_names(value), Ok(Constants::default()));
}
