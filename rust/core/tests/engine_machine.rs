//! The engine: what starts when, what is given back when, and that misuse does not pass.

use std::collections::BTreeSet;
use std::sync::Arc;

use isobit_core::engine::{Effect, Engine, Event};
use isobit_core::schedule::{Action, Buf, Content, Operand, Program, Region, Step, StepIndex};
use proptest::prelude::*;

fn region(buf: Buf) -> Region {
    Region { buf, start: 0, len: 1 }
}

fn send(to: u32, buf: Buf) -> Action {
    Action::Send { to, src: region(buf), content: Content::Data }
}

fn recv(from: u32, view: u32) -> Action {
    Action::Recv { from, dst: region(Buf::View(view)), content: Content::Data }
}

fn copy(buf: Buf) -> Action {
    Action::Copy { src: region(buf), dst: region(Buf::Out), content: Content::Data }
}

fn reduce(inputs: &[Buf]) -> Action {
    let operand = |(leaf, buf): (u32, &Buf)| Operand { region: region(*buf), content: Content::Leaf(leaf) };
    Action::Reduce {
        inputs: (0..).zip(inputs).map(operand).collect(),
        target: Content::Result,
        out: region(Buf::Out),
    }
}

fn engine(steps: Vec<(Action, Vec<StepIndex>)>, views: u32) -> Engine {
    let steps = steps.into_iter().map(|(action, after)| Step { action, after }).collect();
    Engine::new(Arc::new(Program { steps, views, slot_bytes: Vec::new() }))
}

fn drain(engine: &mut Engine) -> Vec<Effect> {
    std::iter::from_fn(|| engine.poll()).collect()
}

fn complete(engine: &mut Engine, step: StepIndex) -> Vec<Effect> {
    engine.on_event(Event::Completed(step));
    drain(engine)
}

#[test]
fn an_empty_program_is_finished_at_once() {
    let mut engine = engine(vec![], 0);
    assert!(engine.is_finished());
    assert_eq!(engine.poll(), None);
}

#[test]
fn a_reduction_waits_for_all_its_operands() {
    let steps = vec![
        (recv(1, 0), vec![]),
        (recv(2, 1), vec![]),
        (reduce(&[Buf::Part(0), Buf::View(0), Buf::View(1)]), vec![0, 1]),
    ];
    let mut engine = engine(steps, 2);
    assert_eq!(drain(&mut engine), [Effect::Recv(0), Effect::Recv(1)]);
    assert_eq!(complete(&mut engine, 1), []);
    assert_eq!(complete(&mut engine, 0), [Effect::Reduce(2)]);
    assert!(!engine.is_finished());
    assert_eq!(complete(&mut engine, 2), [Effect::Release(0), Effect::Release(1)]);
    assert!(engine.is_finished());
}

#[test]
fn messages_come_before_arithmetic() {
    let steps = vec![
        (reduce(&[Buf::Part(0)]), vec![]),
        (copy(Buf::Part(0)), vec![]),
        (send(1, Buf::Part(0)), vec![]),
        (recv(1, 0), vec![]),
    ];
    let effects = [Effect::Send(2), Effect::Recv(3), Effect::Reduce(0), Effect::Copy(1)];
    assert_eq!(drain(&mut engine(steps, 1)), effects);
}

#[test]
fn messages_of_one_pair_start_in_program_order_and_others_pass_them() {
    let steps = vec![
        (recv(2, 0), vec![]),
        (send(1, Buf::View(0)), vec![0]),
        (send(1, Buf::Part(0)), vec![]),
        (send(3, Buf::Part(0)), vec![]),
        (send(1, Buf::Part(0)), vec![]),
        (recv(2, 1), vec![3]),
        (recv(2, 2), vec![]),
    ];
    let mut engine = engine(steps, 3);
    assert_eq!(drain(&mut engine), [Effect::Recv(0), Effect::Send(3)]);
    assert_eq!(complete(&mut engine, 0), [Effect::Send(1), Effect::Send(2), Effect::Send(4)]);
    assert_eq!(
        complete(&mut engine, 3),
        [Effect::Recv(5), Effect::Recv(6)],
        "in order, none waits for an end"
    );
    assert_eq!(complete(&mut engine, 4), [], "ends come in any order");
    assert_eq!([1, 2, 3, 4].map(|step| engine.message(step)), [0, 1, 0, 2]);
    assert_eq!([0, 5, 6].map(|step| engine.message(step)), [0, 1, 2]);
}

#[test]
fn a_view_goes_back_after_its_last_reader_and_not_before() {
    let steps = vec![
        (recv(1, 0), vec![]),
        (send(2, Buf::View(0)), vec![0]),
        (copy(Buf::View(0)), vec![0]),
        (reduce(&[Buf::View(0), Buf::View(0)]), vec![0]),
    ];
    let mut engine = engine(steps, 1);
    drain(&mut engine);
    assert_eq!(complete(&mut engine, 0), [Effect::Send(1), Effect::Copy(2), Effect::Reduce(3)]);
    assert_eq!(complete(&mut engine, 2), []);
    assert_eq!(complete(&mut engine, 3), []);
    assert_eq!(complete(&mut engine, 1), [Effect::Release(0)]);
}

