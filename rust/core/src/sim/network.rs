//! Virtual time and what it brings: messages in flight, timers, faults. It knows no operation.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::Xxh3;

use super::{Failure, Faults, Random};
use crate::Rank;
use crate::schedule::StepIndex;
use crate::wire::HEADER_BYTES;

/// A message as it travels: bytes, which may be damaged.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Packet {
    /// Its place in the stream of its pair, from 0.
    pub(super) number: u64,
    pub(super) header: Box<[u8; HEADER_BYTES]>,
    pub(super) payload: Vec<u8>,
}

/// What reaches a rank.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Delivery {
    /// The next call begins.
    Begin,
    /// A message is there; `again` if it had been asked for once more.
    Arrived { from: Rank, packet: Packet, again: bool },
    /// A peer has verified a message.
    Verified { by: Rank, number: u64 },
    /// A peer got a message damaged and wants it once more.
    WantedAgain { by: Rank, number: u64 },
    /// A peer gave back this much of the window.
    Room { by: Rank, bytes: u64 },
    /// A reduction or copy takes its turn.
    Work { call: usize, step: StepIndex },
    /// A call's time is up.
    Deadline { call: usize },
    /// This rank ends.
    Crash,
    /// A peer has ended.
    Lost { rank: Rank },
    /// A peer gave up, and why.
    Aborted { by: Rank, failure: Failure },
}

/// The queue of what is to come.
pub(super) struct Network {
    faults: Faults,
    random: Random,
    now_ns: u64,
    world_size: Rank,
    /// By time, then in the order in which they were caused.
    coming: BTreeMap<(u64, u64), (Rank, Delivery)>,
    caused: u64,
    /// When the last message of each pair arrives: the next can't come earlier.
    arrival_ns: BTreeMap<(Rank, Rank), u64>,
    aborted: bool,
    log: Xxh3,
}

impl Network {
    pub(super) fn new(world_size: Rank, faults: Faults, seed: u64) -> Network {
        let mut network = Network {
            faults,
            random: Random::new(seed),
            now_ns: 0,
            world_size,
            coming: BTreeMap::new(),
            caused: 0,
            arrival_ns: BTreeMap::new(),
            aborted: false,
            log: Xxh3::new(),
        };
        if let Some(crash) = faults.crash {
            network.at(crash.at_ns, crash.rank, Delivery::Crash);
        }
        network
    }

    /// The next thing that happens, and to whom.
    pub(super) fn pop(&mut self) -> Option<(Rank, Delivery)> {
        loop {
            let ((time_ns, order), (rank, delivery)) = self.coming.pop_first()?;
            self.now_ns = time_ns;
            if let Some(resumes_ns) = self.stalled_until(rank, time_ns) {
                if resumes_ns < u64::MAX {
                    self.coming.insert((resumes_ns, order), (rank, delivery));
                }
                continue;
            }
            (time_ns, rank, &delivery).hash(&mut self.log);
            return Some((rank, delivery));
        }
    }

    fn stalled_until(&self, rank: Rank, time_ns: u64) -> Option<u64> {
        let stall = self.faults.stall.filter(|stall| stall.rank == rank && stall.at_ns <= time_ns)?;
        let resumes_ns = stall.at_ns.saturating_add(stall.for_ns);
        (time_ns < resumes_ns).then_some(resumes_ns)
    }

    /// Sends a packet on its way.
    pub(super) fn transmit(&mut self, from: Rank, to: Rank, mut packet: Packet, again: bool) {
        let damage_ppm = if again { self.faults.damage_again_ppm } else { self.faults.damage_ppm };
        if self.random.chance(damage_ppm) {
            self.damage(&mut packet);
        }
        self.tell_in_order(from, to, Delivery::Arrived { from, packet, again });
    }

    /// Tells `to` something after a delay, not before what `from` told it earlier.
    pub(super) fn tell_in_order(&mut self, from: Rank, to: Rank, delivery: Delivery) {
        let earliest_ns = self.now_ns + self.delay();
        let arrival_ns = self.arrival_ns.entry((from, to)).or_default();
        *arrival_ns = earliest_ns.max(*arrival_ns);
        let time_ns = *arrival_ns;
        self.at(time_ns, to, delivery);
    }

    /// Starts a rank's next call, after a pause.
    pub(super) fn begin(&mut self, rank: Rank) {
        let pause_ns = self.random.below(self.faults.pause_ns_max + 1);
        self.at(self.now_ns + pause_ns, rank, Delivery::Begin);
    }

    /// Wakes a rank when the call's time is up.
    pub(super) fn set_deadline(&mut self, rank: Rank, call: usize) {
        self.at(self.now_ns + self.faults.timeout_ns, rank, Delivery::Deadline { call });
    }

    /// Lets a reduction or copy take its time.
    pub(super) fn work(&mut self, rank: Rank, call: usize, step: StepIndex) {
        let work_ns = self.random.below(self.faults.work_ns_max + 1);
        self.at(self.now_ns + work_ns, rank, Delivery::Work { call, step });
    }

    /// Lets everybody know that `rank` has ended.
    pub(super) fn lose(&mut self, rank: Rank) {
        for other in (0..self.world_size).filter(|other| *other != rank) {
            let delay_ns = self.delay();
            self.at(self.now_ns + delay_ns, other, Delivery::Lost { rank });
        }
    }

    /// Lets everybody know why `by` gave up; the first to do so wins.
    pub(super) fn abort(&mut self, by: Rank, failure: &Failure) {
        if std::mem::replace(&mut self.aborted, true) {
            return;
        }
        for other in (0..self.world_size).filter(|other| *other != by) {
            let delay_ns = self.delay();
            self.at(self.now_ns + delay_ns, other, Delivery::Aborted { by, failure: failure.clone() });
        }
    }

    pub(super) fn window_bytes(&self) -> u64 {
        self.faults.window_bytes
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The digest of everything that has happened.
    pub(super) fn log_digest(&self) -> u64 {
        self.log.finish()
    }

    fn delay(&mut self) -> u64 {
        self.random.below(self.faults.delay_ns_max + 1)
    }

    fn at(&mut self, time_ns: u64, rank: Rank, delivery: Delivery) {
        self.coming.insert((time_ns, self.caused), (rank, delivery));
        self.caused += 1;
    }

    /// Flips one to three different bits.
    fn damage(&mut self, packet: &mut Packet) {
        let bits = 8 * (HEADER_BYTES + packet.payload.len()) as u64;
        let first = self.random.below(bits);
        for flip in 0..=self.random.below(3) {
            let bit = usize::try_from((first + 61 * flip) % bits).expect("a bit of a packet");
            let mask = 1 << (bit % 8);
            match (bit / 8).checked_sub(HEADER_BYTES) {
                Some(byte) => packet.payload[byte] ^= mask,
                None => packet.header[bit / 8] ^= mask,
            }
        }
    }
}
