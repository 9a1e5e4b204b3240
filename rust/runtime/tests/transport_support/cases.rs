//! The conformance cases: what every transport promises, as one function a promise.

use std::time::{Duration, Instant};

use isobit::transport::{ABORT_BYTES_MAX, Frame, Transport, TransportError};
use isobit_core::wire::Channel;
use isobit_sys::{Beside, ReadSpan};

pub(crate) use super::buffered::*;
pub(crate) use super::damaged::*;
pub(crate) use super::shared::*;
use super::support::{
    CHANNELS, Fixture, bytes, complete, each_rank, fill, header, kept, payload, recv, send, until,
};

const C: Channel = Channel::Collective;

pub(crate) fn a_group_knows_itself<F: Fixture>() {
    let group = F::group(3);
    let incarnations: Vec<u64> = (0..3).map(|rank| group[0].incarnation(rank)).collect();
    assert!(incarnations[0] != incarnations[1] && incarnations[1] != incarnations[2]);
    for (rank, transport) in group.iter().enumerate() {
        assert_eq!(transport.rank(), rank as u32);
        assert_eq!(transport.world_size(), 3);
        assert_eq!(transport.group(), group[0].group());
        assert_eq!((0..3).map(|rank| transport.incarnation(rank)).collect::<Vec<_>>(), incarnations);
    }
    assert_ne!(F::group(1)[0].group(), group[0].group(), "every group has a number of its own");
}

pub(crate) fn messages_arrive_in_order_and_once<F: Fixture>() {
    const COUNT: u64 = 2_000;
    each_rank(F::group(2), |mut t| {
        if t.rank() == 0 {
            for number in 0..COUNT {
                let payload = bytes(number, number as usize * 7 % 3_000);
                assert_eq!(send(&mut t, 1, C, &payload), Ok(number));
            }
            complete(&mut t, 1, C, COUNT, |_| unreachable!("nothing is damaged")).unwrap();
        } else {
            for number in 0..COUNT {
                let frame = recv(&mut t, 0, C).unwrap();
                assert_eq!(payload(&frame), bytes(number, number as usize * 7 % 3_000), "message {number}");
            }
            // The sender leaves only after all were verified: nothing more is there, and so it is lost.
            let end = until(&mut t, |t| t.try_recv(0, C));
            assert!(matches!(end, Err(TransportError::PeerLost { rank: 0, .. })), "nothing comes twice");
        }
    });
}

pub(crate) fn a_header_arrives_as_it_was_given<F: Fixture>() {
    let mut group = F::group(2);
    let sent = header(1, 0, C, 77);
    let body = bytes(1, 100);
    group[1].try_send(0, C, &sent, ReadSpan::from(&body[..])).unwrap().unwrap();
    let frame = recv(&mut group[0], 1, C).unwrap();
    let found = *frame.header();
    assert_eq!(found.payload_bytes, 100);
    assert_ne!(found.payload_checksum, 0);
    let filled = isobit_core::wire::Header {
        payload_bytes: found.payload_bytes,
        payload_checksum: found.payload_checksum,
        ..sent
    };
    assert_eq!(found, filled);
}

pub(crate) fn a_full_channel_does_not_hold_up_the_other<F: Fixture>() {
    for (full, free) in [(CHANNELS[0], CHANNELS[1]), (CHANNELS[1], CHANNELS[0])] {
        let mut group = F::group(2);
        assert!(fill(&mut group[0], 1, full, &bytes(1, 5_000)) > 0);
        send(&mut group[0], 1, free, b"passes").unwrap();
        assert_eq!(payload(&recv(&mut group[1], 0, free).unwrap()), b"passes");
        assert_eq!(payload(&recv(&mut group[1], 0, full).unwrap()), bytes(1, 5_000));
    }
}

pub(crate) fn ranks_that_all_send_much_before_receiving_do_not_deadlock<F: Fixture>() {
    const COUNT: u64 = 100;
    each_rank(F::group(2), |mut t| {
        let (peer, size) = (1 - t.rank(), t.capabilities().payload_bytes_max);
        let (mut sent, mut received) = (0, 0);
        let rank = t.rank();
        until(&mut t, |t| {
            while sent < COUNT {
                let body = kept(bytes(sent * 2 + u64::from(rank), size));
                let header = header(rank, peer, C, sent as u32);
                if t.try_send(peer, C, &header, body)?.is_none() {
                    break;
                }
                sent += 1;
            }
            while received < COUNT
                && let Some(frame) = t.try_recv(peer, C)?
            {
                assert_eq!(payload(&frame), bytes(received * 2 + u64::from(peer), size));
                received += 1;
            }
            Ok((t.verified(peer, C)? == COUNT && received == COUNT).then_some(()))
        })
        .unwrap();
    });
}

