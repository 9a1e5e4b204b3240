//! Every instruction set's checksums are XXH3-64 as another implementation computes it, and its
//! copies are copies: for every length about all borders of the hash, wherever the bytes lie.

use isobit_sys::os::checksum;
use isobit_sys::{Beside, Kernels, ReadSpan, WriteSpan};
use xxhash_rust::xxh3::xxh3_64;

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

fn check(bytes: &[u8], place: usize) {
    let expected = xxh3_64(bytes);
    for kernels in Kernels::available() {
        let name = kernels.name();
        assert_eq!(kernels.checksum(bytes.into()), expected, "{name}: {} bytes", bytes.len());
        let mut memory = vec![0xa5; place + bytes.len() + 70];
        let into = |memory: &mut [u8], stream: bool| {
            let target = (&mut memory[place..place + bytes.len()]).into();
            if stream {
                kernels.stream_checksum(bytes.into(), target)
            } else {
                kernels.copy_checksum(bytes.into(), target)
            }
        };
        let mut streamed = memory.clone();
        assert_eq!(into(&mut streamed, true), expected, "{name}: {} bytes, streamed", bytes.len());
        let found = into(&mut memory, false);
        assert_eq!(streamed, memory, "{name}: {} bytes streamed to {place}", bytes.len());
        assert_eq!(found, expected, "{name}: a copy of {} bytes", bytes.len());
        let (before, rest) = memory.split_at(place);
        let (copied, after) = rest.split_at(bytes.len());
        assert!(copied == bytes, "{name}: {} bytes were not copied as they are", bytes.len());
        assert!(before.iter().chain(after).all(|byte| *byte == 0xa5), "{name}: wrote outside");
    }
}

#[test]
fn every_length_has_the_hash_of_another_implementation() {
    let bytes = noise(5000);
    for len in 0..4400 {
        check(&bytes[len % 67..][..len], len % 61);
    }
}

#[test]
fn long_messages_have_the_hash_of_another_implementation() {
    let bytes = noise(1 << 20);
    for len in [1 << 14, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 100_003, (1 << 20) - 65, (1 << 20) - 1] {
        check(&bytes[1..][..len], 3);
        check(&bytes[..len], 0);
    }
    let halfway: Vec<u8> = [vec![0xff; 3000], vec![0; 3000], vec![0x80; 3000]].concat();
    check(&halfway, 0);
}

#[test]
fn the_transports_checksums_are_the_same() {
    let bytes = noise(3000);
    for len in [0, 7, 240, 241, 3000] {
        let mut copied = vec![0; len];
        let sum = checksum::copy(bytes[..len].into(), copied.as_mut_slice().into());
        assert_eq!((sum, checksum::of(bytes[..len].into())), (xxh3_64(&bytes[..len]), sum), "{len} bytes");
        assert_eq!(copied, bytes[..len]);
    }
}

#[test]
fn a_span_may_be_copied_to_itself() {
    for len in [100, 2000] {
        let bytes = noise(len);
        for kernels in Kernels::available() {
            let mut memory = bytes.clone();
            let span = WriteSpan::from(memory.as_mut_slice());
            assert_eq!(
                kernels.copy_checksum(ReadSpan::from(span), span),
                xxh3_64(&bytes),
                "{}",
                kernels.name()
            );
            assert_eq!(memory, bytes);
        }
    }
}

#[test]
fn a_copy_beside_another_is_made_as_well_and_changes_no_checksum() {
    let (bytes, other) = (noise(110_000), noise(120_000).split_off(10_000));
    let lens = (0..700).step_by(29).chain([1024, 4095, 4096, 4097, 8191, 8192, 8256, 12_289, 100_003]);
    let places = [(0, 0), (0, 5), (5, 0), (63, 1), (17, 17)];
    for (len, (from, to)) in lens.flat_map(|len| places.map(|places| (len, places))) {
        for (kernels, is_streamed) in Kernels::available().into_iter().flat_map(|k| [(k, false), (k, true)]) {
            let what = format!("{}: {len} bytes to {from} and {to}, streamed: {is_streamed}", kernels.name());
            let (sent, own) = (&bytes[to..][..len], &other[from..][..len]);
            let mut memory = [len, len].map(|len| vec![0xa5; len + 200]);
            // So far behind the start of a line.
            let [first, second] = [(&memory[0], from), (&memory[1], to)]
                .map(|(memory, place)| memory.as_ptr().align_offset(64) + place);
            let [message, kept] = &mut memory;
            let beside = Beside { src: own.into(), dst: (&mut kept[second..][..len]).into() };
            let target = (&mut message[first..][..len]).into();
            let sum = kernels.copy_checksum_beside(sent.into(), target, is_streamed, beside);
            assert_eq!(sum, xxh3_64(sent), "{what}");
            for (memory, place, expected) in [(&memory[0], first, sent), (&memory[1], second, own)] {
                assert!(memory[place..][..len] == *expected, "{what}: copied as they are");
                let outside = memory[..place].iter().chain(&memory[place + len..]);
                assert!(outside.into_iter().all(|byte| *byte == 0xa5), "{what}: wrote outside");
            }
        }
    }
}

#[test]
#[should_panic(expected = "do not overlap")]
fn a_copy_beside_another_into_its_source_is_refused() {
    let (mut message, own, mut sent) = (noise(3000), noise(3000), vec![0; 3000]);
    let span = WriteSpan::from(message.as_mut_slice());
    let beside = Beside { src: own.as_slice().into(), dst: span };
    Kernels::best().copy_checksum_beside(span.into(), sent.as_mut_slice().into(), false, beside);
}

#[test]
#[should_panic(expected = "of as many bytes")]
fn a_copy_beside_another_is_of_as_many_bytes() {
    let (message, mut sent) = (noise(3000), vec![0; 6000]);
    let (to, kept) = sent.split_at_mut(3000);
    let beside = Beside { src: (&message[1..]).into(), dst: (&mut kept[1..]).into() };
    Kernels::best().copy_checksum_beside(message.as_slice().into(), to.into(), false, beside);
}

#[test]
#[should_panic(expected = "overlap")]
fn a_copy_between_halves_of_one_another_is_refused() {
    let mut memory = noise(3000);
    let span = WriteSpan::from(memory.as_mut_slice());
    checksum::copy(ReadSpan::from(span).slice(0, 2000), span.slice(500, 2000));
}
