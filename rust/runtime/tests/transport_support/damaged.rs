//! The cases about messages that arrive damaged, and about those that can't be given again.

use isobit::transport::{Attempt, Transport, TransportError};
use isobit_core::wire::Channel;
use isobit_sys::ReadSpan;

use super::support::{CHANNELS, Fixture, bytes, complete, each_rank, header, payload, recv, send};

const C: Channel = Channel::Collective;

pub(crate) fn a_message_damaged_once_is_sent_again_and_arrives_right<F: Fixture>() {
    for channel in CHANNELS {
        let mut group = F::group(2);
        let damage = |attempt: Attempt| (attempt.number % 3 == 1 && !attempt.again).then_some(12_345);
        F::tamper(&mut group[0], Box::new(damage));
        each_rank(group, |mut t| {
            if t.rank() == 0 {
                for number in 0..20 {
                    send(&mut t, 1, channel, &bytes(number, 4_000)).unwrap();
                    complete(&mut t, 1, channel, number + 1, |n| bytes(n, 4_000)).unwrap();
                }
                // Then several at a time: what follows a damaged one waits for it.
                for number in 20..26 {
                    send(&mut t, 1, channel, &bytes(number, 4_000)).unwrap();
                }
                complete(&mut t, 1, channel, 26, |n| bytes(n, 4_000)).unwrap();
            } else {
                for number in 0..26 {
                    assert_eq!(payload(&recv(&mut t, 0, channel).unwrap()), bytes(number, 4_000));
                }
            }
        });
    }
}

pub(crate) fn a_message_damaged_twice_is_a_corruption_that_names_both_ranks<F: Fixture>() {
    let mut group = F::group(3);
    F::tamper(&mut group[2], Box::new(|attempt| (attempt.number == 1).then_some(0)));
    each_rank(group, |mut t| match t.rank() {
        0 => {}
        1 => {
            recv(&mut t, 2, C).unwrap();
            for _ in 0..2 {
                let error = recv(&mut t, 2, C).err().expect("damaged bytes are handed out");
                assert!(matches!(error, TransportError::Corruption { from: 2, to: 1, .. }), "{error}");
            }
        }
        _ => {
            send(&mut t, 1, C, b"intact").unwrap();
            send(&mut t, 1, C, b"damaged").unwrap();
            let end = complete(&mut t, 1, C, 2, |_| b"damaged".to_vec());
            assert!(matches!(end, Err(TransportError::PeerLost { rank: 1, .. })), "never verified: {end:?}");
        }
    });
}

pub(crate) fn a_withdrawn_message_is_passed_over_unless_it_is_there_whole<F: Fixture>() {
    for channel in CHANNELS {
        let mut group = F::group(2);
        F::tamper(&mut group[0], Box::new(|attempt| (attempt.number < 2).then_some(3)));
        let mut bodies: Vec<Vec<u8>> = (0..4).map(|number| bytes(number, 3_000)).collect();
        for body in &bodies {
            let header = header(0, 1, channel, 0);
            group[0].try_send(1, channel, &header, ReadSpan::from(&body[..])).unwrap().unwrap();
        }
        // One is found damaged before they are withdrawn, one after that; of one the bytes are altered then.
        assert!(group[1].try_recv(0, channel).unwrap().is_none(), "damaged");
        group[0].withdraw();
        bodies[2].fill(0xa5);
        let intact = [bytes(2, 3_000), bytes(3, 3_000), bytes(9, 3_000)];
        send(&mut group[0], 1, channel, &intact[2]).unwrap();
        let mut arrived = Vec::new();
        for _ in 0..20 {
            // Nobody is asked for what is gone.
            assert_eq!(group[0].resend_wanted(), None);
            arrived.extend(group[1].try_recv(0, channel).unwrap().map(|frame| payload(&frame)));
        }
        assert!(arrived.iter().all(|body| intact.contains(body)), "altered bytes are handed out");
        assert_eq!(arrived.last(), Some(&intact[2]), "what was withdrawn holds up what follows");
        assert_eq!(group[0].verified(1, channel), Ok(5));
    }
}
