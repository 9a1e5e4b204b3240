//! What the processes of a host say to each other to form a group: one record a message.
//!
//! The first 13 bytes of every record (magic, wire version, kind, rank) and the whole of `Failed`
//! never change, so that two releases can tell each other that they do not fit.

use std::time::Duration;

use isobit_core::Rank;
use isobit_core::wire::WIRE_VERSION;

use crate::transport::TransportError;

const MAGIC: [u8; 7] = *b"ISOBSHM";

/// A record that this release understands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Record {
    /// To rank 0, with the sender's bell and process: I am here.
    Join(Join),
    /// From rank 0, with the shared memory: everyone is.
    Welcome(Welcome),
    /// From rank 0, with the bell and the process of `rank`: this is one of them.
    Peer { rank: Rank, incarnation: u64 },
    /// To rank 0: I have everything that I need.
    Ready { rank: Rank },
    /// From rank 0: so has everyone.
    Go,
    /// Either way: there will be no group.
    Failed(TransportError),
}

/// What a rank says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Join {
    pub(super) rank: Rank,
    pub(super) world_size: u32,
    pub(super) incarnation: u64,
    /// How long it will wait.
    pub(super) patience_ms: u32,
    /// The host's boot id.
    pub(super) host: String,
}

/// What rank 0 has decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Welcome {
    pub(super) group: u64,
    pub(super) capacities: [u64; 2],
    pub(super) payload_bytes_max: u32,
    /// How many ranks can run at a time: what a rank may count for itself, all must take alike.
    pub(super) cores: u32,
}

/// Up to so many bytes, the rings of all ranks stay in the cache that cores share, wherever in them a message lies.
const RINGS_BYTES_WARM: u64 = 32 << 20;

