//! Which way of a large message into the ring takes less time: through the caches, or past them into memory.
//!
//! A line that is written as usual stays in the writer's cache, and the reader gets it from there: the fastest where
//! both share a cache. Where they do not, the writer first has to fetch every line from the reader's cache, which read
//! it a lap ago, and the reader then fetches it back: ten times as slow as stores that go straight to memory, from where
//! the reader's core reads ahead. Who shares a cache depends on the machine, and may change while it runs, so that both
//! sides measure both ways, all the time. A value never depends on it.

use crate::os::checksum;
use crate::{Beside, ReadSpan, WriteSpan};

/// How a payload reaches its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Written as usual, which leaves it in the writer's cache.
    Cached,
    /// Written past the caches.
    Streamed,
}

impl Way {
    /// Writes a payload that way: its checksum.
    #[inline]
    pub(super) fn write(self, payload: ReadSpan<'_>, to: WriteSpan<'_>) -> u64 {
        match self {
            Way::Cached => checksum::copy(payload, to),
            Way::Streamed => checksum::stream(payload, to),
        }
    }

    /// The same, with another copy in the same pass.
    pub(super) fn write_beside(self, payload: ReadSpan<'_>, to: WriteSpan<'_>, beside: Beside<'_>) -> u64 {
        checksum::copy_beside(payload, to, self == Way::Streamed, beside)
    }

    /// The one that this is not.
    pub(super) fn other(self) -> Way {
        match self {
            Way::Cached => Way::Streamed,
            Way::Streamed => Way::Cached,
        }
    }
}

/// The pace of a way that can be gone and was not: no payload takes so little.
pub(super) const UNKNOWN: u64 = 1;

/// What one side's part of each way has taken lately, in ticks for 64 KiB; `UNKNOWN` or less if that is not known.
#[derive(Clone, Copy, Default)]
pub(super) struct Pace {
    pub(super) cached: u64,
    pub(super) streamed: u64,
}

/// A measurement counts as at most so many times the others: a process that lost its core says nothing.
const OUTLIER: u64 = 4;
/// The weight of a measurement is one in so many, of one that is less than the others a half: what made those more,
/// such as memory that was touched for the first time, is over.
const SMOOTHING: u64 = 8;

impl Pace {
    /// A payload of so many bytes took so many ticks: what one of 64 KiB takes by now.
    pub(super) fn took(&mut self, way: Way, bytes: usize, ticks: u64) -> u64 {
        let found = (ticks.saturating_mul(1 << 16) / bytes.max(1) as u64).max(UNKNOWN + 1);
        let known = match way {
            Way::Cached => &mut self.cached,
            Way::Streamed => &mut self.streamed,
        };
        *known = match *known {
            0..=UNKNOWN => found,
            known if found < known => known.midpoint(found),
            known => known - known / SMOOTHING + found.min(known.saturating_mul(OUTLIER)).div_ceil(SMOOTHING),
        };
        *known
    }

    /// The way that is faster for both sides together. The caches are left only if that saves a third: where memory is
    /// the limit both are about as fast, and a ring that is not in the caches takes a while to be there again.
    pub(super) fn better(self, other: Pace, now: Way) -> Way {
        if [self.cached, self.streamed, other.cached, other.streamed].iter().any(|pace| *pace <= UNKNOWN) {
            return now;
        }
        let (cached, streamed) = self.with(other);
        match now {
            Way::Cached if streamed < cached - cached / 3 => Way::Streamed,
            Way::Streamed if cached < streamed => Way::Cached,
            now => now,
        }
    }

    /// Whether a way takes twice as long as the other, as far as is known.
    pub(super) fn is_hopeless(self, other: Pace, way: Way) -> bool {
        let (cached, streamed) = self.with(other);
        match way {
            Way::Cached => cached > streamed.saturating_mul(2),
            Way::Streamed => streamed > cached.saturating_mul(2),
        }
    }

    /// What both sides together have taken, by way.
    fn with(self, other: Pace) -> (u64, u64) {
        (self.cached.saturating_add(other.cached), self.streamed.saturating_add(other.streamed))
    }
}

/// After so many measured payloads the first few go the other way, so that both are known. Eight ranks that reduce a
/// tensor of 1 MiB send each other two in a call.
const FIRST_TRIAL: u64 = 16;
/// So many go the other way, one after the other: the first of them find the ring out of the caches, and say little.
const TRIAL: u64 = 32;
/// No more than so many if it then looks hopeless: where no cache is shared, each of them takes ten times as long.
const TRIAL_SHORT: u64 = 4;
/// How many payloads are between two trials: few at first when the way has changed, for what was measured of the one that
/// was left may have been slow for another reason (a result that is written to for the first time, another operation) and
/// is not measured any more; then twice as many each time.
const GAP: std::ops::RangeInclusive<u64> = 32..=2048;

/// The producer's choice of a way.
pub(super) struct Choice {
    /// What payloads have taken this side.
    pace: Pace,
    better: Way,
    /// How many payloads were measured.
    measured: u64,
    /// How many will have been when the next trial begins, and how many go between that and the one after it.
    trial: u64,
    gap: u64,
}

impl Choice {
    pub(super) fn new() -> Choice {
        let (pace, better) = (Pace::default(), Way::Cached);
        Choice { pace, better, measured: 0, trial: FIRST_TRIAL, gap: *GAP.start() }
    }

