//! The shm transport: ranks are processes of one host.
//!
//! `docs/transports.md` describes it: one sealed memfd with a ring for every ordered pair and
//! channel, bells to wake who sleeps, and process handles that tell of a peer's end at once.

mod bootstrap;
mod reasons;
mod records;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use isobit_core::Rank;
use isobit_core::wire::{Channel, HEADER_BYTES, Header};
use isobit_sys::ReadSpan;
use isobit_sys::os::board::Board;
use isobit_sys::os::checksum;
use isobit_sys::os::ring::{self, Consumer, Lease, Popped, Producer, RingError};
use isobit_sys::os::wake::{Bell, Sleeper};

use super::tamper::flip;
use super::{
    Attempt, Break, Capabilities, Frame, MessageNumber, Tamper, Transport, TransportError, corruption,
};

/// How often a rank looks for news before it sleeps, if every rank can have a core: some 50 us.
const SPINS: u32 = 2_000;
/// How often it gives its core away before it sleeps, if not.
const YIELDS: u32 = 4;
/// How long the ends of processes may stay unnoticed by a rank that never sleeps.
const LOOK_AROUND: Duration = Duration::from_millis(1);

const CHANNELS: [Channel; 2] = [Channel::Collective, Channel::PointToPoint];

/// The sizes of a group's rings; rank 0's count. Tests reach every path with small ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShmOptions {
    /// The bytes of the ring of each ordered pair: for collectives, and for point-to-point. Multiples of 64.
    /// Memory is taken when it is first used.
    pub capacities: [usize; 2],
    /// The largest payload of a message: less than half of the smaller ring.
    pub payload_bytes_max: usize,
}

impl Default for ShmOptions {
    fn default() -> Self {
        ShmOptions { capacities: [1024 * 1024, 256 * 1024], payload_bytes_max: 64 * 1024 }
    }
}

impl ShmOptions {
    fn check(&self) -> Result<(), TransportError> {
        let smallest = self.capacities[0].min(self.capacities[1]);
        let possible = smallest >= ring::CAPACITY_MIN
            && self.payload_bytes_max <= ring::payload_bytes_max(smallest)
            && self.payload_bytes_max > 0;
        if possible {
            return Ok(());
        }
        Err(TransportError::Unavailable {
            transport: "shm",
            reason: format!(
                "rings of {:?} bytes can't carry payloads of {}: give rings of more than twice that",
                self.capacities, self.payload_bytes_max
            ),
        })
    }
}

/// Who wants to meet whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShmConfig {
    /// The job's name: ranks that give the same one, of one user on one host, meet.
    pub job: String,
    /// This rank.
    pub rank: Rank,
    /// How many ranks there are.
    pub world_size: u32,
    /// When to give up.
    pub deadline: Instant,
    /// The sizes, where this is rank 0.
    pub options: ShmOptions,
}

/// Meets the other ranks of the job. Every rank gets its transport, or every rank that came an error.
///
/// ```
/// use std::time::{Duration, Instant};
/// use isobit::transport::{Transport, shm};
/// let config = shm::ShmConfig {
///     job: format!("example-{}", std::process::id()),
///     rank: 0,
///     world_size: 1,
///     deadline: Instant::now() + Duration::from_secs(10),
///     options: shm::ShmOptions::default(),
/// };
/// assert_eq!(shm::connect(&config).unwrap().world_size(), 1);
/// ```
pub fn connect(config: &ShmConfig) -> Result<ShmTransport, TransportError> {
    assert!(
        config.rank < config.world_size,
        "rank {} is none of a world of {}",
        config.rank,
        config.world_size
    );
    config.options.check()?;
    let formed = bootstrap::form(config)?;
    let own = &formed.bells[config.rank as usize];
    let unavailable = |step: &str, error: std::io::Error| TransportError::Unavailable {
        transport: "shm",
        reason: format!("{step} failed: {error}; raise the limit of open files (ulimit -n)"),
    };
    let own = own.try_clone().map_err(|error| unavailable("dup", error))?;
    let sleeper = Sleeper::new(own, formed.processes).map_err(|error| unavailable("epoll", error))?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let seen = formed.segment.board.changes();
    Ok(ShmTransport {
        rank: config.rank,
        group: formed.welcome.group,
        incarnations: formed.incarnations,
        capacity: formed.welcome.capacities[0] as usize,
        payload_bytes_max: formed.welcome.payload_bytes_max as usize,
        shared: Arc::new(Shared { board: formed.segment.board, bells: formed.bells }),
        outgoing: formed.segment.outgoing,
        incoming: formed.segment.incoming,
        sleeper,
        ended: vec![false; config.world_size as usize],
        seen,
        looked_around: Instant::now(),
        spins: config.world_size as usize <= cores,
        tamper: None,
        process: std::process::id(),
    })
}

