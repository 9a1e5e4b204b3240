//! The shm transport: ranks are processes of one host.
//!
//! `docs/transports.md` describes it: one sealed memfd with a ring for every ordered pair and
//! channel, bells to wake who sleeps, and process handles that tell of a peer's end at once.

mod bootstrap;
mod endpoint;
mod ends;
mod frame;
mod message;
mod reasons;
mod records;
mod sharing;
mod waiting;

use std::time::Instant;

use isobit_core::Rank;
use isobit_sys::os::ring;
use isobit_sys::os::segment::Layout;

use super::TransportError;
use reasons::unavailable;

pub use endpoint::ShmTransport;
pub use frame::ShmFrame;
pub use isobit_sys::os::ring::Way;

/// The sizes of a group's rings; rank 0's count. Tests reach every path with small ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShmOptions {
    /// The bytes of the ring of each ordered pair: for collectives, and for point-to-point. Multiples of 64.
    /// Memory is taken when it is first used.
    pub capacities: [usize; 2],
    /// The largest payload of a message: less than half of the smaller ring.
    pub payload_bytes_max: usize,
}

/// What a rank sends goes round so many bytes at least, more than a core's own cache holds: lines that come round again
/// are then found in the cache that all cores share. To take them out of the reader's own takes twice as long.
const LAP_BYTES_MIN: usize = 2 << 20;

/// How much of what goes to several peers waits for the last of them.
const OUTBOX_BYTES: usize = 2 << 20;

impl ShmOptions {
    /// What suits so many ranks.
    pub fn for_ranks(world_size: u32) -> ShmOptions {
        let peers = world_size.saturating_sub(1).max(1) as usize;
        ShmOptions { capacities: [(LAP_BYTES_MIN / peers).max(1 << 20); 2], payload_bytes_max: 256 * 1024 }
    }

    /// What is in the memory of so many ranks. Only who has several peers sends the same to several.
    fn layout(&self, world_size: u32) -> Layout {
        let spare = self.payload_bytes_max;
        let outbox = if world_size > 2 { [OUTBOX_BYTES + spare.next_multiple_of(64), spare] } else { [0; 2] };
        Layout { world_size, capacities: self.capacities, outbox }
    }

    fn check(&self) -> Result<(), TransportError> {
        let smallest = self.capacities[0].min(self.capacities[1]);
        let possible = smallest >= ring::CAPACITY_MIN
            && self.payload_bytes_max <= ring::payload_bytes_max(smallest)
            && self.payload_bytes_max > 0;
        if possible {
            return Ok(());
        }
        Err(unavailable(format!(
            "rings of {:?} bytes can't carry payloads of {}: give rings of more than twice that",
            self.capacities, self.payload_bytes_max
        )))
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
/// While it waits it asks `interrupt` about every 50 ms whether to give up.
///
/// ```
/// use std::time::{Duration, Instant};
/// use isobit::transport::{Transport, shm};
/// let config = shm::ShmConfig {
///     job: format!("example-{}", std::process::id()),
///     rank: 0,
///     world_size: 1,
///     deadline: Instant::now() + Duration::from_secs(10),
///     options: shm::ShmOptions::for_ranks(1),
/// };
/// assert_eq!(shm::connect(&config, &mut || false).unwrap().world_size(), 1);
/// ```
pub fn connect(
    config: &ShmConfig,
    interrupt: &mut dyn FnMut() -> bool,
) -> Result<ShmTransport, TransportError> {
    assert!(
        config.rank < config.world_size,
        "rank {} is none of a world of {}",
        config.rank,
        config.world_size
    );
    config.options.check()?;
    let formed = bootstrap::form(config, interrupt)?;
    ShmTransport::new(config.rank, formed).map_err(|(step, error)| {
        let reason = format!("{step} failed: {error}; raise the limit of open files (ulimit -n)");
        unavailable(reason)
    })
}
