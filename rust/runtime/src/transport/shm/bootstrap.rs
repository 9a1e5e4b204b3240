//! How the ranks of a host find each other and become a group: all of them, or none.
//!
//! Rank 0 listens under an abstract name made of the user and the job; the others connect, and the
//! kernel says on both sides which user is at the other end. Each passes its bell and a handle of
//! its process. When all have come, rank 0 makes the shared memory and hands it out with everyone's
//! bells and handles. When all have answered that they are ready, it says go. Whatever goes wrong
//! before that is told to everyone who has come.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use isobit_core::Rank;
use isobit_core::wire::WIRE_VERSION;
use isobit_sys::os::segment::{self, Layout, Segment};
use isobit_sys::os::socket::{Listener, Socket, readable};
use isobit_sys::os::wake::{Bell, own_process};
use isobit_sys::os::{self, checksum};

use super::ShmConfig;
use super::reasons::{segment_error, system, unavailable};
use super::records::{Join, Record, RecordError, Welcome};
use crate::transport::TransportError;

/// Everything that a rank of a formed group has.
pub(super) struct Formed {
    pub(super) welcome: Welcome,
    pub(super) incarnations: Vec<u64>,
    /// By rank; this rank's is its own.
    pub(super) bells: Vec<Bell>,
    /// By rank; none for this rank.
    pub(super) processes: Vec<Option<OwnedFd>>,
    pub(super) segment: Segment,
}

/// One rank as the others know it.
struct Member {
    incarnation: u64,
    bell: Bell,
    process: OwnedFd,
}

/// Retries of what may come right soon are this far apart.
const RETRY: Duration = Duration::from_millis(5);

/// Joins or leads the group until it is formed.
pub(super) fn form(config: &ShmConfig) -> Result<Formed, TransportError> {
    let start = Instant::now();
    let name = name(os::user(), &config.job);
    let own = Member {
        incarnation: os::random().map_err(|e| system("getting a random number", &e, config))?,
        bell: Bell::new().map_err(|e| system("eventfd", &e, config))?,
        process: own_process().map_err(|e| system("pidfd_open", &e, config))?,
    };
    if config.rank == 0 {
        Leader::new(config, start).lead(own, &name)
    } else {
        join(config, start, own, &name)
    }
}

/// The abstract name of a job's meeting point.
fn name(user: u32, job: &str) -> Vec<u8> {
    format!("isobit/{user}/{:016x}", checksum::of(job.as_bytes().into())).into_bytes()
}

fn host() -> Result<String, TransportError> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|error| unavailable(format!("no boot id ({error}): mount /proc")))?;
    Ok(id.trim().to_owned())
}

struct Leader<'a> {
    config: &'a ShmConfig,
    start: Instant,
    /// The earliest end of anybody's patience, a little before it, so that everyone hears the outcome.
    give_up: Instant,
    /// Connections that have not said who they are.
    strangers: Vec<Socket>,
    members: BTreeMap<Rank, (Member, Socket)>,
}

