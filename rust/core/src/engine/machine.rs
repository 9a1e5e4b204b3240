//! The state machine: which steps may start, which are under way, which views can go back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::wiring::{Kind, NONE, Wiring};
use crate::Rank;
use crate::schedule::{Action, Buf, Program, Region, Step, StepIndex};

/// What the caller is to do next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Effect {
    /// Start this `Send`; it is complete when the receiver has verified it.
    Send(StepIndex),
    /// Start this `Recv`; it is complete when its message is verified and bound or stored.
    Recv(StepIndex),
    /// Carry out this `Reduce`: its operands are there.
    Reduce(StepIndex),
    /// Carry out this `Copy`: its source is there.
    Copy(StepIndex),
    /// Give this view back to the transport: its last reader is done.
    Release(u32),
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Event {
    /// A started step is complete.
    Completed(StepIndex),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    Ready,
    Started,
    Complete,
}

/// One rank's run of a program.
///
/// A step starts when all that it waits for is complete; sends to one peer start in program order,
/// and so do receives from one peer. Messages and releases come before arithmetic, so that no
/// peer waits behind a sum. The same completions in any order lead to the same steps, and a
/// `Reduce` is never issued before its operands are there: arrival order can't reach a value.
///
/// ```
/// use isobit_core::engine::{Effect, Engine, Event};
/// use isobit_core::schedule::{Action, Buf, Content, Program, Region, Step};
/// use std::sync::Arc;
/// let region = |buf| Region { buf, start: 0, len: 1 };
/// let recv = Action::Recv { from: 1, dst: region(Buf::View(0)), content: Content::Data };
/// let copy = Action::Copy { src: region(Buf::View(0)), dst: region(Buf::Out), content: Content::Data };
/// let steps = vec![Step { action: recv, after: vec![] }, Step { action: copy, after: vec![0] }];
/// let mut engine = Engine::new(Arc::new(Program { steps, views: 1, slot_bytes: vec![] }));
/// assert_eq!((engine.poll(), engine.poll()), (Some(Effect::Recv(0)), None));
/// assert_eq!(engine.awaited(), [1]);
/// engine.on_event(Event::Completed(0));
/// assert_eq!((engine.poll(), engine.poll()), (Some(Effect::Copy(1)), None));
/// engine.on_event(Event::Completed(1));
/// assert_eq!(engine.poll(), Some(Effect::Release(0)));
/// assert!(engine.is_finished());
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    program: Arc<Program>,
    wiring: Wiring,
    states: Vec<State>,
    pending: Vec<u32>,
    readers: Vec<u32>,
    /// Steps not yet complete.
    left: u32,
    /// Whether no `Reduce` waits for a part to be sent, because the result shares no memory with it.
    is_apart: bool,
    /// Messages to start and views to release.
    messages: VecDeque<Effect>,
    /// Reductions and copies to carry out.
    work: VecDeque<Effect>,
}

impl Engine {
    /// An engine at the start of `program`. All memory that runs need is allocated here.
    ///
    /// Panics if a step waits for a later one, or if a view is received twice or does not exist: the
    /// schedule's verifier finds such programs.
    pub fn new(program: Arc<Program>) -> Engine {
        let wiring = Wiring::new(&program);
        let steps = program.steps.len();
        let mut engine = Engine {
            states: vec![State::Waiting; steps],
            pending: vec![0; steps],
            readers: wiring.readers.clone(),
            left: 0,
            is_apart: false,
            messages: VecDeque::with_capacity(steps + wiring.readers.len()),
            work: VecDeque::with_capacity(steps),
            program,
            wiring,
        };
        engine.reset(false);
        engine
    }

    /// Back to the start of the same program, without allocating. `is_apart` says that the result shares no
    /// memory with any part: a `Reduce` to it need not wait until the parts are sent.
    pub fn reset(&mut self, is_apart: bool) {
        self.is_apart = is_apart;
        self.messages.clear();
        self.work.clear();
        self.states.fill(State::Waiting);
        self.readers.copy_from_slice(&self.wiring.readers);
        self.left = StepIndex::try_from(self.states.len()).expect("the wiring has counted the steps");
        for (pending, wire) in self.pending.iter_mut().zip(&self.wiring.wires) {
            *pending = wire.pending - if is_apart { wire.part_sends } else { 0 };
        }
        for step in 0..self.left {
            if self.pending[step as usize] == 0 && self.states[step as usize] == State::Waiting {
                self.ready(step);
            }
        }
    }

