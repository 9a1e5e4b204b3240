//! The header of every message: 128 bytes, little-endian.
//!
//! | offset | field | type |
//! |---|---|---|
//! | 0 | magic `ISOB` | 4 bytes |
//! | 4 | wire version | u8 |
//! | 5 | collective | u8 |
//! | 6 | channel: 0 collective, 1 point-to-point | u8 |
//! | 7 | dtype | u8 |
//! | 8 | group id | u64 |
//! | 16 | sender's incarnation | u64 |
//! | 24 | epoch | u32 |
//! | 28 | source rank | u32 |
//! | 32 | destination rank | u32 |
//! | 36 | root, 0xffffffff for none | u32 |
//! | 40 | sequence number of the operation | u64 |
//! | 48 | number of the message within (operation, source, destination) | u32 |
//! | 52 | payload length in bytes | u32 |
//! | 56 | payload checksum, XXH3-64 | u64 |
//! | 64 | contract, all zero for none | 24 bytes |
//! | 88 | count | u64 |
//! | 96 | shape digest | u64 |
//! | 104 | layout digest | u64 |
//! | 112 | tag, of send and recv | u64 |
//! | 120 | checksum of bytes 0..120, XXH3-64 | u64 |

use thiserror::Error;

use super::Descriptor;
use crate::Rank;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 128;

/// The version of the wire.
pub const WIRE_VERSION: u8 = 1;

/// Which of a pair's two streams a message belongs to; each is ordered by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Channel {
    /// Collectives.
    Collective = 0,
    /// `send` and `recv`.
    PointToPoint = 1,
}

/// A message's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The group, drawn when it is formed.
    pub group: u64,
    /// The sender's incarnation, drawn when its process joined.
    pub incarnation: u64,
    /// The view in which it was sent.
    pub epoch: u32,
    /// The sender.
    pub source: Rank,
    /// The receiver.
    pub destination: Rank,
    /// The stream.
    pub channel: Channel,
    /// The operation's sequence number: of the group's collectives, or of the pair's sends.
    pub sequence: u64,
    /// The message's number within the operation and the pair.
    pub message: u32,
    /// The tag of a send.
    pub tag: u64,
    /// What the operation is.
    pub descriptor: Descriptor,
    /// Bytes of payload; the transport fills it in.
    pub payload_bytes: u32,
    /// XXH3-64 of the payload, computed over the sender's buffer; the transport fills it in.
    pub payload_checksum: u64,
}

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HeaderError {
    /// Something else speaks here.
    #[error("not an isobit message: magic {found:02x?}")]
    Magic {
        /// The four bytes found.
        found: [u8; 4],
    },
    /// The peer speaks another version of the wire.
    #[error(
        "wire version {found}, this side speaks {WIRE_VERSION}: run the same isobit release on every rank"
    )]
    Version {
        /// The version found.
        found: u8,
    },
    /// The header was damaged on the way.
    #[error("header checksum {computed:016x} where {found:016x} was sent")]
    Checksum {
        /// The checksum of the bytes.
        computed: u64,
        /// The checksum in the bytes.
        found: u64,
    },
    /// An intact header holds a value that this version can't have sent.
    #[error("header field '{field}' has no meaning: {value}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}
