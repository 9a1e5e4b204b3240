//! Every instruction set's conversions give the law's bits: exhaustively from f32 and the smaller
//! formats, densely sampled from f64.

use isobit_core::{Dtype, float};
use isobit_sys::Kernels;

/// Inputs of a batch: it stays in the cache, and so small that allocating it costs no system call.
const BATCH: usize = 1 << 13;

/// Runs `check` on every batch number below `batches`, on two threads.
fn on_two_threads(batches: usize, check: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for half in 0..2 {
            let check = &check;
            scope.spawn(move || (half..batches).step_by(2).for_each(check));
        }
    });
}

/// Converts every f32 on every instruction set and compares with the law.
///
/// Narrowing is monotonic, so that between two inputs with the same result all have it. The law is
/// therefore asked at the borders of its intervals, found by bisection, and not 2^32 times.
fn every_f32(to: Dtype) {
    let size = to.size();
    let intervals = intervals_of_the_law(to);
    on_two_threads((1 << 32) / BATCH, |batch| {
        let first = (batch * BATCH) as u32;
        let input: Vec<u32> = (first..=first + (BATCH as u32 - 1)).collect();
        let input = bytes_of(&input);
        let expected = expected(&intervals, first, size);
        let mut found = vec![0; size * BATCH];
        for kernels in Kernels::available() {
            kernels.convert(Dtype::F32, to, input.as_slice().into(), found.as_mut_slice().into());
            if found != expected {
                let element = |bytes: &[u8], i: usize| float::read_bits(&bytes[i * size..][..size]);
                let i = (0..BATCH).find(|i| element(&found, *i) != element(&expected, *i)).unwrap();
                panic!(
                    "{}: f32 {:#010x} gives {:#x} as {to}, the law {:#x}",
                    kernels.name(),
                    first + i as u32,
                    element(&found, i),
                    element(&expected, i)
                );
            }
        }
    });
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * words.len()];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The results of the batch that starts at `first`.
fn expected(intervals: &[(u32, u64)], first: u32, size: usize) -> Vec<u8> {
    let mut expected = Vec::with_capacity(size * BATCH);
    let mut at = intervals.partition_point(|(start, _)| *start <= first) - 1;
    while expected.len() < size * BATCH {
        let done = first as usize + expected.len() / size;
        let end = intervals.get(at + 1).map_or(1 << 32, |(start, _)| *start as usize);
        let count = (end - done).min(BATCH - expected.len() / size);
        match (size, intervals[at].1) {
            (1, result) => expected.resize(expected.len() + count, result as u8),
            (_, result) => {
                let result = (result as u16).to_le_bytes();
                expected.extend(std::iter::repeat_n(result, count).flatten());
            }
        }
        at += 1;
    }
    expected
}

/// Where the law's result changes as the bits count up, and what it is from there on.
fn intervals_of_the_law(to: Dtype) -> Vec<(u32, u64)> {
    fn law(to: Dtype, bits: u32) -> u64 {
        float::from_f32(to, f32::from_bits(bits))
    }
    fn split(to: Dtype, first: u32, last: u32, intervals: &mut Vec<(u32, u64)>) {
        let result = law(to, first);
        if result == law(to, last) {
            if intervals.last().is_none_or(|(_, before)| *before != result) {
                intervals.push((first, result));
            }
            return;
        }
        let middle = first + (last - first) / 2;
        split(to, first, middle, intervals);
        split(to, middle + 1, last, intervals);
    }
    let mut intervals = Vec::new();
    split(to, 0, 0x7fff_ffff, &mut intervals);
    split(to, 0x8000_0000, 0xffff_ffff, &mut intervals);
    // One for each number of the format, about, and NaN.
    assert!(intervals.len() > 7 << (8 * to.size() - 3), "{} intervals of {to}", intervals.len());
    intervals
}

#[test]
fn every_f32_becomes_the_laws_bf16() {
    every_f32(Dtype::Bf16);
}

#[test]
fn every_f32_becomes_the_laws_f16() {
    every_f32(Dtype::F16);
}

