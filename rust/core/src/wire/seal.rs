//! The checksum of a header in parts, so that those of its bytes that stay as they are count once for all messages.
//!
//! XXH3-64 of 97 to 128 bytes is the sum of eight chunks of 16 bytes, each mixed with a key of its own, and an ending:
//! four chunks from the start on and four up to the end. For any other length, and wherever a header is judged, the
//! checksum is the crate's.

use xxhash_rust::const_xxh3::const_custom_default_secret;

use super::header::{CHECKED_BYTES, HEADER_BYTES, long};

const SECRET: [u8; 192] = const_custom_default_secret(0);

/// Where the chunks are whose bytes are the same in every message of a draft, and where their keys are.
const FIXED: [(usize, usize); 4] = [(0, 0), (72, 80), (88, 48), (104, 16)];

/// What the chunks that stay as they are add up to, and the length.
pub(super) fn fixed(bytes: &[u8; HEADER_BYTES]) -> u64 {
    let length = (CHECKED_BYTES as u64).wrapping_mul(0x9e37_79b1_85eb_ca87);
    FIXED
        .iter()
        .fold(length, |sum, &(at, key)| sum.wrapping_add(mix([long(bytes, at), long(bytes, at + 8)], key)))
}

/// The checksum of the header with this checksum of its payload, from what `fixed` gave.
#[inline]
pub(super) fn of(bytes: &[u8; HEADER_BYTES], fixed: u64, payload_checksum: u64) -> u64 {
    let sum = fixed
        .wrapping_add(mix([long(bytes, 16), long(bytes, 24)], 32))
        .wrapping_add(mix([long(bytes, 32), long(bytes, 40)], 64))
        .wrapping_add(mix([long(bytes, 48), payload_checksum], 96))
        .wrapping_add(mix([payload_checksum, long(bytes, 64)], 112));
    let sum = (sum ^ sum >> 37).wrapping_mul(0x1656_6791_9e37_79f9);
    sum ^ sum >> 32
}

/// A chunk with the key at this place of the secret.
#[inline]
fn mix([low, high]: [u64; 2], key: usize) -> u64 {
    let product = u128::from(low ^ long(&SECRET, key)) * u128::from(high ^ long(&SECRET, key + 8));
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::super::header::{PAYLOAD_CHECKSUM_AT, checksum};
    use super::*;

    #[test]
    fn a_seal_in_parts_is_the_checksum_of_the_whole() {
        let (mut bytes, mut random) = ([0; HEADER_BYTES], 1u64);
        for round in 0..10_000 {
            // One byte after the other, so that every one is seen to count, among few others that are not 0.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes[round % CHECKED_BYTES] = (random >> 56) as u8;
            let payload_checksum = long(&bytes, PAYLOAD_CHECKSUM_AT);
            let seal = of(&bytes, fixed(&bytes), payload_checksum);
            assert_eq!(seal, checksum(&bytes[..CHECKED_BYTES]), "{bytes:02x?}");
        }
    }
}
