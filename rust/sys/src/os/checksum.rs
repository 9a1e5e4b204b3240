//! Checksums of messages, in the same pass as their copy.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{ReadSpan, WriteSpan};

/// Bytes copied at a time: they stay in the first-level cache until they are summed.
const BLOCK_BYTES: usize = 8 * 1024;

/// Copies `src` to `dst`, which is as long, and gives the XXH3-64 of the bytes.
///
/// ```
/// use isobit_sys::{ReadSpan, WriteSpan, os::checksum};
/// let mut copy = [0; 5];
/// let sum = checksum::copy(ReadSpan::from(&b"bytes"[..]), WriteSpan::from(&mut copy[..]));
/// assert_eq!(&copy, b"bytes");
/// assert_eq!(sum, checksum::of(ReadSpan::from(&copy[..])));
/// ```
pub fn copy(src: ReadSpan<'_>, dst: WriteSpan<'_>) -> u64 {
    assert_eq!(src.len(), dst.len(), "a copy needs as many bytes as it copies");
    if src.len() <= BLOCK_BYTES {
        copy_block(src, dst);
        return of(src);
    }
    let mut hasher = Xxh3::new();
    for start in (0..src.len()).step_by(BLOCK_BYTES) {
        let len = BLOCK_BYTES.min(src.len() - start);
        copy_block(src.slice(start, len), dst.slice(start, len));
        hasher.update(slice(src.slice(start, len)));
    }
    hasher.digest()
}

/// The XXH3-64 of bytes.
pub fn of(bytes: ReadSpan<'_>) -> u64 {
    xxh3_64(slice(bytes))
}

fn copy_block(src: ReadSpan<'_>, dst: WriteSpan<'_>) {
    // SAFETY: both spans are valid for `len` bytes; `ptr::copy` allows that they overlap.
    unsafe { std::ptr::copy(src.as_ptr(), dst.as_ptr(), src.len()) }
}

/// The span as a slice, for the length of one call of the hash function.
fn slice<'a>(bytes: ReadSpan<'a>) -> &'a [u8] {
    // SAFETY: the span's bytes are readable, and no other thread writes to them; this thread does
    // nothing but hash while the slice lives, because no caller in this file keeps it.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copying_and_summing_agree_at_every_block_boundary() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 1).map(|i| (i * 7 + i / 251) as u8).collect();
        for len in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, bytes.len()] {
            let mut copied = vec![0; len];
            let sum = copy(ReadSpan::from(&bytes[..len]), WriteSpan::from(&mut copied[..]));
            assert_eq!(sum, xxh3_64(&bytes[..len]), "{len} bytes");
            assert_eq!(copied, bytes[..len]);
        }
    }
}
