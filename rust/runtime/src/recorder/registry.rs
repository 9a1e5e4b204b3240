//! All flight recorders of the process, for whoever wants them without having a communicator.

use std::sync::{Arc, Mutex, PoisonError};

use super::FlightRecorder;

/// How many recorders are kept of communicators that are gone: what failed was often closed since.
const GONE_KEPT: usize = 8;

static RECORDERS: Mutex<Vec<FlightRecorder>> = Mutex::new(Vec::new());

/// Registers a recorder, and forgets the oldest of those that nobody else holds.
pub(super) fn add(recorder: &FlightRecorder) {
    let mut recorders = RECORDERS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_gone = |recorder: &FlightRecorder| Arc::strong_count(&recorder.0) == 1;
    let mut surplus = recorders.iter().filter(|one| is_gone(one)).count().saturating_sub(GONE_KEPT);
    recorders.retain(|one| {
        let forget = surplus > 0 && is_gone(one);
        surplus -= usize::from(forget);
        !forget
    });
    recorders.push(recorder.clone());
}

/// The flight recorders of this process's communicators, and of the last few that are gone. Those
/// that a forked child inherits from its parent are not its own.
pub fn flight_recorders() -> Vec<FlightRecorder> {
    let recorders = RECORDERS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    recorders.iter().filter(|recorder| recorder.0.process == process).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;
    use crate::recorder::tests::{begin, owner, record};

    #[test]
    fn communicators_that_are_gone_are_remembered_for_a_while_and_not_for_ever() {
        let kept = Recorder::new(owner());
        for number in 0..40 {
            begin(&mut Recorder::new(owner()), &record(1000 + number));
        }
        let all = flight_recorders();
        assert!(all.iter().any(|one| Arc::ptr_eq(&one.0, &kept.handle().0)), "one in use is never forgotten");
        let remembers = |sequence: u64| {
            all.iter().any(|one| one.records().first().is_some_and(|first| first.sequence == sequence))
        };
        assert!(remembers(1039), "the latest");
        assert!(!remembers(1000), "the oldest");
    }
}