pub(crate) fn a_full_window_says_not_now_and_later_takes_more<F: Fixture>() {
    for channel in CHANNELS {
        let mut group = F::group(2);
        // So large that few are too many: it is what they take that fills the window, not how many may be unverified.
        let body = bytes(1, group[0].capabilities().payload_bytes_max);
        let count = fill(&mut group[0], 1, channel, &body);
        let first = recv(&mut group[1], 0, channel).unwrap();
        let header = header(0, 1, channel, 0);
        assert_eq!(group[0].try_send(1, channel, &header, ReadSpan::from(&body[..])), Ok(None), "still lent");
        drop(first);
        let second = send(&mut group[0], 1, channel, &body);
        assert_eq!(second, Ok(count as u64));
        for _ in 0..count {
            assert_eq!(payload(&recv(&mut group[1], 0, channel).unwrap()), body);
        }
        assert!(matches!(group[1].try_recv(0, channel), Ok(None)));
    }
}

pub(crate) fn a_copy_beside_a_message_is_made_if_that_is_sent_and_only_then<F: Fixture>() {
    let mut group = F::group(2);
    let size = group[0].capabilities().payload_bytes_max;
    let own = bytes(99, size);
    for number in 0.. {
        let (mut copy, body) = (vec![0; size], bytes(number, size));
        let beside = Beside { src: own.as_slice().into(), dst: copy.as_mut_slice().into() };
        let header = header(0, 1, C, number as u32);
        let sent = group[0].try_send_beside(1, C, &header, kept(body), beside).unwrap();
        assert!(copy == if sent.is_some() { own.clone() } else { vec![0; size] }, "sent: {sent:?}");
        if sent.is_none() {
            for number in 0..number {
                assert!(
                    payload(&recv(&mut group[1], 0, C).unwrap()) == bytes(number, size),
                    "message {number}"
                );
            }
            return;
        }
    }
}

pub(crate) fn the_window_holds_what_the_capabilities_say<F: Fixture>() {
    let mut group = F::group(2);
    let capabilities = group[0].capabilities();
    let body = bytes(3, capabilities.payload_bytes_max);
    // At every position of the ring: a round of one small message shifts the next round.
    for round in 0..40 {
        let count = fill(&mut group[0], 1, C, &body);
        assert!(count * body.len() >= capabilities.window_bytes, "round {round}: {count} messages");
        for _ in 0..count {
            recv(&mut group[1], 0, C).unwrap();
        }
        send(&mut group[0], 1, C, &bytes(4, 1_500)).unwrap();
        recv(&mut group[1], 0, C).unwrap();
    }
}

pub(crate) fn lent_frames_are_held_while_others_arrive_and_dropped_in_any_order<F: Fixture>() {
    let mut group = F::group(2);
    let whole = fill(&mut group[0], 1, C, &bytes(0, 9_000));
    let mut lent: Vec<_> = (0..whole).map(|_| recv(&mut group[1], 0, C).unwrap()).collect();
    // Every third, then the rest from the back, then the first.
    let mut order: Vec<usize> = (0..whole).rev().filter(|i| i % 3 == 1).collect();
    order.extend((1..whole).rev().filter(|i| i % 3 != 1));
    for index in order {
        let frame = std::mem::replace(&mut lent[index], recv_filler(&mut group));
        assert_eq!(payload(&frame), bytes(0, 9_000));
        drop(frame);
        assert_eq!(payload(&lent[0]), bytes(0, 9_000), "the first is still lent and untouched");
    }
    drop(lent);
    assert_eq!(fill(&mut group[0], 1, C, &bytes(0, 9_000)), whole, "everything came back");
}

/// A frame of the other channel, to stand in a dropped one's place.
fn recv_filler<T: Transport>(group: &mut [T]) -> T::Frame {
    send(&mut group[0], 1, Channel::PointToPoint, b"").unwrap();
    recv(&mut group[1], 0, Channel::PointToPoint).unwrap()
}

pub(crate) fn a_send_is_complete_when_the_receiver_has_verified_it<F: Fixture>() {
    let mut group = F::group(2);
    send(&mut group[0], 1, C, b"one").unwrap();
    send(&mut group[0], 1, C, b"two").unwrap();
    assert_eq!(group[0].verified(1, C), Ok(0));
    let first = recv(&mut group[1], 0, C).unwrap();
    assert_eq!(group[0].verified(1, C), Ok(1), "lent or not");
    drop(first);
    recv(&mut group[1], 0, C).unwrap();
    assert_eq!(group[0].verified(1, C), Ok(2));
    assert_eq!(group[0].verified(1, Channel::PointToPoint), Ok(0));
}