/// One rank's end of a shm group. Dropping it, or ending its process, is a loss for its peers.
pub struct ShmTransport {
    rank: Rank,
    group: u64,
    incarnations: Vec<u64>,
    /// The capacity of the rings for collectives.
    capacity: usize,
    payload_bytes_max: usize,
    shared: Arc<Shared>,
    outgoing: Vec<Option<[Producer; 2]>>,
    incoming: Vec<Option<[Consumer; 2]>>,
    sleeper: Sleeper,
    /// By rank: whether its process is known to have ended.
    ended: Vec<bool>,
    /// The board's count of changes when the last wait ended.
    seen: u64,
    looked_around: Instant,
    /// Whether there is a core for every rank.
    spins: bool,
    tamper: Option<Tamper>,
    /// The process that joined; a forked child must not say goodbye for it.
    process: u32,
}

/// What frames need after their transport is gone.
struct Shared {
    board: Board,
    bells: Vec<Bell>,
}

impl Shared {
    fn notify(&self, rank: Rank) {
        if self.board.notify(rank) {
            self.bells[rank as usize].ring();
        }
    }

    fn notify_all(&self) {
        for rank in 0..self.board.world_size() {
            self.notify(rank);
        }
    }
}

/// A message that lies in a ring until this is dropped.
pub struct ShmFrame {
    header: Header,
    /// Always there, but for the time of the drop.
    lease: Option<Lease>,
    from: Rank,
    shared: Arc<Shared>,
}

impl Frame for ShmFrame {
    fn header(&self) -> &Header {
        &self.header
    }

    fn payload(&self) -> ReadSpan<'_> {
        self.lease.as_ref().expect("lent until the drop").payload()
    }
}

impl Drop for ShmFrame {
    fn drop(&mut self) {
        // The room first, then the word that there is room.
        self.lease = None;
        self.shared.notify(self.from);
    }
}

impl ShmTransport {
    /// Gives this rank's sends a fault.
    pub fn set_tamper(&mut self, tamper: Tamper) {
        self.tamper = Some(tamper);
    }

    fn check_abort(&self) -> Result<(), TransportError> {
        match self.shared.board.aborted() {
            Some((rank, reason)) => Err(TransportError::Aborted { rank, reason }),
            None => Ok(()),
        }
    }

    /// Whether a peer will never say anything more; what it had said before is in its rings.
    fn lost(&self, rank: Rank) -> Option<TransportError> {
        let ended = self.ended[rank as usize];
        let reason = match self.shared.board.closed(rank) {
            Some(reason) => reason,
            None if ended => format!(
                "its process ({}) ended without a goodbye; see its output and exit status",
                self.shared.board.process(rank)
            ),
            None => return None,
        };
        Some(TransportError::PeerLost { rank, reason })
    }

    fn producer(&mut self, to: Rank, channel: Channel) -> &mut Producer {
        let rings = self.outgoing.get_mut(to as usize).and_then(Option::as_mut);
        &mut rings.unwrap_or_else(|| panic!("rank {to} is no peer"))[channel as usize]
    }

    fn consumer(&mut self, from: Rank, channel: Channel) -> &mut Consumer {
        let rings = self.incoming.get_mut(from as usize).and_then(Option::as_mut);
        &mut rings.unwrap_or_else(|| panic!("rank {from} is no peer"))[channel as usize]
    }

