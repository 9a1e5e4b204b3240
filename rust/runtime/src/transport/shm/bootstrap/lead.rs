//! Rank 0: it lets the others in, makes the shared memory, hands it out, and says when all have it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use isobit_core::Rank;
use isobit_core::wire::WIRE_VERSION;
use isobit_sys::os;
use isobit_sys::os::segment::{self, Segment};
use isobit_sys::os::socket::{Listener, Socket};
use isobit_sys::os::wake::Bell;

use super::patience::{Patience, RETRY, Received};
use super::{Formed, Member, check_user, formed, host};
use crate::transport::TransportError;
use crate::transport::shm::ShmConfig;
use crate::transport::shm::reasons::{segment_error, system};
use crate::transport::shm::records::{Join, Record, RecordError, Welcome};

pub(super) struct Leader<'a, 'p> {
    config: &'a ShmConfig,
    patience: &'a mut Patience<'p>,
    start: Instant,
    /// The earliest end of anybody's patience, a little before it, so that everyone hears the outcome.
    give_up: Instant,
    /// Connections that have not said who they are.
    strangers: Vec<Socket>,
    members: BTreeMap<Rank, (Member, Socket)>,
}

impl<'a, 'p> Leader<'a, 'p> {
    pub(super) fn new(
        config: &'a ShmConfig,
        start: Instant,
        patience: &'a mut Patience<'p>,
    ) -> Leader<'a, 'p> {
        let whole = config.deadline.saturating_duration_since(start);
        let give_up = start + whole.mul_f64(0.95);
        Leader { config, patience, start, give_up, strangers: Vec::new(), members: BTreeMap::new() }
    }

    pub(super) fn lead(mut self, own: Member, name: &[u8]) -> Result<Formed, TransportError> {
        let formed = self.gather(name).and_then(|()| self.hand_out(own));
        if let Err(error) = &formed {
            let told = match error {
                TransportError::Interrupted => TransportError::Refused {
                    rank: 0,
                    reason: "it was interrupted while the group was being formed".to_owned(),
                },
                other => other.clone(),
            };
            self.tell_all(&Record::Failed(told));
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
            let ready = self.patience.wait(&sockets, left)?;
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

    fn listen(&mut self, name: &[u8]) -> Result<Listener, TransportError> {
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
                    self.patience.pause(RETRY)?;
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
            cores: thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        };
        let layout = options.layout(config.world_size);
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

    fn await_ready(&mut self) -> Result<(), TransportError> {
        for (rank, (_, socket)) in &self.members {
            let record = self.patience.receive(socket, self.give_up)?;
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
