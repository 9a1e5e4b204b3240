//! Why an operation failed or the group's work ended, as the ranks tell each other.
//!
//! The first rank that fails writes its reason; every other raises the same kind of error with it.

use isobit_core::Rank;

use crate::error::{Error, ErrorKind};
use crate::transport::ABORT_BYTES_MAX;

const NOBODY: u32 = u32::MAX;

/// Layout: `kind u8, peer u32, operation length u16, operation, message`, little-endian, UTF-8.
pub(crate) fn encode(error: &Error) -> Vec<u8> {
    let kind = match error.kind {
        ErrorKind::Value => ErrorKind::RemoteArgument,
        ErrorKind::Interrupted | ErrorKind::Memory => ErrorKind::Aborted,
        kind => kind,
    };
    let operation = clip(error.operation.as_deref().unwrap_or_default(), 1024);
    let mut bytes = vec![kind as u8];
    bytes.extend(error.peer.unwrap_or(NOBODY).to_le_bytes());
    bytes.extend(u16::try_from(operation.len()).expect("clipped").to_le_bytes());
    bytes.extend(operation.as_bytes());
    bytes.extend(clip(&error.message, ABORT_BYTES_MAX - bytes.len()).as_bytes());
    bytes
}

/// What `from` wrote; a reason that makes no sense is an abort without one.
pub(crate) fn decode(bytes: &[u8], from: Rank) -> (ErrorKind, Option<Rank>, String) {
    let read = || {
        let (kind, rest) = bytes.split_first()?;
        let (peer, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (operation, message) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let peer = u32::from_le_bytes(*peer);
        let operation = String::from_utf8_lossy(operation);
        let message = String::from_utf8_lossy(message);
        let within = if operation.is_empty() { String::new() } else { format!(" in {operation}") };
        let text = format!("rank {from} failed{within}: {message}");
        Some((ErrorKind::from_code(*kind)?, Some(peer).filter(|peer| *peer != NOBODY), text))
    };
    read().unwrap_or_else(|| (ErrorKind::Aborted, Some(from), format!("rank {from} failed without a reason")))
}

fn clip(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
