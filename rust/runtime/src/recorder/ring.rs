//! The last operations, as one thread writes them and any may read them meanwhile, without a lock.
//!
//! Operations in a row are often alike but for their number and their times. So what they may share, their
//! description, is written once for all of them, to a ring of its own, and an operation takes one cache line, which
//! names its description. No description is replaced before all operations that have it are: each further one came
//! with an operation after the last of them.
//!
//! A slot is words that are only reached as atomics, and a stamp, which is odd while they are written. A reader
//! that finds another stamp afterwards than before may have read parts of two operations, and looks again.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use isobit_core::wire::{Channel, Collective, Descriptor};
use isobit_core::{Contract, Dtype, Rank};

use super::{Description, OPERATIONS_KEPT, OperationRecord, OperationState};
use crate::error::ErrorKind;
use crate::site::Site;

/// How often a reader looks at a slot that is being written, letting others run in between.
const LOOKS: usize = 10_000;

const NOBODY: Rank = Rank::MAX;
const NEVER: u64 = u64::MAX;

/// The words of an operation: the site and, from bit 16 on, the number of its description; its sequence number; its
/// start; and what its waiting and its end change.
const OPERATION_WORDS: usize = 6;
const END: usize = 3;
const WAITED: usize = 4;
/// The rank awaited, and the state.
const AWAITED: usize = 5;

const DESCRIPTION_WORDS: usize = 10;

/// The last operations. Only one thread at a time may write.
#[derive(Debug)]
pub(super) struct Ring {
    operations: Cells<OPERATION_WORDS>,
    descriptions: Cells<DESCRIPTION_WORDS>,
}

/// As many slots as operations are kept, used in turn.
#[derive(Debug)]
struct Cells<const WORDS: usize> {
    count: AtomicU64,
    slots: Box<[Slot<WORDS>]>,
}

/// Whole cache lines.
#[derive(Debug)]
#[repr(align(64))]
struct Slot<const WORDS: usize> {
    /// From the upper half on: the number of what is in it, and how often its words were written, twice.
    stamp: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Slot<WORDS> {
    /// Writes some of the words; `stamp` is the one before.
    #[inline]
    fn write(&self, stamp: u64, words: impl IntoIterator<Item = (usize, u64)>) {
        self.stamp.store(stamp + 1, Relaxed);
        fence(Release);
        for (index, word) in words {
            self.words[index].store(word, Relaxed);
        }
        self.stamp.store(stamp + 2, Release);
    }

    /// The words of number `number`, if they are here.
    fn read(&self, number: u64) -> Option<[u64; WORDS]> {
        for _ in 0..LOOKS {
            let stamp = self.stamp.load(Acquire);
            if stamp >> 32 != number & 0xffff_ffff {
                return None;
            }
            let words = std::array::from_fn(|index| self.words[index].load(Relaxed));
            fence(Acquire);
            if stamp.is_multiple_of(2) && self.stamp.load(Relaxed) == stamp {
                return Some(words);
            }
            std::thread::yield_now();
        }
        None
    }
}

impl<const WORDS: usize> Cells<WORDS> {
    fn new() -> Self {
        let slot = |_| Slot { stamp: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] };
        Cells { count: AtomicU64::new(0), slots: (0..OPERATIONS_KEPT).map(slot).collect() }
    }

    #[inline]
    fn slot(&self, number: u64) -> &Slot<WORDS> {
        &self.slots[(number % OPERATIONS_KEPT as u64) as usize]
    }

    #[inline]
    fn add(&self, words: [u64; WORDS]) {
        let number = self.count.load(Relaxed);
        self.slot(number).write(number << 32, words.into_iter().enumerate());
        self.count.store(number + 1, Release);
    }
}

impl Ring {
    pub(super) fn new() -> Ring {
        Ring { operations: Cells::new(), descriptions: Cells::new() }
    }

    pub(super) fn count(&self) -> u64 {
        self.operations.count.load(Acquire)
    }

    /// Describes the operations to come.
    pub(super) fn describe(&self, description: &Description) {
        self.descriptions.add(pack(description));
    }