impl<'a> Leader<'a> {
    fn new(config: &'a ShmConfig, start: Instant) -> Leader<'a> {
        let patience = config.deadline.saturating_duration_since(start);
        let give_up = start + patience.mul_f64(0.95);
        Leader { config, start, give_up, strangers: Vec::new(), members: BTreeMap::new() }
    }

    fn lead(mut self, own: Member, name: &[u8]) -> Result<Formed, TransportError> {
        let formed = self.gather(name).and_then(|()| self.hand_out(own));
        if let Err(error) = &formed {
            self.tell_all(&Record::Failed(error.clone()));
        }
        formed
    }

    fn tell_all(&self, record: &Record) {
        for (_, socket) in self.members.values() {
            // One that is gone hears nothing.
            let _ = socket.send(&record.encode(), &[]);
        }
    }

    fn timeout(&self) -> TransportError {
        let here = |rank: &Rank| *rank == 0 || self.members.contains_key(rank);
        let missing = (0..self.config.world_size).filter(|rank| !here(rank)).collect();
        TransportError::Timeout { missing, waited: self.start.elapsed() }
    }

    /// Waits until every rank has come.
    fn gather(&mut self, name: &[u8]) -> Result<(), TransportError> {
        if self.config.world_size == 1 {
            return Ok(());
        }
        let listener = self.listen(name)?;
        let host = host()?;
        while self.members.len() + 1 < self.config.world_size as usize {
            let left = self.give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timeout());
            }
            let strangers = std::mem::take(&mut self.strangers);
            let mut sockets = vec![listener.as_fd()];
            sockets.extend(strangers.iter().map(AsFd::as_fd));
            sockets.extend(self.members.values().map(|(_, socket)| socket.as_fd()));
            let ready = readable(&sockets, left).map_err(|e| system("poll", &e, self.config))?;
            // A member has nothing to say yet: it is gone, and may come again.
            let mut member = ready[1 + strangers.len()..].iter();
            self.members.retain(|_, _| !member.next().expect("one each"));
            for (socket, ready) in strangers.into_iter().zip(&ready[1..]) {
                if *ready { self.introduce(socket, &host)? } else { self.strangers.push(socket) }
            }
            if ready[0] {
                self.accept(&listener)?;
            }
        }
        Ok(())
    }

    fn listen(&self, name: &[u8]) -> Result<Listener, TransportError> {
        loop {
            match Listener::bind(name) {
                Ok(listener) => return Ok(listener),
                // An earlier run of the job may be about to end.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if Instant::now() >= self.give_up {
                        let reason = format!(
                            "another process already is rank 0 of job '{}': give each job a name of its own",
                            self.config.job
                        );
                        return Err(TransportError::Refused { rank: 0, reason });
                    }
                    thread::sleep(RETRY);
                }
                Err(error) => return Err(system("listening", &error, self.config)),
            }
        }
    }

    fn accept(&mut self, listener: &Listener) -> Result<(), TransportError> {
        let Some(socket) = listener.accept().map_err(|e| system("accept", &e, self.config))? else {
            return Ok(());
        };
        match check_user(&socket, os::user()) {
            Ok(()) => self.strangers.push(socket),
            // Another user can't end this group's forming, only be sent away.
            Err(error) => drop(socket.send(&Record::Failed(error).encode(), &[])),
        }
        Ok(())
    }

    /// Hears who a stranger is, and judges whether it fits.
    fn introduce(&mut self, socket: Socket, host: &str) -> Result<(), TransportError> {
        let received = socket.receive().map_err(|e| system("recvmsg", &e, self.config))?;
        let Some((bytes, files)) = received else {
            self.strangers.push(socket);
            return Ok(());
        };
        let refused = match Record::decode(&bytes) {
            Ok(Record::Join(join)) => match self.misfit(&join, host)? {
                None => {
                    let Ok([bell, process]) = <[OwnedFd; 2]>::try_from(files) else {
                        return Ok(());
                    };
                    let patience = Duration::from_millis(u64::from(join.patience_ms)).mul_f64(0.95);
                    self.give_up = self.give_up.min(Instant::now() + patience);
                    let bell = Bell::from_fd(bell);
                    let member = Member { incarnation: join.incarnation, bell, process };
                    self.members.insert(join.rank, (member, socket));
                    return Ok(());
                }
                Some(reason) => TransportError::Refused { rank: join.rank, reason },
            },
            Err(RecordError::Version { rank, found }) => {
                let reason = format!(
                    "it speaks wire version {found}, rank 0 speaks {WIRE_VERSION}: run the same isobit release on every rank"
                );
                TransportError::Refused { rank, reason }
            }
            // Nobody that belongs here, or gone again.
            Ok(_) | Err(RecordError::Foreign) => return Ok(()),
        };
        let _ = socket.send(&Record::Failed(refused.clone()).encode(), &[]);
        Err(refused)
    }

    /// Why a rank can't be let in, if it can't.
    fn misfit(&mut self, join: &Join, host: &str) -> Result<Option<String>, TransportError> {
        let world_size = self.config.world_size;
        if join.world_size != world_size {
            return Ok(Some(format!(
                "its world size is {}, that of rank 0 is {world_size}: start all ranks with the same",
                join.world_size
            )));
        }
        if join.rank >= world_size {
            return Ok(Some(format!("ranks of a world of {world_size} are 0 to {}", world_size - 1)));
        }
        let same = self.members.get(&join.rank).map(|(_, socket)| socket.receive()).transpose();
        // One that has something to say before the welcome is gone, and this is the one that replaces it.
        let here = matches!(same.map_err(|e| system("recvmsg", &e, self.config))?, Some(None));
        if join.rank == 0 || here {
            return Ok(Some("two processes have this rank: give each its own".to_owned()));
        }
        let elsewhere = || "it runs on another host: shm is for the ranks of one host".to_owned();
        Ok((join.host != host).then(elsewhere))
    }

    /// Makes the shared memory and sees that every rank has it.
    fn hand_out(&mut self, own: Member) -> Result<Formed, TransportError> {
        let config = self.config;
        let options = config.options;
        let welcome = Welcome {
            group: os::random().map_err(|e| system("getting a random number", &e, config))?,
            capacities: options.capacities.map(|capacity| capacity as u64),
            payload_bytes_max: options.payload_bytes_max as u32,
        };
        let layout = Layout { world_size: config.world_size, capacities: options.capacities };
        let memory = segment::create(layout).map_err(|e| segment_error(e, config))?;
        let attached = Segment::attach(memory.as_fd(), layout, 0).map_err(|e| segment_error(e, config))?;
        for (to, (_, socket)) in &self.members {
            let lost = |error: io::Error| TransportError::Refused {
                rank: *to,
                reason: format!("it could not be sent the shared memory: {error}"),
            };
            socket.send(&Record::Welcome(welcome).encode(), &[memory.as_fd()]).map_err(lost)?;
            let others = self.members.iter().filter(|(rank, _)| *rank != to);
            let others = others.map(|(rank, (member, _))| (*rank, member)).chain([(0, &own)]);
            for (rank, member) in others {
                let record = Record::Peer { rank, incarnation: member.incarnation };
                let files = [member.bell.as_fd(), member.process.as_fd()];
                socket.send(&record.encode(), &files).map_err(lost)?;
            }
        }
        self.await_ready()?;
        self.tell_all(&Record::Go);
        let members = std::mem::take(&mut self.members);
        let members = members.into_iter().map(|(rank, (member, _))| (rank, member)).collect();
        Ok(formed(0, welcome, own, members, attached))
    }

    fn await_ready(&self) -> Result<(), TransportError> {
        for (rank, (_, socket)) in &self.members {
            let record = receive(socket, self.give_up, self.config)?;
            let reason = match record {
                Received::Record(Record::Ready { .. }, _) => continue,
                Received::Record(Record::Failed(error), _) => error.to_string(),
                Received::Late => "it did not take the shared memory in time".to_owned(),
                Received::Record(..) | Received::End => {
                    "its process ended while the group was being formed".to_owned()
                }
            };
            return Err(TransportError::Refused { rank: *rank, reason });
        }
        Ok(())
    }
}

