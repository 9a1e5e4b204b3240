//! The communicator: a rank's handle on its group, and the collectives that it offers.

mod abort;
mod accumulate;
mod accumulated;
mod arguments;
mod asked;
mod collectives;
#[cfg(test)]
mod damage_tests;
mod exchange;
mod explain;
mod failure;
mod groups;
mod layout;
mod notice;
mod operation;
mod peer;
mod plans;
mod reason;
mod reduced;
mod sending;
mod shapes;
mod shares;
mod signature;
mod sites;
mod straight;
#[cfg(test)]
mod straight_tests;
mod waiting;

use std::time::Duration;

use isobit_core::Rank;
use isobit_core::schedule::{Limits, Topology};
use isobit_core::wire::{Channel, Collective, Descriptor};
use isobit_sys::{Memory, ReadSpan, WriteSpan};

pub use abort::AbortHandle;
pub use accumulate::Accumulator;
use accumulate::Spare;
use asked::Latest;
pub use collectives::Reduction;
pub use explain::{Explanation, LeafCost};
pub use operation::Call;
pub use shapes::SEVERAL_TENSORS;

use crate::error::{Error, ErrorKind};
use crate::executor::CpuExecutor;
use crate::link::Link;
use crate::recorder::{Owner, Recorder, dump_if_asked};
use crate::site::Site;
use crate::trace::Trace;
use crate::transport::shm::ShmConfig;
use crate::transport::{Transport, memory, shm};
use exchange::Exchange;
use failure::{Failure, Place};
pub(crate) use operation::Operation;
use peer::Peer;
use plans::Plans;
use signature::Signature;

/// How long a call may take unless it says otherwise: long enough for a rank that writes a
/// checkpoint meanwhile, short enough that a lost night is not.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// A rank's handle on its group. It belongs to one thread at a time.
///
/// Every call takes part in the group's sequence of calls, which must be the same on every rank. A
/// collective that is wrong on one rank fails on all of them, and the group goes on. One that is interrupted
/// or times out fails on every rank that still has part in it; a rank that was done fails at its next call, so
/// ranks that go on after such an error must agree where. Only a lost peer, a corrupt link or an abort end the group's work, and then
/// each later call gives that error.
pub struct Communicator {
    link: Link,
    peers: Vec<Peer>,
    /// Whether there are more ranks than cores.
    shares_cores: bool,
    plans: Plans,
    latest: Option<Latest>,
    recorder: Recorder,
    trace: Option<Box<Trace>>,
    site: Site,
    told: sites::Told,
    epoch: u32,
    sequence: u64,
    sends: Vec<u64>,
    receives: Vec<u64>,
    timeout: Duration,
    abort: AbortHandle,
    ended: Option<Error>,
    spare: Spare,
    /// What a reduction in place has overwritten, until the message that it reduced is known to be intact.
    overwritten: Memory,
}

impl Communicator {
    /// A world of one, with nothing running.
    ///
    /// ```
    /// let comm = isobit::Communicator::solo();
    /// assert_eq!((comm.rank(), comm.world_size()), (0, 1));
    /// ```
    pub fn solo() -> Communicator {
        Communicator::memory_group(1).pop().expect("it has one member")
    }

    /// A group whose ranks are threads of this process, one handle each.
    pub fn memory_group(world_size: u32) -> Vec<Communicator> {
        memory::group(world_size).into_iter().map(|link| Communicator::over(Link::Memory(link))).collect()
    }

    /// Joins the group of processes of this host that give the same job name, over shared memory.
    ///
    /// Blocks until every rank has come, until the deadline, or until `interrupt`, which is asked about
    /// every 50 ms, says so.
    pub fn connect(config: &ShmConfig, interrupt: &mut dyn FnMut() -> bool) -> Result<Communicator, Error> {
        let operation = Some(format!("init of job '{}'", config.job));
        let place = Place { rank: config.rank, epoch: 0, operation, sequence: None };
        let link = shm::connect(config, interrupt).map_err(|error| Failure::from(error).at(place))?;
        Ok(Communicator::over(Link::Shm(link)))
    }

