//! Judging what arrives: is this the message that the operation in progress expects, and how does it
//! differ if it is another?
//!
//! Peers may run ahead. Messages of later operations wait in the transport's queue of their peer and
//! are looked at only when this rank expects a message of that peer, so whatever is first in the
//! queue then must be exactly the expected message.

use std::fmt;

use thiserror::Error;

use crate::Rank;
use crate::wire::{Channel, Descriptor, Header};

/// The next message of one peer, as the operation in progress needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expectation {
    /// The group.
    pub group: u64,
    /// The view that this rank is in.
    pub epoch: u32,
    /// The incarnation of the peer that is a member of this view.
    pub incarnation: u64,
    /// The peer.
    pub source: Rank,
    /// This rank.
    pub destination: Rank,
    /// The stream.
    pub channel: Channel,
    /// The operation's sequence number.
    pub sequence: u64,
    /// The message's number within the operation and the pair.
    pub message: u32,
    /// The tag, of a receive.
    pub tag: u64,
    /// What this rank is doing.
    pub descriptor: Descriptor,
    /// The length that the step's region and content give.
    pub payload_bytes: u32,
}

/// What is wrong with a message, coarsely: it decides which error the caller sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MismatchKind {
    /// It is not for this rank, group or stream: a defect of a transport.
    Route,
    /// It is from another life of the peer, or from another view.
    Membership,
    /// It is of another operation: one of the two ranks made a call that the other did not make.
    Sequence,
    /// Both made a call of that number, but not the same one.
    Operation,
    /// Both made the same call under different contracts.
    Contract,
    /// Both made the same call and cut it differently: they were configured differently.
    Plan,
}

/// Why an intact message is not the expected one; names both sides.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Error)]
pub struct Mismatch {
    /// What kind of disagreement it is.
    pub kind: MismatchKind,
    /// This rank.
    pub rank: Rank,
    /// The peer whose message it was.
    pub peer: Rank,
    /// The field in which they differ.
    pub field: &'static str,
    /// This rank's value.
    pub ours: String,
    /// The peer's value.
    pub theirs: String,
    /// This rank's operation.
    pub our_sequence: u64,
    /// The peer's operation.
    pub their_sequence: u64,
    /// What this rank is doing.
    pub our_descriptor: Descriptor,
    /// What the peer is doing.
    pub their_descriptor: Descriptor,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { kind, rank, peer, field, ours, theirs, .. } = self;
        write!(
            f,
            "rank {rank} is in operation {} {}, rank {peer} sent a message of operation {} {}: {field} is {ours} \
             on rank {rank} and {theirs} on rank {peer}; ",
            self.our_sequence, self.our_descriptor, self.their_sequence, self.their_descriptor
        )?;
        match kind {
            MismatchKind::Route => {
                f.write_str("the transport delivered it to the wrong place, please report this")
            }
            MismatchKind::Membership => {
                write!(f, "rank {peer} was restarted or is in another view: start the group again")
            }
            MismatchKind::Sequence if self.their_sequence < self.our_sequence => {
                write!(
                    f,
                    "rank {peer} made a call that rank {rank} did not: let every rank make the same calls in the same order"
                )
            }
            MismatchKind::Sequence => {
                write!(
                    f,
                    "rank {rank} made a call that rank {peer} did not: let every rank make the same calls in the same order"
                )
            }
            MismatchKind::Operation => {
                f.write_str("let every rank make the same call with the same arguments")
            }
            MismatchKind::Contract => f.write_str("let every rank ask for the same reduction"),
            MismatchKind::Plan => f.write_str("configure every rank alike"),
        }
    }
}