#[test]
fn a_view_that_nobody_reads_goes_back_at_once() {
    let mut engine = engine(vec![(recv(1, 0), vec![])], 1);
    assert_eq!(drain(&mut engine), [Effect::Recv(0)]);
    engine.on_event(Event::Completed(0));
    assert!(!engine.is_finished(), "the view has yet to go back");
    assert_eq!(engine.poll(), Some(Effect::Release(0)));
    assert!(engine.is_finished());
}

#[test]
fn awaited_names_the_peers_of_messages_under_way_and_nobody_else() {
    let steps = vec![
        (send(7, Buf::Part(0)), vec![]),
        (recv(3, 0), vec![]),
        (recv(3, 1), vec![]),
        (send(9, Buf::View(0)), vec![1]),
        (copy(Buf::Part(0)), vec![]),
    ];
    let mut engine = engine(steps, 2);
    assert_eq!(engine.awaited(), []);
    drain(&mut engine);
    assert_eq!(engine.awaited(), [3, 7]);
    complete(&mut engine, 1);
    complete(&mut engine, 0);
    assert_eq!(engine.awaited(), [3, 9]);
}

#[test]
#[should_panic(expected = "step 0 can't complete: it is complete already")]
fn completing_a_step_twice_panics() {
    let mut engine = engine(vec![(copy(Buf::Part(0)), vec![]), (copy(Buf::Part(0)), vec![])], 0);
    drain(&mut engine);
    complete(&mut engine, 0);
    complete(&mut engine, 0);
}

#[test]
#[should_panic(expected = "step 0 can't complete: it is not started")]
fn completing_a_step_that_was_not_polled_panics() {
    engine(vec![(copy(Buf::Part(0)), vec![])], 0).on_event(Event::Completed(0));
}

#[test]
#[should_panic(expected = "step 4 can't complete: it is not in the program")]
fn completing_a_step_that_does_not_exist_panics() {
    engine(vec![(copy(Buf::Part(0)), vec![])], 0).on_event(Event::Completed(4));
}

#[test]
#[should_panic(expected = "step 0 waits for step 0, which does not come before it")]
fn a_program_that_waits_for_itself_is_refused() {
    engine(vec![(copy(Buf::Part(0)), vec![0])], 0);
}

#[test]
#[should_panic(expected = "step 1 receives into view 0 for the second time")]
fn a_view_that_is_received_twice_is_refused() {
    engine(vec![(recv(1, 0), vec![]), (recv(1, 0), vec![])], 1);
}

/// Programs whose steps wait for random earlier ones, and always for the receive of what they read.
fn programs() -> impl Strategy<Value = Program> {
    let step = (0..4u8, 0..3u32, any::<usize>(), prop::collection::vec(any::<usize>(), 0..3));
    prop::collection::vec(step, 1..40).prop_map(|drawn| {
        let narrow = |n: usize| u32::try_from(n).unwrap();
        let (mut steps, mut received): (Vec<Step>, Vec<StepIndex>) = (Vec::new(), Vec::new());
        for (kind, peer, pick, waits) in drawn {
            let index = steps.len();
            let mut after: BTreeSet<StepIndex> =
                waits.iter().filter(|_| index > 0).map(|wait| narrow(wait % index)).collect();
            let source = if received.is_empty() {
                Buf::Part(0)
            } else {
                let view = pick % received.len();
                after.insert(received[view]);
                Buf::View(narrow(view))
            };
            let action = match kind {
                0 => send(peer, source),
                1 => recv(peer, narrow(received.len())),
                2 => reduce(&[Buf::Part(0), source]),
                _ => copy(source),
            };
            if kind == 1 {
                received.push(narrow(index));
            }
            steps.push(Step { action, after: after.into_iter().collect() });
        }
        Program { steps, views: narrow(received.len()), slot_bytes: Vec::new() }
    })
}

/// Runs to the end, completing in the drawn order and checking every rule on the way.
fn run(engine: &mut Engine, picks: &[usize]) -> Result<Vec<Effect>, TestCaseError> {
    let program = engine.program().clone();
    let (mut log, mut under_way) = (Vec::new(), Vec::new());
    let (mut complete, mut released) = (BTreeSet::new(), BTreeSet::new());
    for pick in picks.iter().cycle() {
        while let Some(effect) = engine.poll() {
            log.push(effect);
            match effect {
                Effect::Send(step) | Effect::Recv(step) | Effect::Reduce(step) | Effect::Copy(step) => {
                    let after = &program.steps[step as usize].after;
                    prop_assert!(
                        after.iter().all(|before| complete.contains(before)),
                        "step {} is early",
                        step
                    );
                    under_way.push(step);
                }
                Effect::Release(view) => prop_assert!(released.insert(view), "view {} goes back twice", view),
            }
        }
        if under_way.is_empty() {
            break;
        }
        let step = under_way.swap_remove(pick % under_way.len());
        complete.insert(step);
        engine.on_event(Event::Completed(step));
    }
    prop_assert!(engine.is_finished());
    prop_assert_eq!(complete.len(), program.steps.len());
    prop_assert_eq!(released.len(), program.views as usize);
    Ok(log)
}

