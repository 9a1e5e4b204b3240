//! A second copy in the pass that copies a message and makes its checksum.
//!
//! Stores past the caches are limited by what the cores that share a cache may write to memory together. Whoever makes
//! all of them at once waits for that limit, and so do its neighbours, who are then doing the same; between the loads
//! and stores of a message that stays in the caches nobody waits.

use super::{Kernels, check_copy, xxh3};
use crate::{ReadSpan, WriteSpan};

/// A copy past the caches that is made beside another: of as many bytes.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// What is copied.
    pub src: ReadSpan<'a>,
    /// Where to: other memory.
    pub dst: WriteSpan<'a>,
}

/// So much of each goes in turn: what was just summed is still in the first-level cache when it is copied.
const TURN_BYTES: usize = 4096;

/// A line that is written whole need not be read before.
const LINE_BYTES: usize = 64;

impl Kernels {
    /// Copies as [`Kernels::copy_checksum`] does, or, if it `is_streamed`, as [`Kernels::stream_checksum`], and makes
    /// the other copy as well. Panics if their lengths differ, or a destination overlaps a source.
    ///
    /// ```
    /// use isobit_sys::{Beside, Kernels, ReadSpan, WriteSpan};
    /// let (message, own) = ([1; 300], [2; 300]);
    /// let (mut sent, mut kept) = ([0; 300], [0; 300]);
    /// let beside = Beside { src: ReadSpan::from(&own[..]), dst: WriteSpan::from(&mut kept[..]) };
    /// let (src, dst) = (ReadSpan::from(&message[..]), WriteSpan::from(&mut sent[..]));
    /// let sum = Kernels::best().copy_checksum_beside(src, dst, false, beside);
    /// assert_eq!(sum, Kernels::best().checksum(src));
    /// assert_eq!((sent, kept), (message, own));
    /// ```
    pub fn copy_checksum_beside(
        &self,
        src: ReadSpan<'_>,
        dst: WriteSpan<'_>,
        is_streamed: bool,
        beside: Beside<'_>,
    ) -> u64 {
        let len = src.len();
        assert_eq!(len, beside.src.len(), "a copy beside another is of as many bytes");
        check_copy(src, dst);
        check_copy(beside.src, beside.dst);
        let is_apart = |from: ReadSpan<'_>| from.is_disjoint(dst) && from.is_disjoint(beside.dst);
        let are_apart = is_apart(src) && is_apart(beside.src) && ReadSpan::from(dst).is_disjoint(beside.dst);
        assert!(are_apart, "copies beside each other do not overlap");
        if len <= xxh3::SHORT_BYTES_MAX {
            self.stream(beside.src, beside.dst);
            return if is_streamed { self.stream_checksum(src, dst) } else { self.copy_checksum(src, dst) };
        }
        let mut hash = xxh3::Hash::new(len);
        let (mut sent, mut kept) = (0, 0);
        while sent.min(kept) < len {
            let (send, keep) = (turn(dst, sent, len), turn(beside.dst, kept, len));
            if sent < len {
                // SAFETY: the instruction set exists, and the source is readable.
                unsafe { (self.passes.follow)(&mut hash, src.as_ptr(), send) };
                let (from, to) = (src.slice(sent, send - sent), dst.slice(sent, send - sent));
                if is_streamed { self.stream_unfenced(from, to) } else { self.copy(from, to) }
            }
            self.stream_unfenced(beside.src.slice(kept, keep - kept), beside.dst.slice(kept, keep - kept));
            (sent, kept) = (send, keep);
        }
        self.fence();
        hash.value()
    }
}

/// Where the turn ends that begins at `done` of `len` bytes: where a line does.
fn turn(dst: WriteSpan<'_>, done: usize, len: usize) -> usize {
    let end = done + TURN_BYTES;
    if end >= len { len } else { end - (dst.as_ptr().addr() + end) % LINE_BYTES }
}
