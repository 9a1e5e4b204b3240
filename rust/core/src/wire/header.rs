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

use super::{Collective, Descriptor, seal};
use crate::contract::{CONTRACT_BYTES, Contract};
use crate::{Dtype, Rank};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 128;

/// The first four bytes of every header.
pub const MAGIC: [u8; 4] = *b"ISOB";

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

impl Channel {
    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The channel of that wire code.
    pub const fn from_code(code: u8) -> Option<Channel> {
        match code {
            0 => Some(Channel::Collective),
            1 => Some(Channel::PointToPoint),
            _ => None,
        }
    }
}

/// The root field of an operation that has none; no rank has this number.
const NO_ROOT: u32 = u32::MAX;

const EPOCH_AT: usize = 24;
const SEQUENCE_AT: usize = 40;
const PAYLOAD_BYTES_AT: usize = 52;
pub(super) const PAYLOAD_CHECKSUM_AT: usize = 56;

/// What stands before the header's own checksum.
pub(super) const CHECKED_BYTES: usize = HEADER_BYTES - 8;

/// The checksum of the wire: XXH3-64 with seed 0.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
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

impl Header {
    /// The header as it stands on the wire, sealed with its checksum.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = self.unsealed();
        let seal = checksum(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&seal.to_le_bytes());
        bytes
    }

    /// The same with a payload of so many bytes.
    pub fn with(self, payload_bytes: u32) -> Header {
        Header { payload_bytes, ..self }
    }

    /// The header without what changes from one run of a program to the next.
    pub fn draft(&self) -> Draft {
        let bytes = self.unsealed();
        Draft { bytes, fixed: seal::fixed(&bytes) }
    }

    fn unsealed(&self) -> [u8; HEADER_BYTES] {
        let Descriptor { collective, contract, dtype, root, count, shape, layout } = self.descriptor;
        debug_assert_ne!(root, Some(NO_ROOT), "no rank has the number that stands for none");
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = WIRE_VERSION;
        bytes[5] = collective.code();
        bytes[6] = self.channel.code();
        bytes[7] = dtype.code();
        bytes[8..16].copy_from_slice(&self.group.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[EPOCH_AT..EPOCH_AT + 4].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.source.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.destination.to_le_bytes());
        bytes[36..40].copy_from_slice(&root.unwrap_or(NO_ROOT).to_le_bytes());
        bytes[SEQUENCE_AT..SEQUENCE_AT + 8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.message.to_le_bytes());
        bytes[PAYLOAD_BYTES_AT..PAYLOAD_BYTES_AT + 4].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[PAYLOAD_CHECKSUM_AT..PAYLOAD_CHECKSUM_AT + 8]
            .copy_from_slice(&self.payload_checksum.to_le_bytes());
        if let Some(contract) = contract {
            bytes[64..88].copy_from_slice(&contract.encode());
        }
        bytes[88..96].copy_from_slice(&count.to_le_bytes());
        bytes[96..104].copy_from_slice(&shape.to_le_bytes());
        bytes[104..112].copy_from_slice(&layout.to_le_bytes());
        bytes[112..120].copy_from_slice(&self.tag.to_le_bytes());
        bytes
    }

    /// Reads a header; nothing is believed before the checksum has been found right, except that
    /// something that is no header of this version is called that.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, HeaderError> {
        let magic = array(bytes, 0);
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic });
        }
        if bytes[4] != WIRE_VERSION {
            return Err(HeaderError::Version { found: bytes[4] });
        }
        let (computed, found) = (checksum(&bytes[..CHECKED_BYTES]), long(bytes, CHECKED_BYTES));
        if computed != found {
            return Err(HeaderError::Checksum { computed, found });
        }
        let no_meaning = |field, value: u8| HeaderError::Field { field, value: u64::from(value) };
        let root = word(bytes, 36);
        Ok(Header {
            group: long(bytes, 8),
            incarnation: long(bytes, 16),
            epoch: word(bytes, 24),
            source: word(bytes, 28),
            destination: word(bytes, 32),
            channel: Channel::from_code(bytes[6]).ok_or(no_meaning("channel", bytes[6]))?,
            sequence: long(bytes, 40),
            message: word(bytes, 48),
            tag: long(bytes, 112),
            descriptor: Descriptor {
                collective: Collective::from_code(bytes[5]).ok_or(no_meaning("collective", bytes[5]))?,
                contract: decode_contract(&array(bytes, 64))?,
                dtype: Dtype::from_code(bytes[7]).ok_or(no_meaning("dtype", bytes[7]))?,
                root: (root != NO_ROOT).then_some(root),
                count: long(bytes, 88),
                shape: long(bytes, 96),
                layout: long(bytes, 104),
            },
            payload_bytes: word(bytes, 52),
            payload_checksum: long(bytes, 56),
        })
    }
}

