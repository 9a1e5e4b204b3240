//! How long an algorithm should take: counts of what the busiest rank does, each times what one costs.
//!
//! The model adds up and overlaps nothing: the call, the steps (messages that wait for one another), the
//! work on each message, its bytes, and the bytes reduced and copied. Work is done by cores: where more
//! ranks run on a machine than it has cores, all of it takes as many times as long as ranks share a core,
//! and in each step a rank waits until it has the core again. The ranks of a machine share its link to the others, and its
//! cache: if their tensors do not fit, every byte comes from memory.

use super::{
    Action, Algorithm, Content, Counts, Layout, Limits, PlanError, Program, Request, Topology,
    choose_because, plan_rank, steps::steps,
};
use crate::{Order, Rank};

/// What one of each costs. Times in us, speeds in GB/s (10^9 bytes).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Constants {
    /// A call, whatever it does.
    pub call_us: f64,
    /// A step over a message to a rank of the same machine: from its end to the next one's beginning.
    pub step_within_us: f64,
    /// The same to another machine.
    pub step_between_us: f64,
    /// The work on a message within the machine, for its sender as for its receiver.
    pub message_within_us: f64,
    /// The same, between machines.
    pub message_between_us: f64,
    /// How long a rank without a core waits in each step, for each rank that has its core.
    pub wait_us: f64,
    /// How long a rank keeps its core from the others if it has much to do: a time slice of the scheduler.
    pub slice_us: f64,
    /// How fast a rank moves bytes to another on its machine.
    pub bandwidth_within: f64,
    /// The speed of a machine's link to the others, which its ranks share.
    pub bandwidth_between: f64,
    /// How fast a rank reads what it reduces.
    pub reduction_speed: f64,
    /// How fast a rank copies.
    pub copy_speed: f64,
    /// How fast bytes come from memory, where they do not fit into the cache: in addition to the above.
    pub memory_speed: f64,
}

/// What a machine has. The constants do not contain it, because time does not grow evenly with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Its cores; none if every rank has one.
    pub cores: Option<u32>,
    /// The cache that its ranks share.
    pub cache_bytes: u64,
}

impl Default for Machine {
    /// A core for every rank, and a cache of 32 MiB.
    fn default() -> Machine {
        Machine { cores: None, cache_bytes: 32 << 20 }
    }
}

impl Default for Constants {
    /// Between ranks of one machine, what `isobit plan --fit` found of Rust's calls on a small x86-64 machine;
    /// between machines, assumptions about a link of 100 Gbit/s.
    fn default() -> Constants {
        Constants {
            call_us: 0.17,
            step_within_us: 0.12,
            step_between_us: 10.0,
            message_within_us: 0.0025,
            message_between_us: 1.0,
            wait_us: 1.3,
            slice_us: 0.1,
            bandwidth_within: 24.0,
            bandwidth_between: 12.5,
            reduction_speed: 48.0,
            copy_speed: 28.0,
            memory_speed: 60.0,
        }
    }
}

