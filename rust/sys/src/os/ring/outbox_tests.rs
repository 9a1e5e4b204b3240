//! Tests of payloads that several peers read from one place.

use super::tests::{check, head, pop};
use super::*;
use crate::os::checksum;
use crate::{ReadSpan, WriteSpan};

const BYTES: usize = 300;
const BLOCK: usize = BYTES.next_multiple_of(ALIGN);

/// The rings of one rank to some peers, and its outbox with room for `blocks` payloads of `BYTES`.
struct Group {
    outbox: Outbox,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
}

impl Group {
    fn new(peers: usize, blocks: usize) -> Group {
        let memory = SharedBytes::zeroed((blocks + 1) * BLOCK);
        let rings: Vec<_> = (0..peers).map(|_| SharedBytes::zeroed(ring_bytes(1024))).collect();
        // SAFETY: all memory is fresh; each ring has one producer and one consumer, and the outbox one owner.
        unsafe {
            Group {
                producers: rings.iter().cloned().map(|ring| Producer::new(ring)).collect(),
                consumers: rings.into_iter().map(|ring| Consumer::new(ring, Some(memory.clone()))).collect(),
                outbox: Outbox::new(memory, BYTES),
            }
        }
    }

    /// Shares so many equal bytes, if there is room.
    fn share(&mut self, byte: u8) -> Option<Share> {
        let (producers, peers) = (&mut self.producers, self.consumers.len() as u32);
        self.outbox.share(ReadSpan::from(&[byte; BYTES][..]), peers, &mut producers[0])
    }

    fn send(&mut self, peer: usize, share: Share) {
        let head = |sum, _: Option<WriteSpan<'_>>| head(sum, WriteSpan::from(&mut [][..]));
        let sent = self.producers[peer].try_push_shared(&mut self.outbox, share, 5, head);
        sent.unwrap().expect("there is room in the ring");
    }

    fn share_and_send(&mut self, byte: u8) {
        let share = self.share(byte).expect("there is room in the outbox");
        (0..self.consumers.len()).for_each(|peer| self.send(peer, share));
    }
}

#[test]
fn a_shared_payload_stays_until_the_last_peer_has_read_it() {
    let mut group = Group::new(3, 2);
    for round in 0..20 {
        group.share_and_send(round);
        group.share_and_send(round + 100);
        assert!(group.share(9).is_none(), "there is no room for a third");
        let mut lent: Vec<Lease> =
            group.consumers.iter_mut().map(|consumer| pop(consumer).unwrap()).collect();
        drop(group.consumers.iter_mut().map(|consumer| pop(consumer).unwrap()).collect::<Vec<_>>());
        while let Some(lease) = lent.pop() {
            assert!(group.share(9).is_none(), "one of them is still read");
            assert_eq!(lease.payload().to_vec(), [round; BYTES]);
        }
        let [first, second] = [(); 2].map(|()| group.share(round).expect("all have read both"));
        // Nobody gets them: their room is back at once.
        assert!(group.share(9).is_none());
        group.outbox.close();
        let _ = (first, second);
    }
}

#[test]
fn an_outbox_that_stays_warm_uses_the_same_place_again_and_others_go_round() {
    for stays_warm in [false, true] {
        let mut group = Group::new(2, 3);
        if stays_warm {
            group.outbox.stay_warm();
        }
        let places: Vec<usize> = (0..6)
            .map(|round| {
                group.share_and_send(round);
                let leases: Vec<Lease> = group.consumers.iter_mut().map(|c| pop(c).unwrap()).collect();
                leases[1].payload.place / BLOCK
            })
            .collect();
        assert_eq!(places, if stays_warm { [0; 6] } else { [0, 1, 2, 0, 1, 2] });
    }
}

#[test]
fn a_shared_payload_that_is_damaged_is_sent_again_from_another_place() {
    let mut group = Group::new(2, 1);
    let share = group.share(7).unwrap();
    let spoilt = |sum, first: Option<WriteSpan<'_>>| {
        first.into_iter().for_each(|place| place.flip(3));
        head(sum, WriteSpan::from(&mut [][..]))
    };
    for peer in 0..2 {
        let producer = &mut group.producers[peer];
        producer.try_push_shared(&mut group.outbox, share, 5, spoilt).unwrap().unwrap();
        assert!(matches!(group.consumers[peer].try_pop(check), Ok(Popped::Damaged)));
    }
    let mut lent = Vec::new();
    for peer in 0..2 {
        let Group { producers, outbox, consumers } = &mut group;
        let producer = &mut producers[peer];
        assert!(producer.wants_shared() && producer.resend_wanted().unwrap() == Some(0));
        let again = ReadSpan::from(&[7; BYTES][..]);
        assert!(producer.try_resend_shared(outbox, 0, again, head).unwrap(), "the spare place is free");
        // Wanted still, as far as the producer knows: it is in use.
        if peer == 0 {
            assert_eq!(producers[1].try_resend_shared(outbox, 0, again, head), Ok(false), "it is in use");
        }
        let producer = &mut producers[peer];
        let lease = pop(&mut consumers[peer]).unwrap();
        assert_eq!((lease.payload.place, producer.verified()), (BLOCK, Ok(1)), "it is free, though lent");
        lent.push(lease);
    }
    // What comes into the spare place after that changes nothing.
    (0..8).for_each(|bit| group.outbox.span(group.outbox.capacity, 1).flip(bit));
    assert!(lent.iter().all(|lease| lease.payload().to_vec() == [7; BYTES]));
    drop(lent);
    assert!(group.share(8).is_some());
}

#[test]
fn a_shared_message_that_is_the_latest_is_taken_by_its_mark_alone() {
    let mut group = Group::new(2, 2);
    for round in 0..40 {
        group.share_and_send(round);
        for (producer, consumer) in group.producers.iter().zip(&mut group.consumers) {
            let place = round as usize * frame_bytes(0) % 1024;
            producer.write(place, &[0xa5; PREFIX_BYTES]);
            let mut taken = [0; BYTES];
            let out = WriteSpan::from(&mut taken[..]);
            let read = |payload: ReadSpan<'_>| checksum::copy(payload, out);
            let seal = |sum| seal_of(&head(sum, WriteSpan::from(&mut [][..])));
            let found = consumer.try_pop_read(BYTES, 5, |_| unreachable!("it is marked"), seal, read);
            assert_eq!((found, taken), (Ok(Look::Taken), [round; BYTES]));
        }
    }
}

#[test]
fn a_hostile_place_in_an_outbox_is_an_error() {
    for place in [2 * BLOCK as u64 - BYTES as u64 + 1, 1 << 40, u64::MAX] {
        let mut group = Group::new(2, 1);
        group.share_and_send(1);
        group.producers[0].write(24, &place.to_le_bytes());
        assert_eq!(group.consumers[0].try_pop(check).unwrap_err().what, "frame", "{place}");
    }
    // A ring whose producer has no outbox.
    let (mut producer, mut consumer) = pair(1024);
    producer.try_push(ReadSpan::from(&[1; 8][..]), 0, head).unwrap().unwrap();
    producer.write(0, &SHARED.to_le_bytes());
    producer.write(24, &0u64.to_le_bytes());
    assert_eq!(consumer.try_pop(check).unwrap_err().what, "frame");
}
