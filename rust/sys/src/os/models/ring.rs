//! A message is read only after it is whole, and its room is written only after the last read.

use loom::thread;

use super::explore;
use crate::os::ring::{
    CAPACITY_MIN, Consumer, HEAD_BYTES, Lease, MAIL_BYTES, Outbox, Popped, Producer, modelled_words,
    ring_bytes, seal_of,
};
use crate::os::shared::SharedBytes;
use crate::{ReadSpan, WriteSpan};

fn pair() -> (Producer, Consumer) {
    let memory = SharedBytes::modelled(ring_bytes(CAPACITY_MIN), modelled_words());
    // SAFETY: the memory is fresh and goes to these two only.
    unsafe { (Producer::new(memory.clone()), Consumer::new(memory, None)) }
}

fn head(sum: u64, _sent: WriteSpan<'_>) -> [u8; HEAD_BYTES] {
    let mut head = [7; HEAD_BYTES];
    head[..8].copy_from_slice(&sum.to_le_bytes());
    head
}

fn check(head: &[u8; HEAD_BYTES], _payload_bytes: usize, sum: u64) -> Result<(), u64> {
    let sent = u64::from_le_bytes(head[..8].try_into().unwrap());
    if sent == sum { Ok(()) } else { Err(sum) }
}

/// Message `number` of `len` bytes.
fn payload(number: u64, len: usize) -> Vec<u8> {
    vec![number as u8 + 1; len]
}

fn push(producer: &mut Producer, bytes: &[u8]) {
    while producer.try_push(ReadSpan::from(bytes), 0, head).unwrap().is_none() {
        thread::yield_now();
    }
}