impl Constants {
    /// Each constant by its name, in the order of the terms.
    pub fn named(&self) -> [(&'static str, f64); TERMS] {
        [
            ("call_us", self.call_us),
            ("step_within_us", self.step_within_us),
            ("step_between_us", self.step_between_us),
            ("message_within_us", self.message_within_us),
            ("message_between_us", self.message_between_us),
            ("wait_us", self.wait_us),
            ("slice_us", self.slice_us),
            ("bandwidth_within", self.bandwidth_within),
            ("bandwidth_between", self.bandwidth_between),
            ("reduction_speed", self.reduction_speed),
            ("copy_speed", self.copy_speed),
            ("memory_speed", self.memory_speed),
        ]
    }

    /// The constants with the given values, asked for by their names.
    pub fn from_names<E>(mut value: impl FnMut(&'static str) -> Result<f64, E>) -> Result<Constants, E> {
        Ok(Constants {
            call_us: value("call_us")?,
            step_within_us: value("step_within_us")?,
            step_between_us: value("step_between_us")?,
            message_within_us: value("message_within_us")?,
            message_between_us: value("message_between_us")?,
            wait_us: value("wait_us")?,
            slice_us: value("slice_us")?,
            bandwidth_within: value("bandwidth_within")?,
            bandwidth_between: value("bandwidth_between")?,
            reduction_speed: value("reduction_speed")?,
            copy_speed: value("copy_speed")?,
            memory_speed: value("memory_speed")?,
        })
    }

    /// What one of each term costs, in us.
    fn costs(&self) -> [f64; TERMS] {
        let mut costs = self.named().map(|(_, value)| value);
        costs[TERMS - 5..].iter_mut().for_each(|speed| *speed = 1e-3 / *speed);
        costs
    }
}

/// How many of each: [`Constants`], term by term. Crowded machines are counted in.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Terms(pub [f64; TERMS]);

/// How many terms there are.
pub const TERMS: usize = 12;

impl Terms {
    /// The sum of all, in us.
    pub fn time_us(&self, constants: &Constants) -> f64 {
        self.0.iter().zip(constants.costs()).map(|(count, cost)| count * cost).sum()
    }
}

/// What the busiest rank does, as far as it was looked at, and how long that should take.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Prediction {
    /// Messages that wait for one another.
    pub steps: f64,
    /// Messages sent.
    pub messages_sent: f64,
    /// Bytes sent to ranks of the same machine.
    pub bytes_within: f64,
    /// Bytes sent to other machines.
    pub bytes_between: f64,
    /// Bytes of staging.
    pub staging_bytes: f64,
    /// What the time is made of.
    pub terms: Terms,
    /// The time, in us.
    pub time_us: f64,
}

/// A rank that handles more bytes than this does not give up its core in between.
const KEPT_BYTES: f64 = 131_072.0;

/// What is chosen for a request, why, and what each algorithm that can do it should take.
#[derive(Clone, PartialEq, Debug)]
pub struct Outlook {
    /// What [`super::choose`] chooses.
    pub chosen: Algorithm,
    /// Why.
    pub reason: &'static str,
    /// Of each algorithm.
    pub predictions: Vec<(Algorithm, Prediction)>,
}

/// The choice and the predictions for a request.
pub fn outlook(
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
    constants: &Constants,
    machine: &Machine,
) -> Result<Outlook, PlanError> {
    let shared = machine.cores.map(|cores| topology.clone().on_cores(cores));
    let (chosen, reason) = choose_because(request, shared.as_ref().unwrap_or(topology), limits)?;
    let order = request.contract.map_or(Order::Tree, |contract| contract.order());
    let mut predictions = Vec::new();
    for algorithm in Algorithm::ALL.into_iter().filter(|known| known.supports(request.collective, order)) {
        match predict(request, topology, limits, algorithm, constants, machine) {
            Ok(found) => predictions.push((algorithm, found)),
            // A tree that would stage too much is no choice.
            Err(PlanError::LimitsTooSmall { .. }) if algorithm != chosen => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Outlook { chosen, reason, predictions })
}

/// A program of more steps is not planned to predict it: from a quarter on, sizes are extrapolated.
const STEPS_MAX: usize = 1 << 18;

/// What an algorithm should take.
///
/// The first rank, the root, one in the middle and the last are looked at; all, if they are few. A request's cost grows evenly with its
/// size once it has many chunks, so what a very long program would cost is extrapolated from shorter ones.
///
/// ```
/// use isobit_core::Dtype;
/// use isobit_core::schedule::{Algorithm, Constants, Counts, Limits, Machine, Request, Topology, predict};
/// let topology = Topology::new((0..4096).map(|rank| rank / 8).collect());
/// let request = Request::all_gather(Dtype::F32, Counts::Same(1));
/// let predict = |algorithm| {
///     predict(&request, &topology, &Limits::default(), algorithm, &Constants::default(), &Machine::default()).unwrap()
/// };
/// let (direct, hierarchical) = (predict(Algorithm::Direct), predict(Algorithm::Hierarchical));
/// assert_eq!(direct.messages_sent, 4095.0);
/// assert!(hierarchical.messages_sent < 100.0 && hierarchical.time_us < direct.time_us);
/// ```
pub fn predict(
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
    algorithm: Algorithm,
    constants: &Constants,
    machine: &Machine,
) -> Result<Prediction, PlanError> {
    let look = |request: &Request<'_>| busiest(request, topology, limits, algorithm, constants, machine);
    let Counts::Same(count) = request.counts else { return Ok(look(request)?.0) };
    let mut before: Option<(u64, Prediction)> = None;
    for shift in (0..u64::BITS - (count / 4096).leading_zeros()).rev() {
        let smaller = count >> shift;
        let (found, planned) = look(&Request { counts: Counts::Same(smaller), ..*request })?;
        if let (Some((least, least_found)), true) = (before, shift > 0 && planned > STEPS_MAX / 4) {
            let times = (count - smaller) as f64 / (smaller - least) as f64;
            return Ok(found.further(&least_found, times, constants));
        }
        before = Some((smaller, found));
    }
    Ok(look(request)?.0)
}

fn busiest(
    request: &Request<'_>,
    topology: &Topology,
    limits: &Limits,
    algorithm: Algorithm,
    constants: &Constants,
    machine: &Machine,
) -> Result<(Prediction, usize), PlanError> {
    let world_size = topology.world_size();
    let layout = Layout::new(request, topology)?;
    let mut ranks = match world_size {
        ..=8 => (0..world_size).collect(),
        _ => vec![0, world_size / 2, world_size - 1, request.root.unwrap_or(0)],
    };
    ranks.sort_unstable();
    ranks.dedup();
    let (mut busiest, mut planned) = (Prediction::default(), 0);
    for rank in ranks {
        let program = plan_rank(request, topology, limits, algorithm, rank)?;
        planned = planned.max(program.steps.len());
        let found = Prediction::of(&layout, topology, algorithm, rank, &program, constants, machine);
        if found.time_us >= busiest.time_us {
            busiest = found;
        }
    }
    Ok((busiest, planned))
}

impl Prediction {
    fn of(
        layout: &Layout<'_>,
        topology: &Topology,
        algorithm: Algorithm,
        rank: Rank,
        program: &Program,
        constants: &Constants,
        machine: &Machine,
    ) -> Prediction {
        // Within the machine and between machines.
        let (mut messages, mut sent, mut received) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        let (mut reduced, mut copied, mut messages_sent) = (0.0, 0.0, 0.0);
        let link = |peer: Rank| usize::from(topology.machine_of(rank) != topology.machine_of(peer));
        for step in &program.steps {
            match &step.action {
                Action::Send { to, src, content } => {
                    messages_sent += 1.0;
                    messages[link(*to)] += 1.0;
                    sent[link(*to)] += (src.len * layout.bytes(*content)) as f64;
                }
                Action::Recv { from, dst, content } => {
                    messages[link(*from)] += 1.0;
                    received[link(*from)] += (dst.len * layout.bytes(*content)) as f64;
                }
                Action::Reduce { inputs, .. } => {
                    let bytes = inputs.iter().map(|input| input.region.len * layout.bytes(input.content));
                    reduced += bytes.sum::<u64>() as f64;
                }
                Action::Copy { src, content, .. } => copied += (src.len * layout.bytes(*content)) as f64,
            }
        }
        let neighbours = topology.machines()[topology.machine_of(rank)].len() as f64;
        let cores = machine.cores.map_or(neighbours, f64::from);
        let crowd = (neighbours / cores).ceil();
        let steps = steps(layout.request(), topology, algorithm);
        let (within, between) = (f64::from(steps.within), f64::from(steps.between));
        let moved = |link: usize| if sent[link] > received[link] { sent[link] } else { received[link] };
        let waits = crowd - 1.0;
        let bytes = moved(0) + moved(1) + reduced + copied;
        let output = if layout.contract().is_some() { Content::Result } else { Content::Data };
        let parts = layout.parts(rank).iter().map(|content| layout.part_len(rank) * layout.bytes(*content));
        let tensors = parts.sum::<u64>() + layout.out_len(rank) * layout.bytes(output);
        let uncached = tensors as f64 * neighbours > machine.cache_bytes as f64;
        let terms = Terms([
            crowd,
            within * crowd,
            between,
            messages[0] * crowd,
            messages[1] * crowd,
            (within + between) * waits,
            if bytes > KEPT_BYTES { waits } else { 0.0 },
            moved(0) * crowd,
            moved(1) * neighbours,
            reduced * crowd,
            copied * crowd,
            if uncached { bytes * crowd } else { 0.0 },
        ]);
        Prediction {
            steps: within + between,
            messages_sent,
            bytes_within: sent[0],
            bytes_between: sent[1],
            staging_bytes: program.slot_bytes.iter().sum::<u64>() as f64,
            terms,
            time_us: terms.time_us(constants),
        }
    }

    /// What comes of `times` as much as lies between `before` and this, once more.
    fn further(&self, before: &Prediction, times: f64, constants: &Constants) -> Prediction {
        let on = |of: fn(&Prediction) -> f64| of(self) + (of(self) - of(before)) * times;
        let mut terms = self.terms;
        for (term, before) in terms.0.iter_mut().zip(before.terms.0) {
            *term += (*term - before) * times;
        }
        Prediction {
            messages_sent: on(|found| found.messages_sent).round(),
            bytes_within: on(|found| found.bytes_within).round(),
            bytes_between: on(|found| found.bytes_between).round(),
            terms,
            time_us: terms.time_us(constants),
            ..*self
        }
    }
}
