//! How a tensor is cut: into chunks that fit into messages and windows, and what is only moved into pieces of those.

use std::ops::Range;

use super::algorithm::Context;
use super::builder::Builder;
use super::{Limits, PlanError};

/// What is only moved is cut into so many pieces at least, unless they would be shorter than a quarter of a chunk: nothing
/// can be received while the first is sent. It isn't where ranks share cores: who would receive does not run then.
const PIECES: u64 = 8;
/// The same where every rank sends and receives: it has its own to send meanwhile, and each message costs. It is cut so that
/// less waits where it came until all have come, and between two ranks nothing does.
const PIECES_EXCHANGED: u64 = 4;

/// What one element of a chunk costs, in bytes.
pub(super) struct Footprint {
    /// The largest element of a message.
    pub(super) message: u64,
    /// All elements that one rank lends from another until a chunk is done.
    pub(super) lent: u64,
    /// An element of a slot.
    pub(super) slot: u64,
    /// How many slots a rank needs at a time.
    pub(super) slots: u64,
}

/// How many chunks should be able to have their partial results staged at the same time.
const STAGED_CHUNKS: u64 = 4;

impl Context<'_> {
    /// The elements of a chunk; readies the builder's slots.
    ///
    /// If possible half the window is left to the next chunk, and staging holds several chunks.
    pub(super) fn chunk(&self, b: &mut Builder<'_>, footprint: &Footprint) -> Result<u64, PlanError> {
        let Footprint { message, lent, slot, slots } = *footprint;
        let Limits { chunk_bytes, window_bytes } = *self.limits;
        let window_min = lent.max(message).max(slot * slots);
        if chunk_bytes < message || window_bytes < window_min {
            return Err(PlanError::LimitsTooSmall {
                algorithm: self.algorithm,
                chunk_bytes: message,
                window_bytes: window_min,
            });
        }
        let fits = |bytes: u64, each: u64| bytes.checked_div(each).unwrap_or(u64::MAX);
        let chunk = fits(chunk_bytes.min(window_bytes), message)
            .min(fits(window_bytes / 2, lent))
            .min(fits(window_bytes, slot * slots * STAGED_CHUNKS))
            .clamp(1, u64::from(u32::MAX));
        let slot_bytes = chunk * slot;
        b.set_slots(slot_bytes, fits(window_bytes, slot_bytes).min(slots * STAGED_CHUNKS));
        Ok(chunk)
    }

    /// Whether so many bytes of staging are allowed.
    pub(super) fn check_staging(&self, bytes: u64) -> Result<(), PlanError> {
        if bytes <= self.limits.window_bytes {
            return Ok(());
        }
        let (algorithm, chunk_bytes) = (self.algorithm, self.limits.chunk_bytes);
        Err(PlanError::LimitsTooSmall { algorithm, chunk_bytes, window_bytes: bytes })
    }

    /// The elements of a chunk of moved data that is stored where it arrives.
    pub(super) fn data_chunk(&self, b: &mut Builder<'_>) -> Result<u64, PlanError> {
        let message = self.layout.request().dtype.size() as u64;
        self.chunk(b, &Footprint { message, lent: message, slot: 0, slots: 0 })
    }

    /// The pieces of a range that is only moved, as starts and lengths.
    pub(super) fn pieces(&self, range: Range<u64>, chunk: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let piece = self.piece(range.end - range.start, chunk, PIECES);
        chunks(range, piece)
    }

    /// How many elements of `len` that every rank sends to others at once go at a time.
    pub(super) fn piece_exchanged(&self, len: u64, chunk: u64) -> u64 {
        let pieces = if self.layout.world_size() > 2 { PIECES_EXCHANGED } else { 1 };
        self.piece(len, chunk, pieces)
    }

    fn piece(&self, len: u64, chunk: u64, pieces: u64) -> u64 {
        if self.topology.shares_cores() { chunk } else { (len / pieces).clamp(chunk.div_ceil(4), chunk) }
    }
}

/// The chunks of a range, as starts and lengths.
pub(super) fn chunks(range: Range<u64>, chunk: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..chunks_in(&range, chunk)).filter_map(move |index| chunk_of(&range, chunk, index))
}

/// How many chunks a range has.
pub(super) fn chunks_in(range: &Range<u64>, chunk: u64) -> u64 {
    (range.end - range.start).div_ceil(chunk)
}

/// One chunk of a range, as start and length.
pub(super) fn chunk_of(range: &Range<u64>, chunk: u64, index: u64) -> Option<(u64, u64)> {
    let start = index.checked_mul(chunk)?.checked_add(range.start)?;
    (start < range.end).then(|| (start, chunk.min(range.end - start)))
}