/// What came over a connection.
enum Received {
    Record(Record, Vec<OwnedFd>),
    End,
    Late,
}

fn receive(socket: &Socket, until: Instant, config: &ShmConfig) -> Result<Received, TransportError> {
    loop {
        if let Some((bytes, files)) = socket.receive().map_err(|e| system("recvmsg", &e, config))? {
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
        readable(&[socket.as_fd()], left).map_err(|e| system("poll", &e, config))?;
    }
}

/// Whether `user` is at the other end of a connection.
fn check_user(socket: &Socket, user: u32) -> Result<(), TransportError> {
    match socket.peer_user() {
        Ok(found) if found == user => Ok(()),
        Ok(found) => Err(TransportError::Auth {
            reason: format!("user {user} formed this job and user {found} came: run every rank as one user"),
        }),
        Err(error) => {
            Err(TransportError::Auth { reason: format!("the kernel does not say who it is: {error}") })
        }
    }
}

/// Joins the group that rank 0 leads.
fn join(config: &ShmConfig, start: Instant, own: Member, name: &[u8]) -> Result<Formed, TransportError> {
    let host = host()?;
    let late = || TransportError::Timeout { missing: vec![0], waited: start.elapsed() };
    loop {
        let left = config.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        let Some(socket) = Socket::connect(name).map_err(|e| system("connect", &e, config))? else {
            thread::sleep(RETRY.min(left));
            continue;
        };
        check_user(&socket, os::user())?;
        let join = Record::Join(Join {
            rank: config.rank,
            world_size: config.world_size,
            incarnation: own.incarnation,
            patience_ms: left.as_millis().min(u128::from(u32::MAX)) as u32,
            host: host.clone(),
        });
        if socket.send(&join.encode(), &[own.bell.as_fd(), own.process.as_fd()]).is_err() {
            continue;
        }
        match receive(&socket, config.deadline, config)? {
            Received::Record(Record::Welcome(welcome), files) => {
                let taken = take(config, welcome, files, &socket);
                let record = match &taken {
                    Ok(_) => Record::Ready { rank: config.rank },
                    Err(error) => Record::Failed(error.clone()),
                };
                let _ = socket.send(&record.encode(), &[]);
                let (members, segment) = taken?;
                return match receive(&socket, config.deadline, config)? {
                    Received::Record(Record::Go, _) => {
                        Ok(formed(config.rank, welcome, own, members, segment))
                    }
                    Received::Record(Record::Failed(error), _) => Err(error),
                    Received::Late => Err(late()),
                    Received::Record(..) | Received::End => Err(gone()),
                };
            }
            Received::Record(Record::Failed(error), _) => return Err(error),
            Received::Late => return Err(late()),
            // That rank 0 is gone; another may come.
            Received::Record(..) | Received::End => thread::sleep(RETRY.min(left)),
        }
    }
}

fn gone() -> TransportError {
    TransportError::PeerLost {
        rank: 0,
        reason: "its process ended while the group was being formed".to_owned(),
    }
}

/// Takes the shared memory and everyone's files.
fn take(
    config: &ShmConfig,
    welcome: Welcome,
    files: Vec<OwnedFd>,
    socket: &Socket,
) -> Result<(BTreeMap<Rank, Member>, Segment), TransportError> {
    let foreign = || unavailable("rank 0 sent what this release does not understand".to_owned());
    let [memory] = <[OwnedFd; 1]>::try_from(files).map_err(|_| foreign())?;
    let mut capacities = [0; 2];
    for (capacity, sent) in capacities.iter_mut().zip(welcome.capacities) {
        *capacity = usize::try_from(sent).map_err(|_| foreign())?;
    }
    super::ShmOptions { capacities, payload_bytes_max: welcome.payload_bytes_max as usize }.check()?;
    let layout = Layout { world_size: config.world_size, capacities };
    let segment =
        Segment::attach(memory.as_fd(), layout, config.rank).map_err(|e| segment_error(e, config))?;
    let mut members = BTreeMap::new();
    while members.len() + 1 < config.world_size as usize {
        match receive(socket, config.deadline, config)? {
            Received::Record(Record::Peer { rank, incarnation }, files)
                if rank < config.world_size && rank != config.rank =>
            {
                let [bell, process] = <[OwnedFd; 2]>::try_from(files).map_err(|_| foreign())?;
                members.insert(rank, Member { incarnation, bell: Bell::from_fd(bell), process });
            }
            Received::Record(Record::Failed(error), _) => return Err(error),
            Received::Record(..) => return Err(foreign()),
            Received::End | Received::Late => return Err(gone()),
        }
    }
    Ok((members, segment))
}

fn formed(
    rank: Rank,
    welcome: Welcome,
    own: Member,
    mut members: BTreeMap<Rank, Member>,
    segment: Segment,
) -> Formed {
    members.insert(rank, own);
    let (mut incarnations, mut bells, mut processes) = (Vec::new(), Vec::new(), Vec::new());
    for (member_rank, member) in members {
        incarnations.push(member.incarnation);
        bells.push(member.bell);
        processes.push((member_rank != rank).then_some(member.process));
    }
    Formed { welcome, incarnations, bells, processes, segment }
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
