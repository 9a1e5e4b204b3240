//! Digests of short lists of numbers, which headers carry so that ranks find out when they differ.

use xxhash_rust::xxh3::xxh3_64;

/// XXH3-64 of the numbers as little-endian u64.
///
/// ```
/// use isobit_core::digest;
/// assert_ne!(digest::words(&[20, 10]), digest::words(&[10, 20]));
/// ```
pub fn words(words: &[u64]) -> u64 {
    let mut few = [[0; 8]; FEW];
    if words.len() <= FEW {
        few.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        return xxh3_64(few[..words.len()].as_flattened());
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    xxh3_64(&bytes)
}

/// How many numbers go without an allocation: a tensor's dimensions do.
const FEW: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_any_number_of_words_is_that_of_their_bytes() {
        for len in 0..=2 * FEW as u64 {
            let list: Vec<u64> = (0..len).map(|index| (index << 56) | (3 + index)).collect();
            let bytes: Vec<u8> = list.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(words(&list), xxh3_64(&bytes), "{len} words");
        }
    }
}