    fn over(link: Link) -> Communicator {
        let (rank, world_size) = (link.rank(), link.world_size());
        let capabilities = link.capabilities();
        let owner = Owner { rank, world_size, group: link.group(), transport: capabilities.name };
        let limits = Limits {
            chunk_bytes: capabilities.payload_bytes_max as u64,
            window_bytes: capabilities.window_bytes as u64,
        };
        let buffered_bytes_max = capabilities.buffered_bytes_max.map(|bytes| bytes as u64);
        let topology = Topology::single_node(world_size);
        let topology = capabilities.cores.map_or(topology.clone(), |cores| topology.on_cores(cores));
        Communicator {
            link,
            peers: (0..world_size).map(|_| Peer::default()).collect(),
            shares_cores: topology.shares_cores(),
            plans: Plans::new(topology, rank, limits, buffered_bytes_max),
            latest: None,
            trace: Trace::open(&owner),
            recorder: Recorder::new(owner),
            site: Site::UNKNOWN,
            told: sites::Told::nothing(),
            epoch: 0,
            sequence: 0,
            sends: vec![0; world_size as usize],
            receives: vec![0; world_size as usize],
            timeout: TIMEOUT_DEFAULT,
            abort: AbortHandle::default(),
            ended: None,
            spare: Spare::default(),
            overwritten: Memory::zeroed(0).expect("no bytes are always there"),
        }
    }

    /// This rank's number, from 0.
    pub fn rank(&self) -> Rank {
        self.link.rank()
    }

    /// How many ranks the group has.
    pub fn world_size(&self) -> u32 {
        self.link.world_size()
    }