    /// Adds an operation as it was described last.
    #[inline]
    pub(super) fn begin(&self, sequence: u64, site: Site, start_ns: u64) {
        let description = self.descriptions.count.load(Relaxed) - 1;
        let (name, started) =
            (u64::from(site.number()) | description << 16, state_code(OperationState::Started));
        self.operations.add([name, sequence, start_ns, NEVER, 0, u64::from(NOBODY) | started << 32]);
    }

    pub(super) fn waits(&self, waited_ns: u64, awaited: Option<Rank>) {
        self.change(|slot| {
            let state = slot.words[AWAITED].load(Relaxed) >> 32;
            [(WAITED, waited_ns), (AWAITED, u64::from(awaited.unwrap_or(NOBODY)) | state << 32)]
        });
    }

    #[inline]
    pub(super) fn end(&self, end_ns: u64, state: OperationState) {
        self.change(|slot| {
            let awaited = slot.words[AWAITED].load(Relaxed) & 0xffff_ffff;
            [(END, end_ns), (AWAITED, awaited | state_code(state) << 32)]
        });
    }

    /// Changes words of the latest operation.
    #[inline]
    fn change(&self, to: impl FnOnce(&Slot<OPERATION_WORDS>) -> [(usize, u64); 2]) {
        if let Some(number) = self.operations.count.load(Relaxed).checked_sub(1) {
            let slot = self.operations.slot(number);
            slot.write(slot.stamp.load(Relaxed), to(slot));
        }
    }

    /// From the latest to the oldest; those that are replaced meanwhile are left out.
    pub(super) fn latest_first(&self) -> impl Iterator<Item = OperationRecord> {
        let count = self.count();
        (count.saturating_sub(OPERATIONS_KEPT as u64)..count).rev().filter_map(|number| self.read(number))
    }

    fn read(&self, number: u64) -> Option<OperationRecord> {
        let [name, sequence, start_ns, end_ns, waited_ns, awaited] =
            self.operations.slot(number).read(number)?;
        let description = name >> 16;
        let Description { descriptor, epoch, channel, peer, tag, bytes } =
            unpack(self.descriptions.slot(description).read(description)?)?;
        Some(OperationRecord {
            descriptor,
            epoch,
            sequence,
            channel,
            peer,
            tag,
            bytes,
            site: Site::numbered(name as u16),
            state: match awaited >> 32 {
                0 => OperationState::Started,
                1 => OperationState::Completed,
                kind => OperationState::Failed(ErrorKind::from_code((kind - 2) as u8)?),
            },
            start_ns,
            end_ns: Some(end_ns).filter(|end| *end != NEVER),
            waited_ns,
            awaited: somebody(awaited),
        })
    }
}

fn somebody(rank: u64) -> Option<Rank> {
    Some(rank as Rank).filter(|rank| *rank != NOBODY)
}

fn pack(description: &Description) -> [u64; DESCRIPTION_WORDS] {
    let Description { descriptor, epoch, channel, peer, tag, bytes } = *description;
    let contract = descriptor.contract.map_or([0; 24], |contract| contract.encode());
    let [codes, leaves, divisor] =
        [0, 8, 16].map(|at| u64::from_le_bytes(contract[at..at + 8].try_into().unwrap()));
    let pair = |lower: u32, upper: u32| u64::from(lower) | u64::from(upper) << 32;
    [
        u64::from(descriptor.collective.code())
            | u64::from(descriptor.dtype.code()) << 8
            | u64::from(channel.code()) << 16,
        pair(descriptor.root.unwrap_or(NOBODY), peer.unwrap_or(NOBODY)),
        descriptor.count,
        descriptor.shape,
        descriptor.layout,
        codes,
        leaves | u64::from(epoch) << 32,
        divisor,
        tag,
        bytes,
    ]
}

