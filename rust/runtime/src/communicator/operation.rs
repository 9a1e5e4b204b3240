//! One call as the communicator sees it: what travels in headers, and who is who.

use isobit_core::Rank;
use isobit_core::engine::{Expectation, Mismatch};
use isobit_core::wire::{Channel, Descriptor, Header};

use crate::recorder;

/// A call in progress.
pub(crate) struct Operation<'a> {
    pub(crate) descriptor: &'a Descriptor,
    /// The number of its plan, from which all of that follows but the shape.
    pub(crate) plan: u64,
    pub(crate) epoch: u32,
    pub(crate) channel: Channel,
    pub(crate) sequence: u64,
    /// The number of the group's next collective, this one or the one after this send or receive.
    pub(crate) collective: u64,
    /// Whom a send goes to or a receive comes from.
    pub(crate) peer: Option<Rank>,
    pub(crate) tag: u64,
    /// The bytes of this rank's tensors: what it gives or what it gets, whichever is more.
    pub(crate) bytes: u64,
    /// The elements sent to and received from each rank, where they differ.
    pub(crate) pairs: Option<(&'a [u64], &'a [u64])>,
}

impl Operation<'_> {
    /// What the flight recorder's description of it follows from.
    pub(crate) fn key(&self) -> recorder::Key {
        [self.plan, self.descriptor.shape, u64::from(self.epoch), self.tag]
    }

    /// How the flight recorder describes it.
    pub(crate) fn described(&self) -> recorder::Description {
        let Operation { descriptor, epoch, channel, peer, tag, bytes, .. } = *self;
        recorder::Description { descriptor: *descriptor, epoch, channel, peer, tag, bytes }
    }

    /// Whether it can't be completed because its epoch broke at operation `sequence`.
    pub(crate) fn is_behind(&self, sequence: u64) -> bool {
        sequence <= self.collective
    }

    /// What a message to `to` says of the operation.
    pub(crate) fn outgoing(&self, to: Rank) -> Descriptor {
        Descriptor {
            count: self.pairs.map_or(self.descriptor.count, |(send, _)| send[to as usize]),
            ..*self.descriptor
        }
    }

    /// What a message from `from` should say of the operation.
    pub(crate) fn incoming(&self, from: Rank) -> Descriptor {
        Descriptor {
            count: self.pairs.map_or(self.descriptor.count, |(_, recv)| recv[from as usize]),
            ..*self.descriptor
        }
    }
}

/// How a call is made: what it is told besides its data.
pub struct Call<'a> {
    /// The dimensions of the caller's tensor; every rank must give the same where the operation
    /// has one shape for all.
    pub shape: &'a [u64],
    /// How long the call may take; the communicator's own timeout if open.
    pub timeout: Option<std::time::Duration>,
    /// Asked when the call begins to wait or has much to do, then about every 50 ms while it waits; `true` stops it.
    pub interrupt: &'a mut dyn FnMut() -> bool,
}

/// Whether a message is the expected one; in a build that measures what checks cost, any is.
pub(super) fn compare(expectation: &Expectation, header: &Header) -> Result<(), Box<Mismatch>> {
    if cfg!(feature = "unchecked") { Ok(()) } else { expectation.check(header) }
}