#[test]
fn every_f32_becomes_the_laws_f8e4m3fn() {
    every_f32(Dtype::F8E4m3fn);
}

#[test]
fn every_f32_becomes_the_laws_f8e5m2() {
    every_f32(Dtype::F8E5m2);
}

fn check_patterns(from: Dtype, to: Dtype, patterns: &[u64]) {
    let input: Vec<u8> =
        patterns.iter().flat_map(|bits| bits.to_le_bytes().into_iter().take(from.size())).collect();
    let mut found = vec![0; patterns.len() * to.size()];
    for kernels in Kernels::available() {
        kernels.convert(from, to, input.as_slice().into(), found.as_mut_slice().into());
        for (bits, found) in patterns.iter().zip(found.chunks_exact(to.size())) {
            let (found, expected) = (float::read_bits(found), float::convert(from, *bits, to));
            assert_eq!(found, expected, "{}: {from} {bits:#x} as {to} is {found:#x}", kernels.name());
        }
    }
}

#[test]
fn every_pattern_of_the_small_formats_widens_and_narrows_as_the_law_says() {
    for from in [Dtype::F8E4m3fn, Dtype::F8E5m2, Dtype::F16, Dtype::Bf16] {
        let patterns: Vec<u64> = (0..1 << (8 * from.size())).collect();
        for to in Dtype::FLOATS {
            check_patterns(from, to, &patterns);
        }
    }
}

#[test]
fn f64_narrows_in_one_rounding() {
    // About every border between two results: the borders are numbers of few bits, and the
    // neighbours on both sides, near and nearest, must fall to their own side.
    let mut patterns = Vec::new();
    for to in [Dtype::F8E4m3fn, Dtype::F8E5m2, Dtype::F16, Dtype::Bf16] {
        for bits in 0..1u64 << (8 * to.size()) {
            let (value, next) = (float::to_f64(to, bits), float::to_f64(to, bits + 1));
            let border = (value + (next - value) / 2.0).to_bits();
            for distance in [0i64, 1, 2, 1 << 28, (1 << 28) + 1, 1 << 29, 1 << 30] {
                patterns.push(border.wrapping_add_signed(distance));
                patterns.push(border.wrapping_add_signed(-distance));
            }
        }
    }
    let mut state = 1u64;
    for _ in 0..1 << 20 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        patterns.push(state);
        // Near the exponents and the mantissa borders of f32 and of the small formats.
        let near = f64::from(f32::from_bits((state >> 20) as u32)).to_bits();
        patterns.push(near.wrapping_add((state >> 8) % 5).wrapping_sub(2));
        patterns.push((near | 0x1000_0000).wrapping_add((state >> 8) % 3).wrapping_sub(1));
    }
    for to in Dtype::FLOATS {
        check_patterns(Dtype::F64, to, &patterns);
    }
}

#[test]
fn f32_widens_exactly_and_its_nans_become_canonical() {
    let mut state = 1u64;
    let patterns: Vec<u64> = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 32
        })
        .chain([0x7f80_0001, 0xff80_0001, 0xffff_ffff, 0x7fc0_0001, 1, 0x8000_0001, 0x807f_ffff])
        .collect();
    for to in [Dtype::F32, Dtype::F64] {
        check_patterns(Dtype::F32, to, &patterns);
    }
}

#[test]
fn conversions_take_unaligned_memory_and_odd_lengths() {
    for len in [0, 1, 31, 511, 513, 1027] {
        let input: Vec<u8> = (0..4 * len + 1).map(|i| (i * 37 + i / 7) as u8).collect();
        for kernels in Kernels::available() {
            let mut out = vec![0; 2 * len + 3];
            kernels.convert(Dtype::F32, Dtype::Bf16, input[1..].into(), (&mut out[1..=2 * len]).into());
            for (value, found) in input[1..].chunks_exact(4).zip(out[1..].chunks_exact(2)) {
                let expected = float::convert(Dtype::F32, float::read_bits(value), Dtype::Bf16);
                assert_eq!(float::read_bits(found), expected);
            }
            assert_eq!((out[0], &out[2 * len + 1..]), (0, &[0, 0][..]));
        }
    }
}
