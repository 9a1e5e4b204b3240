//! The verifier refutes schedules that are wrong: each way of being wrong is planted somewhere.

mod schedule_support;

use std::cell::Cell;

use isobit_core::law::LeafMap;
use isobit_core::schedule::verify::{VerifyError, verify};
use isobit_core::schedule::{
    Action, Algorithm, Content, Counts, Limits, Program, Request, Schedule, Step, Topology, plan,
};
use isobit_core::{Dtype, Order};
use schedule_support::{Choices, machines, ownership, plan_tightly, sum};

/// A schedule and what is needed to verify it.
struct Subject<'a> {
    request: Request<'a>,
    topology: Topology,
    limits: Limits,
    schedule: Schedule,
}

impl<'a> Subject<'a> {
    fn new(request: Request<'a>, topology: Topology, algorithm: Algorithm) -> Subject<'a> {
        let (schedule, limits) = plan_tightly(&request, &topology, algorithm, 2);
        let subject = Subject { request, topology, limits, schedule };
        assert_eq!(subject.verdict(), Ok(()));
        subject
    }

    fn verdict(&self) -> Result<(), VerifyError> {
        verify(&self.request, &self.topology, &self.limits, &self.schedule)
    }

    /// The verdict on each mutant: `mutate` changes one step of one rank, or says that it can't.
    fn mutants(
        &self,
        mutate: impl Fn(&mut Program, usize) -> bool,
    ) -> Vec<(usize, usize, Result<(), VerifyError>)> {
        let mut verdicts = Vec::new();
        for (rank, program) in self.schedule.programs.iter().enumerate() {
            for step in 0..program.steps.len() {
                let mut schedule = self.schedule.clone();
                if mutate(&mut schedule.programs[rank], step) {
                    let verdict = verify(&self.request, &self.topology, &self.limits, &schedule);
                    verdicts.push((rank, step, verdict));
                }
            }
        }
        verdicts
    }

    fn all_refuted(&self, what: &str, mutate: impl Fn(&mut Program, usize) -> bool) {
        assert!(self.refuted(what, mutate) > 0, "{what}: never applies");
    }

    /// How many mutants there are, none of which may be accepted.
    fn refuted(&self, what: &str, mutate: impl Fn(&mut Program, usize) -> bool) -> usize {
        let mutants = self.mutants(mutate);
        for (rank, step, verdict) in &mutants {
            assert!(verdict.is_err(), "{what} at rank {rank} step {step}: accepted");
        }
        mutants.len()
    }
}

/// One subject per algorithm of reductions, with partial results of every kind.
fn with_reductions(test: impl Fn(&Subject<'_>)) {
    let choices = &mut Choices(1);
    let map = ownership(2, 11, 6, choices);
    let contract = sum(Order::Tree, 11, Dtype::Bf16);
    let request = Request::all_reduce(contract, &map, 7);
    let topology = Topology::new(vec![0, 1, 0, 1, 1, 0]);
    for algorithm in [Algorithm::OneShot, Algorithm::Direct, Algorithm::Butterfly, Algorithm::Hierarchical] {
        test(&Subject::new(request, topology.clone(), algorithm));
    }
    let request = Request::reduce(contract, &map, 4, 7);
    for algorithm in [Algorithm::Direct, Algorithm::Hierarchical] {
        test(&Subject::new(request, topology.clone(), algorithm));
    }
    let exact = ownership(0, 40, 3, choices);
    let request = Request::all_reduce(sum(Order::Exact, 40, Dtype::F32), &exact, 5);
    test(&Subject::new(request, machines(3, choices), Algorithm::Direct));
}

fn with_movements(test: impl Fn(&Subject<'_>)) {
    let topology = Topology::single_node(6);
    let counts = [3, 0, 2, 4, 1, 2];
    let counts = Counts::PerRank(&counts);
    for algorithm in [Algorithm::Tree, Algorithm::Flat] {
        test(&Subject::new(Request::gather(Dtype::I32, 2, counts), topology.clone(), algorithm));
        test(&Subject::new(Request::scatter(Dtype::I32, 2, counts), topology.clone(), algorithm));
        test(&Subject::new(Request::broadcast(Dtype::I32, 2, 9), topology.clone(), algorithm));
    }
    test(&Subject::new(Request::all_gather(Dtype::I32, counts), topology.clone(), Algorithm::Direct));
    test(&Subject::new(Request::all_to_all(Dtype::I32, Counts::Same(2)), topology, Algorithm::Direct));
}

/// Whether a step comes after one that it waits for even without waiting for it directly.
fn is_implied(program: &Program, step: usize, dropped: u32) -> bool {
    let mut open: Vec<u32> =
        program.steps[step].after.iter().copied().filter(|earlier| *earlier != dropped).collect();
    while let Some(next) = open.pop() {
        if next == dropped {
            return true;
        }
        open.extend(&program.steps[next as usize].after);
    }
    false
}

fn a_dropped_dependency_is_found(subject: &Subject<'_>) {
    let depth =
        subject.schedule.programs.iter().flat_map(|p| &p.steps).map(|s| s.after.len()).max().unwrap_or(0);
    let mut applied = 0;
    for which in 0..depth {
        for (rank, program) in subject.schedule.programs.iter().enumerate() {
            for (step, at) in program.steps.iter().enumerate() {
                let Some(&dropped) = at.after.get(which) else { continue };
                if is_implied(program, step, dropped) {
                    continue;
                }
                let mut schedule = subject.schedule.clone();
                schedule.programs[rank].steps[step].after.remove(which);
                let verdict = verify(&subject.request, &subject.topology, &subject.limits, &schedule);
                applied += 1;
                use VerifyError::{Early, Race, Unheard};
                assert!(
                    matches!(verdict, Err(Race { .. } | Early { .. } | Unheard { .. })),
                    "rank {rank} step {step} without {dropped}: {verdict:?}"
                );
            }
        }
    }
    assert!(applied > 0);
}

#[test]
fn every_dependency_of_a_reduction_is_needed() {
    with_reductions(a_dropped_dependency_is_found);
}

#[test]
fn every_dependency_of_a_movement_is_needed() {
    with_movements(|subject| {
        if subject.schedule.programs.iter().any(|p| p.steps.iter().any(|s| !s.after.is_empty())) {
            a_dropped_dependency_is_found(subject);
        }
    });
}

#[test]
fn operands_in_another_order_are_refuted() {
    with_reductions(|subject| {
        if subject.request.contract.unwrap().order() == Order::Tree {
            subject.all_refuted("swapped operands", |program, step| match &mut program.steps[step].action {
                Action::Reduce { inputs, .. } if inputs.len() > 1 => {
                    inputs.swap(0, 1);
                    true
                }
                _ => false,
            });
        }
    });
}

#[test]
fn an_operand_too_few_or_twice_is_refuted() {
    with_reductions(|subject| {
        subject.all_refuted("a missing operand", |program, step| match &mut program.steps[step].action {
            Action::Reduce { inputs, .. } => inputs.pop().is_some(),
            _ => false,
        });
        subject.all_refuted("a doubled operand", |program, step| match &mut program.steps[step].action {
            Action::Reduce { inputs, .. } => {
                inputs.push(inputs[0]);
                true
            }
            _ => false,
        });
    });
}

fn a_wrong_region_is_refuted(subject: &Subject<'_>) {
    subject.all_refuted("a send from the next element", |program, step| {
        match &mut program.steps[step].action {
            Action::Send { src, .. } if src.len > 0 => {
                src.start += 1;
                true
            }
            _ => false,
        }
    });
    subject.all_refuted("a receive to another place", |program, step| {
        match &mut program.steps[step].action {
            Action::Recv { dst, .. } if dst.len > 0 => {
                dst.start += 1;
                true
            }
            _ => false,
        }
    });
    subject.all_refuted("a message cut short", |program, step| match &mut program.steps[step].action {
        Action::Send { src, .. } if src.len > 0 => {
            src.len -= 1;
            true
        }
        _ => false,
    });
}

#[test]
fn wrong_regions_are_refuted() {
    with_reductions(a_wrong_region_is_refuted);
    with_movements(a_wrong_region_is_refuted);
}

#[test]
fn another_content_is_refuted() {
    with_reductions(|subject| {
        subject.all_refuted("a result before it is one", |program, step| {
            match &mut program.steps[step].action {
                Action::Send { content, src, .. } if *content != Content::Result && src.len > 0 => {
                    *content = Content::Result;
                    true
                }
                _ => false,
            }
        });
    });
}

#[test]
fn a_dropped_step_is_refuted() {
    let drop = |program: &mut Program, step: usize| {
        // What waited for it waits for what it waited for.
        let dropped = program.steps.remove(step);
        let index = u32::try_from(step).unwrap();
        for later in &mut program.steps[step..] {
            if later.after.contains(&index) {
                later.after.extend(&dropped.after);
            }
            later.after.retain(|earlier| *earlier != index);
            later.after.iter_mut().filter(|earlier| **earlier > index).for_each(|earlier| *earlier -= 1);
            later.after.sort_unstable();
            later.after.dedup();
        }
        true
    };
    with_reductions(|subject| subject.all_refuted("a dropped step", drop));
    with_movements(|subject| subject.all_refuted("a dropped step", drop));
}

/// Exchanges a step's message with the next one between the same ranks in the same direction.
fn swap_with_next(program: &mut Program, step: usize) -> bool {
    let peer = |at: &Step| match at.action {
        Action::Send { to, src, .. } if src.len > 0 => Some((true, to)),
        _ => None,
    };
    let Some(pair) = peer(&program.steps[step]) else { return false };
    let Some(next) = (step + 1..program.steps.len()).find(|next| peer(&program.steps[*next]) == Some(pair))
    else {
        return false;
    };
    // Only if both could go at once, so that order is all that changes.
    if program.steps[step].after != program.steps[next].after {
        return false;
    }
    let (a, b) = (program.steps[step].action.clone(), program.steps[next].action.clone());
    program.steps[step].action = b;
    program.steps[next].action = a;
    true
}

#[test]
fn messages_in_another_order_are_refuted() {
    let applied = Cell::new(0);
    with_reductions(|subject| {
        applied.set(applied.get() + subject.refuted("reordered sends", swap_with_next))
    });
    assert!(applied.get() > 100, "{}", applied.get());
    let topology = Topology::single_node(6);
    let subject = Subject::new(Request::scatter(Dtype::I32, 2, Counts::Same(9)), topology, Algorithm::Flat);
    subject.all_refuted("reordered sends", swap_with_next);
}

#[test]
fn a_window_too_small_is_found() {
    with_reductions(|subject| {
        let mut limits = subject.limits;
        loop {
            limits.window_bytes -= 1;
            match verify(&subject.request, &subject.topology, &limits, &subject.schedule) {
                Ok(()) => {}
                Err(VerifyError::Window { .. } | VerifyError::Staging { .. }) => break,
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn a_message_above_the_limit_is_found() {
    with_movements(|subject| {
        let limits = Limits { chunk_bytes: 3, ..subject.limits };
        let verdict = verify(&subject.request, &subject.topology, &limits, &subject.schedule);
        assert!(matches!(verdict, Err(VerifyError::MessageTooLarge { bytes_max: 3, .. })), "{verdict:?}");
    });
}

#[test]
fn two_ranks_that_both_wait_to_receive_are_a_deadlock() {
    let (request, topology) = (Request::barrier(), Topology::single_node(2));
    let mut schedule = plan(&request, &topology, &Limits::default(), Algorithm::Dissemination).unwrap();
    for program in &mut schedule.programs {
        let is_send = |step: &Step| matches!(step.action, Action::Send { .. });
        let recv = program.steps.iter().position(|step| matches!(step.action, Action::Recv { .. })).unwrap();
        let send = program.steps.iter().position(is_send).unwrap();
        program.steps.swap(recv.min(send), recv.max(send));
        let (first, last) = (recv.min(send), recv.max(send));
        if is_send(&program.steps[first]) {
            program.steps.swap(first, last);
        }
        program.steps[last].after = vec![u32::try_from(first).unwrap()];
    }
    let verdict = verify(&request, &topology, &Limits::default(), &schedule);
    assert!(matches!(verdict, Err(VerifyError::Deadlock { .. })), "{verdict:?}");
}

#[test]
fn a_barrier_that_does_not_pass_on_what_it_heard_is_none() {
    let subject = Subject::new(Request::barrier(), Topology::single_node(8), Algorithm::Dissemination);
    subject.all_refuted("a send that waits for nothing", |program, step| {
        let step = &mut program.steps[step];
        let waits = matches!(step.action, Action::Send { .. }) && !step.after.is_empty();
        step.after.clear();
        waits
    });
}

#[test]
fn a_part_read_after_its_memory_was_overwritten_is_found() {
    let map = LeafMap::one_each(2);
    let request = Request::all_reduce(sum(Order::Tree, 2, Dtype::F32), &map, 4);
    let subject = Subject::new(request, Topology::single_node(2), Algorithm::OneShot);
    // In place, the second reduction of the same elements reads the first one's result.
    subject.all_refuted("a repeated reduction", |program, step| {
        let repeated = program.steps[step].clone();
        if !matches!(repeated.action, Action::Reduce { .. }) {
            return false;
        }
        let after = (0..u32::try_from(program.steps.len()).unwrap()).collect();
        program.steps.push(Step { after, ..repeated });
        true
    });
}

#[test]
fn a_slot_is_not_read_beyond_its_size() {
    with_reductions(|subject| {
        if subject.schedule.programs.iter().all(|program| program.slot_bytes.is_empty()) {
            return;
        }
        let mut schedule = subject.schedule.clone();
        schedule.programs.iter_mut().for_each(|p| p.slot_bytes.iter_mut().for_each(|bytes| *bytes = 1));
        let verdict = verify(&subject.request, &subject.topology, &subject.limits, &schedule);
        assert!(matches!(verdict, Err(VerifyError::Malformed { .. })), "{verdict:?}");
    });
}
