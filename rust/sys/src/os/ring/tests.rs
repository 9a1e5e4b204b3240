//! Tests of the ring over heap memory: two threads, and sides that break the protocol.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::{ReadSpan, WriteSpan};

pub(super) fn head(sum: u64, _sent: WriteSpan<'_>) -> [u8; HEAD_BYTES] {
    let mut head = [7; HEAD_BYTES];
    head[..8].copy_from_slice(&sum.to_le_bytes());
    head
}

pub(super) fn check(head: &[u8; HEAD_BYTES], _payload_bytes: usize, sum: u64) -> Result<(), u64> {
    let sent = u64::from_le_bytes(head[..8].try_into().unwrap());
    if sent == sum { Ok(()) } else { Err(sum) }
}

pub(super) fn payload(number: u64) -> Vec<u8> {
    let random = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize;
    let len = if random.is_multiple_of(2) { random / 2 % 50 } else { random / 2 % 1_500 };
    (0..len).map(|i| (number as usize + i * 3) as u8).collect()
}

fn push(producer: &mut Producer, bytes: &[u8]) -> Option<u64> {
    producer.try_push(ReadSpan::from(bytes), 0, head).unwrap()
}

pub(super) fn pop(consumer: &mut Consumer) -> Option<Lease> {
    match consumer.try_pop(check).unwrap() {
        Popped::Empty => None,
        Popped::Frame((), lease) => Some(lease),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_threads_pass_messages_of_all_sizes_in_order() {
    const COUNT: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let (mut producer, mut consumer) = pair(4096);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..COUNT {
                while push(&mut producer, &payload(number)).is_none() {
                    std::thread::yield_now();
                }
            }
            while producer.verified().unwrap() < COUNT {
                std::thread::yield_now();
            }
        });
        scope.spawn(move || {
            let mut lent = VecDeque::new();
            for number in 0..COUNT {
                let lease = loop {
                    // A ring that is full of lent frames never moves on.
                    match pop(&mut consumer) {
                        Some(lease) => break lease,
                        None => drop(lent.pop_back()),
                    }
                    std::thread::yield_now();
                };
                assert_eq!(lease.payload().to_vec(), payload(number));
                lent.push_back((number, lease));
                if lent.len() == 3 {
                    let (number, lease) = lent.remove(number as usize % 3).unwrap();
                    assert_eq!(lease.payload().to_vec(), payload(number), "untouched while lent");
                }
            }
        });
    });
}

#[test]
fn the_largest_payload_fits_an_empty_ring_wherever_it_is() {
    for capacity in [CAPACITY_MIN, 1024, 4096, 4096 + 64] {
        let (mut producer, mut consumer) = pair(capacity);
        let largest = vec![5; payload_bytes_max(capacity)];
        for small in [0, 1, 64, 0, 65, 0, 0, 64, 1, 0].repeat(8) {
            for bytes in [&largest[..], &largest[..small.min(largest.len())]] {
                assert!(push(&mut producer, bytes).is_some(), "{} of {capacity}", bytes.len());
                assert_eq!(pop(&mut consumer).unwrap().payload().to_vec(), bytes);
            }
        }
    }
}

#[test]
fn a_held_lease_keeps_its_bytes_and_everything_behind_it() {
    let (mut producer, mut consumer) = pair(512);
    push(&mut producer, &[1; 64]).unwrap();
    push(&mut producer, &[2; 64]).unwrap();
    let first = pop(&mut consumer).unwrap();
    drop(pop(&mut consumer).unwrap());
    assert!(push(&mut producer, &[3; 64]).is_some());
    assert!(push(&mut producer, &[4; 64]).is_some());
    assert!(push(&mut producer, &[5; 64]).is_none(), "the second's bytes wait for the first's");
    assert_eq!(first.payload().to_vec(), [1; 64]);
    drop(first);
    assert!(push(&mut producer, &[5; 64]).is_some());
    assert!(push(&mut producer, &[5; 64]).is_some());
}

