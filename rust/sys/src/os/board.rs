//! The group's notice board in shared memory: who sleeps, who left, and whether all is over.
//!
//! Every byte of it is a word that is only reached as an atomic. What peers wrote is checked before
//! it is used.
//!
//! # Waking without a lost wake-up
//! A notifier writes what it has to say, wherever that is, and only then looks at `asleep`. A sleeper
//! sets `asleep`, and only then looks once more for everything that may be said to it. Between the
//! two both have a sequentially consistent fence, so at least one of them sees the other: the
//! sleeper that there is something new, or the notifier that it must ring. A notifier whose target is
//! awake thus writes to no line that the target reads: between ranks that spin, a message costs its
//! own lines and no more. Every write of `asleep` is a swap: two stores around a notifier's swap would
//! do as well, but loom, which checks this (`models/board.rs`), does not know that nothing comes
//! between what a swap reads and what it writes.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use super::shared::SharedBytes;
use super::sites::Sites;
use super::sync::{AtomicU64, fence};

/// The longest reason of an abort.
pub const ABORT_BYTES_MAX: usize = 8 * 1024;
/// The longest reason of a close.
pub const CLOSE_BYTES_MAX: usize = 1024;

/// The longest reason of a break.
pub const BREAK_BYTES_MAX: usize = 2048;

const RECORD_HEAD: usize = 64;
const RECORD_CLAIM: usize = 0;
const RECORD_DONE: usize = 8;
/// In the abort record's head, which has room: the latest break, as `break_key` packs it.
const BREAK: usize = 16;
/// How often an epoch was broken.
const BREAK_COUNT: usize = 24;
/// Behind the abort record's text, where there is room as well: the breaks of the latest epochs.
const BREAKS: usize = (RECORD_HEAD + ABORT_BYTES_MAX).next_multiple_of(64);
/// Of how many epochs it is known where they broke: a rank that is late by more fails in its next call.
const EPOCHS_KEPT: u32 = 64;

const ASLEEP: usize = 0;
const ATTACHED: usize = 128;
const PROCESS: usize = 136;
/// One more than the number of the core on which it last began to wait, or 0.
const CORE: usize = 144;
const CLOSED: usize = 192;
const BREAK_TEXTS: usize = 1536;
const BREAK_TEXT_BYTES: usize = (16 + BREAK_BYTES_MAX).next_multiple_of(64);
/// How many reasons of a rank are kept, the latest ones.
const REASONS_KEPT: u32 = 4;
const RANK_BYTES: usize = (BREAK_TEXTS + REASONS_KEPT as usize * BREAK_TEXT_BYTES).next_multiple_of(4096);
const ABORT_RECORD_BYTES: usize = (BREAKS + EPOCHS_KEPT as usize * 8).next_multiple_of(4096);

/// A rank's view of the board.
#[derive(Clone, Debug)]
pub struct Board {
    memory: SharedBytes,
    sites: Sites,
    rank: u32,
    world_size: u32,
}

impl Board {
    /// Bytes of a board for so many ranks.
    pub const fn bytes(world_size: u32) -> usize {
        Board::sites_at(world_size) + Sites::bytes(world_size)
    }

    const fn sites_at(world_size: u32) -> usize {
        ABORT_RECORD_BYTES + world_size as usize * RANK_BYTES
    }