pub(crate) fn a_message_whose_header_was_looked_at_stays_and_its_send_is_not_complete<F: Fixture>() {
    let mut group = F::group(2);
    assert_eq!(group[1].peek(0, C), Ok(None));
    send(&mut group[0], 1, C, b"one").unwrap();
    for _ in 0..3 {
        let header = group[1].peek(0, C).unwrap().unwrap().unwrap();
        assert_eq!((header.source, header.payload_bytes), (0, 3));
    }
    assert_eq!(group[0].verified(1, C), Ok(0));
    assert_eq!(payload(&recv(&mut group[1], 0, C).unwrap()), b"one");
    assert_eq!((group[0].verified(1, C), group[1].peek(0, C)), (Ok(1), Ok(None)));
}

pub(crate) fn an_abort_reaches_every_rank_in_its_wait_and_the_first_wins<F: Fixture>() {
    let reason = bytes(8, ABORT_BYTES_MAX);
    each_rank(F::group(4), |mut t| {
        if t.rank() == 2 {
            for peer in [0, 1, 3] {
                recv(&mut t, peer, C).unwrap();
            }
            t.abort(&reason);
            t.abort(b"a second reason");
        } else {
            send(&mut t, 2, C, b"ready").unwrap();
        }
        // Rank 2 never sends anything.
        let waiting = until(&mut t, |t| if t.rank() == 2 { t.try_recv(0, C) } else { t.try_recv(2, C) });
        let expected = TransportError::Aborted { rank: 2, reason: reason.clone() };
        assert_eq!(waiting.err(), Some(expected.clone()));
        if t.rank() != 2 {
            t.abort(b"too late");
        }
        assert_eq!(t.verified((t.rank() + 1) % 4, C), Err(expected.clone()));
        assert_eq!(t.wait(Instant::now()), Err(expected));
    });
}

pub(crate) fn an_abort_comes_before_waiting_messages<F: Fixture>() {
    let mut group = F::group(2);
    send(&mut group[0], 1, C, b"unread").unwrap();
    group[0].abort(b"");
    let found = group[1].try_recv(0, C).err();
    assert_eq!(found, Some(TransportError::Aborted { rank: 0, reason: Vec::new() }));
}

pub(crate) fn a_closed_peer_is_lost_with_its_reason_after_its_last_message<F: Fixture>() {
    let mut group = F::group(3);
    send(&mut group[1], 0, C, b"last words").unwrap();
    group[1].close("done for today");
    drop(group.remove(1));
    let t = &mut group[0];
    assert_eq!(payload(&recv(t, 1, C).unwrap()), b"last words");
    let lost = TransportError::PeerLost { rank: 1, reason: "done for today".to_owned() };
    assert_eq!(recv(t, 1, C).err(), Some(lost.clone()));
    assert_eq!(send(t, 1, C, b"anyone?"), Err(lost));
    // The others go on.
    send(&mut group[0], 2, C, b"still here").unwrap();
    assert_eq!(payload(&recv(&mut group[1], 0, C).unwrap()), b"still here");
}

pub(crate) fn a_close_ends_the_wait_of_who_waits_for_it<F: Fixture>() {
    each_rank(F::group(2), |mut t| {
        if t.rank() == 0 {
            recv(&mut t, 1, C).unwrap();
            t.close("enough");
        } else {
            send(&mut t, 0, C, b"go").unwrap();
            let lost = recv(&mut t, 0, C).err();
            assert_eq!(lost, Some(TransportError::PeerLost { rank: 0, reason: "enough".to_owned() }));
        }
    });
}

pub(crate) fn a_dropped_transport_is_a_lost_peer<F: Fixture>() {
    let mut group = F::group(2);
    drop(group.remove(1));
    let lost = recv(&mut group[0], 1, C).err();
    assert!(matches!(lost, Some(TransportError::PeerLost { rank: 1, .. })), "{lost:?}");
}

pub(crate) fn sends_that_a_peer_verified_before_it_left_are_complete<F: Fixture>() {
    let mut group = F::group(2);
    send(&mut group[0], 1, C, b"one").unwrap();
    recv(&mut group[1], 0, C).unwrap();
    send(&mut group[0], 1, Channel::PointToPoint, b"never read").unwrap();
    drop(group.remove(1));
    let t = &mut group[0];
    t.wait(Instant::now()).unwrap();
    assert_eq!(t.verified(1, C), Ok(1));
    let unread = t.verified(1, Channel::PointToPoint);
    assert!(matches!(unread, Err(TransportError::PeerLost { rank: 1, .. })), "{unread:?}");
}

pub(crate) fn frames_outlive_their_transport<F: Fixture>() {
    let mut group = F::group(2);
    send(&mut group[0], 1, C, &bytes(5, 3_000)).unwrap();
    let frame = recv(&mut group[1], 0, C).unwrap();
    drop(group);
    assert_eq!(payload(&frame), bytes(5, 3_000));
}

