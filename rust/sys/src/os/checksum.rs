//! Checksums of messages, in the same pass as their copy or their reduction, by the fastest kernels.
//!
//! With the feature `unchecked`, which is for measuring what checks cost and never ships, every checksum is 0.

use crate::{Beside, KernelError, Kernels, Prepared, ReadSpan, WriteSpan, Written};

/// Copies `src` to `dst`, disjoint or the same memory, and gives the XXH3-64 of the bytes. Panics if
/// their lengths differ or they overlap otherwise.
///
/// ```
/// use isobit_sys::{ReadSpan, WriteSpan, os::checksum};
/// let mut copy = [0; 5];
/// let sum = checksum::copy(ReadSpan::from(&b"bytes"[..]), WriteSpan::from(&mut copy[..]));
/// assert_eq!(&copy, b"bytes");
/// assert_eq!(sum, checksum::of(ReadSpan::from(&copy[..])));
/// ```
#[inline]
pub fn copy(src: ReadSpan<'_>, dst: WriteSpan<'_>) -> u64 {
    if cfg!(feature = "unchecked") {
        Kernels::best().copy(src, dst);
        return 0;
    }
    Kernels::best().copy_checksum(src, dst)
}

/// The same past the caches: for much that nobody reads soon.
pub fn stream(src: ReadSpan<'_>, dst: WriteSpan<'_>) -> u64 {
    if cfg!(feature = "unchecked") {
        Kernels::best().stream(src, dst);
        return 0;
    }
    Kernels::best().stream_checksum(src, dst)
}

/// As `copy`, or as `stream` if it `is_streamed`, and [another copy beside it](Kernels::copy_checksum_beside).
pub fn copy_beside(src: ReadSpan<'_>, dst: WriteSpan<'_>, is_streamed: bool, beside: Beside<'_>) -> u64 {
    if cfg!(feature = "unchecked") {
        Kernels::best().stream(beside.src, beside.dst);
        return if is_streamed { stream(src, dst) } else { copy(src, dst) };
    }
    Kernels::best().copy_checksum_beside(src, dst, is_streamed, beside)
}

/// The XXH3-64 of bytes.
#[inline]
pub fn of(bytes: ReadSpan<'_>) -> u64 {
    if cfg!(feature = "unchecked") { 0 } else { Kernels::best().checksum(bytes) }
}

/// Reduces as [`Prepared::run_summed`] does: the XXH3-64 of the input `summed`.
pub fn reduce(
    prepared: &Prepared,
    inputs: &[ReadSpan<'_>],
    summed: usize,
    out: WriteSpan<'_>,
    written: Written<'_>,
) -> Result<u64, KernelError> {
    if cfg!(feature = "unchecked") {
        let run = if let Written::Streamed = written { Prepared::run_streamed } else { Prepared::run };
        return run(prepared, inputs, out).map(|()| 0);
    }
    prepared.run_summed(inputs, summed, out, written)
}
