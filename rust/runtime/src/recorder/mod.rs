//! The flight recorder: the last operations of a communicator, always on.
//!
//! An operation costs two looks at the processor's counter and a few stores, the first of them while its first messages
//! are under way, if it is small; nothing is locked, allocated or formatted until somebody asks. What is asked for comes
//! from a shared handle, so that it can be had while the communicator is busy: that is when it is wanted.

mod dump;
mod registry;
mod ring;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use isobit_core::Rank;
use isobit_core::wire::{Channel, Descriptor};
use isobit_sys::clock;

use crate::error::ErrorKind;
use crate::site::Site;
use ring::Ring;

pub(crate) use dump::dump_if_asked;
pub use registry::flight_recorders;

/// How many operations a communicator remembers.
pub const OPERATIONS_KEPT: usize = 256;

/// With the feature `unrecorded`, which is for measuring what this costs and never ships, nothing is noted.
const IS_ON: bool = !cfg!(feature = "unrecorded");

/// How far an operation has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OperationState {
    /// It is under way.
    Started,
    /// It has succeeded.
    Completed,
    /// It has failed.
    Failed(ErrorKind),
}

/// One operation, as a rank remembers it. Times are in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperationRecord {
    /// What was called.
    pub descriptor: Descriptor,
    /// The epoch.
    pub epoch: u32,
    /// Its number: among the collectives of its epoch, or the messages from one rank to another.
    pub sequence: u64,
    /// Collective, or send and receive.
    pub channel: Channel,
    /// Whom a send went to or a receive came from.
    pub peer: Option<Rank>,
    /// The tag of a send or receive.
    pub tag: u64,
    /// The bytes of this rank's tensors: what it gives or what it gets, whichever is more.
    pub bytes: u64,
    /// Where it was called.
    pub site: Site,
    /// How far it has come.
    pub state: OperationState,
    /// When it began; one whose messages all are small, when its first had gone out.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: Option<u64>,
    /// For how long it had nothing to do but wait.
    pub waited_ns: u64,
    /// The rank that it waited for longest.
    pub awaited: Option<Rank>,
}

/// What operations in a row may have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Description {
    pub(crate) descriptor: Descriptor,
    pub(crate) epoch: u32,
    pub(crate) channel: Channel,
    pub(crate) peer: Option<Rank>,
    pub(crate) tag: u64,
    pub(crate) bytes: u64,
}

/// A number of a plan, the digest of a shape, an epoch and a tag: what a description follows from.
pub(crate) type Key = [u64; 4];

/// Who records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) rank: Rank,
    pub(crate) world_size: u32,
    pub(crate) group: u64,
    pub(crate) transport: &'static str,
}

/// The side that notes: the communicator's own.
#[derive(Debug)]
pub(crate) struct Recorder {
    handle: FlightRecorder,
    /// What the latest description is of.
    described: Option<Key>,
}

/// A handle on a communicator's flight recorder, which may be read at any time, from any thread.
#[derive(Clone, Debug)]
pub struct FlightRecorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    owner: Owner,
    process: u32,
    clock: clock::Clock,
    /// Times are ticks of the counter here.
    ring: Ring,
}

/// Maps the monotonic clock to the time of day, as it was when the communicator was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    start_ns: u64,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let (start, since) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH));
        Clock { start, start_ns: since.map_or(0, |since| since.as_nanos() as u64) }
    }

    pub(crate) fn ns(&self, at: Instant) -> u64 {
        self.start_ns + at.saturating_duration_since(self.start).as_nanos() as u64
    }
}

impl Recorder {
    pub(crate) fn new(owner: Owner) -> Recorder {
        let handle = FlightRecorder(Arc::new(Shared {
            owner,
            process: std::process::id(),
            clock: clock::Clock::start(),
            ring: Ring::new(),
        }));
        registry::add(&handle);
        Recorder { handle, described: None }
    }

    pub(crate) fn handle(&self) -> &FlightRecorder {
        &self.handle
    }

    /// Notes that an operation begins, now. Equal keys have equal descriptions.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        key: Key,
        sequence: u64,
        site: Site,
        describe: impl FnOnce() -> Description,
    ) {
        if !IS_ON {
            return;
        }
        let ring = &self.handle.0.ring;
        if self.described != Some(key) {
            self.described = Some(key);
            ring.describe(&describe());
        }
        ring.begin(sequence, site, clock::ticks());
    }

    /// Notes for whom the operation under way waits.
    pub(crate) fn waits(&mut self, waited_ns: u64, awaited: Option<Rank>) {
        if !IS_ON {
            return;
        }
        self.handle.0.ring.waits(waited_ns, awaited);
    }

    /// Notes how the operation under way ended.
    #[inline]
    pub(crate) fn end(&mut self, failed: Option<ErrorKind>) {
        if !IS_ON {
            return;
        }
        let state = failed.map_or(OperationState::Completed, OperationState::Failed);
        self.handle.0.ring.end(clock::ticks(), state);
    }
}

impl FlightRecorder {
    /// What this rank called as collective number `sequence` of `epoch`, if it did so lately.
    pub(crate) fn collective(&self, epoch: u32, sequence: u64) -> Option<Descriptor> {
        let is_it = |record: &OperationRecord| {
            (record.channel, record.epoch, record.sequence) == (Channel::Collective, epoch, sequence)
        };
        self.0.ring.latest_first().find(is_it).map(|record| record.descriptor)
    }

