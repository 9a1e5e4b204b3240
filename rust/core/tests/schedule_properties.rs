//! Properties of planning over requests drawn at random, and what planning refuses.

mod schedule_support;

use std::collections::BTreeSet;

use isobit_core::law::LeafMap;
use isobit_core::schedule::verify::verify;
use isobit_core::schedule::{
    Action, Algorithm, Buf, Counts, Limits, PlanError, Program, Request, Schedule, Step, Topology, choose,
    plan,
};
use isobit_core::wire::Collective;
use isobit_core::{Contract, ContractSpec, Dtype, Order, Rank, ReduceOp};
use proptest::prelude::*;
use schedule_support::{Choices, OWNERSHIPS, check, machines, ownership, plan_tightly, sum};

/// A dtype, with every size and both kinds of accumulator.
fn dtype() -> impl Strategy<Value = Dtype> {
    prop::sample::select(vec![Dtype::F8E5m2, Dtype::Bf16, Dtype::F32, Dtype::F64, Dtype::I32])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_reduction_is_planned_right(
        world_size in 1..=16_u32, leaves in 1..=40_u32, kind in 0..OWNERSHIPS, exact: bool, wide_out: bool,
        dtype in dtype(), count in 0..40_u64, slack in 1..6_u64, seed: u64,
    ) {
        let choices = &mut Choices(seed);
        let map = ownership(kind, leaves, world_size, choices);
        let order = if exact { Order::Exact } else { Order::Tree };
        // A result may be far larger than what it is made of.
        let out_dtype = (wide_out && dtype.is_float()).then_some(Dtype::F64);
        let spec = ContractSpec { out_dtype, ..ContractSpec::new(ReduceOp::Sum, order, leaves, dtype) };
        let contract = Contract::new(spec).unwrap();
        let topology = machines(world_size, choices);
        check(&Request::all_reduce(contract, &map, count), &topology, slack);
        check(&Request::reduce(contract, &map, choices.rank(world_size), count), &topology, slack);
        let counts = choices.counts(world_size, 6);
        check(&Request::reduce_scatter(contract, &map, Counts::PerRank(&counts)), &topology, slack);
    }

    #[test]
    fn any_movement_is_planned_right(
        world_size in 1..=16_u32, dtype in dtype(), bound in 1..20_u64, slack in 1..6_u64, seed: u64,
    ) {
        let choices = &mut Choices(seed);
        let topology = machines(world_size, choices);
        let (counts, root) = (choices.counts(world_size, bound), choices.rank(world_size));
        let counts = Counts::PerRank(&counts);
        check(&Request::all_gather(dtype, counts), &topology, slack);
        check(&Request::gather(dtype, root, counts), &topology, slack);
        check(&Request::scatter(dtype, root, counts), &topology, slack);
        check(&Request::broadcast(dtype, root, bound), &topology, slack);
        let matrix: Vec<Vec<u64>> = (0..world_size).map(|_| choices.counts(world_size, bound)).collect();
        let pair = |from: u32, to: u32| matrix[from as usize][to as usize];
        check(&Request::all_to_all(dtype, Counts::Matrix(&pair)), &topology, slack);
    }
}

/// The directed pairs of ranks between which a message goes.
fn pairs(schedule: &Schedule) -> BTreeSet<(Rank, Rank)> {
    let of = |(from, program): (Rank, &Program)| {
        let sends = program.steps.iter().filter_map(|step| match step.action {
            Action::Send { to, .. } => Some(to),
            _ => None,
        });
        sends.map(|to| (from, to)).collect::<Vec<_>>()
    };
    (0..).zip(&schedule.programs).flat_map(of).collect()
}

#[test]
fn with_nothing_to_move_the_same_ranks_exchange_messages() {
    for world_size in [2, 3, 6, 8] {
        let map = ownership(4, 9, world_size, &mut Choices(3));
        let contract = sum(Order::Tree, 9, Dtype::F32);
        let topology = Topology::new((0..world_size).map(|rank| rank % 2).collect());
        let full = |count| {
            [
                Request::all_reduce(contract, &map, count),
                Request::reduce(contract, &map, 1, count),
                Request::reduce_scatter(contract, &map, Counts::Same(count)),
                Request::all_gather(Dtype::F32, Counts::Same(count)),
                Request::gather(Dtype::F32, 1, Counts::Same(count)),
                Request::scatter(Dtype::F32, 1, Counts::Same(count)),
                Request::broadcast(Dtype::F32, 1, count),
                Request::all_to_all(Dtype::F32, Counts::Same(count)),
                Request::send_recv(Dtype::F32, 1, 0, count),
            ]
        };
        for (empty, full) in full(0).iter().zip(&full(50)) {
            for algorithm in Algorithm::ALL.into_iter().filter(|a| a.supports(full.collective, Order::Tree)) {
                let plan = |request| plan(request, &topology, &Limits::default(), algorithm).unwrap();
                let (empty, full) = (pairs(&plan(empty)), pairs(&plan(full)));
                assert!(full.is_subset(&empty), "{algorithm} {full:?} {empty:?}");
            }
        }
    }
}

