//! What the conformance cases are written with: a fixture for each transport, and patient helpers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isobit::transport::shm::{self, ShmConfig, ShmOptions};
use isobit::transport::{Frame, MessageNumber, ShmTransport, Tamper, Transport, TransportError};
use isobit_core::wire::{Channel, Collective, Descriptor, Header};
use isobit_core::{Dtype, Rank};
use isobit_sys::ReadSpan;

pub(crate) const CHANNELS: [Channel; 2] = [Channel::Collective, Channel::PointToPoint];

/// How to get groups of one transport.
pub(crate) trait Fixture {
    /// The transport.
    type T: Transport + 'static;

    /// A new group, by rank.
    fn group(world_size: u32) -> Vec<Self::T>;

    /// Gives a rank's sends a fault.
    fn tamper(transport: &mut Self::T, tamper: Tamper);
}

/// A job's name that no other test has.
pub(crate) fn job() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a rank of a shm group is started with.
pub(crate) fn shm_config(job: &str, rank: Rank, world_size: u32) -> ShmConfig {
    let deadline = Instant::now() + Duration::from_secs(30);
    ShmConfig { job: job.to_owned(), rank, world_size, deadline, options: ShmOptions::for_ranks(world_size) }
}

/// Joins, and waits to the deadline.
pub(crate) fn connect(config: &ShmConfig) -> Result<ShmTransport, TransportError> {
    shm::connect(config, &mut || false)
}

/// A shm group of threads, by rank.
pub(crate) fn shm_group(world_size: u32, options: ShmOptions) -> Vec<ShmTransport> {
    let job = job();
    let config = |rank| ShmConfig { options, ..shm_config(&job, rank, world_size) };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..world_size)
            .map(|rank| {
                let config = config(rank);
                scope.spawn(move || connect(&config).unwrap())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Runs `work` for each rank on a thread of its own; a rank's panic is the test's.
pub(crate) fn each_rank<T: Transport + 'static>(transports: Vec<T>, work: impl Fn(T) + Send + Sync) {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            transports.into_iter().map(|transport| scope.spawn(move || work(transport))).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// Any header from `source`.
pub(crate) fn header(source: Rank, destination: Rank, channel: Channel, message: u32) -> Header {
    Header {
        group: 1,
        incarnation: 2,
        epoch: 3,
        source,
        destination,
        channel,
        sequence: 4,
        message,
        tag: 5,
        descriptor: Descriptor {
            collective: Collective::PointToPoint,
            contract: None,
            dtype: Dtype::U8,
            root: None,
            count: 6,
            shape: 7,
            layout: 0,
        },
        payload_bytes: 0,
        payload_checksum: 0,
    }
}

/// `len` bytes that differ from one `seed` to the next.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state as u8
    };
    (0..len).map(|_| step(&mut state)).collect()
}

/// Asks `step` again after each change until it gives something; half a minute without is a failure.
pub(crate) fn until<T: Transport, R>(
    transport: &mut T,
    mut step: impl FnMut(&mut T) -> Result<Option<R>, TransportError>,
) -> Result<R, TransportError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(result) = step(transport)? {
            return Ok(result);
        }
        assert!(Instant::now() < deadline, "rank {} waited for half a minute", transport.rank());
        transport.wait(deadline)?;
    }
}

/// Bytes that stay, as those of a message must until it is verified. Somebody holds them, so that a leak is one.
pub(crate) fn kept(bytes: Vec<u8>) -> ReadSpan<'static> {
    static KEPT: Mutex<Vec<&[u8]>> = Mutex::new(Vec::new());
    let bytes = &*bytes.leak();
    KEPT.lock().unwrap().push(bytes);
    ReadSpan::from(bytes)
}

/// Sends as soon as there is room.
pub(crate) fn send<T: Transport>(
    transport: &mut T,
    to: Rank,
    channel: Channel,
    payload: &[u8],
) -> Result<MessageNumber, TransportError> {
    let payload = kept(payload.to_vec());
    until(transport, |t| {
        let header = header(t.rank(), to, channel, 0);
        t.try_send(to, channel, &header, payload)
    })
}

/// The next frame from a peer.
pub(crate) fn recv<T: Transport>(
    transport: &mut T,
    from: Rank,
    channel: Channel,
) -> Result<T::Frame, TransportError> {
    until(transport, |t| t.try_recv(from, channel))
}

/// Sends until the window is full: how many messages it took.
pub(crate) fn fill<T: Transport>(transport: &mut T, to: Rank, channel: Channel, payload: &[u8]) -> usize {
    let (mut count, payload) = (0, kept(payload.to_vec()));
    loop {
        let header = header(transport.rank(), to, channel, count as u32);
        match transport.try_send(to, channel, &header, payload).unwrap() {
            Some(_) => count += 1,
            None => return count,
        }
    }
}

/// Waits until a peer has verified `count` messages; answers whatever is wanted again with `again`.
pub(crate) fn complete<T: Transport>(
    transport: &mut T,
    to: Rank,
    channel: Channel,
    count: u64,
    again: impl Fn(MessageNumber) -> Vec<u8>,
) -> Result<(), TransportError> {
    until(transport, |t| {
        while let Some((to, channel, number)) = t.resend_wanted() {
            let header = header(t.rank(), to, channel, 0);
            t.resend(to, channel, number, &header, kept(again(number)))?;
        }
        Ok((t.verified(to, channel)? >= count).then_some(()))
    })
}

/// The payload, copied out.
pub(crate) fn payload(frame: &impl Frame) -> Vec<u8> {
    frame.payload().to_vec()
}
