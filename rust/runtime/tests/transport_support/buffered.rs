//! The cases about messages that are sent buffered and received as they are expected, and about sleep.

use std::time::{Duration, Instant};

use isobit::transport::{Frame, Transport, TransportError};
use isobit_core::wire::{Channel, Draft};
use isobit_sys::os::checksum;
use isobit_sys::os::ring::Look;
use isobit_sys::{ReadSpan, WriteSpan};

use super::support::{Fixture, bytes, each_rank, header, payload, recv, until};

const C: Channel = Channel::Collective;

/// The payload of the next message from rank 0, if it is there and the expected one.
fn recv_expected(t: &mut impl Transport, expected: &Draft) -> Result<Option<Vec<u8>>, TransportError> {
    let mut out = vec![0; expected.payload_bytes()];
    let taken = t.try_recv_expected(0, C, expected, WriteSpan::from(&mut out[..]))?;
    Ok(taken.then_some(out))
}

pub(crate) fn a_buffered_message_arrives_and_a_damaged_one_is_mended_without_its_sender<F: Fixture>() {
    let mut group = F::group(2);
    let Some(bytes_max) = group[0].capabilities().buffered_bytes_max else { return };
    F::tamper(&mut group[0], Box::new(|attempt| (attempt.number % 3 == 1 && !attempt.again).then_some(5)));
    each_rank(group, |mut t| {
        let len = |number: u64| [0, 1, 8, 40, 41, bytes_max][number as usize % 6];
        for number in 0..200 {
            let sent = header(0, 1, C, number as u32).with(len(number) as u32).draft();
            if t.rank() == 0 {
                let body = bytes(number, len(number));
                until(&mut t, |t| {
                    // It only answers; it is not asked to give anything again.
                    assert_eq!(t.resend_wanted(), None);
                    let went = t.try_send_buffered(1, C, &sent, ReadSpan::from(&body[..]))?;
                    Ok(went.then_some(()))
                })
                .unwrap();
                t.ring(1);
            } else if number % 2 == 0 {
                let expected = until(&mut t, |t| match recv_expected(t, &sent)? {
                    // A damaged one is not the expected one: who looks at it asks for it again.
                    None => Ok(t.try_recv(0, C)?.map(|frame| payload(&frame))),
                    expected => Ok(expected),
                });
                assert_eq!(expected.unwrap(), bytes(number, len(number)));
                t.ring(0);
            } else {
                assert_eq!(payload(&recv(&mut t, 0, C).unwrap()), bytes(number, len(number)));
            }
        }
        until(&mut t, |t| {
            assert_eq!(t.resend_wanted(), None);
            Ok((t.rank() == 1 || t.verified(1, C)? == 200).then_some(()))
        })
        .unwrap();
    });
}

pub(crate) fn a_damaged_buffered_message_is_mended_though_its_sender_never_calls_again<F: Fixture>() {
    let mut group = F::group(2);
    let Some(bytes_max) = group[0].capabilities().buffered_bytes_max else { return };
    F::tamper(&mut group[0], Box::new(|attempt| (!attempt.again).then_some(6)));
    let lens = [1, 8, 40, 41, 1_000, bytes_max];
    let sent = |number: usize| header(0, 1, C, number as u32).with(lens[number] as u32).draft();
    for (number, &len) in lens.iter().enumerate() {
        let body = bytes(number as u64, len);
        assert!(group[0].try_send_buffered(1, C, &sent(number), ReadSpan::from(&body[..])).unwrap());
    }
    for (number, &len) in lens.iter().enumerate() {
        assert!(recv_expected(&mut group[1], &sent(number)).unwrap().is_none(), "it is damaged");
        let frame = group[1].try_recv(0, C).unwrap().expect("it needs nobody else");
        assert_eq!(payload(&frame), bytes(number as u64, len));
    }
    assert_eq!(group[0].verified(1, C), Ok(lens.len() as u64));
}

