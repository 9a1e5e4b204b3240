//! Digests of short lists of numbers, which headers carry so that ranks find out when they differ.

use xxhash_rust::xxh3::xxh3_64;

/// XXH3-64 of the numbers as little-endian u64.
///
/// ```
/// use isobit_core::digest;
/// assert_ne!(digest::words(&[20, 10]), digest::words(&[10, 20]));
/// ```
pub fn words(words: &[u64]) -> u64 {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    xxh3_64(&bytes)
}