    /// How often the group has started afresh: an operation that failed on every rank ends an epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The name of the transport.
    pub fn transport(&self) -> &'static str {
        self.link.capabilities().name
    }

    /// How long a call may take that gives no timeout of its own.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets how long a call may take that gives no timeout of its own.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Ends the group's work for every rank: calls in progress and to come give `Aborted` with
    /// `reason`. Never blocks.
    pub fn abort(&mut self, reason: &str) {
        let error = self.place(None).error(ErrorKind::Aborted, None, reason.to_owned());
        self.end(&error);
    }

    /// How to do so from another thread, while this one is in a call.
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    fn group(&self) -> u64 {
        self.link.group()
    }

    fn next_sequence(&self) -> u64 {
        self.sequence
    }

    fn place_of(&self, operation: &str) -> Place {
        Place { operation: Some(operation.to_owned()), ..self.place(None) }
    }

    /// Leaves the group: a peer that still waits for this rank gets `PeerLost`.
    pub fn close(&mut self) {
        self.leave("it closed its communicator");
    }

    fn leave(&mut self, how: &str) {
        self.link.close(how);
        let message = "this communicator was closed: make a new one".to_owned();
        let error = self.place(None).error(ErrorKind::Aborted, None, message);
        self.ended.get_or_insert(error);
    }

    fn place(&self, operation: Option<(&Descriptor, u64)>) -> Place {
        let (operation, sequence) = operation.map(|(d, sequence)| (d.to_string(), sequence)).unzip();
        Place { rank: self.rank(), epoch: self.epoch(), operation, sequence }
    }

    fn wrong(&self, collective: Collective, message: impl Into<String>) -> Error {
        self.place_of(collective.name()).error(ErrorKind::Value, None, message.into())
    }

    fn end(&mut self, error: &Error) {
        if self.ended.is_none() {
            self.link.abort(&reason::encode(error));
            self.ended = Some(error.clone());
        }
    }

    /// Refuses this rank's next collective before anything is sent: the other ranks' calls fail with
    /// `error` as the reason, instead of waiting for this one. The group goes on with the next call.
    pub fn refuse(&mut self, error: &Error) {
        if self.ended.is_none() {
            let message = error.message.clone() + &self.own_whereabouts();
            self.start_afresh(self.sequence, Some(&Error { message, ..error.clone() }));
        }
    }

    /// Makes a call; if it is refused before anything is sent, the other ranks are told.
    fn calling(&mut self, call: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        let result = call(self);
        if let Err(error) = &result
            && error.is_harmless()
        {
            self.refuse(error);
        }
        result
    }

    /// Ends the epoch at `sequence`: with `error` as the reason, unless another rank has said its.
    fn start_afresh(&mut self, sequence: u64, error: Option<&Error>) {
        if let Some(error) = error {
            self.link.break_epoch(self.epoch, sequence, &reason::encode(error));
        }
        // One epoch and no more, however far others are: each of their failures is one of this rank's, too.
        self.epoch += 1;
        self.sequence = 0;
        self.sends.fill(0);
        self.receives.fill(0);
        for peer in &mut self.peers {
            peer.enter(self.epoch);
        }
    }

    /// Notes how the operation under way ended.
    fn ended_operation(&mut self, waited: Option<(u64, Rank)>, failed: Option<ErrorKind>) {
        if let Some((waited_ns, awaited)) = waited {
            self.recorder.waits(waited_ns, Some(awaited));
        }
        self.recorder.end(failed);
        if let Some(trace) = &mut self.trace {
            trace.ended(failed);
        }
        match failed {
            None => self.link.sites().done(),
            Some(kind) => dump_if_asked(self.recorder.handle(), kind),
        }
    }

    /// Whether there still is a group to work with.
    #[inline]
    fn check_open(&mut self) -> Result<(), Error> {
        if self.abort.is_wanted() || self.ended.is_some() { self.how_it_ended() } else { Ok(()) }
    }

    #[cold]
    fn how_it_ended(&mut self) -> Result<(), Error> {
        if let Some(reason) = self.abort.wanted() {
            self.abort(&reason);
        }
        self.ended.as_ref().map_or(Ok(()), |ended| Err(ended.clone()))
    }

    /// Carries out the operation that is the latest.
    fn run(
        &mut self,
        tag: u64,
        parts: &[ReadSpan<'_>],
        out: WriteSpan<'_>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        self.check_open()?;
        let latest = self.latest.as_ref().expect("an operation was looked up");
        let (descriptor, (signature, plan)) = (&latest.descriptor, self.plans.at(latest.plan));
        let Signature { contract, dtype, root, receiver, .. } = signature;
        let next = self.sequence;
        let (root, receiver) = (*root, *receiver);
        let counter = match (root, receiver) {
            (Some(from), Some(to)) if from == self.link.rank() => &mut self.sends[to as usize],
            (Some(from), Some(_)) => &mut self.receives[from as usize],
            _ => &mut self.sequence,
        };
        let sequence = std::mem::replace(counter, *counter + 1);
        let channel = if receiver.is_some() { Channel::PointToPoint } else { Channel::Collective };
        let peer = receiver.map(|to| if to == self.link.rank() { root.unwrap_or(to) } else { to });
        let given: usize = parts.iter().map(|part| part.len()).sum();
        let operation = Operation {
            descriptor,
            plan: plan.number,
            epoch: self.epoch,
            channel,
            sequence,
            collective: next,
            peer,
            tag,
            bytes: given.max(out.len()) as u64,
            pairs: signature.pairs(),
        };
        sites::announce(&self.link, self.site, &mut self.told, &operation);
        if let Some(trace) = &mut self.trace {
            trace.operation(&operation, self.site);
        }
        let executor = CpuExecutor::new(
            contract.as_ref(),
            *dtype,
            parts,
            out,
            &plan.slots,
            &mut plan.kept,
            &mut self.overwritten,
        );
        let mut exchange = Exchange {
            link: &mut self.link,
            peers: &mut self.peers,
            recorder: &mut self.recorder,
            site: self.site,
            trace: self.trace.as_deref_mut(),
            program: &plan.program,
            engine: &mut plan.engine,
            executor,
            sending: plan.sending,
            straight: &mut plan.straight,
            shares: &mut plan.shares,
            operation: &operation,
            timeout: call.timeout.unwrap_or(self.timeout),
            interrupt: call.interrupt,
            abort: &self.abort,
            shares_cores: self.shares_cores,
            is_ordinary: false,
        };
        let result = exchange.run();
        if result.is_err() {
            exchange.executor.clear();
        }
        let waited = exchange.waited();
        let result = match result {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.failed(failure, (*descriptor, sequence), channel, next)),
        };
        self.ended_operation(waited, result.as_ref().err().map(|error| error.kind));
        result
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.leave("it dropped its communicator");
    }
}
