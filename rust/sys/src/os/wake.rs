//! Waking and missing: a rank's doorbell, and one wait for its ringing and for the end of any peer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

/// A doorbell that other processes can ring.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A new one.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// One that another process made and passed.
    pub fn from_fd(fd: OwnedFd) -> Bell {
        Bell(fd)
    }

    /// A second handle to it.
    pub fn try_clone(&self) -> io::Result<Bell> {
        Ok(Bell(self.0.try_clone()?))
    }

    /// Rings it. One that has not been answered yet needs no second ring.
    pub fn ring(&self) {
        // An eventfd that is full rings already; nothing else can go wrong with one that is open.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn answer(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A handle to this process, by which others learn of its end.
pub fn own_process() -> io::Result<OwnedFd> {
    Ok(pidfd_open(getpid(), PidfdFlags::empty())?)
}

/// One wait for the own bell and for the end of any peer's process.
#[derive(Debug)]
pub struct Sleeper {
    epoll: OwnedFd,
    bell: Bell,
    /// By key: the processes that have not ended.
    processes: Vec<Option<OwnedFd>>,
}

const BELL: u64 = u64::MAX;

impl Sleeper {
    /// Waits for `bell` and for the end of `processes`, which are known by their index.
    pub fn new(bell: Bell, processes: Vec<Option<OwnedFd>>) -> io::Result<Sleeper> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        for (key, process) in processes.iter().enumerate() {
            if let Some(process) = process {
                let data = epoll::EventData::new_u64(key as u64);
                epoll::add(&epoll, process, data, epoll::EventFlags::IN)?;
            }
        }
        Ok(Sleeper { epoll, bell, processes })
    }

    /// Sleeps until the bell rings, a process ends, a signal comes, or `timeout` is over (rounded up to
    /// a millisecond): the processes that ended, each once.
    pub fn sleep(&mut self, timeout: Duration) -> io::Result<Vec<usize>> {
        let millis = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i64;
        let timeout = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        let mut events = Vec::with_capacity(8);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let mut ended = Vec::new();
        for event in events {
            match event.data.u64() {
                BELL => self.bell.answer(),
                key => {
                    if let Some(process) = self.processes[key as usize].take() {
                        epoll::delete(&self.epoll, &process)?;
                        ended.push(key as usize);
                    }
                }
            }
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_ring_ends_the_sleep_and_is_heard_once() {
        let bell = Bell::new().unwrap();
        let other = Bell::from_fd(bell.as_fd().try_clone_to_owned().unwrap());
        let mut sleeper = Sleeper::new(bell, Vec::new()).unwrap();
        other.ring();
        other.ring();
        assert!(sleeper.sleep(Duration::from_secs(30)).unwrap().is_empty());
        let before = std::time::Instant::now();
        assert!(sleeper.sleep(Duration::from_millis(20)).unwrap().is_empty());
        assert!(before.elapsed() >= Duration::from_millis(20), "nothing rings any more");
    }

    #[test]
    fn a_process_that_ends_is_named_once() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let mut sleeper = Sleeper::new(Bell::new().unwrap(), vec![None, None, Some(process)]).unwrap();
        assert!(sleeper.sleep(Duration::ZERO).unwrap().is_empty());
        drop(child.stdin.take());
        assert_eq!(sleeper.sleep(Duration::from_secs(30)).unwrap(), [2]);
        assert!(sleeper.sleep(Duration::ZERO).unwrap().is_empty());
        child.wait().unwrap();
    }
}