    /// Where in their programs the ranks make their calls.
    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    /// The board in `memory`, all zero at first, as `rank` sees it; `None` if another process (or
    /// another call) already is that rank.
    pub(crate) fn attach(memory: SharedBytes, rank: u32, world_size: u32) -> Option<Board> {
        assert!(rank < world_size && memory.len() == Board::bytes(world_size), "a board for this group");
        let sites = memory.slice(Board::sites_at(world_size), Sites::bytes(world_size));
        let board = Board { sites: Sites::new(sites, rank, world_size), memory, rank, world_size };
        board.word(rank, ATTACHED).compare_exchange(0, 1, AcqRel, Acquire).ok()?;
        board.word(rank, PROCESS).store(u64::from(std::process::id()), Release);
        Some(board)
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many ranks there are.
    pub fn world_size(&self) -> u32 {
        self.world_size
    }

    /// The process number that a rank gave, in its own numbering; 0 before it came.
    pub fn process(&self, rank: u32) -> u64 {
        self.word(rank, PROCESS).load(Acquire)
    }

    /// Says on which core this rank waits, if on one that it wants to stay on.
    pub fn waits_on(&self, core: Option<usize>) {
        self.word(self.rank, CORE).store(core.map_or(0, |core| core as u64 + 1), Relaxed);
    }

    /// Whether another rank that is awake was on this core when it last said.
    pub fn is_taken(&self, core: usize) -> bool {
        let others = (0..self.world_size).filter(|rank| *rank != self.rank);
        let mut awake = others.filter(|rank| self.word(*rank, ASLEEP).load(Relaxed) == 0);
        awake.any(|rank| self.word(rank, CORE).load(Relaxed) == core as u64 + 1)
    }

    /// To be called after something was written that a rank may wait for: whether its bell must be rung.
    pub fn notify(&self, rank: u32) -> bool {
        fence(SeqCst);
        let asleep = self.word(rank, ASLEEP);
        asleep.load(Relaxed) != 0 && asleep.swap(0, SeqCst) != 0
    }

    /// Announces that this rank will sleep: whether it may, because `is_quiet` then still finds nothing new.
    pub fn fall_asleep(&self, is_quiet: impl FnOnce() -> bool) -> bool {
        self.word(self.rank, ASLEEP).swap(1, SeqCst);
        fence(SeqCst);
        let quiet = is_quiet();
        if !quiet {
            self.wake_up();
        }
        quiet
    }

    /// What ranks have said here for all to see: another value whenever one has left, aborted or
    /// broken an epoch.
    pub fn said(&self) -> (u64, u64) {
        let closed = |rank| self.closed_record(rank).done();
        let over = (0..self.world_size).map(closed).sum::<u64>() + self.abort_record().done();
        (over, self.memory.word(BREAK_COUNT).load(Acquire))
    }

    /// Takes the announcement back.
    pub fn wake_up(&self) {
        self.word(self.rank, ASLEEP).swap(0, SeqCst);
    }

    /// Leaves the group for good, with a reason, of which the first [`CLOSE_BYTES_MAX`] bytes are kept.
    pub fn close(&self, reason: &str) -> bool {
        self.closed_record(self.rank).write(self.rank, reason.as_bytes())
    }

    /// Whether a rank has left, and said so. Cheap: every message asks.
    #[inline]
    pub fn has_closed(&self, rank: u32) -> bool {
        self.closed_record(rank).done() != 0
    }

    /// Why a rank left, if it said so.
    pub fn closed(&self, rank: u32) -> Option<String> {
        let (_, reason) = self.closed_record(rank).read()?;
        Some(String::from_utf8_lossy(&reason).into_owned())
    }

    /// Ends the group: whether this was the first to do so. The first [`ABORT_BYTES_MAX`] bytes are kept.
    pub fn abort(&self, reason: &[u8]) -> bool {
        self.abort_record().write(self.rank, reason)
    }

    /// Whether somebody ended the group. Cheap: every message asks.
    #[inline]
    pub fn has_aborted(&self) -> bool {
        self.abort_record().done() != 0
    }

    /// Who ended the group, and why.
    pub fn aborted(&self) -> Option<(u32, Vec<u8>)> {
        self.abort_record().read().map(|(rank, reason)| (rank.min(self.world_size - 1), reason))
    }

    /// Breaks an epoch at one of its operations: of the ranks that do so, the one with the earliest
    /// operation counts. Every rank may break each epoch once. The first [`BREAK_BYTES_MAX`] bytes of
    /// the reason are kept.
    pub fn break_epoch(&self, epoch: u32, sequence: u64, reason: &[u8]) {
        let reason = &reason[..reason.len().min(BREAK_BYTES_MAX)];
        let key = break_key(epoch, sequence, self.rank);
        let text = |offset: usize| self.break_text(self.rank, key, offset);
        text(0).store(0, SeqCst);
        for (index, chunk) in reason.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            text(16 + index * 8).store(u64::from_le_bytes(word), SeqCst);
        }
        text(8).store(reason.len() as u64, SeqCst);
        text(0).store(key, SeqCst);
        // Where it broke first, so that whoever sees the latest finds those before it.
        self.kept_break(epoch).fetch_max(key, SeqCst);
        self.memory.word(BREAK).fetch_max(key, SeqCst);
        self.memory.word(BREAK_COUNT).fetch_add(1, SeqCst);
    }