    /// The way of the next payload, if this is what they take the consumer.
    #[inline]
    pub(super) fn way(&mut self, theirs: Pace) -> Way {
        let before = self.better;
        self.better = self.pace.better(theirs, before);
        if self.better != before {
            self.gap = *GAP.start();
            self.trial = self.measured + self.gap;
        }
        if self.measured < self.trial {
            return self.better;
        }
        let (turn, other) = (self.measured - self.trial, self.better.other());
        if turn >= TRIAL || (turn >= TRIAL_SHORT && self.pace.is_hopeless(theirs, other)) {
            self.gap = (2 * self.gap).min(*GAP.end());
            self.trial = self.measured + self.gap;
            return self.better;
        }
        other
    }

    /// Takes note of what a payload has taken this side.
    #[inline]
    pub(super) fn took(&mut self, way: Way, bytes: usize, ticks: u64) {
        self.measured += 1;
        self.pace.took(way, bytes, ticks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Way; 2] = [Way::Cached, Way::Streamed];

    fn after(cached: u64, streamed: u64) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.took(Way::Cached, 1 << 16, cached);
            pace.took(Way::Streamed, 1 << 15, streamed / 2);
        }
        pace
    }

    #[test]
    fn the_way_that_is_faster_for_both_together_is_taken() {
        for now in BOTH {
            assert_eq!(after(10_000, 30_000).better(after(10_000, 5_000), now), Way::Cached);
            assert_eq!(after(30_000, 10_000).better(after(30_000, 20_000), now), Way::Streamed);
        }
    }

    #[test]
    fn a_way_that_is_about_as_fast_is_kept() {
        for now in BOTH {
            assert_eq!(after(10_000, 9_000).better(after(10_000, 7_000), now), now);
        }
    }

    #[test]
    fn a_way_that_takes_twice_as_long_is_hopeless() {
        assert!(after(10_000, 1_000).is_hopeless(after(10_000, 8_000), Way::Cached));
        assert!(!after(10_000, 2_000).is_hopeless(after(10_000, 9_000), Way::Cached));
        assert!(after(1_000, 10_000).is_hopeless(after(8_000, 10_000), Way::Streamed));
    }

    #[test]
    fn one_slow_message_changes_nothing_and_many_do() {
        let mut pace = after(10_000, 20_000);
        pace.took(Way::Cached, 1 << 16, 1_000_000_000);
        assert_eq!(pace.better(after(10_000, 20_000), Way::Cached), Way::Cached);
        for _ in 0..20 {
            pace.took(Way::Cached, 1 << 16, 90_000);
        }
        assert_eq!(pace.better(after(10_000, 20_000), Way::Cached), Way::Streamed);
    }

    /// How many of some payloads go past the caches, if they take the consumer that long.
    fn streamed(choice: &mut Choice, theirs: &mut Pace, count: u64, ticks: impl Fn(Way, u64) -> u64) -> u64 {
        let mut found = 0;
        for number in 0..count {
            let way = choice.way(*theirs);
            choice.took(way, 1 << 16, 1_000);
            theirs.took(way, 1 << 16, ticks(way, number));
            found += u64::from(way == Way::Streamed);
        }
        found
    }

    #[test]
    fn a_way_that_was_slow_for_a_while_is_soon_taken_again() {
        let cost = |way| if way == Way::Cached { 5_000 } else { 10_000 };
        let (mut choice, mut theirs) = (Choice::new(), Pace::default());
        streamed(&mut choice, &mut theirs, 4_000, |way, _| cost(way));
        // Whatever way the first few go, they write to memory that nobody has touched.
        let slow = |way, number| cost(way) + if number < 20 { 60_000 } else { 0 };
        let found = streamed(&mut choice, &mut theirs, 1_000, slow);
        assert!((1..200).contains(&found), "{found} of 1000 went the slow way");
    }

    #[test]
    fn the_better_way_is_found_by_the_first_few() {
        let (mut choice, mut theirs) = (Choice::new(), Pace::default());
        let cost = |way, _| if way == Way::Cached { 50_000 } else { 5_000 };
        let found = streamed(&mut choice, &mut theirs, 100, cost);
        assert!(found > 60, "{found} of the first 100 went the better way");
    }

    #[test]
    fn a_way_is_rarely_tried_while_the_other_stays_the_better_one() {
        let (mut choice, mut theirs) = (Choice::new(), Pace::default());
        let cost = |way, _| if way == Way::Cached { 5_000 } else { 9_000 };
        let found = streamed(&mut choice, &mut theirs, 100_000, cost);
        assert!((1_000..3_000).contains(&found), "{found} of 100000 were tried");
        let hopeless = |way, _| if way == Way::Cached { 5_000 } else { 50_000 };
        let found = streamed(&mut choice, &mut theirs, 100_000, hopeless);
        assert!((100..400).contains(&found), "{found} of 100000 were tried though it is hopeless");
    }

    #[test]
    fn nothing_changes_before_both_have_gone_both_ways() {
        let known = after(10_000, 1_000);
        for streamed in [0, UNKNOWN] {
            let unknown = Pace { streamed, ..known };
            assert_eq!(unknown.better(known, Way::Cached), Way::Cached);
            assert_eq!(known.better(unknown, Way::Cached), Way::Cached);
        }
    }
}