#[test]
fn a_rank_that_plans_its_part_asks_only_about_its_own_pairs() {
    let topology = Topology::single_node(7);
    let count = |from: u32, to: u32| {
        assert!(from == 3 || to == 3, "asked about {from} to {to}");
        u64::from(from + to)
    };
    let request = Request::all_to_all(Dtype::U8, Counts::Matrix(&count));
    let algorithm = choose(&request, &topology, &Limits::default()).unwrap();
    isobit_core::schedule::plan_rank(&request, &topology, &Limits::default(), algorithm, 3).unwrap();
}

#[test]
fn what_is_written_to_the_result_waits_for_the_first_that_was_and_for_no_other() {
    let all_to_all = Request::all_to_all(Dtype::U8, Counts::Same(1000));
    let all_gather = Request::all_gather(Dtype::U8, Counts::Same(1000));
    for (world_size, request) in [(2, all_to_all), (2, all_gather), (3, all_to_all), (3, all_gather)] {
        let topology = Topology::single_node(world_size);
        let limits = Limits { chunk_bytes: 256, window_bytes: 8192 };
        for program in plan(&request, &topology, &limits, Algorithm::Direct).unwrap().programs {
            let writes = |step: &Step| match &step.action {
                Action::Recv { dst, .. } | Action::Copy { dst, .. } => dst.buf == Buf::Out,
                _ => false,
            };
            let first = program.steps.iter().position(writes).unwrap() as u32;
            for step in program.steps.iter().filter(|step| writes(step)) {
                let later = step.after.iter().filter(|earlier| **earlier > first);
                assert_eq!(later.count(), 0, "{:?} waits for {:?}", step.action, step.after);
            }
            assert!(program.steps.iter().filter(|step| writes(step)).count() > 6);
        }
    }
}

#[test]
fn only_what_comes_before_the_last_ranks_first_message_waits_where_it_came() {
    for world_size in [2, 3, 6] {
        let topology = Topology::single_node(world_size);
        for request in [
            Request::all_to_all(Dtype::U8, Counts::Same(1000)),
            Request::all_gather(Dtype::U8, Counts::Same(1000)),
        ] {
            let limits = Limits { chunk_bytes: 256, window_bytes: 8192 };
            for program in plan(&request, &topology, &limits, Algorithm::Direct).unwrap().programs {
                let waits = |step: &&Step| matches!(step.action, Action::Recv { dst, .. } if matches!(dst.buf, Buf::View(_)));
                assert_eq!(program.steps.iter().filter(waits).count(), world_size as usize - 2);
            }
        }
    }
}

#[test]
fn staging_does_not_grow_with_the_tensor() {
    let map = ownership(2, 30, 8, &mut Choices(5));
    let contract = sum(Order::Tree, 30, Dtype::F32);
    let topology = Topology::new((0..8).map(|rank| rank / 4).collect());
    let limits = Limits { chunk_bytes: 256, window_bytes: 8192 };
    for algorithm in [Algorithm::Direct, Algorithm::Butterfly, Algorithm::Hierarchical] {
        let staging = |count| {
            let request = Request::all_reduce(contract, &map, count);
            let schedule = plan(&request, &topology, &limits, algorithm).unwrap();
            schedule.programs.iter().map(|program| program.slot_bytes.iter().sum::<u64>()).max().unwrap()
        };
        assert_eq!(staging(5_000), staging(20_000), "{algorithm}");
        assert!(staging(20_000) <= limits.window_bytes, "{algorithm}");
    }
}

#[test]
fn a_result_larger_than_its_leaves_fits_the_window_too() {
    let map = LeafMap::one_each(2);
    let spec = ContractSpec::new(ReduceOp::Sum, Order::Tree, 2, Dtype::F8E5m2);
    let contract = Contract::new(ContractSpec { out_dtype: Some(Dtype::F64), ..spec }).unwrap();
    let request = Request::all_reduce(contract, &map, 100);
    let (topology, limits) = (Topology::single_node(2), Limits { chunk_bytes: 1024, window_bytes: 64 });
    let schedule = plan(&request, &topology, &limits, Algorithm::Direct).unwrap();
    assert_eq!(verify(&request, &topology, &limits, &schedule), Ok(()));
}