    fn broken(from: Rank, to: Rank) -> impl Fn(RingError) -> TransportError {
        move |error| TransportError::Corruption { from, to, detail: error.to_string() }
    }

    /// Puts a message where `put` does, with the fault that a test asks for.
    fn with_payload<R>(
        &mut self,
        header: &Header,
        payload: ReadSpan<'_>,
        attempt: Attempt,
        put: impl FnOnce(&mut Producer, ReadSpan<'_>, &dyn Fn(u64) -> [u8; HEADER_BYTES]) -> R,
    ) -> R {
        assert!(payload.len() <= self.payload_bytes_max, "the payload exceeds the largest");
        let payload_bytes = payload.len() as u32;
        let head = |payload_checksum| Header { payload_bytes, payload_checksum, ..*header }.encode();
        let Some(bit) = self.tamper.as_mut().and_then(|tamper| tamper(attempt)) else {
            return put(self.producer(attempt.to, attempt.channel), payload, &head);
        };
        let mut bytes = payload.to_vec();
        let true_sum = checksum::of(payload);
        flip(&mut bytes, bit);
        let producer = self.producer(attempt.to, attempt.channel);
        put(producer, ReadSpan::from(&bytes[..]), &|_| head(true_sum))
    }

    /// Notes which processes ended; waits for that, a bell or a signal at most `timeout`.
    fn look_around(&mut self, timeout: Duration) {
        // A wait that can't be had is no worse than one that ends early.
        for rank in self.sleeper.sleep(timeout).unwrap_or_default() {
            self.ended[rank] = true;
        }
        self.looked_around = Instant::now();
    }

    /// Whether something changed while this looked a bounded number of times.
    fn changed_soon(&self) -> bool {
        let board = &self.shared.board;
        if self.spins {
            return (0..SPINS).any(|_| {
                std::hint::spin_loop();
                board.changes() != self.seen
            });
        }
        (0..YIELDS).any(|_| {
            thread::yield_now();
            board.changes() != self.seen
        })
    }
}

/// Whether a message in the ring is the one that was sent.
fn verify(head: &[u8; HEADER_BYTES], payload_bytes: usize, sum: u64) -> Result<Header, String> {
    let header = Header::decode(head).map_err(|error| error.to_string())?;
    if header.payload_bytes as usize != payload_bytes {
        return Err(format!("{payload_bytes} bytes of payload where {} were sent", header.payload_bytes));
    }
    if header.payload_checksum != sum {
        return Err(format!("payload checksum {sum:016x} where {:016x} was sent", header.payload_checksum));
    }
    Ok(header)
}

impl Transport for ShmTransport {
    type Frame = ShmFrame;

    fn rank(&self) -> Rank {
        self.rank
    }

    fn world_size(&self) -> u32 {
        self.shared.board.world_size()
    }

    fn group(&self) -> u64 {
        self.group
    }

    fn incarnation(&self, rank: Rank) -> u64 {
        self.incarnations[rank as usize]
    }

    fn capabilities(&self) -> Capabilities {
        // Less than one frame is lost at the ring's end.
        let frames = self.capacity / ring::frame_bytes(self.payload_bytes_max) - 1;
        Capabilities {
            name: "shm",
            payload_bytes_max: self.payload_bytes_max,
            window_bytes: frames.max(1) * self.payload_bytes_max,
        }
    }

    fn try_send(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        self.check_abort()?;
        let number = self.producer(to, channel).sent();
        if let Some(lost) = self.lost(to) {
            return Err(lost);
        }
        let attempt = Attempt { to, channel, number, again: false };
        let sent = self
            .with_payload(header, payload, attempt, |producer, payload, head| {
                producer.try_push(payload, head)
            })
            .map_err(Self::broken(self.rank, to))?;
        if sent.is_some() {
            self.shared.notify(to);
        }
        Ok(sent)
    }

