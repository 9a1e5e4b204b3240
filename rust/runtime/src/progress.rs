//! Progress: a communicator whose calls may go on while their caller computes.
//!
//! Calls are carried out one after the other in the order in which they were issued, those that
//! were submitted on a thread of this communicator, the others on their caller's. So the group's
//! sequence of calls is the program's, whoever waits for what.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::communicator::{AbortHandle, Communicator};
use crate::error::{Error, ErrorKind};

/// How often a waiting caller asks whether it should stop.
const INTERRUPT_EVERY: Duration = Duration::from_millis(50);

/// A call to carry out later. It owns what it works on.
pub type Job = Box<dyn FnOnce(&mut Communicator) -> Result<(), Error> + Send>;

/// A communicator and the calls that were issued on it.
pub struct Progress {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    abort: AbortHandle,
}

struct Shared {
    communicator: Mutex<Communicator>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Job, Arc<Outcome>)>,
    running: bool,
    /// How many callers wait for their turn.
    waiting: u32,
    closed: bool,
}

#[derive(Default)]
struct Outcome {
    result: Mutex<Option<Result<(), Error>>>,
    changed: Condvar,
}

/// A call that was submitted.
#[derive(Clone)]
pub struct Work {
    outcome: Arc<Outcome>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A job that panicked left its communicator broken, not its lock: the next call tells.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// Takes over a communicator.
    ///
    /// ```
    /// use isobit::{Call, Communicator, Progress};
    /// let mut progress = Progress::new(Communicator::solo());
    /// let barrier = |comm: &mut Communicator| {
    ///     comm.barrier(&mut Call { shape: &[], timeout: None, interrupt: &mut || false })
    /// };
    /// let work = progress.submit(Box::new(barrier));
    /// assert!(work.wait(None, &mut || false).is_some_and(|result| result.is_ok()));
    /// assert!(progress.call(&mut || false, barrier).is_some_and(|result| result.is_ok()));
    /// ```
    pub fn new(communicator: Communicator) -> Progress {
        let abort = communicator.abort_handle();
        let shared = Shared {
            communicator: Mutex::new(communicator),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Progress { shared: Arc::new(shared), thread: Mutex::default(), abort }
    }

    /// Makes a call now, on this thread, after all that were submitted before. `None` if
    /// `interrupt`, asked before a wait for them and about every 50 ms, stopped it.
    pub fn call<T>(
        &mut self,
        interrupt: &mut dyn FnMut() -> bool,
        call: impl FnOnce(&mut Communicator) -> T,
    ) -> Option<T> {
        // Until a call is submitted there is nobody to take turns with.
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            return Some(call(shared.communicator.get_mut().unwrap_or_else(PoisonError::into_inner)));
        }
        let mut state = lock(&self.shared.state);
        if state.running || !state.jobs.is_empty() {
            drop(state);
            if interrupt() {
                return None;
            }
            state = lock(&self.shared.state);
        }
        while state.running || !state.jobs.is_empty() {
            state.waiting += 1;
            state = self.shared.wait(state, INTERRUPT_EVERY);
            state.waiting -= 1;
            if (state.running || !state.jobs.is_empty()) && interrupt() {
                return None;
            }
        }
        state.running = true;
        drop(state);
        let _done = Running(&self.shared);
        Some(call(&mut lock(&self.shared.communicator)))
    }

    /// Issues a call; it is carried out after all that were issued before.
    pub fn submit(&self, job: Job) -> Work {
        let outcome = Arc::<Outcome>::default();
        let mut state = lock(&self.shared.state);
        state.jobs.push_back((job, Arc::clone(&outcome)));
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let spawned =
                thread::Builder::new().name("isobit-progress".to_owned()).spawn(move || shared.drive());
            match spawned {
                Ok(handle) => *thread = Some(handle),
                Err(error) => {
                    state.jobs.pop_back();
                    drop(state);
                    outcome.set(Err(self.shared.no_thread(&error)));
                    return Work { outcome };
                }
            }
        }
        drop(state);
        self.shared.changed.notify_all();
        Work { outcome }
    }

    /// How to end the group's work from any thread, during a call, too.
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    /// Leaves the group. Calls that were submitted and are not complete fail with `Aborted`.
    pub fn close(&self) {
        let pending = {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            if state.running || !state.jobs.is_empty() {
                self.abort.abort("its communicator was closed during the call");
            }
            std::mem::take(&mut state.jobs)
        };
        self.shared.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // A job that panicked has said so; there is nothing to add.
            let _ = thread.join();
        }
        let mut communicator = lock(&self.shared.communicator);
        communicator.close();
        for (job, outcome) in pending {
            outcome.set(job(&mut communicator));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn wait<'a>(&self, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The progress thread: jobs in their order, until the communicator is closed.
    fn drive(&self) {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return;
            }
            let next = if state.running { None } else { state.jobs.pop_front() };
            let Some((job, outcome)) = next else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.running = true;
            drop(state);
            let running = Running(self);
            // Whatever becomes of the job, whoever waits for it is told.
            let told = Told(outcome);
            told.0.set(job(&mut lock(&self.communicator)));
            drop(running);
            state = lock(&self.state);
        }
    }

    fn no_thread(&self, error: &std::io::Error) -> Error {
        let communicator = lock(&self.communicator);
        Error {
            kind: ErrorKind::Unavailable,
            message: format!("no thread for async calls: {error}; raise the limit of threads (ulimit -u)"),
            rank: communicator.rank(),
            peer: None,
            operation: None,
            sequence: None,
            epoch: communicator.epoch(),
        }
    }
}

/// The time during which the communicator is in use.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.running = false;
        // Waking costs a call of the kernel, also where nobody sleeps.
        let is_awaited = state.waiting > 0 || !state.jobs.is_empty() || state.closed;
        drop(state);
        if is_awaited {
            self.0.changed.notify_all();
        }
    }
}

/// An outcome that is set in the end, even if its job panics.
struct Told(Arc<Outcome>);

impl Drop for Told {
    fn drop(&mut self) {
        if lock(&self.0.result).is_none() {
            self.0.set(Err(Error {
                kind: ErrorKind::Aborted,
                message: "the call panicked, please report this".to_owned(),
                rank: 0,
                peer: None,
                operation: None,
                sequence: None,
                epoch: 0,
            }));
        }
    }
}

impl Outcome {
    fn set(&self, result: Result<(), Error>) {
        *lock(&self.result) = Some(result);
        self.changed.notify_all();
    }
}

impl Work {
    /// Whether the call is complete.
    pub fn is_completed(&self) -> bool {
        lock(&self.outcome.result).is_some()
    }

    /// What became of the call, if it is complete.
    pub fn result(&self) -> Option<Result<(), Error>> {
        lock(&self.outcome.result).clone()
    }

    /// Waits until the call is complete. `None` if `timeout` passed or `interrupt`, asked about
    /// every 50 ms, stopped the wait; the call goes on then.
    pub fn wait(
        &self,
        timeout: Option<Duration>,
        interrupt: &mut dyn FnMut() -> bool,
    ) -> Option<Result<(), Error>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut result = lock(&self.outcome.result);
        loop {
            if let Some(result) = &*result {
                return Some(result.clone());
            }
            let left = deadline.map_or(INTERRUPT_EVERY, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            let changed = &self.outcome.changed;
            let waited = changed.wait_timeout(result, left.min(INTERRUPT_EVERY));
            let (again, pause) = waited.unwrap_or_else(PoisonError::into_inner);
            result = again;
            if pause.timed_out() && result.is_none() && interrupt() {
                return None;
            }
        }
    }
}
