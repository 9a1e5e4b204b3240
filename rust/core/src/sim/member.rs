//! One simulated rank: the loop around its engine, in the form of a state machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::network::{Delivery, Network, Packet};
use super::{Call, Failure, Outcome, ScalarExecutor, Traffic};
use crate::Rank;
use crate::engine::{Effect, Engine, Event, Executor, Expectation};
use crate::law::element_bytes;
use crate::schedule::{Action, Buf, Content, Region, StepIndex};
use crate::wire::{Channel, Descriptor, Header, checksum};

/// The simulated group, its view, and its ranks' incarnations: any numbers will do.
const GROUP: u64 = 0x6973_6f62_6974;
const EPOCH: u32 = 1;
const FIRST_INCARNATION: u64 = 1000;

/// What a rank knows of another.
#[derive(Debug, Default)]
struct Peer {
    /// Sends that wait for room, in order.
    unsent: VecDeque<StepIndex>,
    /// Messages under way, in order.
    unverified: VecDeque<(u64, StepIndex)>,
    sent: u64,
    window_used_bytes: u64,
    /// Receives under way, in order.
    expected: VecDeque<StepIndex>,
    /// What has arrived and was not looked at.
    inbox: VecDeque<Packet>,
    /// The last message that was asked for once more.
    asked: Option<u64>,
    /// It is not here.
    waits_for_again: bool,
}

/// The call in progress.
#[derive(Debug)]
struct Run {
    engine: Engine,
    executor: ScalarExecutor,
    descriptor: Descriptor,
    /// Whose message each view holds, and its length.
    lent: Vec<Option<(Rank, u64)>>,
}

/// A rank.
#[derive(Debug)]
pub(super) struct Member {
    rank: Rank,
    calls: VecDeque<Call>,
    /// The number of calls begun; the one in progress has the sequence number `begun - 1`.
    begun: usize,
    run: Option<Run>,
    /// Those that it has had to do with, so that a rank of thousands is small.
    peers: BTreeMap<Rank, Peer>,
    /// The peers with unsent messages, and those with messages in the inbox.
    sending: BTreeSet<Rank>,
    arriving: BTreeSet<Rank>,
    results: Vec<Vec<u8>>,
    outcome: Option<Outcome>,
    traffic: Traffic,
}

impl Member {
    pub(super) fn new(rank: Rank, calls: Vec<Call>, network: &mut Network) -> Member {
        network.begin(rank);
        Member {
            rank,
            calls: calls.into(),
            begun: 0,
            run: None,
            peers: BTreeMap::new(),
            sending: BTreeSet::new(),
            arriving: BTreeSet::new(),
            results: Vec::new(),
            outcome: None,
            traffic: Traffic::default(),
        }
    }

    /// How it ended, and what it has sent.
    pub(super) fn into_outcome(self) -> (Outcome, Traffic) {
        (self.outcome.unwrap_or(Outcome::Stalled), self.traffic)
    }

    /// Whether it has neither finished nor given up.
    pub(super) fn is_running(&self) -> bool {
        self.outcome.is_none()
    }

    /// Something reaches the rank, which is running.
    pub(super) fn on(&mut self, delivery: Delivery, network: &mut Network) {
        if let Err(failure) = self.handle(delivery, network).and_then(|()| self.advance(network)) {
            network.abort(self.rank, &failure);
            self.outcome = Some(Outcome::Failed { failure, found_by: self.rank });
        }
    }

    fn handle(&mut self, delivery: Delivery, network: &mut Network) -> Result<(), Failure> {
        match delivery {
            Delivery::Begin => self.begin(network),
            Delivery::Arrived { from, packet, again: false } => {
                self.peer(from).inbox.push_back(packet);
                self.arriving.insert(from);
            }
            Delivery::Arrived { from, packet, again: true } => {
                let peer = self.peer(from);
                peer.waits_for_again = false;
                peer.inbox.push_front(packet);
                self.arriving.insert(from);
            }
            Delivery::Verified { by, number } => {
                let (first, step) = self.peer(by).unverified.pop_front().expect("it was sent");
                assert_eq!(first, number, "messages are verified in order");
                self.run_mut().engine.on_event(Event::Completed(step));
            }
            Delivery::WantedAgain { by, number } => self.send_again(by, number, network),
            Delivery::Room { by, bytes } => self.peer(by).window_used_bytes -= bytes,
            Delivery::Work { call, step } => {
                assert_eq!(call, self.begun, "a call ends after its work");
                self.work(step);
            }
            Delivery::Deadline { call } if call == self.begun && self.run.is_some() => {
                return Err(Failure::Timeout {
                    rank: self.rank,
                    sequence: self.sequence(),
                    awaited: self.run_mut().engine.awaited(),
                });
            }
            Delivery::Deadline { .. } => {}
            Delivery::Crash => {
                network.lose(self.rank);
                self.run = None;
                self.outcome = Some(Outcome::Crashed);
            }
            Delivery::Lost { rank } => return Err(Failure::PeerLost { rank }),
            Delivery::Aborted { by, failure } => {
                self.outcome = Some(Outcome::Failed { failure, found_by: by });
                self.run = None;
            }
        }
        Ok(())
    }