    /// The operation at which an epoch broke, if it did; 0 of one so long ago that nobody knows. Cheap:
    /// every operation asks.
    #[inline]
    pub fn broken(&self, epoch: u32) -> Option<u64> {
        let latest = self.memory.word(BREAK).load(Acquire);
        if latest == 0 || epoch_of(latest) < epoch {
            return None;
        }
        let key = self.break_of(epoch, latest);
        Some(if epoch_of(key) == epoch { u64::from(!(key >> 12) as u32) } else { 0 })
    }

    /// Who broke an epoch and why; the latest break's reason where that one is forgotten.
    pub fn break_reason(&self, epoch: u32) -> (u32, Vec<u8>) {
        let latest = self.memory.word(BREAK).load(SeqCst);
        let kept = self.break_of(epoch, latest);
        let key = if epoch_of(kept) == epoch { kept } else { latest };
        let rank = ((key & 0xfff) as u32).min(self.world_size - 1);
        let reason = self.read_reason(rank, key).or_else(|| self.read_reason(rank, latest));
        (rank, reason.unwrap_or_default())
    }

    fn read_reason(&self, rank: u32, key: u64) -> Option<Vec<u8>> {
        let text = |offset: usize| self.break_text(rank, key, offset).load(SeqCst);
        let len = (text(8) as usize).min(BREAK_BYTES_MAX);
        let words = (0..len.div_ceil(8)).map(|index| text(16 + index * 8));
        let reason: Vec<u8> = words.flat_map(u64::to_le_bytes).take(len).collect();
        (text(0) == key).then_some(reason)
    }

    fn break_text(&self, rank: u32, key: u64, offset: usize) -> &AtomicU64 {
        let text = (epoch_of(key) % REASONS_KEPT) as usize;
        self.word(rank, BREAK_TEXTS + text * BREAK_TEXT_BYTES + offset)
    }

    /// What is known of an epoch's break: that of another one if it is forgotten.
    fn break_of(&self, epoch: u32, latest: u64) -> u64 {
        if epoch_of(latest) == epoch { latest } else { self.kept_break(epoch).load(SeqCst) }
    }

    fn kept_break(&self, epoch: u32) -> &AtomicU64 {
        self.memory.word(BREAKS + (epoch % EPOCHS_KEPT) as usize * 8)
    }

    /// The offsets of the words that the ranks of a model use.
    #[cfg(all(test, loom))]
    pub(super) fn modelled_words(world_size: u32) -> impl Iterator<Item = usize> {
        let offsets = [ASLEEP, ATTACHED, PROCESS, CORE];
        (0..world_size).flat_map(move |rank| offsets.map(|offset| Board::rank_at(rank) + offset))
    }

    fn word(&self, rank: u32, offset: usize) -> &AtomicU64 {
        assert!(rank < self.world_size, "rank {rank} in a world of {}", self.world_size);
        self.memory.word(Board::rank_at(rank) + offset)
    }

    const fn rank_at(rank: u32) -> usize {
        ABORT_RECORD_BYTES + rank as usize * RANK_BYTES
    }

    fn abort_record(&self) -> Record<'_> {
        Record { memory: &self.memory, start: 0, bytes_max: ABORT_BYTES_MAX }
    }

    fn closed_record(&self, rank: u32) -> Record<'_> {
        assert!(rank < self.world_size, "rank {rank} in a world of {}", self.world_size);
        let start = ABORT_RECORD_BYTES + rank as usize * RANK_BYTES + CLOSED;
        Record { memory: &self.memory, start, bytes_max: CLOSE_BYTES_MAX }
    }
}

