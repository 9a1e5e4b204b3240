//! A fault for tests: bits of a payload that flip on the way.

use isobit_core::Rank;
use isobit_core::wire::Channel;

use super::MessageNumber;

/// One message on its way, as a [`Tamper`] sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The receiver.
    pub to: Rank,
    /// The stream.
    pub channel: Channel,
    /// The message's number.
    pub number: MessageNumber,
    /// Whether it is sent for the second time, or is the copy of a buffered one.
    pub again: bool,
}

/// Says which bit of a message's payload flips after its checksum was computed, if any does.
///
/// A transport that has one copies every payload once more; one that has none pays nothing. A bit
/// beyond the payload is no bit of it, and none flips.
pub type Tamper = Box<dyn FnMut(Attempt) -> Option<usize> + Send>;

/// Flips one bit of `payload`, where it has that bit.
pub(super) fn flip(payload: &mut [u8], bit: usize) {
    if let Some(byte) = payload.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}
