//! The one piece of memory that the ranks of a host share: the board, and a ring for every ordered pair and channel.
//!
//! It is a memfd: it has no name, so nothing is left when the last process ends, however it ends.
//! It is sealed against shrinking, so that no access faults. Pages exist once they are touched.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use thiserror::Error;

use super::board::Board;
use super::ring::{CAPACITY_MIN, Consumer, Outbox, Producer, ring_bytes};
use super::shared::SharedBytes;

/// How many channels a pair has.
pub const CHANNELS: usize = 2;

/// The sizes that all ranks of a segment agree on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// How many ranks.
    pub world_size: u32,
    /// The capacity of each channel's rings, multiples of 64.
    pub capacities: [usize; CHANNELS],
    /// Bytes of each rank's outbox, a multiple of 64 or none, and how many of them are its spare place.
    pub outbox: [usize; 2],
}

/// Why a segment can't be had.
#[derive(Debug, Error)]
pub enum SegmentError {
    /// No segment has these sizes.
    #[error("no segment has rings of {:?} bytes for {} ranks", .0.capacities, .0.world_size)]
    Layout(Layout),
    /// The kernel refused.
    #[error("{step} failed: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// More than this host has.
    #[error("{needed} bytes are needed, {available} are available")]
    Memory {
        /// Bytes needed at most.
        needed: usize,
        /// Bytes that the host has free.
        available: u64,
    },
    /// The file is not the segment that it should be.
    #[error("the file that was passed is no segment of this group: {0}")]
    Foreign(&'static str),
}

fn system(step: &'static str) -> impl Fn(rustix::io::Errno) -> SegmentError {
    move |errno| SegmentError::System { step, source: errno.into() }
}

impl Layout {
    /// All bytes, if there is such a segment.
    pub fn bytes(&self) -> Option<usize> {
        let well_formed = |capacity: usize| capacity >= CAPACITY_MIN && capacity.is_multiple_of(64);
        let [outbox, spare] = self.outbox;
        let is_outbox = outbox.is_multiple_of(64) && spare.checked_next_multiple_of(64)? <= outbox;
        if self.world_size == 0 || !self.capacities.into_iter().all(well_formed) || !is_outbox {
            return None;
        }
        let ranks = self.world_size as usize;
        let pairs = ranks.checked_mul(ranks - 1)?;
        let pair = self.pair_bytes()?;
        // 64 KiB a rank is more than the board takes of it.
        let rank = outbox.checked_add(64 * 1024)?;
        let total = pairs.checked_mul(pair)?.checked_add(ranks.checked_mul(rank)?)?.checked_add(16 * 1024)?;
        // Far below what an address space holds, so that no sum below overflows.
        (total <= 1 << 46).then(|| Board::bytes(self.world_size) + pairs * pair + ranks * outbox)
    }

    fn pair_bytes(&self) -> Option<usize> {
        let [first, second] = self.capacities;
        first.checked_add(second)?.checked_add(2 * ring_bytes(0))
    }

    /// Where the ring of (from, to, channel) starts.
    fn ring_at(&self, from: u32, to: u32, channel: usize) -> usize {
        let pair = from * (self.world_size - 1) + if to > from { to - 1 } else { to };
        let pair_bytes = self.pair_bytes().expect("a layout that was checked");
        let before = if channel == 0 { 0 } else { ring_bytes(self.capacities[0]) };
        Board::bytes(self.world_size) + pair as usize * pair_bytes + before
    }