    fn try_recv(&mut self, from: Rank, channel: Channel) -> Result<Option<ShmFrame>, TransportError> {
        self.check_abort()?;
        // Asked before the ring is read: what comes after a goodbye can't be missed.
        let lost = self.lost(from);
        let rank = self.rank;
        let popped = self.consumer(from, channel).try_pop(verify).map_err(Self::broken(from, rank))?;
        match popped {
            Popped::Frame(header, lease) => {
                self.shared.notify(from);
                let shared = Arc::clone(&self.shared);
                Ok(Some(ShmFrame { header, lease: Some(lease), from, shared }))
            }
            Popped::DamagedTwice(number, detail) => Err(corruption(from, rank, channel, number, &detail)),
            Popped::Damaged => {
                self.shared.notify(from);
                lost.map_or(Ok(None), Err)
            }
            Popped::Empty => lost.map_or(Ok(None), Err),
        }
    }

    fn verified(&mut self, to: Rank, channel: Channel) -> Result<u64, TransportError> {
        self.check_abort()?;
        // Asked before the count is read, so that the count of a lost peer is its last.
        let lost = self.producer(to, channel).sent() > 0 && self.lost(to).is_some();
        let rank = self.rank;
        let producer = self.producer(to, channel);
        let verified = producer.verified().map_err(Self::broken(rank, to))?;
        match (lost && verified < producer.sent()).then(|| self.lost(to)).flatten() {
            Some(lost) => Err(lost),
            None => Ok(verified),
        }
    }

    fn resend_wanted(&mut self) -> Option<(Rank, Channel, MessageNumber)> {
        let rank = self.rank;
        for to in (0..self.world_size()).filter(|to| *to != rank) {
            for channel in CHANNELS {
                // A ring that is damaged is an error of the calls that use it.
                let wanted = self.producer(to, channel).resend_wanted().unwrap_or(None);
                if let Some(number) = wanted
                    && self.lost(to).is_none()
                {
                    return Some((to, channel, number));
                }
            }
        }
        None
    }

    fn resend(
        &mut self,
        to: Rank,
        channel: Channel,
        number: MessageNumber,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<(), TransportError> {
        self.check_abort()?;
        if let Some(lost) = self.lost(to) {
            return Err(lost);
        }
        let attempt = Attempt { to, channel, number, again: true };
        self.with_payload(header, payload, attempt, |producer, payload, head| {
            producer.resend(number, payload, head)
        })
        .map_err(Self::broken(self.rank, to))?;
        self.shared.notify(to);
        Ok(())
    }

    fn wait(&mut self, until: Instant) -> Result<(), TransportError> {
        self.check_abort()?;
        if self.shared.board.changes() == self.seen && !self.changed_soon() {
            let left = until.saturating_duration_since(Instant::now());
            if self.shared.board.fall_asleep(self.seen) {
                self.look_around(left);
                self.shared.board.wake_up();
            }
        }
        if self.looked_around.elapsed() >= LOOK_AROUND {
            self.look_around(Duration::ZERO);
        }
        self.seen = self.shared.board.changes();
        self.check_abort()
    }

    fn break_epoch(&mut self, epoch: u32, sequence: u64, reason: &[u8]) {
        self.shared.board.break_epoch(epoch, sequence, reason);
        self.shared.notify_all();
    }

    fn broken(&self) -> Option<(u32, u64)> {
        self.shared.board.broken()
    }

    fn last_break(&self) -> Option<Break> {
        let (epoch, sequence) = self.shared.board.broken()?;
        let (rank, reason) = self.shared.board.break_reason();
        Some(Break { rank, epoch, sequence, reason })
    }

    fn abort(&mut self, reason: &[u8]) {
        if self.shared.board.abort(reason) {
            self.shared.notify_all();
        }
    }

    fn close(&mut self, reason: &str) {
        if self.process == std::process::id() && self.shared.board.close(reason) {
            self.shared.notify_all();
        }
    }
}

impl Drop for ShmTransport {
    fn drop(&mut self) {
        self.close("its transport was dropped");
    }
}
