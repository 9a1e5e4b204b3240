//! Unix sockets that keep records apart and pass open files, by names that no file system holds.
//!
//! They are only used to form a group. Nothing here blocks but [`readable`], and that not past its
//! time, and a send to an end that reads nothing, for a second.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with, sockopt,
};

/// The most files that one record carries.
pub const FILES_MAX: usize = 2;

/// The longest record.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A socket that others connect to.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// One connection.
#[derive(Debug)]
pub struct Socket(OwnedFd);

fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

impl Listener {
    /// Listens under an abstract name; the name is free again when this is dropped or its process ends.
    pub fn bind(name: &[u8]) -> io::Result<Listener> {
        let socket = open()?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
        listen(&socket, 128)?;
        Ok(Listener(socket))
    }

    /// The next connection, if one waits.
    pub fn accept(&self) -> io::Result<Option<Socket>> {
        match accept_with(&self.0, FLAGS) {
            Ok(socket) => Ok(Some(Socket(socket))),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Socket {
    /// Connects to the listener of that name; `None` if there is none, or if it is too busy now.
    pub fn connect(name: &[u8]) -> io::Result<Option<Socket>> {
        let socket = open()?;
        match connect(&socket, &SocketAddrUnix::new_abstract_name(name)?) {
            Ok(()) => Ok(Some(Socket(socket))),
            Err(Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The user at the other end, as the kernel knows it.
    pub fn peer_user(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(&self.0)?.uid.as_raw())
    }

    /// Sends one record with at most [`FILES_MAX`] files.
    pub fn send(&self, record: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        assert!(record.len() <= RECORD_BYTES_MAX && files.len() <= FILES_MAX, "a record within its limits");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            let pushed = control.push(SendAncillaryMessage::ScmRights(files));
            assert!(pushed, "the space is for that many files");
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(record)], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.drains()? => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the other end has read some of what was sent, for a second at most.
    fn drains(&self) -> io::Result<bool> {
        let mut waiting = [PollFd::new(&self.0, PollFlags::OUT)];
        Ok(poll(&mut waiting, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }))? > 0)
    }

    /// The next record and its files, if one waits. An empty record is the end of the connection.
    pub fn receive(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut record = vec![0; RECORD_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut record)], &mut control, flags) {
                Ok(received) => break received,
                // The other end left something unread. It is said once, and what it sent comes after that.
                Err(Errno::CONNRESET) => {}
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                files.extend(passed);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other(
                "not every passed file could be opened here: raise the limit of open files (ulimit -n)",
            ));
        }
        record.truncate(received.bytes);
        Ok(Some((record, files)))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Blocks until something can be read from one of `sockets`, or `timeout` is over: from which.
pub fn readable(sockets: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Vec<bool>> {
    let mut waiting: Vec<_> = sockets.iter().map(|s| PollFd::from_borrowed_fd(*s, PollFlags::IN)).collect();
    let seconds = timeout.as_secs().min(i32::MAX as u64) as i64;
    let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(&mut waiting, Some(&timeout)) {
        Ok(_) => Ok(waiting.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; sockets.len()]),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(test: &str) -> Vec<u8> {
        format!("isobit-test/{}/{test}", std::process::id()).into_bytes()
    }

    #[test]
    fn records_and_files_arrive_as_they_were_sent() {
        let name = name("records");
        assert!(Socket::connect(&name).unwrap().is_none(), "nobody listens");
        let listener = Listener::bind(&name).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let client = Socket::connect(&name).unwrap().unwrap();
        assert_eq!(readable(&[listener.as_fd()], Duration::from_secs(30)).unwrap(), [true]);
        let server = listener.accept().unwrap().unwrap();
        assert_eq!(server.peer_user().unwrap(), super::super::user());
        assert_eq!(client.peer_user().unwrap(), super::super::user());

        assert!(server.receive().unwrap().is_none());
        client.send(b"two files", &[client.as_fd(), listener.as_fd()]).unwrap();
        client.send(b"none", &[]).unwrap();
        let (record, files) = server.receive().unwrap().unwrap();
        assert_eq!((&record[..], files.len()), (&b"two files"[..], 2));
        assert_eq!(server.receive().unwrap().unwrap().0, b"none");
        drop((client, files));
        assert_eq!(server.receive().unwrap().unwrap().0, b"", "the end");
    }

    #[test]
    fn last_words_are_heard_though_their_sender_left_something_unread() {
        let name = name("unread");
        let listener = Listener::bind(&name).unwrap();
        let client = Socket::connect(&name).unwrap().unwrap();
        let server = listener.accept().unwrap().unwrap();
        client.send(b"unread", &[]).unwrap();
        server.send(b"last words", &[]).unwrap();
        drop(server);
        assert_eq!(client.receive().unwrap().unwrap().0, b"last words");
        assert_eq!(client.receive().unwrap().unwrap().0, b"", "the end");
    }

    #[test]
    fn a_name_is_taken_once_and_free_again_after_a_drop() {
        let name = name("taken");
        let listener = Listener::bind(&name).unwrap();
        assert_eq!(Listener::bind(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        Listener::bind(&name).unwrap();
    }
}
