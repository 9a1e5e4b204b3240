//! Short lists of numbers, such as a tensor's shape, that each rank leaves for the others to read by their digest.
//!
//! Headers carry digests of such lists, and an error is to say the lists. A rank writes a list when it
//! first uses it; a later one may take its place, of the long ones the next. Nobody waits and nothing is locked: a reader looks for the
//! digest that it has, and takes the list only if it has that digest, so what is half written or another's is
//! nothing.

use std::sync::atomic::Ordering::Relaxed;

use isobit_core::digest;

use super::shared::SharedBytes;
use super::sync::AtomicU64;

/// How many lists of one rank there is room for: short ones, whose digest says where each goes, and one long one.
pub const LISTS: usize = SHORT_LISTS + 1;
/// How many numbers a list may have, such as the shapes of several tensors; a longer one is not kept.
pub const NUMBERS_MAX: usize = LONG_BYTES / 8 - 1;

const SHORT_LISTS: usize = 32;
const SHORT_BYTES: usize = 128;
const SHORT_NUMBERS_MAX: usize = SHORT_BYTES / 8 - 1;
/// The shapes of a thousand matrices.
const LONG_BYTES: usize = 32 << 10;
const RANK_BYTES: usize = SHORT_LISTS * SHORT_BYTES + LONG_BYTES;

/// A rank's view of the lists of its group.
#[derive(Clone, Debug)]
pub struct Lists {
    memory: SharedBytes,
    rank: u32,
    world_size: u32,
}

/// Where a list of so many numbers with that digest is kept.
pub fn place(digest: u64, numbers: usize) -> usize {
    if numbers > SHORT_NUMBERS_MAX { SHORT_LISTS } else { short_place(digest) }
}

fn short_place(digest: u64) -> usize {
    (digest % SHORT_LISTS as u64) as usize
}

impl Lists {
    /// Bytes for so many ranks.
    pub const fn bytes(world_size: u32) -> usize {
        world_size as usize * RANK_BYTES
    }

    /// The lists in `memory`, all zero at first, as `rank` sees them.
    pub fn new(memory: SharedBytes, rank: u32, world_size: u32) -> Lists {
        assert!(rank < world_size && memory.len() == Lists::bytes(world_size), "lists of this group");
        Lists { memory, rank, world_size }
    }

    /// Leaves a list of this rank, whose digest is `digest`.
    pub fn keep(&self, digest: u64, numbers: &[u64]) {
        if numbers.len() > NUMBERS_MAX {
            return;
        }
        let place = place(digest, numbers.len());
        self.word(self.rank, place, 0).store(numbers.len() as u64, Relaxed);
        for (index, number) in numbers.iter().enumerate() {
            self.word(self.rank, place, 1 + index).store(*number, Relaxed);
        }
    }

    /// The list with that digest, if `rank` left it.
    pub fn find(&self, rank: u32, digest: u64) -> Option<Vec<u64>> {
        [(short_place(digest), SHORT_NUMBERS_MAX), (SHORT_LISTS, NUMBERS_MAX)].into_iter().find_map(
            |(place, numbers_max)| {
                let len = self.word(rank, place, 0).load(Relaxed).min(numbers_max as u64) as usize;
                let numbers: Vec<u64> =
                    (0..len).map(|index| self.word(rank, place, 1 + index).load(Relaxed)).collect();
                (digest::words(&numbers) == digest).then_some(numbers)
            },
        )
    }

    fn word(&self, rank: u32, place: usize, index: usize) -> &AtomicU64 {
        assert!(rank < self.world_size, "rank {rank} in a world of {}", self.world_size);
        self.memory.word(rank as usize * RANK_BYTES + place * SHORT_BYTES + index * 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> [Lists; 2] {
        let memory = SharedBytes::zeroed(Lists::bytes(2));
        [0, 1].map(|rank| Lists::new(memory.clone(), rank, 2))
    }

    #[test]
    fn a_peer_reads_the_list_that_has_the_digest() {
        let [ours, theirs] = pair();
        let longest = [&[u64::MAX; SHORT_NUMBERS_MAX][..], &[1; SHORT_NUMBERS_MAX + 1], &[2; NUMBERS_MAX]];
        for numbers in [&[20, 10][..], &[10, 20], &[0]].into_iter().chain(longest) {
            let digest = digest::words(numbers);
            assert_eq!(theirs.find(0, digest), None);
            ours.keep(digest, numbers);
            assert_eq!(theirs.find(0, digest).as_deref(), Some(numbers));
            assert_eq!(theirs.find(1, digest), None, "the other rank left nothing");
        }
        assert_eq!(theirs.find(1, digest::words(&[])), Some(vec![]), "a shape of no dimension needs no room");
    }

    #[test]
    fn a_list_that_is_too_long_or_was_replaced_is_not_there() {
        let [ours, theirs] = pair();
        let long = [1; NUMBERS_MAX + 1];
        ours.keep(digest::words(&long), &long);
        assert_eq!(theirs.find(0, digest::words(&long)), None);
        let first = digest::words(&[0]);
        let other = (1..).find(|n| short_place(digest::words(&[*n])) == short_place(first)).unwrap();
        ours.keep(first, &[0]);
        ours.keep(digest::words(&[other]), &[other]);
        assert_eq!(theirs.find(0, first), None);
        assert_eq!(theirs.find(0, digest::words(&[other])), Some(vec![other]));
        let [first, second] = [3, 4].map(|number| [number; SHORT_NUMBERS_MAX + 1]);
        [first, second].iter().for_each(|long| ours.keep(digest::words(long), long));
        assert_eq!(theirs.find(0, digest::words(&first)), None);
        assert_eq!(theirs.find(0, digest::words(&second)), Some(second.to_vec()));
    }

    #[test]
    fn hostile_words_are_no_list() {
        let [ours, theirs] = pair();
        for word in 0..RANK_BYTES / 8 {
            ours.word(0, 0, word).store(u64::MAX, Relaxed);
        }
        for digest in 0..LISTS as u64 {
            assert_eq!(theirs.find(0, digest), None);
        }
    }
}