    /// Back to the start, and on to where the steps that `done` names, in program order, are complete:
    /// somebody has carried them out in an order in which the engine could have issued them.
    ///
    /// Returns the views that have been read by then.
    ///
    /// ```
    /// # use isobit_core::engine::{Effect, Engine};
    /// # use isobit_core::schedule::{Action, Buf, Content, Program, Region, Step};
    /// # let region = |buf| Region { buf, start: 0, len: 1 };
    /// # let recv = Action::Recv { from: 1, dst: region(Buf::View(0)), content: Content::Data };
    /// # let copy = Action::Copy { src: region(Buf::View(0)), dst: region(Buf::Out), content: Content::Data };
    /// # let steps = vec![Step { action: recv, after: vec![] }, Step { action: copy, after: vec![0] }];
    /// # let mut engine = Engine::new(std::sync::Arc::new(Program { steps, views: 1, slot_bytes: vec![] }));
    /// assert_eq!(engine.catch_up(&[true, false]), []);
    /// assert_eq!((engine.poll(), engine.poll()), (Some(Effect::Copy(1)), None));
    /// assert_eq!(engine.catch_up(&[true, true]), [0]);
    /// assert!(engine.is_finished());
    /// ```
    pub fn catch_up(&mut self, done: &[bool]) -> Vec<u32> {
        self.reset(false);
        let (mut later, mut read) = (Vec::new(), Vec::new());
        while let Some(effect) = self.poll() {
            match effect {
                Effect::Release(view) => read.push(view),
                Effect::Send(step) | Effect::Recv(step) | Effect::Reduce(step) | Effect::Copy(step) => {
                    if done[step as usize] {
                        self.on_event(Event::Completed(step));
                    } else {
                        later.push((step, effect));
                    }
                }
            }
        }
        for (step, effect) in later {
            self.states[step as usize] = State::Ready;
            match effect {
                Effect::Send(_) | Effect::Recv(_) => self.messages.push_back(effect),
                _ => self.work.push_back(effect),
            }
        }
        read
    }

    /// The next thing to do, if there is one now. What it names counts as started.
    pub fn poll(&mut self) -> Option<Effect> {
        let effect = self.messages.pop_front().or_else(|| self.work.pop_front())?;
        match effect {
            Effect::Send(step) | Effect::Recv(step) | Effect::Reduce(step) | Effect::Copy(step) => {
                self.states[step as usize] = State::Started;
            }
            Effect::Release(_) => {}
        }
        Some(effect)
    }

    /// Takes note of what happened.
    ///
    /// Panics if a step is said to be complete that is not under way: the caller is wrong then, and
    /// going on would let unwritten memory reach a sum.
    pub fn on_event(&mut self, event: Event) {
        let Event::Completed(step) = event;
        let state = self.states.get_mut(step as usize);
        match state {
            Some(state @ State::Started) => *state = State::Complete,
            other => panic!("step {step} can't complete: it is {}", name(other.copied())),
        }
        self.left -= 1;
        let sends_part = self.wiring.wires[step as usize].sends_part;
        for index in 0..self.wiring.dependents(step).len() {
            let dependent = self.wiring.dependents(step)[index];
            let did_not_wait = self.is_apart && self.wiring.wires[dependent as usize].kind == Kind::Reduce;
            if !(sends_part && did_not_wait) {
                self.count_down(dependent);
            }
        }
        for &view in self.wiring.reads(step) {
            let readers = &mut self.readers[view as usize];
            *readers -= 1;
            if *readers == 0 {
                self.messages.push_back(Effect::Release(view));
            }
        }
        let unread = self.wiring.wires[step as usize].unread_view;
        if unread != NONE {
            self.messages.push_back(Effect::Release(unread));
        }
    }

