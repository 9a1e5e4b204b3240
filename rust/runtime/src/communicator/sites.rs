//! Where calls were made, for the errors about them.
//!
//! Every rank has announced its calls and named their sites before anything could go wrong, so nobody
//! is asked and nobody is waited for here, and a stopped or dead rank's last call is known as well.

use isobit_core::engine::Mismatch;
use isobit_core::wire::{Channel, Collective, Descriptor};
use isobit_core::{Rank, digest};
use isobit_sys::os::lists::{LISTS, place};
use isobit_sys::os::sites::{Announced, SITES_MAX};

use super::Communicator;
use super::failure::Failure;
use super::operation::Operation;
use super::signature::{Amounts, Signature};
use super::{layout, shapes};
use crate::link::Link;
use crate::recorder::FlightRecorder;
use crate::site::Site;
use crate::transport::{Transport, TransportError};

/// How many awaited ranks a message goes into.
const RANKS_MAX: usize = 4;

/// What this rank has told the others already, so that it is written once.
pub(super) struct Told {
    /// By number, the sites whose names they can read.
    named: [bool; SITES_MAX as usize + 1],
    /// By place, the digests of the lists that they can read.
    listed: [u64; LISTS],
}

impl Told {
    pub(super) fn nothing() -> Told {
        Told { named: [false; SITES_MAX as usize + 1], listed: [0; LISTS] }
    }

    /// Lets the others read the shape and the counts of a call, whose digests `descriptor` has.
    pub(super) fn list(
        &mut self,
        link: &Link,
        signature: &Signature,
        descriptor: &Descriptor,
        shape: &[u64],
    ) {
        self.keep(link, descriptor.shape, shape);
        if let Amounts::PerRank(counts) = &signature.amounts {
            let of_counts =
                if signature.leaf_map.is_none() { descriptor.layout } else { digest::words(counts) };
            self.keep(link, of_counts, counts);
        }
    }

    fn keep(&mut self, link: &Link, digest: u64, numbers: &[u64]) {
        let listed = &mut self.listed[place(digest, numbers.len())];
        if *listed != digest {
            *listed = digest;
            link.sites().lists().keep(digest, numbers);
        }
    }
}

/// Lets the others know what this rank calls and where.
pub(super) fn announce(link: &Link, site: Site, told: &mut Told, operation: &Operation<'_>) {
    let (sites, number) = (link.sites(), site.number());
    if let Some(named) = told.named.get_mut(usize::from(number)).filter(|named| !**named) {
        *named = true;
        if let Some(name) = site.name() {
            sites.name(number, &name);
        }
    }
    let Operation { epoch, peer, sequence, .. } = *operation;
    sites.announce(Announced { epoch, peer, sequence, site: number, done: false });
}

impl Communicator {
    /// Says where in the caller's program the calls to come are made.
    ///
    /// ```
    /// let mut comm = isobit::Communicator::solo();
    /// comm.call_from(isobit::Site::here());
    /// comm.barrier(&mut isobit::Call { shape: &[], timeout: None, interrupt: &mut || false }).unwrap();
    /// let last = *comm.flight_recorder().records().last().unwrap();
    /// assert!(last.site.name().unwrap().contains(".rs:"));
    /// ```
    pub fn call_from(&mut self, site: Site) {
        self.site = site;
    }

    /// The flight recorder of this communicator's operations.
    pub fn flight_recorder(&self) -> FlightRecorder {
        self.recorder.handle().clone()
    }

    /// Has a mismatch say the shapes or counts themselves, as far as the two ranks left them to be read, and a timeout
    /// name those who are late.
    pub(super) fn spelled_out(&self, failure: Failure, channel: Channel, sequence: u64) -> Failure {
        let mut mismatch = match failure {
            Failure::Mismatch(mismatch) => mismatch,
            Failure::Timeout { seconds, awaited } => {
                return Failure::Timeout {
                    seconds,
                    awaited: self.late(channel, sequence).unwrap_or(awaited),
                };
            }
            other => return other,
        };
        let both = match mismatch.field {
            "shape" => self.shapes(&mismatch),
            "layout" => layout::texts(&mismatch, self.world_size(), self.link.sites().lists()),
            _ => None,
        };
        if let Some([ours, theirs]) = both {
            (mismatch.ours, mismatch.theirs) = (ours, theirs);
        }
        Failure::Mismatch(mismatch)
    }

    /// The ranks that have not made a collective's call, if there are such: who has may himself wait for them.
    fn late(&self, channel: Channel, sequence: u64) -> Option<Vec<Rank>> {
        let call = Announced { epoch: self.epoch, peer: None, sequence, site: 0, done: false };
        let is_late = |rank: &Rank| *rank != self.rank() && !self.link.sites().has_announced(*rank, &call);
        let late: Vec<Rank> = (0..self.world_size()).filter(is_late).collect();
        (channel == Channel::Collective && !late.is_empty()).then_some(late)
    }

