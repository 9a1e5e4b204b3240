//! Nobody sleeps through a notification.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loom::sync::Notify;
use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::{explore, explore_within};
use crate::os::board::Board;
use crate::os::shared::SharedBytes;

/// `said[i]` is what rank `i + 1` has to say: it says it, and notifies rank 0.
fn nobody_is_missed(notifiers: u32) {
    let world_size = notifiers + 1;
    let memory = SharedBytes::modelled(Board::bytes(world_size), Board::modelled_words(world_size));
    let board = |rank| Board::attach(memory.clone(), rank, world_size).unwrap();
    let said: Arc<Vec<AtomicU64>> = Arc::new((0..notifiers).map(|_| AtomicU64::new(0)).collect());
    // As an eventfd: it rings until it is answered.
    let bell = Arc::new(Notify::new());
    let sleeper = board(0);
    let threads: Vec<_> = (0..notifiers)
        .map(|index| {
            let (board, said, bell) = (board(index + 1), Arc::clone(&said), Arc::clone(&bell));
            thread::spawn(move || {
                said[index as usize].store(1, Relaxed);
                if board.notify(0) {
                    bell.notify();
                }
            })
        })
        .collect();
    let heard = || said.iter().map(|word| word.load(Relaxed)).sum::<u64>();
    // As the shm transport waits: a look at everything, then sleep if nothing has changed since.
    // A wake-up that is lost is a deadlock, which loom reports.
    loop {
        let seen = heard();
        if seen == u64::from(notifiers) {
            break;
        }
        if sleeper.fall_asleep(|| heard() == seen) {
            bell.wait();
            sleeper.wake_up();
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn one_notifier_wakes_a_sleeper() {
    explore(|| nobody_is_missed(1));
}

#[test]
fn two_notifiers_wake_a_sleeper() {
    explore_within(3, || nobody_is_missed(2));
}
