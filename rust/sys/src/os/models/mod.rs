//! Models of the ring and of the board for loom, which runs them in every interleaving: `make loom`.
//!
//! The code that runs is the real one. Its words become loom's atomics, so that a load sees every value
//! that the memory model allows; its data becomes cells that are watched line by line, so that two
//! accesses which nothing orders are found although this machine's processor would order them.

mod board;
mod ring;

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use loom::cell::UnsafeCell;

use super::sync::AtomicU64;

/// What loom knows of a piece of shared memory.
#[derive(Debug)]
pub(super) struct Model {
    start: usize,
    /// By address.
    words: BTreeMap<usize, AtomicU64>,
    /// By line of `LINE` bytes.
    lines: Vec<UnsafeCell<()>>,
}

const LINE: usize = 64;

impl Model {
    pub(super) fn new(start: NonNull<u8>, len: usize, word_at: impl IntoIterator<Item = usize>) -> Model {
        let start = start.as_ptr() as usize;
        let words = word_at.into_iter().map(|offset| (start + offset, AtomicU64::new(0))).collect();
        let lines = (0..len.div_ceil(LINE)).map(|_| UnsafeCell::new(())).collect();
        Model { start, words, lines }
    }

    pub(super) fn word(&self, address: usize) -> &AtomicU64 {
        self.words.get(&address).expect("a word that the model names")
    }

    pub(super) fn read(&self, address: usize, len: usize) {
        self.lines(address, len).for_each(|line| line.with(|_| ()));
    }

    pub(super) fn write(&self, address: usize, len: usize) {
        self.lines(address, len).for_each(|line| line.with_mut(|_| ()));
    }

    fn lines(&self, address: usize, len: usize) -> impl Iterator<Item = &UnsafeCell<()>> {
        let first = address - self.start;
        self.lines[first / LINE..(first + len).div_ceil(LINE)].iter()
    }
}

/// Runs a model in every interleaving.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    check(None, model);
}

/// Runs a model in every interleaving with at most so many preemptions: for three threads.
fn explore_within(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    check(Some(preemptions), model);
}

fn check(preemption_bound: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemption_bound;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    println!("{} interleavings", runs.load(Relaxed));
}