#[test]
fn a_message_read_behind_a_lease_gives_its_room_back_after_it() {
    let (mut producer, mut consumer) = pair(256);
    let sends = |producer: &mut Producer, number: u64| {
        let head = |sum, _: WriteSpan<'_>| {
            let mut head = head(sum, WriteSpan::from(&mut [][..]));
            head[HEAD_BYTES - 8..].copy_from_slice(&number.to_le_bytes());
            head
        };
        producer.try_push(ReadSpan::from(&[number as u8; 64][..]), 0, head).unwrap().is_some()
    };
    for round in [0, 10, 20] {
        assert!(sends(&mut producer, round) && sends(&mut producer, round + 1));
        let lease = pop(&mut consumer).unwrap();
        let mut bytes = [0; 64];
        let taken = consumer.try_pop_expected(WriteSpan::from(&mut bytes[..]), |_| round + 1);
        assert_eq!((taken, bytes), (Ok(true), [round as u8 + 1; 64]));
        assert!(!sends(&mut producer, round + 2), "the lease's bytes and those behind it are not free");
        assert_eq!(lease.payload().to_vec(), [round as u8; 64]);
        drop(lease);
        for number in [round + 2, round + 3] {
            assert!(sends(&mut producer, number), "the room is back");
            let taken = consumer.try_pop_expected(WriteSpan::from(&mut bytes[..]), |_| number);
            assert_eq!((taken, bytes), (Ok(true), [number as u8; 64]));
        }
    }
}

#[test]
fn a_damaged_message_is_asked_for_once_more_and_what_follows_waits() {
    let (mut producer, mut consumer) = pair(4096);
    push(&mut producer, b"fine").unwrap();
    producer.try_push(ReadSpan::from(&b"damaged"[..]), 0, |sum, sent| head(sum ^ 1, sent)).unwrap().unwrap();
    push(&mut producer, b"behind").unwrap();
    assert!(pop(&mut consumer).is_some());
    assert_eq!(producer.resend_wanted(), Ok(None));
    assert!(matches!(consumer.try_pop(check), Ok(Popped::Damaged)));
    assert!(matches!(consumer.try_pop(check), Ok(Popped::Empty)), "until it is sent again");
    assert_eq!(producer.verified(), Ok(1));
    assert_eq!(producer.resend_wanted(), Ok(Some(1)));
    producer.resend(1, ReadSpan::from(&b"mended!"[..]), head).unwrap();
    assert_eq!(producer.resend_wanted(), Ok(None));
    assert_eq!(pop(&mut consumer).unwrap().payload().to_vec(), b"mended!");
    assert_eq!(pop(&mut consumer).unwrap().payload().to_vec(), b"behind");
    assert_eq!(producer.verified(), Ok(3));
}

#[test]
fn a_message_that_is_damaged_twice_stays_so() {
    let (mut producer, mut consumer) = pair(4096);
    producer.try_push(ReadSpan::from(&b"damaged"[..]), 0, |sum, sent| head(sum ^ 1, sent)).unwrap().unwrap();
    assert!(matches!(consumer.try_pop(check), Ok(Popped::Damaged)));
    producer.resend(0, ReadSpan::from(&b"damaged"[..]), |sum, sent| head(sum ^ 1, sent)).unwrap();
    assert!(matches!(consumer.try_pop(check), Ok(Popped::DamagedTwice(0, _))));
    assert!(matches!(consumer.try_pop(check), Ok(Popped::DamagedTwice(0, _))));
    assert_eq!(producer.verified(), Ok(0));
}

/// Sends a message that can be taken from its copy, its payload spoilt where `spoils` says so: in the ring, in the copy.
fn push_buffered(producer: &mut Producer, bytes: &[u8], spoils: [bool; 2]) -> Option<u64> {
    let head = |sum, places: [WriteSpan<'_>; 2]| {
        places.into_iter().zip(spoils).filter(|(_, spoilt)| *spoilt).for_each(|(place, _)| place.flip(3));
        head(sum, places[0])
    };
    producer.try_push_buffered(ReadSpan::from(bytes), 0, head).unwrap()
}