fn pop(consumer: &mut Consumer) -> Lease {
    loop {
        match consumer.try_pop(check).unwrap() {
            Popped::Frame((), lease) => return lease,
            Popped::Empty => thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
}

/// The ring holds two messages of 64 bytes or of none; more wait for room.
fn all_arrive(lens: &'static [usize]) {
    let (mut producer, mut consumer) = pair();
    let sending = thread::spawn(move || {
        for (number, &len) in lens.iter().enumerate() {
            push(&mut producer, &payload(number as u64, len));
        }
        producer
    });
    for (number, &len) in lens.iter().enumerate() {
        assert_eq!(pop(&mut consumer).payload().to_vec(), payload(number as u64, len));
    }
    let mut producer = sending.join().unwrap();
    assert_eq!(producer.verified(), Ok(lens.len() as u64));
}

#[test]
fn messages_arrive_whole_and_room_is_used_again() {
    explore(|| all_arrive(&[64, 64, 64]));
}

#[test]
fn a_message_that_does_not_fit_before_the_end_starts_at_the_beginning() {
    explore(|| all_arrive(&[0, 0, 64]));
}

#[test]
fn leases_that_end_on_other_threads_and_out_of_order_give_room_back_in_order() {
    explore(|| {
        let (mut producer, mut consumer) = pair();
        push(&mut producer, &payload(0, 64));
        push(&mut producer, &payload(1, 64));
        let (first, second) = (pop(&mut consumer), pop(&mut consumer));
        let reading = thread::spawn(move || assert_eq!(first.payload().to_vec(), payload(0, 64)));
        let sending = thread::spawn(move || push(&mut producer, &payload(2, 64)));
        assert_eq!(second.payload().to_vec(), payload(1, 64));
        drop(second);
        reading.join().unwrap();
        sending.join().unwrap();
        assert_eq!(pop(&mut consumer).payload().to_vec(), payload(2, 64));
    });
}

#[test]
fn a_message_read_behind_a_lease_that_ends_on_another_thread_gives_room_back_once() {
    explore(|| {
        let (mut producer, mut consumer) = pair();
        push(&mut producer, &payload(0, 64));
        push(&mut producer, &payload(1, 64));
        let first = pop(&mut consumer);
        let reading = thread::spawn(move || assert_eq!(first.payload().to_vec(), payload(0, 64)));
        let mut bytes = [0; 64];
        let seal = |sum: u64| seal_of(&head(sum, WriteSpan::from(&mut [][..])));
        assert!(consumer.try_pop_expected(WriteSpan::from(&mut bytes[..]), seal).unwrap());
        assert_eq!(bytes, payload(1, 64)[..]);
        push(&mut producer, &payload(2, 64));
        reading.join().unwrap();
        assert_eq!(pop(&mut consumer).payload().to_vec(), payload(2, 64));
    });
}

#[test]
fn a_damaged_message_is_rewritten_after_its_read_and_read_after_its_rewrite() {
    explore(|| {
        let (mut producer, mut consumer) = pair();
        let sending = thread::spawn(move || {
            let bytes = payload(0, 64);
            assert_eq!(
                producer.try_push(ReadSpan::from(&bytes[..]), 0, |sum, sent| head(!sum, sent)),
                Ok(Some(0))
            );
            while producer.resend_wanted().unwrap().is_none() {
                thread::yield_now();
            }
            producer.resend(0, ReadSpan::from(&bytes[..]), head).unwrap();
        });
        loop {
            match consumer.try_pop(check).unwrap() {
                Popped::Damaged => break,
                Popped::Empty => thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pop(&mut consumer).payload().to_vec(), payload(0, 64));
        sending.join().unwrap();
    });
}

/// Copies have room for one message, and the next waits until it is verified.
#[test]
fn a_damaged_message_is_taken_from_its_copy_before_its_room_is_used_again() {
    explore(|| {
        let (mut producer, mut consumer) = pair();
        let sending = thread::spawn(move || {
            for (number, len) in (0..).zip([64, 0]) {
                let bytes = payload(number, len);
                let head = |sum, [sent, _]: [WriteSpan<'_>; 2]| {
                    sent.flip(3);
                    head(sum, sent)
                };
                while producer.try_push_buffered(ReadSpan::from(&bytes[..]), 0, head).unwrap().is_none() {
                    thread::yield_now();
                }
            }
        });
        for (number, len) in (0..).zip([64, 0]) {
            assert_eq!(pop(&mut consumer).payload().to_vec(), payload(number, len));
        }
        sending.join().unwrap();
    });
}

/// The consumer expects what comes, and the mail of one message is next to the tail of a later one.
#[test]
fn an_expected_message_is_never_taken_for_a_later_one() {
    const SEALS: [u64; 3] = [11, 12, 13];
    explore(|| {
        let (mut producer, mut consumer) = pair();
        let sending = thread::spawn(move || {
            for (seal, len) in SEALS.into_iter().zip([0, 0, 64]) {
                let head = |_, _: WriteSpan<'_>| {
                    let mut head = [0; HEAD_BYTES];
                    head[HEAD_BYTES - 8..].copy_from_slice(&seal.to_le_bytes());
                    head
                };
                let bytes = payload(seal, len);
                while producer.try_push(ReadSpan::from(&bytes[..]), 0, head).unwrap().is_none() {
                    thread::yield_now();
                }
            }
        });
        for (seal, len) in SEALS.into_iter().zip([0, 0, 64]) {
            let mut bytes = vec![0; len];
            while !consumer.try_pop_expected(WriteSpan::from(&mut bytes[..]), |_| seal).unwrap() {
                thread::yield_now();
            }
            assert_eq!(bytes, payload(seal, len));
        }
        sending.join().unwrap();
    });
}

/// The outbox holds one payload, and the next waits until both peers have read it.
#[test]
fn a_shared_payload_is_written_over_only_after_its_last_reader() {
    const LEN: usize = MAIL_BYTES + 24;
    explore(|| {
        let outbox = SharedBytes::modelled(LEN, []);
        let rings = [(); 2].map(|()| SharedBytes::modelled(ring_bytes(CAPACITY_MIN), modelled_words()));
        // SAFETY: the memory is fresh, and each ring goes to these two only.
        let mut consumers = rings.clone().map(|ring| unsafe { Consumer::new(ring, Some(outbox.clone())) });
        let sending = thread::spawn(move || {
            // SAFETY: as above; nobody else has the outbox.
            let mut producers = rings.map(|ring| unsafe { Producer::new(ring) });
            // SAFETY: as above.
            let mut outbox = unsafe { Outbox::new(outbox, 0) };
            for number in 0..2 {
                let bytes = payload(number, LEN);
                let share = loop {
                    match outbox.share(ReadSpan::from(&bytes[..]), 2, &mut producers[0]) {
                        Some(share) => break share,
                        None => thread::yield_now(),
                    }
                };
                for producer in &mut producers {
                    let head = |sum, _: Option<WriteSpan<'_>>| head(sum, WriteSpan::from(&mut [][..]));
                    producer.try_push_shared(&mut outbox, share, 0, head).unwrap().unwrap();
                }
            }
        });
        for number in 0..2 {
            for consumer in &mut consumers {
                assert_eq!(pop(consumer).payload().to_vec(), payload(number, LEN));
            }
        }
        sending.join().unwrap();
    });
}
