//! The timeline: what a rank does and what it waits for, as a trace that Perfetto opens.
//!
//! It is there if `ISOBIT_TRACE` names a file when a communicator is made; without it every hook is
//! one branch. With it a step costs two looks at the clock and one entry in memory of a fixed size;
//! text is made of the entries between operations, or when there is no room for the next.

mod event;
mod sink;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isobit_core::Rank;

use crate::communicator::Operation;
use crate::error::ErrorKind;
use crate::recorder::{Clock, Owner};
use crate::site::Site;
use event::{Event, Lane};
use sink::Sink;

pub(crate) use event::Step;

/// How many entries wait to be written, at most.
const EVENTS_MAX: usize = 4096;
/// How old an entry may get before it is written, so that a process that is killed leaves a trace.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

/// The timeline of one communicator.
pub(crate) struct Trace {
    lane: Lane,
    clock: Clock,
    events: Vec<Event>,
    flushed: Instant,
    sink: Arc<Mutex<Sink>>,
}

/// When a step began, if there is a timeline to tell.
pub(crate) fn begin(trace: Option<&Trace>) -> Option<Instant> {
    trace.map(|_| Instant::now())
}

impl Trace {
    /// The timeline of a new communicator, if one is asked for and can be had.
    pub(crate) fn open(owner: &Owner) -> Option<Box<Trace>> {
        let (sink, process) = sink::asked_for(owner)?;
        let clock = Clock::new();
        let lane = sink.lock().unwrap_or_else(PoisonError::into_inner).lane(owner, process);
        let events = Vec::with_capacity(EVENTS_MAX);
        Some(Box::new(Trace { lane, clock, events, flushed: Instant::now(), sink }))
    }

    /// An operation begins, at a site.
    pub(crate) fn operation(&mut self, operation: &Operation<'_>, site: Site) {
        let Operation { descriptor, epoch, sequence, peer, bytes, .. } = *operation;
        let at = self.clock.ns(Instant::now());
        // The sender is the root of a send or receive.
        let sends = peer.is_some() && descriptor.root != peer;
        self.add(Event::Begin { at, descriptor: *descriptor, epoch, sequence, peer, sends, bytes, site });
    }

    /// The operation has ended.
    pub(crate) fn ended(&mut self, failed: Option<ErrorKind>) {
        self.add(Event::End { at: self.clock.ns(Instant::now()), failed });
        if failed.is_some() || self.events.len() > EVENTS_MAX / 2 || self.flushed.elapsed() > FLUSH_AFTER {
            self.flush();
        }
    }

    /// A step that began at `start` has just ended.
    pub(crate) fn step(&mut self, step: Step, start: Instant, bytes: usize) {
        let (start, end) = (self.clock.ns(start), self.clock.ns(Instant::now()));
        self.add(Event::Step { step, start, end, bytes: bytes as u64 });
    }

    /// A good moment to write what has got old: the rank only waits.
    pub(crate) fn idle(&mut self) {
        if self.flushed.elapsed() > FLUSH_AFTER {
            self.flush();
        }
    }

    fn add(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.flush();
        }
        self.events.push(event);
    }

    fn flush(&mut self) {
        let start = Instant::now();
        {
            let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
            sink.write(&self.lane, &self.events);
        }
        self.events.clear();
        self.flushed = Instant::now();
        // What the timeline itself costs is in it, too.
        let (start, end) = (self.clock.ns(start), self.clock.ns(self.flushed));
        self.events.push(Event::Step { step: Step::Trace, start, end, bytes: 0 });
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The ranks that a step concerns, as far as they are below 64; the first is always known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ranks {
    pub(crate) first: Rank,
    pub(crate) mask: u64,
}

impl Ranks {
    pub(crate) fn of(ranks: impl Iterator<Item = Rank>) -> Option<Ranks> {
        ranks.fold(None, |found, rank| {
            let found = found.unwrap_or(Ranks { first: rank, mask: 0 });
            Some(Ranks { mask: found.mask | 1_u64.checked_shl(rank).unwrap_or(0), ..found })
        })
    }

    fn iter(self) -> impl Iterator<Item = Rank> {
        let below = (0..64).filter(move |rank| self.mask >> rank & 1 == 1);
        below.chain((self.first >= 64).then_some(self.first))
    }
}
