//! Which way of a large message takes less time: through the ring, or read out of the sender's memory.
//!
//! Through the ring a byte is copied twice, by two processes side by side, from cache to cache: the fastest where
//! their cores share one. Where they do not, every line of the ring makes a trip between the caches when it is
//! written and when it is read, and one copy by the kernel is faster. Who shares a cache depends on the machine, and
//! may change while it runs, so that both sides measure both ways, all the time. A value never depends on it.

/// How a payload reaches its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Copied into the ring, and out of it.
    Ring,
    /// Read by the receiver where the sender has it.
    Fetch,
}

/// The pace of a way that can be gone and was not: no payload takes so little.
pub(super) const UNKNOWN: u64 = 1;

/// What one side's part of each way has taken lately, in ticks for 64 KiB; `UNKNOWN` or less if that is not known.
#[derive(Clone, Copy, Default)]
pub(super) struct Pace {
    pub(super) ring: u64,
    pub(super) fetch: u64,
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
            Way::Ring => &mut self.ring,
            Way::Fetch => &mut self.fetch,
        };
        *known = match *known {
            0..=UNKNOWN => found,
            known if found < known => known.midpoint(found),
            known => known - known / SMOOTHING + found.min(known.saturating_mul(OUTLIER)).div_ceil(SMOOTHING),
        };
        *known
    }

    /// The way that is faster for both sides together. The ring is left only if that saves a third: where memory is
    /// the limit both are about as fast, and a ring that is not in use leaves the caches.
    pub(super) fn better(self, other: Pace, now: Way) -> Way {
        if [self.ring, self.fetch, other.ring, other.fetch].iter().any(|pace| *pace <= UNKNOWN) {
            return now;
        }
        let (ring, fetch) = (self.ring.saturating_add(other.ring), self.fetch.saturating_add(other.fetch));
        match now {
            Way::Ring if fetch < ring - ring / 3 => Way::Fetch,
            Way::Fetch if ring < fetch => Way::Ring,
            now => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Way; 2] = [Way::Ring, Way::Fetch];

    fn after(ring: u64, fetch: u64) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.took(Way::Ring, 1 << 16, ring);
            pace.took(Way::Fetch, 1 << 15, fetch / 2);
        }
        pace
    }

    #[test]
    fn the_way_that_is_faster_for_both_together_is_taken() {
        for now in BOTH {
            assert_eq!(after(10_000, 30_000).better(after(10_000, 5_000), now), Way::Ring);
            assert_eq!(after(30_000, 10_000).better(after(30_000, 20_000), now), Way::Fetch);
        }
    }

    #[test]
    fn a_way_that_is_about_as_fast_is_kept() {
        for now in BOTH {
            assert_eq!(after(10_000, 9_000).better(after(10_000, 7_000), now), now);
        }
    }

    #[test]
    fn one_slow_message_changes_nothing_and_many_do() {
        let mut pace = after(10_000, 20_000);
        pace.took(Way::Ring, 1 << 16, 1_000_000_000);
        assert_eq!(pace.better(after(10_000, 20_000), Way::Ring), Way::Ring);
        for _ in 0..20 {
            pace.took(Way::Ring, 1 << 16, 90_000);
        }
        assert_eq!(pace.better(after(10_000, 20_000), Way::Ring), Way::Fetch);
    }

    #[test]
    fn nothing_changes_before_both_have_gone_both_ways() {
        let known = after(10_000, 1_000);
        for fetch in [0, UNKNOWN] {
            let unknown = Pace { fetch, ..known };
            assert_eq!(unknown.better(known, Way::Ring), Way::Ring);
            assert_eq!(known.better(unknown, Way::Ring), Way::Ring);
        }
    }
}
