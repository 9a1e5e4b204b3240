//! The two ends of a message in a ring: its head is made from what was sent, and compared with what was received.

use isobit_core::wire::{Draft, HEADER_BYTES, Header};
use isobit_sys::os::ring::MAIL_BYTES;
use isobit_sys::{ReadSpan, WriteSpan};

/// Makes a message's head when its payload has been put where it is sent from, with the damage that a
/// test asks for.
pub(super) fn head<'h>(
    header: &'h Header,
    payload: ReadSpan<'_>,
    damage: Option<usize>,
) -> impl FnOnce(u64, WriteSpan<'_>) -> [u8; HEADER_BYTES] + use<'h> {
    let payload_bytes = payload.len() as u32;
    move |payload_checksum, sent| {
        if let Some(bit) = damage {
            sent.flip(bit);
        }
        Header { payload_bytes, payload_checksum, ..*header }.encode()
    }
}

/// What stands beside a long message's tail for its header: equal marks mean equal headers, but for the payload's checksum.
pub(super) fn mark(header: &Draft, payload_bytes: usize) -> u64 {
    if payload_bytes > MAIL_BYTES { header.seal(0) } else { 0 }
}

/// Whether a message in the ring is the one that was sent.
pub(super) fn verify(head: &[u8; HEADER_BYTES], payload_bytes: usize, sum: u64) -> Result<Header, String> {
    let header = Header::decode(head).map_err(|error| error.to_string())?;
    if header.payload_bytes as usize != payload_bytes {
        return Err(format!("{payload_bytes} bytes of payload where {} were sent", header.payload_bytes));
    }
    if header.payload_checksum != sum {
        return Err(format!("payload checksum {sum:016x} where {:016x} was sent", header.payload_checksum));
    }
    Ok(header)
}