    /// Where the outbox of a rank starts: behind all rings.
    fn outbox_at(&self, rank: u32) -> usize {
        self.ring_at(self.world_size - 1, self.world_size - 1, 0) + rank as usize * self.outbox[0]
    }
}

/// Makes the memory for a group.
pub fn create(layout: Layout) -> Result<OwnedFd, SegmentError> {
    let bytes = layout.bytes().ok_or(SegmentError::Layout(layout))?;
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    let available = (info.totalram as u64 + info.totalswap as u64).saturating_mul(unit);
    if bytes as u64 > available {
        return Err(SegmentError::Memory { needed: bytes, available });
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("isobit", flags).map_err(system("memfd_create"))?;
    ftruncate(&file, bytes as u64).map_err(system("ftruncate"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(system("fcntl(F_ADD_SEALS)"))?;
    Ok(file)
}

/// A rank's ends of everything in a segment.
pub struct Segment {
    /// The notice board.
    pub board: Board,
    /// By peer: the rings to it; none to itself.
    pub outgoing: Vec<Option<[Producer; CHANNELS]>>,
    /// By peer: the rings from it; none from itself.
    pub incoming: Vec<Option<[Consumer; CHANNELS]>>,
    /// This rank's outbox, if ranks have any: what it puts there, messages of the first channel may name.
    pub outbox: Option<Outbox>,
}

impl Segment {
    /// Takes the ends of `rank` in a segment that [`create`] made, once.
    pub fn attach(file: BorrowedFd<'_>, layout: Layout, rank: u32) -> Result<Segment, SegmentError> {
        let bytes = layout.bytes().ok_or(SegmentError::Layout(layout))?;
        let size = fstat(file).map_err(system("fstat"))?.st_size;
        if size != bytes as i64 {
            return Err(SegmentError::Foreign("it has another size"));
        }
        if !fcntl_get_seals(file).map_err(system("fcntl(F_GET_SEALS)"))?.contains(SealFlags::SHRINK) {
            return Err(SegmentError::Foreign("it is not sealed against shrinking"));
        }
        let memory =
            SharedBytes::map(file, bytes).map_err(|source| SegmentError::System { step: "mmap", source })?;
        let board = Board::attach(memory.slice(0, Board::bytes(layout.world_size)), rank, layout.world_size)
            .ok_or(SegmentError::Foreign("another process already has this rank in it"))?;
        let ring = |from, to, channel: usize| {
            memory.slice(layout.ring_at(from, to, channel), ring_bytes(layout.capacities[channel]))
        };
        let peers = || (0..layout.world_size).map(|peer| (peer != rank).then_some(peer));
        // SAFETY: the file started as zeros; each ring has one place in it, one producer and one
        // consumer by rank, and the board gives each rank away once.
        let outgoing = peers()
            .map(|peer| peer.map(|to| [0, 1].map(|c| unsafe { Producer::new(ring(rank, to, c)) })))
            .collect();
        let [bytes, spare] = layout.outbox;
        let outbox = |rank| (bytes > 0).then(|| memory.slice(layout.outbox_at(rank), bytes));
        let shared = |from, channel| outbox(from).filter(|_| channel == 0);
        // SAFETY: as above; the outbox is that of its rank.
        let consumer = |from, c| unsafe { Consumer::new(ring(from, rank, c), shared(from, c)) };
        let incoming = peers().map(|peer| peer.map(|from| [0, 1].map(|c| consumer(from, c)))).collect();
        // SAFETY: each rank has one place in the file, and the board gives each rank away once.
        let outbox = outbox(rank).map(|memory| unsafe { Outbox::new(memory, spare) });
        Ok(Segment { board, outgoing, incoming, outbox })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::Popped;
    use super::*;
    use crate::ReadSpan;
    use std::os::fd::AsFd;

    const SMALL: Layout = Layout { world_size: 4, capacities: [4096, 1024], outbox: [1024, 256] };

    #[test]
    fn every_ring_and_every_outbox_has_a_place_of_its_own() {
        let mut places = Vec::new();
        for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))).filter(|(a, b)| a != b) {
            for channel in 0..CHANNELS {
                let start = SMALL.ring_at(from, to, channel);
                places.push((start, start + ring_bytes(SMALL.capacities[channel])));
            }
        }
        places.extend((0..4).map(|rank| SMALL.outbox_at(rank)).map(|start| (start, start + SMALL.outbox[0])));
        places.sort_unstable();
        assert_eq!(places[0].0, Board::bytes(4));
        assert!(places.windows(2).all(|pair| pair[0].1 == pair[1].0), "no gap and no overlap");
        assert_eq!(places.last().unwrap().1, SMALL.bytes().unwrap());
    }

    #[test]
    fn ranks_that_attach_to_one_file_reach_each_other() {
        let file = create(SMALL).unwrap();
        let mut ranks: Vec<_> =
            (0..4).map(|rank| Segment::attach(file.as_fd(), SMALL, rank).unwrap()).collect();
        drop(file);
        for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))).filter(|(a, b)| a != b) {
            for channel in 0..CHANNELS {
                let text = [from as u8, to as u8, channel as u8];
                let producer = &mut ranks[from].outgoing[to].as_mut().unwrap()[channel];
                producer.try_push(ReadSpan::from(&text[..]), 0, |_, _| [0; 128]).unwrap().unwrap();
                let consumer = &mut ranks[to].incoming[from].as_mut().unwrap()[channel];
                match consumer.try_pop(|_, _, _| Ok::<_, ()>(())) {
                    Ok(Popped::Frame((), lease)) => assert_eq!(lease.payload().to_vec(), text),
                    other => panic!("{other:?}"),
                };
            }
        }
    }

    #[test]
    fn what_a_rank_shares_reaches_its_peers_and_only_from_its_own_outbox() {
        let file = create(SMALL).unwrap();
        let mut ranks: Vec<_> =
            (0..4).map(|rank| Segment::attach(file.as_fd(), SMALL, rank).unwrap()).collect();
        let payload = |rank: usize| [rank as u8 + 1; 200];
        for (from, segment) in ranks.iter_mut().enumerate() {
            let (outbox, outgoing) = (segment.outbox.as_mut().unwrap(), &mut segment.outgoing);
            let mut rings: Vec<_> = outgoing.iter_mut().flatten().map(|[ring, _]| ring).collect();
            let share = outbox.share(ReadSpan::from(&payload(from)[..]), 3, rings[0]).unwrap();
            for ring in rings {
                ring.try_push_shared(outbox, share, 0, |_, _| [0; 128]).unwrap().unwrap();
            }
        }
        for (to, segment) in ranks.iter_mut().enumerate() {
            for (from, rings) in segment.incoming.iter_mut().enumerate().filter(|(from, _)| *from != to) {
                match rings.as_mut().unwrap()[0].try_pop(|_, _, _| Ok::<_, ()>(())) {
                    Ok(Popped::Frame((), lease)) => assert_eq!(lease.payload().to_vec(), payload(from)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_ring_gets_its_pages_many_at_a_time_and_small_messages_need_few() {
        let layout = Layout { world_size: 2, capacities: [1 << 20; 2], outbox: [0; 2] };
        let file = create(layout).unwrap();
        let mut ranks: Vec<_> =
            (0..2).map(|rank| Segment::attach(file.as_fd(), layout, rank).unwrap()).collect();
        let pages = || fstat(&file).unwrap().st_blocks as usize * 512 / 4096;
        let mut send = |bytes: &[u8], count: usize| {
            for _ in 0..count {
                let [producer, _] = ranks[0].outgoing[1].as_mut().unwrap();
                producer.try_push(ReadSpan::from(bytes), 0, |_, _| [0; 128]).unwrap().unwrap();
                let [consumer, _] = ranks[1].incoming[0].as_mut().unwrap();
                assert!(matches!(consumer.try_pop(|_, _, _| Ok::<_, ()>(())), Ok(Popped::Frame(..))));
            }
        };
        send(&[1; 1000], 200);
        assert!(pages() < 30, "{} pages for small messages", pages());
        let mut grown = 0;
        for _ in 0..100 {
            let before = pages();
            send(&[1; 4000], 1);
            grown += usize::from(pages() > before);
        }
        // Kernels before 5.14 make every page by itself.
        let can_populate = SharedBytes::map(file.as_fd(), 1 << 20).unwrap().populate(0, 4096);
        assert!(grown < 25 || !can_populate, "{grown} of 100 messages had to wait for pages");
    }

    #[test]
    fn a_rank_is_given_away_once() {
        let file = create(SMALL).unwrap();
        let _first = Segment::attach(file.as_fd(), SMALL, 2).unwrap();
        assert!(matches!(Segment::attach(file.as_fd(), SMALL, 2), Err(SegmentError::Foreign(_))));
    }

    #[test]
    fn files_that_are_no_segment_are_refused() {
        let other = create(Layout { capacities: [4096, 2048], ..SMALL }).unwrap();
        assert!(matches!(Segment::attach(other.as_fd(), SMALL, 0), Err(SegmentError::Foreign(_))));
        let open = memfd_create("open", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&open, SMALL.bytes().unwrap() as u64).unwrap();
        assert!(matches!(Segment::attach(open.as_fd(), SMALL, 0), Err(SegmentError::Foreign(_))));
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for layout in [
            Layout { world_size: 0, ..SMALL },
            Layout { capacities: [100, 4096], ..SMALL },
            Layout { capacities: [usize::MAX - 63, usize::MAX - 63], ..SMALL },
            Layout { world_size: u32::MAX, ..SMALL },
            Layout { outbox: [100, 0], ..SMALL },
            Layout { outbox: [128, 129], ..SMALL },
            Layout { outbox: [usize::MAX - 63, 64], ..SMALL },
        ] {
            assert!(matches!(create(layout), Err(SegmentError::Layout(_))), "{layout:?}");
        }
        let huge = Layout { world_size: 2, capacities: [1 << 43, 1 << 43], outbox: [0; 2] };
        assert!(matches!(create(huge), Err(SegmentError::Memory { .. })));
    }
}