pub(crate) fn the_empty_and_the_largest_payload_arrive<F: Fixture>() {
    let mut group = F::group(2);
    let largest = group[0].capabilities().payload_bytes_max;
    for channel in CHANNELS {
        for len in [0, 1, largest - 1, largest, 0, largest] {
            send(&mut group[0], 1, channel, &bytes(9, len)).unwrap();
            assert_eq!(payload(&recv(&mut group[1], 0, channel).unwrap()), bytes(9, len), "{len} bytes");
        }
    }
}

pub(crate) fn a_wait_for_nothing_ends_at_its_time<F: Fixture>() {
    let mut group = F::group(2);
    let start = Instant::now();
    let end = start + Duration::from_millis(50);
    while Instant::now() < end {
        group[0].wait(end).unwrap();
    }
    assert_eq!(group[0].wait(start), Ok(()), "a time that is over");
}

pub(crate) fn everything_that_is_waited_for_ends_a_wait<F: Fixture>() {
    let mut group = F::group(2);
    F::tamper(&mut group[0], Box::new(|attempt| (attempt.number == 1 && !attempt.again).then_some(3)));
    // With all that happened so far behind it, so that only what comes next can end the wait.
    let settle = |group: &mut Vec<F::T>| group.iter_mut().for_each(|t| t.wait(Instant::now()).unwrap());
    let wakes = |t: &mut F::T, what: &str| {
        let end = Instant::now() + Duration::from_secs(10);
        t.wait(end).unwrap();
        assert!(Instant::now() < end, "slept through: {what}");
    };
    settle(&mut group);
    send(&mut group[0], 1, C, b"one").unwrap();
    wakes(&mut group[1], "a message");
    let frame = group[1].try_recv(0, C).unwrap().unwrap();
    wakes(&mut group[0], "a verified message");
    settle(&mut group);
    drop(frame);
    wakes(&mut group[0], "room");
    send(&mut group[0], 1, C, b"two").unwrap();
    settle(&mut group);
    assert!(group[1].try_recv(0, C).unwrap().is_none(), "it is damaged");
    wakes(&mut group[0], "a wish for a message");
    assert_eq!(group[0].resend_wanted(), Some((1, C, 1)));
    settle(&mut group);
    group[0].resend(1, C, 1, &header(0, 1, C, 0), ReadSpan::from(&b"two"[..])).unwrap();
    wakes(&mut group[1], "a message that is sent again");
    settle(&mut group);
    group[0].close("done");
    wakes(&mut group[1], "a goodbye");
}

pub(crate) fn eight_ranks_exchange_random_traffic<F: Fixture>() {
    const RANKS: u32 = 8;
    const COUNT: u64 = 60;
    let seed = |from: u32, to: u32, channel: Channel, number: u64| {
        u64::from(from) << 40 | u64::from(to) << 32 | (channel as u64) << 24 | number
    };
    let size = |seed: u64| (seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as usize % 20_000;
    each_rank(F::group(RANKS), |mut t| {
        let rank = t.rank();
        let mut sent = [[0_u64; 2]; RANKS as usize];
        let mut received = [[0_u64; 2]; RANKS as usize];
        let mut held = std::collections::VecDeque::new();
        until(&mut t, |t| {
            let mut done = true;
            for peer in (0..RANKS).filter(|peer| *peer != rank) {
                for channel in CHANNELS {
                    let link = (peer as usize, channel as usize);
                    while sent[link.0][link.1] < COUNT {
                        let key = seed(rank, peer, channel, sent[link.0][link.1]);
                        let body = kept(bytes(key, size(key)));
                        let header = header(rank, peer, channel, 0);
                        if t.try_send(peer, channel, &header, body)?.is_none() {
                            break;
                        }
                        sent[link.0][link.1] += 1;
                    }
                    while received[link.0][link.1] < COUNT
                        && let Some(frame) = t.try_recv(peer, channel)?
                    {
                        let key = seed(peer, rank, channel, received[link.0][link.1]);
                        assert_eq!(payload(&frame), bytes(key, size(key)), "{peer} to {rank}");
                        received[link.0][link.1] += 1;
                        held.push_back((key, frame));
                        if held.len() > 5 {
                            // One from the middle, checked once more before it goes.
                            let (key, frame) = held.remove(key as usize % 5).unwrap();
                            assert_eq!(payload(&frame), bytes(key, size(key)));
                        }
                    }
                    done &= received[link.0][link.1] == COUNT && t.verified(peer, channel)? == COUNT;
                }
            }
            // Nothing more may come while a peer's whole window is held.
            held.clear();
            Ok(done.then_some(()))
        })
        .unwrap();
    });
}
