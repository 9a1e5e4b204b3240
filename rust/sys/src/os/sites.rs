//! Where in its program each rank makes its calls, for the others to read when a call fails.
//!
//! A rank names each call site once, as text, and then announces each call with one word: which
//! call, from which site. So the cost of a call is two stores, nobody ever waits for an answer, and
//! what a rank called last can still be read when its process is stopped or dead.
//!
//! Every byte is a word that is only reached as an atomic. A reader that comes while a rank writes
//! sees an old or a new word, or a text that is not there yet; it judges every value before use.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::lists::Lists;
use super::shared::SharedBytes;
use super::sync::AtomicU64;

/// How many sites of one rank have a name here, the first being number 1.
pub const SITES_MAX: u16 = 255;
/// How many bytes of a site's name are kept, the last ones.
pub const NAME_BYTES_MAX: usize = CELL_BYTES - 8;

const CELL_BYTES: usize = 128;
/// The first cell has no name: it holds how many calls were announced, and the latest of them.
const COUNT: usize = 0;
const CALLS: usize = 64;
const CALLS_KEPT: u64 = 8;
const RANK_BYTES: usize = (SITES_MAX as usize + 1) * CELL_BYTES;

const DONE: u64 = 1 << 56;
const PEER_TO_PEER: u64 = 1 << 57;

/// A call, as its rank announces it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announced {
    /// The epoch; its low 6 bits count.
    pub epoch: u32,
    /// The other rank of a send or receive; its low 8 bits count.
    pub peer: Option<u32>,
    /// Its number; the low 32 bits count.
    pub sequence: u64,
    /// The site, from 1; 0 is none, and so is what is beyond [`SITES_MAX`].
    pub site: u16,
    /// Whether it has returned.
    pub done: bool,
}

impl Announced {
    /// From the lowest bit: 32 of the sequence number, 8 of the site, 8 of the peer, 8 that are 1 to
    /// tell a call from nothing, whether it is done, whether there is a peer, and 6 of the epoch.
    fn word(self) -> u64 {
        let site = if self.site <= SITES_MAX { self.site } else { 0 };
        u64::from(self.epoch & 0x3f) << 58
            | self.peer.map_or(0, |peer| PEER_TO_PEER | u64::from(peer & 0xff) << 40)
            | if self.done { DONE } else { 0 }
            | 1 << 48
            | u64::from(site) << 32
            | (self.sequence & 0xffff_ffff)
    }

    fn of(word: u64) -> Option<Announced> {
        (word >> 48 & 0xff == 1).then_some(Announced {
            epoch: (word >> 58) as u32,
            peer: (word & PEER_TO_PEER != 0).then_some((word >> 40) as u32 & 0xff),
            sequence: word & 0xffff_ffff,
            site: (word >> 32) as u16 & SITES_MAX,
            done: word & DONE != 0,
        })
    }

    fn is_call(&self, other: &Announced) -> bool {
        let same = |call: &Announced| {
            (call.epoch & 0x3f, call.peer.map(|peer| peer & 0xff), call.sequence & 0xffff_ffff)
        };
        same(self) == same(other)
    }
}

/// A rank's view of the sites of its group.
#[derive(Clone, Debug)]
pub struct Sites {
    memory: SharedBytes,
    lists: Lists,
    rank: u32,
    world_size: u32,
}

impl Sites {
    /// Bytes for so many ranks.
    pub const fn bytes(world_size: u32) -> usize {
        world_size as usize * RANK_BYTES + Lists::bytes(world_size)
    }

    /// The sites in `memory`, all zero at first, as `rank` sees them.
    pub fn new(memory: SharedBytes, rank: u32, world_size: u32) -> Sites {
        assert!(rank < world_size && memory.len() == Sites::bytes(world_size), "sites of this group");
        let lists = memory.slice(world_size as usize * RANK_BYTES, Lists::bytes(world_size));
        Sites { memory, lists: Lists::new(lists, rank, world_size), rank, world_size }
    }

    /// The shapes and counts of the ranks' calls.
    pub fn lists(&self) -> &Lists {
        &self.lists
    }