#[test]
fn a_damaged_buffered_message_is_taken_from_its_copy_however_far_its_producer_is_ahead() {
    const COUNT: u64 = if cfg!(miri) { 100 } else { 3_000 };
    let payload = |number: u64| {
        let mut bytes = payload(number);
        bytes.resize(bytes.len() * if number.is_multiple_of(7) { 5 } else { 1 }, number as u8);
        bytes
    };
    for ahead in [1, 2, 5, 20, 200] {
        let (mut producer, mut consumer) = pair(1024 * 1024);
        let (mut sent, mut furthest, mut lent) = (0, 0, VecDeque::new());
        for number in 0..COUNT {
            while sent < COUNT.min(number + ahead)
                && push_buffered(&mut producer, &payload(sent), [sent % 3 != 0, false]).is_some()
            {
                sent += 1;
            }
            furthest = furthest.max(sent - number);
            lent.push_back((number, pop(&mut consumer).unwrap()));
            assert_eq!(producer.resend_wanted(), Ok(None), "nobody has to give it again");
            if lent.len() == 3 {
                let (number, lease) = lent.pop_front().unwrap();
                assert_eq!(lease.payload().to_vec(), payload(number), "{ahead} ahead");
            }
        }
        assert!(furthest >= ahead.min(15), "{furthest} of {ahead}: the copies have little room");
    }
}

#[test]
fn a_damaged_message_with_a_damaged_copy_stays_so() {
    let (mut producer, mut consumer) = pair(4096);
    push_buffered(&mut producer, b"damaged", [true, true]).unwrap();
    for _ in 0..2 {
        assert!(matches!(consumer.try_pop(check), Ok(Popped::DamagedTwice(0, _))));
    }
    assert_eq!(producer.verified(), Ok(0));
}

#[test]
fn a_hostile_copy_is_an_error() {
    let last = (COPIES_BYTES - HEAD_BYTES - 7) as u64;
    for (place, seal) in [(last + 1, 7), (1 << 32, 7), (NO_COPY - 1, 7), (0, 8)] {
        let (mut producer, mut consumer) = pair(4096);
        push_buffered(&mut producer, b"damaged", [true, false]).unwrap();
        producer.write(16, &[seal; 8]);
        producer.write(24, &place.to_le_bytes());
        assert_eq!(consumer.try_pop(check).unwrap_err().what, "copy", "{place}");
    }
    // Longer than all copies together.
    let (mut producer, mut consumer) = pair(256 * 1024);
    let large = vec![0; 100_000];
    producer.try_push(ReadSpan::from(&large[..]), 0, |sum, sent| head(sum ^ 1, sent)).unwrap().unwrap();
    producer.write(24, &0u64.to_le_bytes());
    assert_eq!(consumer.try_pop(check).unwrap_err().what, "copy");
}

#[test]
fn messages_go_the_way_that_their_consumer_finds_faster() {
    for (cached, streamed, expected) in [(1 << 40, 2, STREAMED), (2, 1 << 40, CACHED)] {
        let (mut producer, mut consumer) = pair(256 * 1024);
        let mut kinds = [0; 400];
        for found in &mut kinds {
            consumer.ring.store(CACHED_PACE, cached);
            consumer.ring.store(STREAMED_PACE, streamed);
            push(&mut producer, &[9; MEASURED_BYTES_MIN]).unwrap();
            let lease = pop(&mut consumer).unwrap();
            let mut kind = [0; 4];
            // SAFETY: the frame is lent, and its prefix is only read.
            unsafe { consumer.ring.reading(lease.payload.place - PAYLOAD_AT, kind.len()) }.read(&mut kind);
            *found = u32::from_le_bytes(kind);
        }
        assert!(kinds.contains(&CACHED) && kinds.contains(&STREAMED), "both are tried");
        assert_eq!(kinds[399], expected);
    }
}

#[test]
fn a_hostile_tail_is_an_error() {
    for tail in [63, 64 + 4096, 1 << 40, u64::MAX, u64::MAX - 63] {
        let (_producer, mut consumer) = pair(4096);
        consumer.ring.memory.word(TAIL).store(tail, SeqCst);
        assert_eq!(consumer.try_pop(check).unwrap_err().what, "tail", "{tail}");
    }
    // A tail that is possible, over bytes that are no frame.
    let (_producer, mut consumer) = pair(4096);
    consumer.ring.memory.word(TAIL).store(256, SeqCst);
    assert_eq!(consumer.try_pop(check).unwrap_err().what, "frame");
}

#[test]
fn a_tail_that_goes_back_is_an_error() {
    let (mut producer, mut consumer) = pair(4096);
    push(&mut producer, b"one").unwrap();
    drop(pop(&mut consumer).unwrap());
    consumer.ring.memory.word(TAIL).store(64, SeqCst);
    assert_eq!(consumer.try_pop(check).unwrap_err().what, "tail");
}