pub(crate) fn a_message_other_than_the_expected_one_stays_for_who_takes_any<F: Fixture>() {
    let mut group = F::group(2);
    if group[0].capabilities().buffered_bytes_max.is_none() {
        return;
    }
    for len in [8, 1_000] {
        let (sent, body) = (header(0, 1, C, 1).with(len), bytes(7, len as usize));
        assert!(group[0].try_send_buffered(1, C, &sent.draft(), ReadSpan::from(&body[..])).unwrap());
        let mut others = [sent, sent, sent];
        others[0].sequence += 1;
        others[1].descriptor.count += 1;
        others[2].payload_bytes += 1;
        for other in others {
            assert!(recv_expected(&mut group[1], &other.draft()).unwrap().is_none(), "{other:?}");
        }
        let frame = recv(&mut group[1], 0, C).unwrap();
        assert_eq!((frame.header().descriptor, payload(&frame)), (sent.descriptor, body));
    }
}

pub(crate) fn only_the_expected_message_is_copied_and_a_damaged_one_stays<F: Fixture>() {
    let mut group = F::group(2);
    if group[0].capabilities().buffered_bytes_max.is_none() {
        return;
    }
    F::tamper(&mut group[0], Box::new(|attempt| (attempt.number == 1 && !attempt.again).then_some(9)));
    for (number, streams) in [false, true].into_iter().enumerate() {
        let body = bytes(number as u64, 3_000);
        let sent = header(0, 1, C, number as u32).with(3_000);
        group[0].try_send(1, C, &sent, ReadSpan::from(&body[..])).unwrap().unwrap();
        let mut out = vec![7; 3_000];
        for other in [header(0, 1, C, 9).with(3_000), header(0, 1, C, number as u32).with(2_999)] {
            let read = &mut |_: ReadSpan<'_>| unreachable!("another message is not read");
            assert_eq!(group[1].try_recv_read(0, C, &other.draft(), read).unwrap(), Look::Other);
        }
        let copy = if streams { checksum::stream } else { checksum::copy };
        let out_span = WriteSpan::from(&mut out[..]);
        let read = &mut |payload: ReadSpan<'_>| copy(payload, out_span);
        let taken = group[1].try_recv_read(0, C, &sent.draft(), read).unwrap() == Look::Taken;
        assert_eq!(taken, number == 0, "the second one is damaged");
        if taken {
            assert_eq!(out, body);
        } else {
            assert!(group[1].try_recv(0, C).unwrap().is_none(), "it is asked for again");
            group[0].resend(1, C, 1, &sent, ReadSpan::from(&body[..])).unwrap();
            assert_eq!(payload(&recv(&mut group[1], 0, C).unwrap()), body);
        }
    }
}

pub(crate) fn who_sleeps_is_woken_when_room_is_given_back<F: Fixture>() {
    let mut group = F::group(2);
    for round in 0..20 {
        let body = bytes(round, 100);
        let sent = header(0, 1, C, 0);
        group[0].try_send(1, C, &sent, ReadSpan::from(&body[..])).unwrap().unwrap();
        let frame = recv(&mut group[1], 0, C).unwrap();
        let sender = &mut group[0];
        sender.wait(Instant::now()).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                let end = Instant::now() + Duration::from_secs(10);
                sender.wait(end).unwrap();
                assert!(Instant::now() < end, "slept through it");
            });
            // Long enough that it sleeps, most times: it must wake either way.
            let later = Instant::now() + Duration::from_millis(1);
            while Instant::now() < later {
                std::hint::spin_loop();
            }
            drop(frame);
            waiting.join().unwrap();
        });
    }
}

pub(crate) fn a_buffered_message_damaged_twice_is_a_corruption<F: Fixture>() {
    let mut group = F::group(2);
    if group[0].capabilities().buffered_bytes_max.is_none() {
        return;
    }
    F::tamper(&mut group[0], Box::new(|_| Some(0)));
    let sent = header(0, 1, C, 0).with(16).draft();
    assert!(group[0].try_send_buffered(1, C, &sent, ReadSpan::from(&[3; 16][..])).unwrap());
    for _ in 0..2 {
        assert!(recv_expected(&mut group[1], &sent).unwrap().is_none(), "damaged bytes are handed out");
    }
    for _ in 0..2 {
        let error = group[1].try_recv(0, C).err().expect("damaged bytes are handed out");
        assert!(matches!(error, TransportError::Corruption { from: 0, to: 1, .. }), "{error}");
        assert_eq!(group[0].resend_wanted(), None, "nobody has to give it again");
    }
}