impl Expectation {
    /// Whether `header` is the expected message; where not, the first field that tells.
    ///
    /// ```
    /// # use isobit_core::{Dtype, engine::{Expectation, MismatchKind}, wire::*};
    /// # let descriptor = Descriptor { collective: Collective::Broadcast, contract: None, dtype: Dtype::F32,
    /// #     root: Some(1), count: 2, shape: 0, layout: 0 };
    /// # let header = Header { group: 1, incarnation: 2, epoch: 0, source: 1, destination: 0,
    /// #     channel: Channel::Collective, sequence: 5, message: 0, tag: 0, descriptor, payload_bytes: 8,
    /// #     payload_checksum: 0 };
    /// let mut expected = Expectation { group: 1, epoch: 0, incarnation: 2, source: 1, destination: 0,
    ///     channel: Channel::Collective, sequence: 5, message: 0, tag: 0, descriptor, payload_bytes: 8 };
    /// assert_eq!(expected.check(&header), Ok(()));
    /// expected.descriptor.count = 3;
    /// let mismatch = expected.check(&header).unwrap_err();
    /// assert_eq!((mismatch.kind, mismatch.field), (MismatchKind::Operation, "count"));
    /// ```
    pub fn check(&self, header: &Header) -> Result<(), Box<Mismatch>> {
        if self.matches(header) { Ok(()) } else { Err(Box::new(self.mismatch(header))) }
    }

    /// The header of the expected message, but for its payload's checksum.
    pub fn header(&self) -> Header {
        Header {
            group: self.group,
            incarnation: self.incarnation,
            epoch: self.epoch,
            source: self.source,
            destination: self.destination,
            channel: self.channel,
            sequence: self.sequence,
            message: self.message,
            tag: self.tag,
            descriptor: self.descriptor,
            payload_bytes: self.payload_bytes,
            payload_checksum: 0,
        }
    }

    fn matches(&self, header: &Header) -> bool {
        self.sequence == header.sequence
            && self.message == header.message
            && self.payload_bytes == header.payload_bytes
            && self.descriptor == header.descriptor
            && self.group == header.group
            && self.incarnation == header.incarnation
            && self.epoch == header.epoch
            && self.source == header.source
            && self.destination == header.destination
            && self.channel == header.channel
            && self.tag == header.tag
    }

    /// The reason, in the order in which one disagreement explains the next: a message of another
    /// operation has another descriptor, and one under another contract may have another length.
    #[cold]
    fn mismatch(&self, header: &Header) -> Mismatch {
        use MismatchKind::{Contract, Membership, Operation, Plan, Route, Sequence};
        fn hex(value: u64) -> String {
            format!("{value:016x}")
        }
        fn text(value: impl fmt::Display) -> String {
            value.to_string()
        }
        let channel = |channel: Channel| match channel {
            Channel::Collective => "collective".to_owned(),
            Channel::PointToPoint => "point-to-point".to_owned(),
        };
        let first = [
            (Route, "group", hex(self.group), hex(header.group)),
            (Route, "source", text(self.source), text(header.source)),
            (Route, "destination", text(self.destination), text(header.destination)),
            (Route, "channel", channel(self.channel), channel(header.channel)),
            (Membership, "incarnation", hex(self.incarnation), hex(header.incarnation)),
            (Membership, "epoch", text(self.epoch), text(header.epoch)),
            (Sequence, "sequence number", text(self.sequence), text(header.sequence)),
            (Operation, "tag", text(self.tag), text(header.tag)),
        ];
        let described = || {
            let (ours, theirs) = (&self.descriptor, &header.descriptor);
            let kind = match (&ours.contract, &theirs.contract) {
                (Some(a), Some(b)) if ours.collective == theirs.collective && a != b => Contract,
                _ => Operation,
            };
            ours.difference(theirs).map(|d| (kind, d.field, d.ours, d.theirs))
        };
        let last = [
            (Plan, "message number", text(self.message), text(header.message)),
            (Plan, "message length", text(self.payload_bytes), text(header.payload_bytes)),
        ];
        let differs = |(_, _, ours, theirs): &(MismatchKind, &'static str, String, String)| ours != theirs;
        let (kind, field, ours, theirs) = first
            .into_iter()
            .find(differs)
            .or_else(described)
            .or_else(|| last.into_iter().find(differs))
            .unwrap_or_else(|| {
                (Operation, "contract", contract(&self.descriptor), contract(&header.descriptor))
            });
        Mismatch {
            kind,
            rank: self.destination,
            peer: self.source,
            field,
            ours,
            theirs,
            our_sequence: self.sequence,
            their_sequence: header.sequence,
            our_descriptor: self.descriptor,
            their_descriptor: header.descriptor,
        }
    }
}

fn contract(descriptor: &Descriptor) -> String {
    descriptor.contract.map_or("none".to_owned(), |contract| contract.to_string())
}
