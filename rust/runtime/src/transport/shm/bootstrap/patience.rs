//! How a rank waits while its group forms: never long without asking its caller whether it still shall.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use isobit_core::wire::WIRE_VERSION;
use isobit_sys::os::socket::{Socket, readable};

use crate::transport::TransportError;
use crate::transport::shm::ShmConfig;
use crate::transport::shm::reasons::system;
use crate::transport::shm::records::{Record, RecordError};

/// How often the caller is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Retries of what may come right soon are this far apart.
pub(super) const RETRY: Duration = Duration::from_millis(5);

/// What came over a connection.
pub(super) enum Received {
    Record(Record, Vec<OwnedFd>),
    End,
    Late,
}

/// Every wait of the forming of a group.
pub(super) struct Patience<'a> {
    config: &'a ShmConfig,
    interrupt: &'a mut dyn FnMut() -> bool,
    asked: Instant,
}

impl<'a> Patience<'a> {
    pub(super) fn new(config: &'a ShmConfig, interrupt: &'a mut dyn FnMut() -> bool) -> Patience<'a> {
        Patience { config, interrupt, asked: Instant::now() }
    }

    /// Blocks until something can be read from one of `sockets`, for `left`, or for a while, whichever
    /// is the shortest: from which.
    pub(super) fn wait(
        &mut self,
        sockets: &[BorrowedFd<'_>],
        left: Duration,
    ) -> Result<Vec<bool>, TransportError> {
        let ready =
            readable(sockets, left.min(ASK_EVERY)).map_err(|error| system("poll", &error, self.config))?;
        if self.asked.elapsed() >= ASK_EVERY {
            self.asked = Instant::now();
            if (self.interrupt)() {
                return Err(TransportError::Interrupted);
            }
        }
        Ok(ready)
    }

    /// Lets a little time pass before something is tried again.
    pub(super) fn pause(&mut self, left: Duration) -> Result<(), TransportError> {
        self.wait(&[], RETRY.min(left)).map(drop)
    }

    /// The next record from a connection.
    pub(super) fn receive(&mut self, socket: &Socket, until: Instant) -> Result<Received, TransportError> {
        loop {
            if let Some((bytes, files)) =
                socket.receive().map_err(|error| system("recvmsg", &error, self.config))?
            {
                return match Record::decode(&bytes) {
                    Ok(record) => Ok(Received::Record(record, files)),
                    Err(RecordError::Foreign) => Ok(Received::End),
                    Err(RecordError::Version { rank, found }) => {
                        let reason = format!("it speaks wire version {found}, this side {WIRE_VERSION}");
                        Err(TransportError::Refused { rank, reason })
                    }
                };
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Received::Late);
            }
            self.wait(&[socket.as_fd()], left)?;
        }
    }
}