    fn shapes(&self, mismatch: &Mismatch) -> Option<[String; 2]> {
        let shapes = self.both(mismatch, |descriptor| descriptor.shape)?;
        let counts =
            [&mismatch.our_descriptor, &mismatch.their_descriptor].map(|descriptor| descriptor.count);
        shapes::texts(&shapes, counts, self.world_size())
    }

    /// The lists whose digests two ranks' calls have.
    fn both(&self, mismatch: &Mismatch, digest: impl Fn(&Descriptor) -> u64) -> Option<[Vec<u64>; 2]> {
        let lists = self.link.sites().lists();
        let ours = lists.find(mismatch.rank, digest(&mismatch.our_descriptor))?;
        Some([ours, lists.find(mismatch.peer, digest(&mismatch.their_descriptor))?])
    }

    /// What to add to the message about a failure: where the calls concerned were made.
    pub(super) fn whereabouts(&self, failure: &Failure) -> String {
        let peers: &[Rank] = match failure {
            Failure::Mismatch(mismatch) => {
                let ours =
                    self.site_at(self.rank(), mismatch.peer, &mismatch.our_descriptor, mismatch.our_sequence);
                let theirs = self.site_at(
                    mismatch.peer,
                    self.rank(),
                    &mismatch.their_descriptor,
                    mismatch.their_sequence,
                );
                let sites = called_at(&[(self.rank(), ours), (mismatch.peer, theirs)]);
                return self.why_counts_differ(mismatch).unwrap_or_default() + &sites;
            }
            Failure::Timeout { awaited, .. } => awaited,
            Failure::Transport(TransportError::PeerLost { rank, .. }) => std::slice::from_ref(rank),
            Failure::Transport(TransportError::Corruption { .. })
            | Failure::Kernel(_)
            | Failure::Interrupted => &[],
            // What another rank says has it in it.
            Failure::Transport(_) | Failure::Broken(_) | Failure::Aborted(_) => return String::new(),
        };
        let last = peers.iter().take(RANKS_MAX).map(|rank| self.last_call(*rank));
        called_at(&[(self.rank(), self.site.name())]) + &last.collect::<String>()
    }

    /// Counts differ because shapes do, or because they are divided among the ranks in another way.
    fn why_counts_differ(&self, mismatch: &Mismatch) -> Option<String> {
        let differ = |both: &[String; 2]| mismatch.field == "count" && both[0] != both[1];
        let layouts = || layout::texts(mismatch, self.world_size(), self.link.sites().lists());
        let (what, [ours, theirs]) = match self.shapes(mismatch).filter(differ) {
            Some(shapes) => ("shapes", shapes),
            None => ("layouts", layouts().filter(differ)?),
        };
        let (rank, peer) = (mismatch.rank, mismatch.peer);
        Some(format!("; the {what} are {ours} on rank {rank} and {theirs} on rank {peer}"))
    }

    /// Where this rank's call was made, as an addition to a message.
    pub(super) fn own_whereabouts(&self) -> String {
        called_at(&[(self.rank(), self.site.name())])
    }

    /// Where `rank` made a call that `other` is concerned with.
    fn site_at(&self, rank: Rank, other: Rank, descriptor: &Descriptor, sequence: u64) -> Option<String> {
        let peer = (descriptor.collective == Collective::PointToPoint).then_some(other);
        let call = Announced { epoch: self.epoch, peer, sequence, site: 0, done: false };
        self.link.sites().site_of(rank, &call)
    }

    fn last_call(&self, rank: Rank) -> String {
        let sites = self.link.sites();
        let Some(call) = sites.latest(rank) else { return format!("; rank {rank} has made no call yet") };
        let place = sites.name_of(rank, call.site).map_or(String::new(), |name| format!(" at {name}"));
        let what = if call.peer.is_some() { "send or recv" } else { "operation" };
        let state = if call.done { "it has returned from it" } else { "it has not returned from it" };
        format!("; the last call of rank {rank} was {what} {}{place}, and {state}", call.sequence)
    }
}

/// `; called at train.py:12 on rank 0 and at train.py:15 on rank 1`, as far as it is known.
fn called_at(calls: &[(Rank, Option<String>)]) -> String {
    let known = calls.iter().filter_map(|(rank, site)| Some(format!("at {} on rank {rank}", site.as_ref()?)));
    let known: Vec<String> = known.collect();
    if known.is_empty() { String::new() } else { format!("; called {}", known.join(" and ")) }
}

/// `20, 10`.
pub(super) fn joined(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}