impl Welcome {
    /// Whether ranks share cores, and have more rings than their cache holds.
    pub(super) fn fills_caches(&self, world_size: usize) -> bool {
        let ranks = world_size as u64;
        ranks > u64::from(self.cores) && ranks * (ranks - 1) * self.capacities[0] > RINGS_BYTES_WARM
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RecordError {
    /// Something else speaks here.
    Foreign,
    /// It was sent by another release.
    Version { rank: Rank, found: u8 },
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, rank) = match self {
            Record::Join(join) => (1, join.rank),
            Record::Welcome(_) => (2, 0),
            Record::Peer { rank, .. } => (3, *rank),
            Record::Ready { rank } => (4, *rank),
            Record::Go => (5, 0),
            Record::Failed(error) => (6, blamed(error)),
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend([WIRE_VERSION, kind]);
        bytes.extend(rank.to_le_bytes());
        match self {
            Record::Join(join) => {
                bytes.extend(join.world_size.to_le_bytes());
                bytes.extend(join.incarnation.to_le_bytes());
                bytes.extend(join.patience_ms.to_le_bytes());
                bytes.extend(join.host.as_bytes());
            }
            Record::Welcome(welcome) => {
                bytes.extend(welcome.group.to_le_bytes());
                bytes.extend(welcome.capacities.iter().flat_map(|capacity| capacity.to_le_bytes()));
                bytes.extend(welcome.payload_bytes_max.to_le_bytes());
                bytes.extend(welcome.cores.to_le_bytes());
            }
            Record::Peer { incarnation, .. } => bytes.extend(incarnation.to_le_bytes()),
            Record::Ready { .. } | Record::Go => {}
            Record::Failed(error) => encode_failure(error, &mut bytes),
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
        let mut reader = Reader(bytes);
        let mut fixed = || {
            let magic = reader.take(MAGIC.len())?;
            Some((magic == MAGIC, reader.byte()?, reader.byte()?, reader.word()?))
        };
        let Some((true, version, kind, rank)) = fixed() else {
            return Err(RecordError::Foreign);
        };
        if version != WIRE_VERSION && kind != 6 {
            return Err(RecordError::Version { rank, found: version });
        }
        decode_body(kind, rank, reader).ok_or(RecordError::Foreign)
    }
}

fn decode_body(kind: u8, rank: Rank, mut reader: Reader<'_>) -> Option<Record> {
    Some(match kind {
        1 => Record::Join(Join {
            rank,
            world_size: reader.word()?,
            incarnation: reader.long()?,
            patience_ms: reader.word()?,
            host: reader.rest(),
        }),
        2 => Record::Welcome(Welcome {
            group: reader.long()?,
            capacities: [reader.long()?, reader.long()?],
            payload_bytes_max: reader.word()?,
            cores: reader.word()?,
        }),
        3 => Record::Peer { rank, incarnation: reader.long()? },
        4 => Record::Ready { rank },
        5 => Record::Go,
        6 => Record::Failed(decode_failure(rank, reader)?),
        _ => return None,
    })
}

fn blamed(error: &TransportError) -> Rank {
    match error {
        TransportError::Refused { rank, .. } | TransportError::PeerLost { rank, .. } => *rank,
        _ => 0,
    }
}

fn encode_failure(error: &TransportError, bytes: &mut Vec<u8>) {
    match error {
        TransportError::Timeout { missing, waited } => {
            bytes.push(1);
            bytes.extend((waited.as_millis() as u32).to_le_bytes());
            // More than a thousand names help nobody.
            bytes.extend(missing.iter().take(1000).flat_map(|rank| rank.to_le_bytes()));
        }
        TransportError::Refused { reason, .. } => {
            bytes.push(2);
            bytes.extend(cut(reason));
        }
        TransportError::Auth { reason } => {
            bytes.push(3);
            bytes.extend(cut(reason));
        }
        other => {
            bytes.push(4);
            bytes.extend(cut(&other.to_string()));
        }
    }
}

fn decode_failure(rank: Rank, mut reader: Reader<'_>) -> Option<TransportError> {
    Some(match reader.byte()? {
        1 => {
            let waited = Duration::from_millis(u64::from(reader.word()?));
            let missing = std::iter::from_fn(|| reader.word()).collect();
            TransportError::Timeout { missing, waited }
        }
        2 => TransportError::Refused { rank, reason: reader.rest() },
        3 => TransportError::Auth { reason: reader.rest() },
        _ => TransportError::Unavailable { transport: "shm", reason: format!("rank 0: {}", reader.rest()) },
    })
}

fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(4096)]
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn word(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn rest(&mut self) -> String {
        String::from_utf8_lossy(std::mem::take(&mut self.0)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Record> {
        let failures = [
            TransportError::Timeout { missing: vec![2, 70_000], waited: Duration::from_millis(1_500) },
            TransportError::Refused { rank: 9, reason: "no room".to_owned() },
            TransportError::Auth { reason: "user 5".to_owned() },
        ];
        let join =
            Join { rank: 7, world_size: 9, incarnation: 1 << 63, patience_ms: 12, host: "h".to_owned() };
        let capacities = [1 << 20, 4096];
        let welcome = Welcome { group: u64::MAX, capacities, payload_bytes_max: 65_536, cores: 6 };
        let mut all = vec![
            Record::Join(join),
            Record::Welcome(welcome),
            Record::Peer { rank: 3, incarnation: 4 },
            Record::Ready { rank: 1 },
            Record::Go,
        ];
        all.extend(failures.map(Record::Failed));
        all
    }

    #[test]
    fn records_survive_the_way() {
        for record in examples() {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn another_release_is_told_apart_and_its_refusal_is_understood() {
        for record in examples() {
            let mut bytes = record.encode();
            bytes[7] = WIRE_VERSION + 1;
            match (Record::decode(&bytes), &record) {
                (Ok(decoded), Record::Failed(_)) => assert_eq!(decoded, record),
                (Err(RecordError::Version { found, .. }), _) => assert_eq!(found, WIRE_VERSION + 1),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn caches_are_full_where_many_ranks_share_cores() {
        let welcome = Welcome { group: 1, capacities: [1 << 20, 1 << 18], payload_bytes_max: 1, cores: 7 };
        assert_eq!([7, 8].map(|ranks| welcome.fills_caches(ranks)), [false, true]);
        let welcome = Welcome { cores: 2, ..welcome };
        assert_eq!([4, 6, 7].map(|ranks| welcome.fills_caches(ranks)), [false, false, true]);
    }

    #[test]
    fn cut_and_foreign_bytes_are_no_records() {
        for record in examples() {
            let bytes = record.encode();
            for len in 0..13 {
                assert_eq!(Record::decode(&bytes[..len]), Err(RecordError::Foreign));
            }
        }
        assert_eq!(Record::decode(&[0; 64]), Err(RecordError::Foreign));
        let mut unknown = Record::Go.encode();
        unknown[8] = 99;
        assert_eq!(Record::decode(&unknown), Err(RecordError::Foreign));
    }
}