#[test]
fn whatever_is_chosen_can_be_planned() {
    for world_size in [1, 2, 3, 8, 16, 40] {
        let map = LeafMap::one_each(world_size);
        for order in [Order::Tree, Order::Exact] {
            for count in [0, 1, 1000, 100_000] {
                let contract = sum(order, world_size, Dtype::Bf16);
                let requests = [
                    Request::all_reduce(contract, &map, count),
                    Request::reduce(contract, &map, 0, count),
                    Request::reduce_scatter(contract, &map, Counts::Same(count / 10)),
                    Request::all_gather(Dtype::F32, Counts::Same(count / 10)),
                    Request::gather(Dtype::F32, 0, Counts::Same(count / 10)),
                    Request::scatter(Dtype::F32, 0, Counts::Same(count / 10)),
                    Request::broadcast(Dtype::F32, 0, count),
                    Request::all_to_all(Dtype::F32, Counts::Same(count / 10)),
                    Request::barrier(),
                ];
                for topology in [
                    Topology::single_node(world_size),
                    Topology::new((0..world_size).map(|rank| rank / 4).collect()),
                ] {
                    for request in &requests {
                        let algorithm = choose(request, &topology, &Limits::default()).unwrap();
                        let last = world_size - 1;
                        let limits = Limits::default();
                        isobit_core::schedule::plan_rank(request, &topology, &limits, algorithm, last)
                            .unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn the_choice_depends_on_size_and_machines() {
    let choice = |world_size: u32, count, order, machines| {
        let map = LeafMap::one_each(world_size);
        let request = Request::all_reduce(sum(order, world_size, Dtype::F32), &map, count);
        let topology = Topology::new((0..world_size).map(|rank| rank % machines).collect());
        choose(&request, &topology, &Limits::default()).unwrap()
    };
    assert_eq!(choice(4, 100, Order::Tree, 1), Algorithm::OneShot);
    assert_eq!(choice(4, 100_000, Order::Tree, 1), Algorithm::Direct);
    assert_eq!(choice(32, 100, Order::Tree, 1), Algorithm::Butterfly);
    assert_eq!(choice(32, 100, Order::Exact, 1), Algorithm::OneShot);
    assert_eq!(choice(8, 100_000, Order::Tree, 2), Algorithm::Hierarchical);
    assert_eq!(choice(8, 100_000, Order::Exact, 2), Algorithm::Direct);
    assert_eq!(choice(8, 100_000, Order::Tree, 8), Algorithm::Direct);
}

#[test]
fn ranks_that_share_cores_exchange_small_tensors_over_one_of_them() {
    let map = LeafMap::one_each(8);
    let choice = |request: &Request<'_>, cores| {
        choose(request, &Topology::single_node(8).on_cores(cores), &Limits::default()).unwrap()
    };
    let all_reduce = |count| Request::all_reduce(sum(Order::Tree, 8, Dtype::F32), &map, count);
    let all_gather = |count| Request::all_gather(Dtype::F32, Counts::Same(count));
    for request in [all_reduce(65_536), all_gather(256), Request::barrier()] {
        assert_eq!(choice(&request, 2), Algorithm::Star);
        assert_ne!(choice(&request, 8), Algorithm::Star);
    }
    for request in [all_reduce(65_537), all_gather(257)] {
        assert_eq!(choice(&request, 2), Algorithm::Direct);
    }
    for (request, ranks) in [(all_gather(1), 7), (Request::barrier(), 4)] {
        let star = |ranks| {
            let topology = Topology::single_node(ranks).on_cores(2);
            choose(&request, &topology, &Limits::default()).unwrap() == Algorithm::Star
        };
        assert_eq!((star(ranks - 1), star(ranks)), (false, true), "few hear of all others in one turn");
    }
    for (request, star) in [(all_reduce(32_768), true), (all_reduce(32_769), false)] {
        assert_eq!(choice(&request, 4) == Algorithm::Star, star, "one core has the work of four");
    }
}

#[test]
fn ranks_that_share_few_cores_do_not_wait_for_one_another_along_a_tree() {
    let map = LeafMap::one_each(16);
    let requests = [
        Request::broadcast(Dtype::F32, 3, 8),
        Request::gather(Dtype::F32, 3, Counts::Same(8)),
        Request::scatter(Dtype::F32, 3, Counts::Same(8)),
        Request::reduce(sum(Order::Tree, 16, Dtype::F32), &map, 3, 8),
    ];
    for request in requests {
        let all_over_the_root = |topology: &Topology| {
            let algorithm = choose(&request, topology, &Limits::default()).unwrap();
            let schedule = plan(&request, topology, &Limits::default(), algorithm).unwrap();
            pairs(&schedule).into_iter().all(|(from, to)| from == 3 || to == 3)
        };
        let on_cores = |cores| all_over_the_root(&Topology::single_node(16).on_cores(cores));
        assert_eq!([2, 8, 9, 16].map(on_cores), [true, true, false, false], "{:?}", request.collective);
        let divided = Topology::new((0..16).map(|rank| rank / 8).collect()).on_cores(2);
        assert!(!all_over_the_root(&divided), "{:?}", request.collective);
    }
}

#[test]
fn what_is_only_moved_is_cut_into_pieces_but_not_where_ranks_share_cores() {
    let same = Counts::Same(1 << 16);
    let requests = [
        Request::all_gather(Dtype::F32, same),
        Request::all_to_all(Dtype::F32, same),
        Request::broadcast(Dtype::F32, 0, 1 << 16),
        Request::scatter(Dtype::F32, 0, same),
    ];
    for request in requests {
        let of_one_block = |cores| {
            let topology = Topology::single_node(8).on_cores(cores);
            let algorithm = choose(&request, &topology, &Limits::default()).unwrap();
            let schedule = plan(&request, &topology, &Limits::default(), algorithm).unwrap();
            let steps = schedule.programs[0].steps.iter();
            steps.filter(|step| matches!(step.action, Action::Send { to: 1, src, .. } if src.len > 0)).count()
        };
        assert_eq!((of_one_block(8), of_one_block(2)), (4, 1), "{:?}", request.collective);
    }
}

#[test]
fn what_can_not_be_planned_is_refused_with_the_reason() {
    let topology = Topology::single_node(3);
    let map = LeafMap::one_each(3);
    let contract = |leaves| sum(Order::Tree, leaves, Dtype::F32);
    let refusal = |request: &Request<'_>, algorithm| {
        plan(request, &topology, &Limits::default(), algorithm).unwrap_err()
    };
    let bare = Request { contract: None, ..Request::all_reduce(contract(3), &map, 1) };
    let missing = |collective, what| PlanError::Missing { collective, what };
    let expected = missing(Collective::AllReduce, "a contract and a leaf map");
    assert_eq!(refusal(&bare, Algorithm::Direct), expected);
    let other = Request::all_reduce(contract(4), &map, 1);
    assert_eq!(
        refusal(&other, Algorithm::Direct).to_string(),
        "the leaf map's number of leaves is for 3, expected 4"
    );
    let far = Request::broadcast(Dtype::F32, 3, 1);
    assert_eq!(refusal(&far, Algorithm::Tree).to_string(), "the root is rank 3, but there are 3 ranks");
    let lone = Request::send_recv(Dtype::F32, 1, 1, 1);
    assert_eq!(refusal(&lone, Algorithm::Direct), PlanError::ToItself { rank: 1 });
    let short = Request::all_gather(Dtype::F32, Counts::PerRank(&[1, 2]));
    assert_eq!(refusal(&short, Algorithm::Direct).to_string(), "the list of counts is for 2, expected 3");
    let huge = Request::all_gather(Dtype::F32, Counts::PerRank(&[u64::MAX, 1, 0]));
    assert_eq!(refusal(&huge, Algorithm::Direct), PlanError::TooLarge);
    let exact = Request::all_reduce(sum(Order::Exact, 3, Dtype::F32), &map, 1);
    assert_eq!(
        refusal(&exact, Algorithm::Butterfly).to_string(),
        "algorithm butterfly does not do all_reduce in exact order"
    );
    let uneven = Request::all_to_all(Dtype::F32, Counts::PerRank(&[1, 2, 3]));
    let expected = missing(Collective::AllToAll, "a count for each pair of ranks");
    assert_eq!(refusal(&uneven, Algorithm::Direct), expected);
    let tight = Limits { chunk_bytes: 3, window_bytes: 100 };
    let moved = Request::all_gather(Dtype::F32, Counts::Same(1));
    assert!(matches!(
        plan(&moved, &topology, &tight, Algorithm::Direct),
        Err(PlanError::LimitsTooSmall { chunk_bytes: 4, .. })
    ));
}

#[test]
fn chunks_of_a_tensor_do_not_wait_for_each_other() {
    // All of a rank's contributions can be on their way before any of its reductions is done.
    let map = LeafMap::one_each(4);
    let request = Request::all_reduce(sum(Order::Tree, 4, Dtype::F32), &map, 64);
    let (schedule, _) = plan_tightly(&request, &Topology::single_node(4), Algorithm::Direct, 4);
    for program in &schedule.programs {
        let parts = program.steps.iter().filter(|step| {
            matches!(step.action, Action::Send { src, .. } if matches!(src.buf, isobit_core::schedule::Buf::Part(_)))
        });
        assert!(parts.clone().count() >= 12);
        assert!(parts.into_iter().all(|step| step.after.is_empty()));
    }
}