/// The header of a message that is sent or expected again and again: sender and receiver know all of it
/// but the payload's checksum.
///
/// ```
/// # use isobit_core::{Dtype, wire::*};
/// # let descriptor = Descriptor { collective: Collective::Broadcast, contract: None, dtype: Dtype::F32,
/// #     root: Some(1), count: 2, shape: 0, layout: 0 };
/// # let header = Header { group: 1, incarnation: 2, epoch: 0, source: 1, destination: 0,
/// #     channel: Channel::Collective, sequence: 5, message: 0, tag: 0, descriptor, payload_bytes: 8,
/// #     payload_checksum: 0 };
/// let mut draft = header.draft();
/// draft.renew(3, 6);
/// let sealed = draft.sealed(77);
/// assert_eq!(Header::decode(&sealed), Ok(Header { epoch: 3, sequence: 6, payload_checksum: 77, ..header }));
/// assert_eq!(draft.seal(77).to_le_bytes(), sealed[HEADER_BYTES - 8..]);
/// assert!(draft.is_of(&sealed) && !header.draft().is_of(&sealed));
/// ```
#[derive(Clone, Debug)]
pub struct Draft {
    bytes: [u8; HEADER_BYTES],
    /// What the bytes that stay as they are add to its seal.
    fixed: u64,
}

impl Draft {
    /// Makes it that of another operation of the same kind.
    #[inline]
    pub fn renew(&mut self, epoch: u32, sequence: u64) {
        self.bytes[EPOCH_AT..EPOCH_AT + 4].copy_from_slice(&epoch.to_le_bytes());
        self.bytes[SEQUENCE_AT..SEQUENCE_AT + 8].copy_from_slice(&sequence.to_le_bytes());
    }

    /// The payload's length.
    #[inline]
    pub fn payload_bytes(&self) -> usize {
        word(&self.bytes, PAYLOAD_BYTES_AT) as usize
    }

    /// Whether these are the bytes of its header, whatever its payload's checksum, if they are intact.
    pub fn is_of(&self, bytes: &[u8; HEADER_BYTES]) -> bool {
        let behind = PAYLOAD_CHECKSUM_AT + 8;
        bytes[..PAYLOAD_CHECKSUM_AT] == self.bytes[..PAYLOAD_CHECKSUM_AT]
            && bytes[behind..CHECKED_BYTES] == self.bytes[behind..CHECKED_BYTES]
    }

    /// The last 8 bytes of the header, for a checksum of its payload: equal seals mean equal headers, and
    /// intact ones.
    #[inline]
    pub fn seal(&self, payload_checksum: u64) -> u64 {
        seal::of(&self.bytes, self.fixed, payload_checksum)
    }

    /// The header as it stands on the wire.
    #[inline]
    pub fn sealed(&self, payload_checksum: u64) -> [u8; HEADER_BYTES] {
        let (mut bytes, seal) = (self.bytes, self.seal(payload_checksum));
        bytes[PAYLOAD_CHECKSUM_AT..PAYLOAD_CHECKSUM_AT + 8].copy_from_slice(&payload_checksum.to_le_bytes());
        bytes[CHECKED_BYTES..].copy_from_slice(&seal.to_le_bytes());
        bytes
    }
}

fn decode_contract(bytes: &[u8; CONTRACT_BYTES]) -> Result<Option<Contract>, HeaderError> {
    if *bytes == [0; CONTRACT_BYTES] {
        return Ok(None);
    }
    let value = u64::from_le_bytes(array(bytes, 0));
    Contract::decode(bytes).map(Some).ok_or(HeaderError::Field { field: "contract", value })
}

fn array<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    bytes[start..start + N].try_into().expect("the slice has N bytes")
}

fn word(bytes: &[u8], start: usize) -> u32 {
    u32::from_le_bytes(array(bytes, start))
}

pub(super) fn long(bytes: &[u8], start: usize) -> u64 {
    u64::from_le_bytes(array(bytes, start))
}