/// The stream of a message effect.
fn lane(engine: &Engine, effect: Effect) -> Option<(bool, u32, StepIndex)> {
    let (Effect::Send(step) | Effect::Recv(step)) = effect else { return None };
    match engine.step(step).action {
        Action::Send { to, .. } => Some((true, to, step)),
        Action::Recv { from, .. } => Some((false, from, step)),
        _ => None,
    }
}

#[test]
fn a_reduction_that_waits_for_one_message_alone_can_be_carried_out_with_it() {
    let region = |buf| Region { buf, start: 0, len: 1 };
    let (part, view) = (region(Buf::Part(0)), region(Buf::View(0)));
    let inputs = [part, view].map(|region| Operand { region, content: Content::Leaf(0) }).to_vec();
    let steps = vec![
        Step { action: Action::Send { to: 1, src: part, content: Content::Leaf(0) }, after: vec![] },
        Step { action: Action::Recv { from: 1, dst: view, content: Content::Leaf(1) }, after: vec![] },
        Step {
            action: Action::Reduce { inputs, target: Content::Result, out: region(Buf::Out) },
            after: vec![0, 1],
        },
    ];
    let mut engine = Engine::new(Arc::new(Program { steps, views: 1, slot_bytes: Vec::new() }));
    let start = |engine: &mut Engine| (engine.poll(), engine.poll(), engine.poll());
    let both = (Some(Effect::Send(0)), Some(Effect::Recv(1)), None);

    assert_eq!(start(&mut engine), both);
    assert_eq!(engine.reduction_at(1), None, "it would overwrite what is being sent");
    engine.on_event(Event::Completed(0));
    assert_eq!(engine.reduction_at(1), Some(2));
    engine.reduced(1, 2);
    assert_eq!((engine.poll(), engine.poll()), (Some(Effect::Release(0)), None));
    assert!(engine.is_finished());

    engine.reset(true);
    assert_eq!(start(&mut engine), both);
    assert_eq!(engine.reduction_at(1), Some(2), "the result is elsewhere");
    engine.reduced(1, 2);
    assert_eq!((engine.poll(), engine.is_finished()), (Some(Effect::Release(0)), false));
    engine.on_event(Event::Completed(0));
    assert!(engine.is_finished());
}

#[test]
fn a_copy_that_is_carried_out_of_turn_is_not_issued_any_more() {
    let after_it = send(2, Buf::Out);
    let steps = vec![(send(1, Buf::Part(0)), vec![]), (copy(Buf::Part(0)), vec![]), (after_it, vec![1])];
    let mut engine = engine(steps, 0);
    assert_eq!(
        (engine.next_copy(), engine.peek()),
        (Some(1), Some(Effect::Send(0))),
        "a message comes first"
    );
    assert_eq!(engine.poll(), Some(Effect::Send(0)));
    assert_eq!(engine.peek(), Some(Effect::Copy(1)));
    engine.copied(1);
    assert_eq!(engine.next_copy(), None);
    assert_eq!(drain(&mut engine), [Effect::Send(2)], "what waited for it goes on");
    complete(&mut engine, 0);
    complete(&mut engine, 2);
    assert!(engine.is_finished());
}

#[test]
#[should_panic(expected = "only the next copy")]
fn a_copy_that_is_not_the_next_can_not_be_carried_out_of_turn() {
    engine(vec![(copy(Buf::Part(0)), vec![]), (copy(Buf::Part(0)), vec![0])], 0).copied(1);
}

proptest! {
    #[test]
    fn every_program_ends_whatever_the_order_of_completions(
        program in programs(), picks in prop::collection::vec(any::<usize>(), 1..20),
    ) {
        let mut engine = Engine::new(Arc::new(program));
        let log = run(&mut engine, &picks)?;
        let started: Vec<_> = log.iter().filter_map(|&effect| lane(&engine, effect)).collect();
        for (position, &(sends, peer, step)) in started.iter().enumerate() {
            let passed = started[..position].iter().any(|&(s, p, other)| (s, p) == (sends, peer) && other > step);
            prop_assert!(!passed, "out of order: {:?}", started);
        }
        engine.reset(false);
        prop_assert_eq!(run(&mut engine, &picks)?, log, "a second run is like the first");
    }
}