    /// The last operations, the latest at the end.
    pub fn records(&self) -> Vec<OperationRecord> {
        let scale = self.0.clock.scale();
        let in_ns = |record: OperationRecord| OperationRecord {
            start_ns: scale.ns(record.start_ns),
            end_ns: record.end_ns.map(|end| scale.ns(end)),
            ..record
        };
        let mut records: Vec<_> = self.0.ring.latest_first().map(in_ns).collect();
        records.reverse();
        records
    }

    /// The rank whose operations these are.
    pub fn rank(&self) -> Rank {
        self.0.owner.rank
    }

    /// How many operations there have been.
    pub fn count(&self) -> u64 {
        self.0.ring.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobit_core::Dtype;
    use isobit_core::wire::Collective;

    pub(super) fn owner() -> Owner {
        Owner { rank: 1, world_size: 3, group: 0xabc, transport: "memory" }
    }

    pub(super) fn record(sequence: u64) -> OperationRecord {
        let descriptor = Descriptor {
            collective: Collective::Broadcast,
            contract: None,
            dtype: Dtype::F32,
            root: Some(0),
            count: 10 + sequence,
            shape: 0,
            layout: 0,
        };
        OperationRecord {
            descriptor,
            epoch: 0,
            sequence,
            channel: Channel::Collective,
            peer: None,
            tag: 0,
            bytes: 40,
            site: Site::UNKNOWN,
            state: OperationState::Started,
            start_ns: 0,
            end_ns: None,
            waited_ns: 0,
            awaited: None,
        }
    }

    /// Notes that an operation begins that is like `record`, but for its times.
    pub(super) fn begin(recorder: &mut Recorder, record: &OperationRecord) {
        let OperationRecord { descriptor, epoch, channel, peer, tag, bytes, .. } = *record;
        let key =
            [descriptor.count, descriptor.shape, u64::from(epoch) << 8 | u64::from(channel.code()), tag];
        let description = Description { descriptor, epoch, channel, peer, tag, bytes };
        recorder.begin(key, record.sequence, record.site, || description);
    }

    #[test]
    fn the_last_operations_are_kept_in_their_order_and_no_more() {
        let mut recorder = Recorder::new(owner());
        for count in 1..=3 * OPERATIONS_KEPT as u64 + 5 {
            begin(&mut recorder, &record(count - 1));
            recorder.end(None);
            let kept: Vec<u64> = recorder.handle().records().iter().map(|record| record.sequence).collect();
            let expected: Vec<u64> = (count.saturating_sub(OPERATIONS_KEPT as u64)..count).collect();
            assert_eq!(kept, expected);
        }
    }

    #[test]
    fn operations_that_are_alike_are_described_once_and_for_as_long_as_one_of_them_is_kept() {
        let mut recorder = Recorder::new(owner());
        let alike = |count, sequence| OperationRecord { sequence, ..record(count) };
        let mut expected = Vec::new();
        // Runs of many lengths; those of two alternate, too, so that descriptions come back.
        for (run, length) in
            [1, OPERATIONS_KEPT as u64 - 1, 3, 1, 1, 40].into_iter().cycle().take(60).enumerate()
        {
            for sequence in 0..length {
                let record = alike(run as u64 % 7, sequence);
                begin(&mut recorder, &record);
                expected.push((record.descriptor.count, sequence));
            }
            let kept = recorder.handle().records();
            let kept: Vec<_> = kept.iter().map(|kept| (kept.descriptor.count, kept.sequence)).collect();
            assert_eq!(kept, expected[expected.len().saturating_sub(OPERATIONS_KEPT)..]);
        }
        let mut descriptions = 0;
        for number in 0..3 {
            recorder.begin([u64::MAX; 4], number, Site::UNKNOWN, || {
                descriptions += 1;
                Description {
                    descriptor: record(0).descriptor,
                    epoch: 0,
                    channel: Channel::Collective,
                    peer: None,
                    tag: 0,
                    bytes: 0,
                }
            });
        }
        assert_eq!(descriptions, 1);
    }

    #[test]
    fn an_operation_shows_how_it_went_while_it_goes_on() {
        let mut recorder = Recorder::new(owner());
        begin(&mut recorder, &record(0));
        let handle = recorder.handle().clone();
        let latest = || *handle.records().last().unwrap();
        assert_eq!((latest().state, latest().end_ns), (OperationState::Started, None));
        recorder.waits(70, Some(2));
        assert_eq!((latest().waited_ns, latest().awaited), (70, Some(2)));
        recorder.end(Some(ErrorKind::Timeout));
        assert_eq!(latest().state, OperationState::Failed(ErrorKind::Timeout));
        assert!(latest().end_ns.unwrap() >= latest().start_ns && latest().start_ns > 0);
    }

    #[test]
    fn a_past_collective_is_found_by_its_epoch_and_number() {
        let mut recorder = Recorder::new(owner());
        begin(&mut recorder, &record(4));
        begin(&mut recorder, &OperationRecord { channel: Channel::PointToPoint, ..record(5) });
        begin(&mut recorder, &OperationRecord { epoch: 1, ..record(6) });
        assert_eq!(recorder.handle().collective(0, 4), Some(record(4).descriptor));
        assert_eq!(recorder.handle().collective(0, 5), None, "that was a send");
        assert_eq!(recorder.handle().collective(0, 6), None, "that was in another epoch");
    }
}
