//! The last operations, as one thread writes them and any may read them meanwhile, without a lock.
//!
//! A slot is words that are only reached as atomics, and a stamp, which is odd while they are written. A reader
//! that finds another stamp afterwards than before may have read parts of two operations, and looks again.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use isobit_core::wire::{Channel, Collective, Descriptor};
use isobit_core::{Contract, Dtype, Rank};

use super::{OPERATIONS_KEPT, OperationRecord, OperationState};
use crate::error::ErrorKind;
use crate::site::Site;

/// How often a reader looks at a slot that is being written, letting others run in between.
const LOOKS: usize = 10_000;

const NOBODY: Rank = Rank::MAX;
const NEVER: u64 = u64::MAX;

const WORDS: usize = 15;
const START: usize = 11;
// The words that an operation's end, or its waiting, changes.
const END: usize = 12;
const WAITED: usize = 13;
/// The rank awaited, and the state.
const AWAITED: usize = 14;

type Words = [u64; WORDS];

/// The last operations. Only one thread at a time may write.
#[derive(Debug)]
pub(super) struct Ring {
    count: AtomicU64,
    slots: Box<[Slot]>,
}

/// Two cache lines.
#[derive(Default, Debug)]
#[repr(align(128))]
struct Slot {
    /// From the upper half on: the operation's number, and how often its words were written, twice.
    stamp: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Slot {
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

    /// The words of operation `number`, if they are here.
    fn read(&self, number: u64) -> Option<Words> {
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

impl Ring {
    pub(super) fn new() -> Ring {
        Ring { count: AtomicU64::new(0), slots: (0..OPERATIONS_KEPT).map(|_| Slot::default()).collect() }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Acquire)
    }

    fn slot(&self, number: u64) -> &Slot {
        &self.slots[(number % OPERATIONS_KEPT as u64) as usize]
    }

    #[inline]
    pub(super) fn begin(&self, record: &OperationRecord, start_ns: u64) {
        let number = self.count.load(Relaxed);
        let mut words = pack(record);
        words[START] = start_ns;
        self.slot(number).write(number << 32, words.into_iter().enumerate());
        self.count.store(number + 1, Release);
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
    fn change(&self, to: impl FnOnce(&Slot) -> [(usize, u64); 2]) {
        if let Some(number) = self.count.load(Relaxed).checked_sub(1) {
            let slot = self.slot(number);
            slot.write(slot.stamp.load(Relaxed), to(slot));
        }
    }

    /// From the latest to the oldest; those that are replaced meanwhile are left out.
    pub(super) fn latest_first(&self) -> impl Iterator<Item = OperationRecord> {
        let count = self.count();
        (count.saturating_sub(OPERATIONS_KEPT as u64)..count)
            .rev()
            .filter_map(|number| unpack(&self.slot(number).read(number)?))
    }
}

#[inline]
fn pack(record: &OperationRecord) -> Words {
    let descriptor = &record.descriptor;
    let contract = descriptor.contract.map_or([0; 24], |contract| contract.encode());
    let [codes, leaves, divisor] =
        [0, 8, 16].map(|at| u64::from_le_bytes(contract[at..at + 8].try_into().unwrap()));
    let pair = |lower: u32, upper: u32| u64::from(lower) | u64::from(upper) << 32;
    [
        u64::from(descriptor.collective.code())
            | u64::from(descriptor.dtype.code()) << 8
            | u64::from(record.channel.code()) << 16
            | u64::from(record.site.number()) << 24,
        pair(descriptor.root.unwrap_or(NOBODY), record.peer.unwrap_or(NOBODY)),
        descriptor.count,
        descriptor.shape,
        descriptor.layout,
        codes,
        leaves | u64::from(record.epoch) << 32,
        divisor,
        record.sequence,
        record.tag,
        record.bytes,
        record.start_ns,
        record.end_ns.unwrap_or(NEVER),
        record.waited_ns,
        u64::from(record.awaited.unwrap_or(NOBODY)) | state_code(record.state) << 32,
    ]
}

fn unpack(words: &Words) -> Option<OperationRecord> {
    let &[
        kinds,
        pair,
        count,
        shape,
        layout,
        codes,
        leaves,
        divisor,
        sequence,
        tag,
        bytes,
        start_ns,
        end_ns,
        ..,
    ] = words;
    let byte = |at: u32| (kinds >> at) as u8;
    let somebody = |rank: u64| Some(rank as Rank).filter(|rank| *rank != NOBODY);
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
    Some(OperationRecord {
        descriptor,
        epoch: (leaves >> 32) as u32,
        sequence,
        channel: Channel::from_code(byte(16))?,
        peer: somebody(pair >> 32),
        tag,
        bytes,
        site: Site::numbered((kinds >> 24) as u16),
        state: match words[AWAITED] >> 32 {
            0 => OperationState::Started,
            1 => OperationState::Completed,
            kind => OperationState::Failed(ErrorKind::from_code((kind - 2) as u8)?),
        },
        start_ns,
        end_ns: Some(end_ns).filter(|end| *end != NEVER),
        waited_ns: words[WAITED],
        awaited: somebody(words[AWAITED]),
    })
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
    use isobit_core::{ContractSpec, Order, ReduceOp};

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
            ring.begin(&record, record.start_ns);
            assert_eq!(ring.latest_first().collect::<Vec<_>>(), [record]);
        }
    }

    /// As a reader on another thread may find it, for as long as the writer's thread does not run.
    #[test]
    fn an_operation_that_is_being_written_is_left_out() {
        let ring = Ring::new();
        let seen = || ring.latest_first().map(|record| record.sequence).collect::<Vec<_>>();
        (0..2).for_each(|number| ring.begin(&record(number), number));
        let stamp = &ring.slot(1).stamp;
        let written = stamp.fetch_add(1, Relaxed);
        assert_eq!(seen(), [0]);
        stamp.store(written + 2, Relaxed);
        assert_eq!(seen(), [1, 0]);
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
                    let (tag, bytes) = (number, number);
                    ring.begin(&OperationRecord { tag, bytes, ..record(number) }, number);
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