fn unpack(words: [u64; DESCRIPTION_WORDS]) -> Option<Description> {
    let [kinds, pair, count, shape, layout, codes, leaves, divisor, tag, bytes] = words;
    let byte = |at: u32| (kinds >> at) as u8;
    let mut contract = [0; 24];
    for (at, word) in [codes, leaves & 0xffff_ffff, divisor].into_iter().enumerate() {
        contract[8 * at..][..8].copy_from_slice(&word.to_le_bytes());
    }
    let descriptor = Descriptor {
        collective: Collective::from_code(byte(0))?,
        contract: Contract::decode(&contract),
        dtype: Dtype::from_code(byte(8))?,
        root: somebody(pair),
        count,
        shape,
        layout,
    };
    let (channel, peer) = (Channel::from_code(byte(16))?, somebody(pair >> 32));
    Some(Description { descriptor, epoch: (leaves >> 32) as u32, channel, peer, tag, bytes })
}

fn state_code(state: OperationState) -> u64 {
    match state {
        OperationState::Started => 0,
        OperationState::Completed => 1,
        OperationState::Failed(kind) => 2 + kind as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::tests::record;
    use isobit_core::wire::Descriptor;
    use isobit_core::{ContractSpec, Order, ReduceOp};

    fn begin(ring: &Ring, record: &OperationRecord) {
        let OperationRecord { descriptor, epoch, channel, peer, tag, bytes, .. } = *record;
        ring.describe(&Description { descriptor, epoch, channel, peer, tag, bytes });
        ring.begin(record.sequence, record.site, record.start_ns);
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let spec = ContractSpec::new(ReduceOp::Mean, Order::Tree, 6, Dtype::Bf16);
        let plain = record(7);
        let descriptor = Descriptor {
            collective: Collective::ReduceScatter,
            contract: Some(Contract::new(spec).unwrap()),
            root: None,
            shape: u64::MAX,
            layout: 1 << 63,
            ..plain.descriptor
        };
        let full = OperationRecord {
            descriptor,
            epoch: u32::MAX,
            sequence: 1 << 40,
            channel: Channel::PointToPoint,
            peer: Some(3),
            tag: u64::MAX,
            site: Site::of("ring.rs", 1),
            state: OperationState::Failed(ErrorKind::RemoteArgument),
            start_ns: 5,
            end_ns: Some(6),
            waited_ns: 7,
            awaited: Some(8),
            ..plain
        };
        for record in [plain, full] {
            let ring = Ring::new();
            begin(&ring, &record);
            if let Some(end_ns) = record.end_ns {
                ring.end(end_ns, record.state);
                ring.waits(record.waited_ns, record.awaited);
            }
            assert_eq!(ring.latest_first().collect::<Vec<_>>(), [record]);
        }
    }

    /// As a reader on another thread may find it, for as long as the writer's thread does not run.
    #[test]
    fn an_operation_that_is_being_written_is_left_out() {
        let ring = Ring::new();
        let seen = || ring.latest_first().map(|record| record.sequence).collect::<Vec<_>>();
        (0..2).for_each(|number| begin(&ring, &record(number)));
        for stamp in [&ring.operations.slot(1).stamp, &ring.descriptions.slot(1).stamp] {
            let written = stamp.fetch_add(1, Relaxed);
            assert_eq!(seen(), [0]);
            stamp.store(written + 2, Relaxed);
            assert_eq!(seen(), [1, 0]);
        }
    }

    #[test]
    fn a_reader_never_sees_parts_of_two_operations() {
        let ring = Ring::new();
        let whole = |record: &OperationRecord| {
            let number = record.sequence;
            let [start, end] = [record.start_ns, record.end_ns.unwrap_or(number)];
            assert_eq!([record.tag, record.bytes, start, end], [number; 4], "{record:?}");
        };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 0..300_000 {
                    let (tag, bytes, start_ns) = (number, number, number);
                    begin(&ring, &OperationRecord { tag, bytes, start_ns, ..record(number) });
                    ring.end(number, OperationState::Completed);
                }
            });
            let mut seen = 0;
            while !writer.is_finished() || seen == 0 {
                let records: Vec<_> = ring.latest_first().collect();
                records.iter().for_each(whole);
                assert!(records.windows(2).all(|pair| pair[0].sequence > pair[1].sequence));
                seen += records.len();
            }
        });
    }
}