#[test]
fn a_hostile_head_is_an_error_and_not_room() {
    for head in [1, 4096 + 64, u64::MAX, 1 << 63] {
        let (mut producer, _consumer) = pair(1024);
        while push(&mut producer, &[0; 64]).is_some() {}
        producer.ring.memory.word(HEAD).store(head, SeqCst);
        let error = producer.try_push(ReadSpan::from(&[0; 64][..]), 0, super::tests::head).unwrap_err();
        assert_eq!(error.what, "head", "{head}");
    }
}

#[test]
fn hostile_counts_are_errors() {
    let (mut producer, _consumer) = pair(1024);
    push(&mut producer, b"one").unwrap();
    for wanted in [2, 3, u64::MAX] {
        producer.ring.memory.word(WANTED).store(wanted, SeqCst);
        assert_eq!(producer.resend_wanted().unwrap_err().what, "wish for a message", "{wanted}");
    }
    producer.ring.memory.word(VERIFIED).store(2, SeqCst);
    assert_eq!(producer.verified().unwrap_err().what, "count of verified messages");
    // What has a copy is never wanted.
    let (mut producer, _consumer) = pair(1024);
    push_buffered(&mut producer, b"one", [false, false]).unwrap();
    producer.ring.memory.word(WANTED).store(1, SeqCst);
    assert_eq!(producer.resend_wanted().unwrap_err().what, "wish for a message");
}

#[test]
fn hostile_frames_are_errors() {
    // (offset in the prefix, value): kind, an impossible length, one that exceeds the tail, another number.
    for (at, value) in [(0, 0), (0, WRAP), (4, u32::MAX), (4, 4096), (4, 200), (8, 9), (12, 1)] {
        let (mut producer, mut consumer) = pair(1024);
        push(&mut producer, b"one").unwrap();
        producer.write(at, &value.to_le_bytes());
        let error = consumer.try_pop(check).unwrap_err();
        assert_eq!(error.what, "frame", "{value} at {at}");
    }
}

#[test]
fn a_ring_that_is_empty_starts_anew_and_loses_no_room() {
    let (mut fresh, _) = pair(64 * 1024);
    let (mut producer, mut consumer) = pair(64 * 1024);
    let (mut bases, mut bytes) = (BTreeSet::new(), 0);
    for number in 0..100 {
        push(&mut producer, &payload(number)).unwrap();
        assert_eq!(pop(&mut consumer).unwrap().payload().to_vec(), payload(number));
        bytes += frame_bytes(payload(number).len()) as u64;
        let base = consumer.ring.load(BASE);
        assert!(bytes - base < 10 * 1024, "message {number} is far from the start");
        bases.insert(base);
    }
    assert!(bases.len() > 3, "it never started anew");
    let room = |producer: &mut Producer| (0..).take_while(|_| push(producer, &[5; 1000]).is_some()).count();
    push(&mut producer, &payload(100)).unwrap();
    let (held, base) = (pop(&mut consumer).unwrap(), consumer.ring.load(BASE));
    // As much fits as into one that never started anew, but for what is lost before the end.
    push(&mut fresh, &payload(100)).unwrap();
    assert!(room(&mut producer) + 1 >= room(&mut fresh));
    assert_eq!(consumer.ring.load(BASE), base, "not while something is in it");
    drop(held);
}

#[test]
fn a_ring_that_stays_warm_starts_anew_after_large_messages_too() {
    let lap = |stays_warm: bool| {
        let (mut producer, mut consumer) = pair(256 * 1024);
        if stays_warm {
            producer.stay_warm();
        }
        for number in 0..40 {
            let bytes = vec![number; 16 * 1024];
            push(&mut producer, &bytes).unwrap();
            assert_eq!(pop(&mut consumer).unwrap().payload().to_vec(), bytes);
        }
        consumer.ring.tail() - consumer.ring.load(BASE)
    };
    assert_eq!(lap(true), frame_bytes(16 * 1024) as u64);
    assert!(lap(false) > 256 * 1024, "others go on");
}

#[test]
fn a_base_that_can_not_be_is_an_error() {
    for base in [64, 1 << 40, 7] {
        let (mut producer, mut consumer) = pair(4096);
        push(&mut producer, b"a message").unwrap();
        consumer.ring.store(BASE, base);
        assert_eq!(consumer.try_pop(check).unwrap_err().what, "base");
    }
}
