//! Messages that are reduced in the pass that verifies them: a pass of its own for the checksum would wait for each
//! line of the message without having anything to do meanwhile.
//!
//! What was computed counts only if the message turns out to be intact. If it does not, nothing has happened but
//! that the reduction's output, which is nobody's yet, was written to: its operands are as they were, the
//! message is asked for again, and the reduction is carried out when it has come.

use isobit_core::Rank;
use isobit_core::schedule::{Action, StepIndex};
use isobit_sys::ReadSpan;

use super::exchange::Exchange;
use super::failure::Failure;
use crate::transport::{Look, Transport};

impl Exchange<'_, '_> {
    /// Takes the message of a `Recv` and carries out the `Reduce` that waits for it alone, if there are both.
    /// `Look::Other` says that the message, if there is one, is to be taken by itself.
    pub(super) fn take_reduced(&mut self, rank: Rank, step: StepIndex) -> Result<Look, Failure> {
        let (program, channel) = (self.program, self.operation.channel);
        let Some(reduction) = self.engine.reduction_at(step) else { return Ok(Look::Other) };
        let (Action::Recv { dst, content, .. }, Action::Reduce { inputs, target, out }) =
            (&program.steps[step as usize].action, &program.steps[reduction as usize].action)
        else {
            unreachable!("the engine names a receive and a reduction")
        };
        let Some(message) = inputs.iter().position(|input| input.region == *dst) else {
            return Ok(Look::Other);
        };
        let bytes = self.payload_bytes(*dst, *content);
        let reducing = (&inputs[..], *target, *out);
        // A timeline shows messages and reductions each by itself.
        if bytes == 0 || self.trace.is_some() || self.peers[rank as usize].has_early(channel) {
            return Ok(Look::Other);
        }
        let in_place = !self.executor.keeps_operands(reducing, message);
        if in_place && !self.executor.can_keep(reducing)? {
            return Ok(Look::Other);
        }
        let expected = self.expectation(rank, self.engine.message(step), bytes).header().draft();
        let (executor, mut result) = (&mut self.executor, None);
        let read = &mut |payload: ReadSpan<'_>| {
            let reduced = executor.reduce_message(reducing, message, payload, in_place);
            result.insert(reduced).as_ref().map_or(0, |sum| *sum)
        };
        let found = self.link.try_recv_read(rank, channel, &expected, read);
        match (&found, result) {
            (_, Some(Err(error))) => return Err(error.into()),
            (Ok(Look::Taken), _) => self.engine.reduced(step, reduction),
            (_, Some(Ok(_))) if in_place => self.executor.restore(reducing),
            _ => {}
        }
        Ok(found?)
    }
}
