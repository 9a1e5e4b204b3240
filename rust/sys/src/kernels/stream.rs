//! Copies past the caches, for results that nobody reads soon: a line that is written whole need not be
//! read from memory first, and the caches keep what is needed next.

use super::isa::Job;
use super::xxh3::Stripe;

const LINE_BYTES: usize = 64;

/// A copy that follows its source's reader, line by line of the destination.
pub(super) struct Trail {
    src: *const u8,
    dst: *mut u8,
    len: usize,
    done: usize,
}

impl Trail {
    /// # Safety
    /// `src` is readable and `dst` writable for `len` bytes, disjoint, until `finish`.
    #[inline(always)]
    pub(super) unsafe fn new(src: *const u8, dst: *mut u8, len: usize) -> Trail {
        let head = dst.align_offset(LINE_BYTES).min(len);
        // SAFETY: as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(src, dst, head) };
        Trail { src, dst, len, done: head }
    }

    /// Copies whole lines of what lies before `end`.
    ///
    /// # Safety
    /// As for `new`; `end <= len`; the instruction set of `S` is available.
    #[inline(always)]
    pub(super) unsafe fn follow<S: Stripe>(&mut self, end: usize) {
        while self.done + LINE_BYTES <= end {
            // SAFETY: the line is inside, and `done` is where a line of the destination begins.
            unsafe { S::load(self.src.add(self.done)).stream(self.dst.add(self.done)) };
            self.done += LINE_BYTES;
        }
    }

    /// Copies the rest. Before anybody else may see it, a `fence` must follow.
    ///
    /// # Safety
    /// As for `follow`.
    #[inline(always)]
    pub(super) unsafe fn finish<S: Stripe>(mut self) {
        // SAFETY: as the caller promises.
        unsafe {
            self.follow::<S>(self.len);
            let (done, rest) = (self.done, self.len - self.done);
            std::ptr::copy_nonoverlapping(self.src.add(done), self.dst.add(done), rest);
        }
    }
}

/// A copy alone.
struct Copy<S> {
    src: *const u8,
    dst: *mut u8,
    len: usize,
    of: std::marker::PhantomData<S>,
}

impl<S: Stripe> Job for Copy<S> {
    #[inline(always)]
    fn run(self) {
        // SAFETY: whoever runs a `Copy` has the set, and spans that are disjoint.
        unsafe { Trail::new(self.src, self.dst, self.len).finish::<S>() };
    }
}

/// A copy without a fence: of blocks that follow each other one fence is enough, which waits for memory.
///
/// # Safety
/// The instruction set is available; `src` is readable and `dst` writable for `len` bytes, disjoint.
pub(super) unsafe fn copy<I: super::isa::Isa>(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: as the caller promises.
    unsafe { I::run(Copy::<I::Stripe> { src, dst, len, of: std::marker::PhantomData }) };
}

/// Lets later stores wait for all copies.
///
/// # Safety
/// The instruction set is available.
pub(super) unsafe fn fence<I: super::isa::Isa>() {
    // SAFETY: as the caller promises.
    unsafe { I::Stripe::fence() };
}