    fn begin(&mut self, network: &mut Network) {
        let Some(Call { program, descriptor, buffers }) = self.calls.pop_front() else {
            self.outcome = Some(Outcome::Finished(std::mem::take(&mut self.results)));
            return;
        };
        self.begun += 1;
        network.set_deadline(self.rank, self.begun);
        let executor = ScalarExecutor::new(descriptor.contract, descriptor.dtype, buffers, &program);
        let lent = vec![None; program.views as usize];
        self.run = Some(Run { engine: Engine::new(program), executor, descriptor, lent });
    }

    /// Does what can be done now.
    fn advance(&mut self, network: &mut Network) -> Result<(), Failure> {
        while self.run.is_some() {
            self.start_steps(network);
            self.send_what_fits(network);
            if !self.take_what_arrived(network)? {
                break;
            }
        }
        if self.run.as_ref().is_some_and(|run| run.engine.is_finished()) {
            let run = self.run.take().expect("it is there");
            self.results.push(run.executor.into_out());
            network.begin(self.rank);
        }
        Ok(())
    }

    fn start_steps(&mut self, network: &mut Network) {
        while let Some(effect) = self.run_mut().engine.poll() {
            match effect {
                Effect::Send(step) => {
                    let peer = self.send_of(step).0;
                    self.peer(peer).unsent.push_back(step);
                    self.sending.insert(peer);
                }
                Effect::Recv(step) => {
                    let peer = self.recv_of(step).0;
                    self.peer(peer).expected.push_back(step);
                }
                Effect::Reduce(step) | Effect::Copy(step) => network.work(self.rank, self.begun, step),
                Effect::Release(view) => {
                    let run = self.run_mut();
                    run.executor.release(view);
                    let (from, bytes) = run.lent[view as usize].take().expect("the view is lent");
                    self.give_back(from, bytes, network);
                }
            }
        }
    }

    fn send_what_fits(&mut self, network: &mut Network) {
        let sending: Vec<Rank> = self.sending.iter().copied().collect();
        for to in sending {
            while let Some(&step) = self.peer(to).unsent.front() {
                let number = self.peer(to).sent;
                let packet = self.packet(step, number);
                let bytes = packet.payload.len() as u64;
                let peer = self.peer(to);
                if peer.window_used_bytes + bytes > network.window_bytes() {
                    break;
                }
                peer.unsent.pop_front();
                peer.sent += 1;
                peer.window_used_bytes += bytes;
                peer.unverified.push_back((number, step));
                self.traffic.messages += 1;
                self.traffic.bytes += bytes;
                network.transmit(self.rank, to, packet, false);
            }
            if self.peer(to).unsent.is_empty() {
                self.sending.remove(&to);
            }
        }
    }

    fn send_again(&mut self, to: Rank, number: u64, network: &mut Network) {
        let unverified = &self.peer(to).unverified;
        let (_, step) = *unverified.iter().find(|(sent, _)| *sent == number).expect("it is not verified yet");
        let packet = self.packet(step, number);
        network.transmit(self.rank, to, packet, true);
    }

    /// The message of a `Send`, read from memory now.
    fn packet(&mut self, step: StepIndex, number: u64) -> Packet {
        let (to, src, content) = self.send_of(step);
        let (rank, sequence) = (self.rank, self.sequence());
        let run = self.run_mut();
        let payload = run.executor.read(src, content).to_vec();
        let header = Header {
            group: GROUP,
            incarnation: FIRST_INCARNATION + u64::from(rank),
            epoch: EPOCH,
            source: rank,
            destination: to,
            channel: Channel::Collective,
            sequence,
            message: run.engine.message(step),
            tag: 0,
            descriptor: run.descriptor,
            payload_bytes: u32::try_from(payload.len()).expect("a message's length is a u32"),
            payload_checksum: checksum(&payload),
        };
        Packet { number, header: Box::new(header.encode()), payload }
    }

