//! How to end a group's work from another thread than the one that is in a call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Ends the group's work from any thread, also while a call is in progress: it and all later ones
/// give `Aborted` on every rank, within about 50 ms here.
///
/// ```
/// let mut comm = isobit::Communicator::solo();
/// comm.abort_handle().abort("the loss is NaN");
/// let mut call = isobit::Call { shape: &[], timeout: None, interrupt: &mut || false };
/// assert!(comm.barrier(&mut call).unwrap_err().to_string().contains("the loss is NaN"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct AbortHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wanted: AtomicBool,
    reason: Mutex<String>,
}

impl AbortHandle {
    /// Ends the group's work with a reason; the first one counts. Never blocks.
    pub fn abort(&self, reason: &str) {
        let mut kept = self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.shared.wanted.load(Ordering::Relaxed) {
            reason.clone_into(&mut kept);
            self.shared.wanted.store(true, Ordering::Release);
        }
    }

    /// Whether the end is wanted.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.wanted.load(Ordering::Acquire)
    }

    /// The reason, if it is.
    pub(crate) fn wanted(&self) -> Option<String> {
        if self.is_wanted() { Some(self.reason()) } else { None }
    }

    #[cold]
    fn reason(&self) -> String {
        self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