/// A break as one word that is larger the later the epoch and, within one, the earlier the operation:
/// 20 bits of the epoch, 32 of the inverted sequence number, 12 of the rank. Numbers that are too
/// large count as the largest.
fn break_key(epoch: u32, sequence: u64, rank: u32) -> u64 {
    let epoch = u64::from(epoch.min((1 << 20) - 2) + 1);
    let sequence = u64::from(!u32::try_from(sequence).unwrap_or(u32::MAX));
    epoch << 44 | sequence << 12 | u64::from(rank & 0xfff)
}

/// The epoch of a break; of none that of the first.
fn epoch_of(key: u64) -> u32 {
    ((key >> 44) as u32).saturating_sub(1)
}

/// Bytes that are written once, by the first who claims them.
struct Record<'a> {
    memory: &'a SharedBytes,
    start: usize,
    bytes_max: usize,
}

impl Record<'_> {
    fn write(&self, author: u32, bytes: &[u8]) -> bool {
        let claim = self.memory.word(self.start + RECORD_CLAIM);
        if claim.compare_exchange(0, u64::from(author) + 1, AcqRel, Acquire).is_err() {
            return false;
        }
        let bytes = &bytes[..bytes.len().min(self.bytes_max)];
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.text(index).store(u64::from_le_bytes(word), Relaxed);
        }
        self.memory.word(self.start + RECORD_DONE).store(bytes.len() as u64 + 1, Release);
        true
    }

    /// Author and bytes, once they are complete.
    fn read(&self) -> Option<(u32, Vec<u8>)> {
        let len = self.memory.word(self.start + RECORD_DONE).load(Acquire).checked_sub(1)?;
        let len = len.min(self.bytes_max as u64) as usize;
        let author = self.memory.word(self.start + RECORD_CLAIM).load(Relaxed).saturating_sub(1);
        let words = (0..len.div_ceil(8)).flat_map(|index| self.text(index).load(Relaxed).to_le_bytes());
        let bytes = words.take(len).collect();
        Some((author.min(u64::from(u32::MAX)) as u32, bytes))
    }

    /// Not 0 once it is complete.
    #[inline]
    fn done(&self) -> u64 {
        self.memory.word(self.start + RECORD_DONE).load(Acquire).min(ABORT_BYTES_MAX as u64 + 1)
    }

    fn text(&self, index: usize) -> &AtomicU64 {
        self.memory.word(self.start + RECORD_HEAD + index * 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boards(world_size: u32) -> Vec<Board> {
        let memory = SharedBytes::zeroed(Board::bytes(world_size));
        (0..world_size).map(|rank| Board::attach(memory.clone(), rank, world_size).unwrap()).collect()
    }

    #[test]
    fn the_first_abort_wins_and_comes_whole() {
        let boards = boards(3);
        assert_eq!(boards[0].aborted(), None);
        let reason: Vec<u8> = (0..ABORT_BYTES_MAX + 5).map(|i| (i % 251) as u8).collect();
        assert!(boards[1].abort(&reason));
        assert!(!boards[2].abort(b"late"));
        assert_eq!(boards[0].aborted(), Some((1, reason[..ABORT_BYTES_MAX].to_vec())));
    }

    #[test]
    fn a_rank_is_attached_once() {
        let memory = SharedBytes::zeroed(Board::bytes(2));
        assert!(Board::attach(memory.clone(), 1, 2).is_some());
        assert!(Board::attach(memory.clone(), 1, 2).is_none());
        assert!(Board::attach(memory, 0, 2).is_some());
    }

    #[test]
    fn a_reason_to_leave_is_seen_by_the_others_and_only_the_first() {
        let boards = boards(2);
        assert_eq!(boards[1].closed(0), None);
        boards[0].close("nothing left to do");
        boards[0].close("dropped");
        assert_eq!(boards[1].closed(0).as_deref(), Some("nothing left to do"));
        assert_eq!(boards[0].closed(1), None);
    }

    #[test]
    fn only_a_sleeper_is_rung_and_only_once() {
        let boards = boards(2);
        assert!(!boards[0].notify(1), "awake");
        assert!(!boards[1].fall_asleep(|| false), "something changed");
        assert!(!boards[0].notify(1), "awake again");
        assert!(boards[1].fall_asleep(|| true));
        assert!(boards[0].notify(1));
        assert!(!boards[0].notify(1), "it has been rung");
    }

    #[test]
    fn a_core_is_taken_while_another_rank_is_awake_on_it() {
        let boards = boards(3);
        boards[1].waits_on(Some(0));
        assert_eq!([0, 1].map(|core| boards[0].is_taken(core)), [true, false]);
        assert!(!boards[1].is_taken(0), "by itself");
        assert!(boards[1].fall_asleep(|| true));
        assert!(!boards[0].is_taken(0), "it sleeps");
        boards[1].wake_up();
        boards[1].waits_on(None);
        assert!(!boards[0].is_taken(0), "it is about to leave");
    }

    #[test]
    fn whatever_is_said_to_all_shows() {
        let boards = boards(3);
        let mut seen = vec![boards[0].said()];
        boards[1].close("");
        seen.push(boards[0].said());
        boards[2].break_epoch(0, 9, b"nine");
        seen.push(boards[0].said());
        boards[1].break_epoch(1, 7, b"seven");
        seen.push(boards[0].said());
        boards[2].break_epoch(0, 5, b"five, by one that is late");
        seen.push(boards[0].said());
        boards[2].abort(b"");
        seen.push(boards[0].said());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn of_an_epochs_breaks_the_earliest_counts() {
        let boards = boards(3);
        assert_eq!(boards[0].broken(0), None);
        boards[1].break_epoch(0, 7, b"seven");
        boards[2].break_epoch(0, 9, b"nine");
        assert_eq!((boards[0].broken(0), boards[0].break_reason(0)), (Some(7), (1, b"seven".to_vec())));
        boards[2].break_epoch(0, 3, b"three");
        assert_eq!((boards[0].broken(0), boards[0].break_reason(0)), (Some(3), (2, b"three".to_vec())));
        assert_eq!(boards[0].broken(1), None);
        boards[0].break_epoch(1, u64::MAX, &[b'x'; BREAK_BYTES_MAX + 1]);
        assert_eq!(boards[1].broken(1), Some(u64::from(u32::MAX)));
        assert_eq!(boards[1].break_reason(1), (0, vec![b'x'; BREAK_BYTES_MAX]));
    }

    #[test]
    fn a_rank_that_is_late_learns_of_every_epochs_break() {
        let boards = boards(2);
        for epoch in 0..EPOCHS_KEPT {
            boards[1].break_epoch(epoch, u64::from(epoch) + 5, &[epoch as u8]);
        }
        for epoch in 0..EPOCHS_KEPT {
            assert_eq!(boards[0].broken(epoch), Some(u64::from(epoch) + 5));
            let kept = if epoch + REASONS_KEPT < EPOCHS_KEPT { EPOCHS_KEPT - 1 } else { epoch };
            assert_eq!(boards[0].break_reason(epoch), (1, vec![kept as u8]));
        }
        boards[1].break_epoch(EPOCHS_KEPT, 1, b"one more");
        assert_eq!(boards[0].broken(0), Some(0), "it did break, nobody knows where");
        assert_eq!(boards[0].break_reason(0), (1, b"one more".to_vec()));
        assert_eq!(boards[0].broken(1), Some(6));
        assert_eq!(boards[0].broken(EPOCHS_KEPT + 1), None);
    }

    #[test]
    fn hostile_lengths_and_authors_are_cut_to_what_can_be() {
        let boards = boards(2);
        boards[0].memory.word(RECORD_CLAIM).store(u64::MAX, SeqCst);
        boards[0].memory.word(RECORD_DONE).store(u64::MAX, SeqCst);
        let (rank, reason) = boards[1].aborted().unwrap();
        assert_eq!((rank, reason.len()), (1, ABORT_BYTES_MAX));
    }
}