    /// Looks at messages that are expected; whether there were any.
    fn take_what_arrived(&mut self, network: &mut Network) -> Result<bool, Failure> {
        let mut progress = false;
        let arriving: Vec<Rank> = self.arriving.iter().copied().collect();
        for from in arriving {
            while let Some(&step) = self.peer(from).expected.front() {
                let peer = self.peer(from);
                if peer.waits_for_again {
                    break;
                }
                let Some(packet) = peer.inbox.pop_front() else { break };
                self.take(from, step, packet, network)?;
                progress = true;
            }
            if self.peer(from).inbox.is_empty() {
                self.arriving.remove(&from);
            }
        }
        Ok(progress)
    }

    fn take(
        &mut self,
        from: Rank,
        step: StepIndex,
        packet: Packet,
        network: &mut Network,
    ) -> Result<(), Failure> {
        let (rank, sequence) = (self.rank, self.sequence());
        let (_, dst, content) = self.recv_of(step);
        let message = self.run_mut().engine.message(step);
        let peer = self.peer(from);
        let Some(header) = verify(&packet) else {
            if peer.asked == Some(packet.number) {
                return Err(Failure::Corruption { from, to: rank, sequence, message });
            }
            peer.asked = Some(packet.number);
            peer.waits_for_again = true;
            let wanted = Delivery::WantedAgain { by: rank, number: packet.number };
            network.tell_in_order(rank, from, wanted);
            return Ok(());
        };
        peer.expected.pop_front();
        let run = self.run_mut();
        let size = element_bytes(content, run.descriptor.contract.as_ref(), run.descriptor.dtype) as u64;
        let expectation = Expectation {
            group: GROUP,
            epoch: EPOCH,
            incarnation: FIRST_INCARNATION + u64::from(from),
            source: from,
            destination: rank,
            channel: Channel::Collective,
            sequence,
            message,
            tag: 0,
            descriptor: run.descriptor,
            payload_bytes: u32::try_from(dst.len * size).expect("a message's length is a u32"),
        };
        expectation.check(&header).map_err(Failure::Desync)?;
        network.tell_in_order(rank, from, Delivery::Verified { by: rank, number: packet.number });
        let bytes = packet.payload.len() as u64;
        let run = self.run_mut();
        if let Buf::View(view) = dst.buf {
            run.executor.bind(view, packet.payload);
            run.lent[view as usize] = Some((from, bytes));
        } else {
            let Ok(()) = run.executor.store(packet.payload, dst, content);
            self.give_back(from, bytes, network);
        }
        self.run_mut().engine.on_event(Event::Completed(step));
        Ok(())
    }

    fn give_back(&self, from: Rank, bytes: u64, network: &mut Network) {
        network.tell_in_order(self.rank, from, Delivery::Room { by: self.rank, bytes });
    }

    fn work(&mut self, step: StepIndex) {
        let Run { engine, executor, .. } = self.run_mut();
        let Ok(()) = match &engine.step(step).action {
            Action::Reduce { inputs, target, out } => executor.reduce(inputs, *target, *out),
            Action::Copy { src, dst, content } => executor.copy(*src, *dst, *content),
            action => panic!("{action:?} is no work"),
        };
        engine.on_event(Event::Completed(step));
    }

    fn send_of(&mut self, step: StepIndex) -> (Rank, Region, Content) {
        match self.run_mut().engine.step(step).action {
            Action::Send { to, src, content } => (to, src, content),
            ref action => panic!("{action:?} is no send"),
        }
    }

    fn recv_of(&mut self, step: StepIndex) -> (Rank, Region, Content) {
        match self.run_mut().engine.step(step).action {
            Action::Recv { from, dst, content } => (from, dst, content),
            ref action => panic!("{action:?} is no receive"),
        }
    }

    fn peer(&mut self, rank: Rank) -> &mut Peer {
        self.peers.entry(rank).or_default()
    }

    fn run_mut(&mut self) -> &mut Run {
        self.run.as_mut().expect("a call is in progress")
    }

    fn sequence(&self) -> u64 {
        self.begun as u64 - 1
    }
}

/// The header, if header and payload are as they were sent.
fn verify(packet: &Packet) -> Option<Header> {
    let header = Header::decode(&packet.header).ok()?;
    let intact = header.payload_bytes as usize == packet.payload.len()
        && header.payload_checksum == checksum(&packet.payload);
    intact.then_some(header)
}