    /// Names one of this rank's sites; numbers that have no place are not named.
    pub fn name(&self, site: u16, name: &str) {
        if site == 0 || site > SITES_MAX {
            return;
        }
        let mut start = name.len().saturating_sub(NAME_BYTES_MAX);
        while !name.is_char_boundary(start) {
            start += 1;
        }
        let name = &name.as_bytes()[start..];
        for (index, chunk) in name.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(self.rank, site, 8 + index * 8).store(u64::from_le_bytes(word), Relaxed);
        }
        self.word(self.rank, site, 0).store(name.len() as u64, Release);
    }

    /// Announces this rank's next call.
    #[inline]
    pub fn announce(&self, call: Announced) {
        let count = self.word(self.rank, 0, COUNT);
        let number = count.load(Relaxed);
        self.call(self.rank, number).store(call.word(), Relaxed);
        count.store(number.wrapping_add(1), Release);
    }

    /// Says that the call announced last has returned.
    #[inline]
    pub fn done(&self) {
        let number = self.word(self.rank, 0, COUNT).load(Relaxed).wrapping_sub(1);
        let word = self.call(self.rank, number);
        word.store(word.load(Relaxed) | DONE, Relaxed);
    }

    /// The latest call that a rank announced.
    pub fn latest(&self, rank: u32) -> Option<Announced> {
        self.recent(rank).next()
    }

    /// The site of a call that a rank announced, if it is one of its latest.
    pub fn site_of(&self, rank: u32, call: &Announced) -> Option<String> {
        let found = self.recent(rank).find(|recent| recent.is_call(call))?;
        self.name_of(rank, found.site)
    }

    /// Whether a call is one of the latest that a rank announced.
    pub fn has_announced(&self, rank: u32, call: &Announced) -> bool {
        self.recent(rank).any(|recent| recent.is_call(call))
    }

    /// The name that a rank gave to a site.
    pub fn name_of(&self, rank: u32, site: u16) -> Option<String> {
        if site == 0 || site > SITES_MAX {
            return None;
        }
        let len = self.word(rank, site, 0).load(Acquire).min(NAME_BYTES_MAX as u64) as usize;
        let words = (0..len.div_ceil(8)).map(|index| self.word(rank, site, 8 + index * 8).load(Relaxed));
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).take(len).collect();
        (len > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The calls that a rank announced lately, the latest first.
    fn recent(&self, rank: u32) -> impl Iterator<Item = Announced> {
        let count = self.word(rank, 0, COUNT).load(Acquire);
        (1..=CALLS_KEPT).map_while(move |back| {
            let number = count.checked_sub(back)?;
            Announced::of(self.call(rank, number).load(Relaxed))
        })
    }

    #[inline]
    fn call(&self, rank: u32, number: u64) -> &AtomicU64 {
        self.word(rank, 0, CALLS + (number % CALLS_KEPT) as usize * 8)
    }

    #[inline]
    fn word(&self, rank: u32, cell: u16, offset: usize) -> &AtomicU64 {
        assert!(rank < self.world_size, "a rank of this group");
        self.memory.word(rank as usize * RANK_BYTES + usize::from(cell) * CELL_BYTES + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> [Sites; 2] {
        let memory = SharedBytes::zeroed(Sites::bytes(2));
        [0, 1].map(|rank| Sites::new(memory.clone(), rank, 2))
    }

    fn call(sequence: u64, site: u16) -> Announced {
        Announced { epoch: 3, peer: None, sequence, site, done: false }
    }

    #[test]
    fn a_peer_reads_what_was_called_and_where() {
        let [ours, theirs] = pair();
        assert_eq!(theirs.latest(0), None);
        ours.name(7, "train.py:12");
        ours.announce(call(41, 7));
        assert_eq!(theirs.latest(0), Some(call(41, 7)));
        assert_eq!(theirs.site_of(0, &call(41, 0)).as_deref(), Some("train.py:12"));
        assert_eq!(theirs.site_of(0, &call(42, 0)), None);
        assert_eq!(theirs.site_of(0, &Announced { peer: Some(1), ..call(41, 0) }), None);
        assert_eq!(theirs.site_of(0, &Announced { epoch: 4, ..call(41, 0) }), None);
        ours.announce(Announced { peer: Some(1), ..call(41, 9) });
        assert_eq!(theirs.latest(0), Some(Announced { peer: Some(1), ..call(41, 9) }));
        assert_eq!(theirs.site_of(0, &call(41, 0)).as_deref(), Some("train.py:12"));
        ours.done();
        assert!(theirs.latest(0).unwrap().done);
        assert_eq!(theirs.latest(1), None, "the other rank has called nothing");
    }

    #[test]
    fn only_the_latest_calls_are_kept() {
        let [ours, theirs] = pair();
        ours.name(1, "a.py:1");
        (0..20).for_each(|sequence| ours.announce(call(sequence, 1)));
        assert_eq!(theirs.latest(0).unwrap().sequence, 19);
        assert!(theirs.site_of(0, &call(12, 0)).is_some());
        assert!(theirs.site_of(0, &call(11, 0)).is_none());
    }

    #[test]
    fn a_long_name_keeps_its_end_and_whole_characters() {
        let [ours, theirs] = pair();
        ours.name(255, &format!("{}/train.py:8", "é".repeat(200)));
        let name = theirs.name_of(0, 255).unwrap();
        assert!(name.len() <= NAME_BYTES_MAX && name.ends_with("é/train.py:8") && name.starts_with('é'));
        ours.name(256, "nowhere");
        assert_eq!(theirs.name_of(0, 256), None);
    }

    #[test]
    fn hostile_words_are_no_panic() {
        let [ours, theirs] = pair();
        for cell in 0..=SITES_MAX {
            for offset in (0..CELL_BYTES).step_by(8) {
                ours.word(0, cell, offset).store(u64::MAX, Relaxed);
            }
        }
        assert_eq!(theirs.latest(0), None);
        assert!(theirs.name_of(0, 9).unwrap().chars().count() <= NAME_BYTES_MAX);
    }
}
