//! The cases about messages that take the same bytes to several ranks.

use std::sync::Barrier;

use isobit::transport::Transport;
use isobit_core::Rank;
use isobit_core::wire::Channel;

use super::support::{Fixture, bytes, each_rank, header, kept, payload, recv, until};

const C: Channel = Channel::Collective;
const LEN: usize = 9_000;

/// Rank 0 sends every payload to all others, shared while there is room, with damage that all of them see.
pub(crate) fn what_is_shared_reaches_every_rank_and_what_is_damaged_is_mended<F: Fixture>() {
    const COUNT: u64 = 300;
    let mut group = F::group(4);
    let first_is_damaged = |number: u64| number % 5 == 2;
    F::tamper(
        &mut group[0],
        Box::new(move |attempt| (first_is_damaged(attempt.number) && !attempt.again).then_some(77)),
    );
    // Who leaves is a lost peer.
    let done = Barrier::new(4);
    each_rank(group, |mut t| {
        if t.rank() > 0 {
            for number in 0..COUNT {
                assert_eq!(payload(&recv(&mut t, 0, C).unwrap()), bytes(number, LEN), "message {number}");
            }
            done.wait();
            return;
        }
        let mut shared = 0;
        for number in 0..COUNT {
            let body = kept(bytes(number, LEN));
            let share = t.try_share(1, body, 3).unwrap();
            shared += u64::from(share.is_some());
            for to in 1..4 {
                until(&mut t, |t| {
                    resend(t);
                    let header = header(0, to, C, 0);
                    match share {
                        Some(share) => t.try_send_shared(to, &header, share, body),
                        None => t.try_send(to, C, &header, body),
                    }
                })
                .unwrap();
            }
        }
        for to in 1..4 {
            until(&mut t, |t| {
                resend(t);
                Ok((t.verified(to, C)? == COUNT).then_some(()))
            })
            .unwrap();
        }
        let is_free = t.try_share(1, kept(bytes(0, LEN)), 3).unwrap().is_some();
        assert!(shared == 0 || (shared > 20 && is_free), "{shared} were shared, and there is no room now");
        done.wait();
    });
}

/// Gives what is wanted again, if that is possible just now.
fn resend(t: &mut impl Transport) {
    if let Some((to, channel, number)) = t.resend_wanted() {
        let body = bytes(number, LEN);
        t.resend(to, channel, number, &header(0, to, C, 0), body.as_slice().into()).unwrap();
    }
}

/// A copy that not all of its readers get, because the operation failed, makes room again.
pub(crate) fn what_is_shared_and_not_sent_makes_room_when_its_operation_ends<F: Fixture>() {
    let mut group = F::group(4);
    let sender = &mut group[0];
    let body = kept(bytes(1, LEN));
    let fill = |t: &mut F::T| (0..).take_while(|_| t.try_share(1, body, 3).unwrap().is_some()).count();
    let room = fill(sender);
    assert_eq!(fill(sender), 0, "it is full");
    sender.end_shares();
    assert_eq!(fill(sender), room);
    sender.end_shares();
    if let Some(share) = sender.try_share(1, body, 3).unwrap() {
        let to: Rank = 1;
        sender.try_send_shared(to, &header(0, to, C, 0), share, body).unwrap().unwrap();
        sender.end_shares();
        assert_eq!(fill(sender), room - 1, "one of them is under way");
        drop(recv(&mut group[1], 0, C).unwrap());
        group[0].end_shares();
        assert_eq!(fill(&mut group[0]), room);
    }
}
