//! How a rank of a shm group waits: it looks for news for a while, lets others have its core, and sleeps.

use std::thread;
use std::time::{Duration, Instant};

use isobit_sys::os::cores;
use isobit_sys::os::ring::{Consumer, Producer};

use super::endpoint::ShmTransport;

/// How often a rank looks for news before it gives its core away once, and again before it sleeps, if every rank can
/// have a core: 25 to 75 us, longer than most messages take. Who gives it away beside a busy process has it back a
/// time slice later, some 4 ms.
const SPINS: u32 = 1_000;
/// A turn of giving the core away that takes longer was given to somebody.
const TURN: Duration = Duration::from_micros(2);
/// How often it gives its core away before it sleeps, if not. Others need the core, and the one that is
/// waited for among them; going to sleep and being woken takes as long as a few dozen turns.
pub(super) const YIELDS: u32 = 64;
/// How long the ends of processes may stay unnoticed by a rank that never sleeps.
const LOOK_AROUND: Duration = Duration::from_millis(1);

/// See [`ShmTransport::news`].
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct News {
    rings: u64,
    board: (u64, u64),
}

impl ShmTransport {
    /// Waits for news, the end of a process or `until`.
    pub(super) fn wait_for_news(&mut self, until: Instant) {
        if self.news() == self.seen && !self.changed_soon() {
            let left = until.saturating_duration_since(Instant::now());
            if self.shared.board.fall_asleep(|| self.news() == self.seen) {
                self.look_around(left);
                self.shared.board.wake_up();
            }
        }
        if self.looked_around.elapsed() >= LOOK_AROUND {
            self.look_around(Duration::ZERO);
        }
        self.seen = self.news();
    }

    /// Notes which processes ended; waits for that, a bell or a signal at most `timeout`.
    fn look_around(&mut self, timeout: Duration) {
        // A wait that can't be had is no worse than one that ends early.
        for rank in self.sleeper.sleep(timeout).unwrap_or_default() {
            self.ended[rank] = true;
        }
        self.looked_around = Instant::now();
    }

    /// All that this rank may wait for: what peers have written to the rings and to the board. The
    /// rings' words only grow, so that their sum tells of any change.
    fn news(&self) -> News {
        let sent = self.incoming.iter().flatten().flatten().map(Consumer::news);
        let taken = self.outgoing.iter().flatten().flatten().map(Producer::news);
        News { rings: sent.chain(taken).fold(0, u64::wrapping_add), board: self.shared.board.said() }
    }

    /// Lets a rank run that the scheduler has put on this core, and goes to another one if it did: there is one for each.
    fn part(&self) {
        let (board, core, start) = (&self.shared.board, cores::current(), Instant::now());
        board.waits_on(Some(core));
        thread::yield_now();
        if start.elapsed() > TURN && board.is_taken(core) {
            // Said before it goes, or the other would go as well.
            board.waits_on(None);
            cores::leave(|core| board.is_taken(core));
            board.waits_on(Some(cores::current()));
        }
    }

    /// Whether something changed while this looked a bounded number of times.
    fn changed_soon(&self) -> bool {
        if self.spins() {
            self.shared.board.waits_on(Some(cores::current()));
            return come_soon(|| self.news() != self.seen, || self.part());
        }
        (0..YIELDS).any(|_| {
            thread::yield_now();
            self.news() != self.seen
        })
    }
}

/// Whether news came while a rank looked a bounded number of times. Halfway it lets others have its core: `part`.
fn come_soon(mut news: impl FnMut() -> bool, part: impl FnOnce()) -> bool {
    let mut look = || {
        (0..SPINS).any(|_| {
            std::hint::spin_loop();
            news()
        })
    };
    look() || {
        part();
        look()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_core_is_given_away_once_and_not_before_news_had_time_to_come() {
        let wait = |comes_at: u32| {
            let (looks, parted) = (Cell::new(0), Cell::new(None));
            let news = || {
                looks.set(looks.get() + 1);
                looks.get() == comes_at
            };
            let came = come_soon(news, || assert!(parted.replace(Some(looks.get())).is_none()));
            (came, parted.get())
        };
        assert_eq!(wait(1), (true, None));
        assert_eq!(wait(SPINS), (true, None));
        assert_eq!(wait(SPINS + 1), (true, Some(SPINS)));
        assert_eq!(wait(2 * SPINS + 1), (false, Some(SPINS)));
    }
}