    /// The `Reduce` that waits for nothing but this `Recv`, if it is the only reader of its view: whoever takes the
    /// message can carry it out in the same pass, and say so with [`Engine::reduced`].
    pub fn reduction_at(&self, recv: StepIndex) -> Option<StepIndex> {
        let Action::Recv { dst: Region { buf: Buf::View(view), .. }, .. } = self.step(recv).action else {
            return None;
        };
        let waits_for_it_alone = |step: &StepIndex| {
            self.wiring.wires[*step as usize].kind == Kind::Reduce
                && self.pending[*step as usize] == 1
                && self.wiring.reads(*step).contains(&view)
        };
        let reduction = self.wiring.dependents(recv).iter().copied().find(waits_for_it_alone);
        reduction.filter(|_| self.readers[view as usize] == 1)
    }

    /// Takes note that a `Recv` is complete, and with it the `Reduce` that waited for nothing else.
    ///
    /// Panics, as `on_event`, if they are not under way or the `Reduce` waits for more.
    pub fn reduced(&mut self, recv: StepIndex, reduction: StepIndex) {
        self.on_event(Event::Completed(recv));
        let place = self.work.iter().position(|effect| *effect == Effect::Reduce(reduction));
        self.work.remove(place.expect("the reduction waited for this message alone"));
        self.states[reduction as usize] = State::Started;
        self.on_event(Event::Completed(reduction));
    }

    /// The `Copy` that is next when no message is left to start, if it is no reduction: whoever sends a message can
    /// carry it out in the same pass, and say so with [`Engine::copied`].
    pub fn next_copy(&self) -> Option<StepIndex> {
        match self.work.front() {
            Some(Effect::Copy(step)) => Some(*step),
            _ => None,
        }
    }

    /// What `poll` would give.
    pub fn peek(&self) -> Option<Effect> {
        self.messages.front().or_else(|| self.work.front()).copied()
    }

    /// Takes note that the next `Copy` is complete, which `poll` has not given.
    ///
    /// Panics if it is not the next one.
    pub fn copied(&mut self, copy: StepIndex) {
        assert_eq!(self.next_copy(), Some(copy), "only the next copy is carried out of turn");
        self.work.pop_front();
        self.states[copy as usize] = State::Started;
        self.on_event(Event::Completed(copy));
    }

    /// Whether every step is complete and every view has been given back.
    pub fn is_finished(&self) -> bool {
        self.left == 0 && self.messages.is_empty()
    }

    /// The ranks that messages under way wait for, ascending: to send to, or to receive from.
    pub fn awaited(&self) -> Vec<Rank> {
        let mut ranks: Vec<Rank> = (self.states.iter().zip(&self.program.steps))
            .filter(|(state, _)| **state == State::Started)
            .filter_map(|(_, step)| match step.action {
                Action::Send { to: rank, .. } | Action::Recv { from: rank, .. } => Some(rank),
                _ => None,
            })
            .collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }

    /// The number of a `Send` or `Recv` within (operation, source, destination), for its header.
    pub fn message(&self, step: StepIndex) -> u32 {
        self.wiring.wires[step as usize].message
    }

    /// A step of the program.
    pub fn step(&self, step: StepIndex) -> &Step {
        &self.program.steps[step as usize]
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    fn count_down(&mut self, step: StepIndex) {
        let pending = &mut self.pending[step as usize];
        *pending -= 1;
        if *pending == 0 {
            self.ready(step);
        }
    }

    /// Queues a step, and the messages behind it in its lane that waited for nothing else.
    fn ready(&mut self, first: StepIndex) {
        let mut step = first;
        loop {
            let wire = self.wiring.wires[step as usize];
            self.states[step as usize] = State::Ready;
            match wire.kind {
                Kind::Send => self.messages.push_back(Effect::Send(step)),
                Kind::Recv => self.messages.push_back(Effect::Recv(step)),
                Kind::Reduce => self.work.push_back(Effect::Reduce(step)),
                Kind::Copy => self.work.push_back(Effect::Copy(step)),
            }
            step = wire.next_in_lane;
            if step == NONE {
                return;
            }
            self.pending[step as usize] -= 1;
            if self.pending[step as usize] > 0 {
                return;
            }
        }
    }
}

fn name(state: Option<State>) -> &'static str {
    match state {
        None => "not in the program",
        Some(State::Waiting | State::Ready) => "not started",
        Some(State::Started) => "under way",
        Some(State::Complete) => "complete already",
    }
}
