//! Tests of messages that their consumer expects: taken where they lie, without a look at what comes before them.

use super::tests::payload;
use super::*;
use crate::os::checksum;
use crate::{ReadSpan, WriteSpan};

/// A head whose seal is the number and a digest of the payload's checksum.
fn sealed(number: u64) -> impl Fn(u64) -> u64 {
    move |sum| (sum >> 16) ^ number << 48
}

fn push_as(producer: &mut Producer, bytes: &[u8], seal: impl Fn(u64) -> u64) -> bool {
    let head = |sum, _: WriteSpan<'_>| {
        let mut head = [0; HEAD_BYTES];
        head[HEAD_BYTES - 8..].copy_from_slice(&seal(sum).to_le_bytes());
        head
    };
    producer.try_push(ReadSpan::from(bytes), 0, head).unwrap().is_some()
}

fn push_sealed(producer: &mut Producer, number: u64) -> bool {
    push_as(producer, &payload(number), sealed(number))
}

fn pop_sealed(consumer: &mut Consumer, number: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; payload(number).len()];
    let is_taken = consumer.try_pop_expected(WriteSpan::from(&mut bytes[..]), sealed(number)).unwrap();
    is_taken.then_some(bytes)
}

#[test]
fn an_expected_message_is_taken_however_far_its_producer_is_ahead() {
    const COUNT: u64 = 3_000;
    // Every length of payload() follows every other: small ones in the tail's line, and large ones.
    for ahead in 1..6 {
        let (mut producer, mut consumer) = pair(16 * 1024);
        let mut sent = 0;
        for number in 0..COUNT {
            while sent < COUNT && sent < number + ahead && push_sealed(&mut producer, sent) {
                sent += 1;
            }
            for later in 1..ahead {
                assert_eq!(pop_sealed(&mut consumer, number + later), None, "that is not the next one");
            }
            assert_eq!(pop_sealed(&mut consumer, number), Some(payload(number)), "{ahead} ahead");
        }
    }
}

/// What lies in their frames is spoilt, so that only mail that is whole can be taken; in even and odd turns.
#[test]
fn messages_that_fit_into_two_lines_with_their_tail_are_taken_from_there() {
    for length in 1..=MAIL_BYTES {
        let (mut producer, mut consumer) = pair(4096);
        let sent: Vec<u8> = (0..length).map(|at| (at ^ length) as u8).collect();
        for turn in 0..2 {
            assert!(push_as(&mut producer, &sent, |sum| sum));
            producer.write(turn * frame_bytes(length) + PAYLOAD_AT, &vec![0xa5; length]);
            let mut taken = vec![0; length];
            let is_taken = consumer.try_pop_expected(WriteSpan::from(&mut taken[..]), |sum| sum);
            assert_eq!((is_taken, &taken), (Ok(true), &sent));
        }
    }
}

/// What stands before them and in their heads is spoilt, so that only who does not wait for it can take them; in even and
/// odd turns, and round the ring's end.
#[test]
fn a_long_message_that_is_the_latest_is_taken_by_its_mark_alone() {
    const LENGTH: usize = 300;
    let capacity = 4 * frame_bytes(LENGTH) - ALIGN;
    for way in [Way::Cached, Way::Streamed] {
        let (mut producer, mut consumer) = pair(capacity);
        producer.send_only(way);
        let mut place = 0;
        for number in 0..20 {
            let sent = [number; LENGTH];
            producer.try_push(ReadSpan::from(&sent[..]), 5, |_, _| [0; HEAD_BYTES]).unwrap().unwrap();
            place = if place + frame_bytes(LENGTH) > capacity { 0 } else { place };
            producer.write(place, &[0xa5; PREFIX_BYTES]);
            place += frame_bytes(LENGTH);
            let mut taken = [0; LENGTH];
            let out = WriteSpan::from(&mut taken[..]);
            if number % 3 == 0 {
                assert_eq!(consumer.try_pop_expected(out, |_| 0), Ok(true));
            } else {
                let read = |payload: ReadSpan<'_>| checksum::copy(payload, out);
                let found = consumer.try_pop_read(LENGTH, 5, |_| unreachable!("it is marked"), |_| 0, read);
                assert_eq!(found, Ok(Look::Taken));
            }
            assert_eq!(taken, sent, "{way:?}, {number}");
        }
    }
}

#[test]
fn a_long_message_with_another_mark_is_judged_by_its_head_before_it_is_read() {
    let (mut producer, mut consumer) = pair(4096);
    producer.try_push(ReadSpan::from(&[3; 300][..]), 5, |_, _| [9; HEAD_BYTES]).unwrap().unwrap();
    let read = |_: ReadSpan<'_>| unreachable!("it is another message");
    let is_other = |head: &[u8; HEAD_BYTES]| *head != [9; HEAD_BYTES];
    assert_eq!(consumer.try_pop_read(300, 6, is_other, |_| 0, read), Ok(Look::Other));
}

#[test]
fn what_an_expected_message_took_counts_for_the_way_that_it_went() {
    for (way, known, unknown) in
        [(Way::Cached, CACHED_PACE, STREAMED_PACE), (Way::Streamed, STREAMED_PACE, CACHED_PACE)]
    {
        for is_marked in [false, true] {
            let (mut producer, mut consumer) = pair(256 * 1024);
            producer.send_only(way);
            let sent = [7; MEASURED_BYTES_MIN];
            producer.try_push(ReadSpan::from(&sent[..]), 5, |_, _| [0; HEAD_BYTES]).unwrap().unwrap();
            let mut taken = [0; MEASURED_BYTES_MIN];
            let out = WriteSpan::from(&mut taken[..]);
            if is_marked {
                let read = |payload: ReadSpan<'_>| checksum::copy(payload, out);
                let found =
                    consumer.try_pop_read(sent.len(), 5, |_| unreachable!("it is marked"), |_| 0, read);
                assert_eq!(found, Ok(Look::Taken));
            } else {
                assert_eq!(consumer.try_pop_expected(out, |_| 0), Ok(true));
            }
            let paces = [known, unknown].map(|word| consumer.ring.load(word));
            assert!(paces[0] > 1 && paces[1] == 0, "{way:?}, marked: {is_marked}: {paces:?}");
        }
    }
}

#[test]
fn two_threads_pass_messages_that_are_expected() {
    const COUNT: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let (mut producer, mut consumer) = pair(16 * 1024);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..COUNT {
                while !push_sealed(&mut producer, number) {
                    std::thread::yield_now();
                }
            }
        });
        for number in 0..COUNT {
            let found = loop {
                match pop_sealed(&mut consumer, number) {
                    Some(found) => break found,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(found, payload(number));
        }
    });
}
