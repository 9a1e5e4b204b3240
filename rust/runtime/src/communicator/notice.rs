//! Notices: "I wait for you in this operation", said to peers that keep a call waiting.
//!
//! Two ranks that each wait for the other's message would find out about different calls only at
//! their deadlines. So a call that has waited a while tells the peers that it waits for what it is
//! doing, on the point-to-point stream, where a collective's descriptor marks it as a notice. Each
//! rank compares it with its own call of that number, the present one or a past one.

use isobit_core::Rank;
use isobit_core::engine::{Expectation, Mismatch};
use isobit_core::wire::{Channel, Collective, Header};

use crate::recorder::FlightRecorder;

/// Compares a peer's notice with this rank's call of the same number, if it made one lately.
pub(crate) fn judge(recorder: &FlightRecorder, peer: Rank, notice: &Header) -> Result<(), Box<Mismatch>> {
    let Some(mut descriptor) = recorder.collective(notice.epoch, notice.sequence) else {
        return Ok(());
    };
    if descriptor.collective == Collective::AllToAll && notice.descriptor.collective == Collective::AllToAll {
        descriptor.count = notice.descriptor.count;
    }
    let expectation = Expectation {
        group: notice.group,
        epoch: notice.epoch,
        incarnation: notice.incarnation,
        source: peer,
        destination: notice.destination,
        channel: Channel::PointToPoint,
        sequence: notice.sequence,
        message: notice.message,
        tag: notice.tag,
        descriptor,
        payload_bytes: notice.payload_bytes,
    };
    expectation.check(notice)
}

/// Whether a message of the point-to-point stream is a notice.
pub(crate) fn is_notice(header: &Header) -> bool {
    header.descriptor.collective != Collective::PointToPoint
}
