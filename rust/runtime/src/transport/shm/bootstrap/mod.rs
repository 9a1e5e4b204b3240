//! How the ranks of a host find each other and become a group: all of them, or none.
//!
//! Rank 0 listens under an abstract name made of the user and the job; the others connect, and the
//! kernel says on both sides which user is at the other end. Each passes its bell and a handle of
//! its process. When all have come, rank 0 makes the shared memory and hands it out with everyone's
//! bells and handles. When all have answered that they are ready, it says go. Whatever goes wrong
//! before that is told to everyone who has come.

mod join;
mod lead;
mod patience;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Instant;

use isobit_core::Rank;
use isobit_core::wire::checksum;
use isobit_sys::os;
use isobit_sys::os::segment::Segment;
use isobit_sys::os::socket::Socket;
use isobit_sys::os::wake::{Bell, own_process};

use super::ShmConfig;
use super::reasons::{system, unavailable};
use super::records::Welcome;
use crate::transport::TransportError;
use join::join;
use lead::Leader;
use patience::Patience;

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

/// Joins or leads the group until it is formed, or until `interrupt`, which is asked now and then, says so.
pub(super) fn form(
    config: &ShmConfig,
    interrupt: &mut dyn FnMut() -> bool,
) -> Result<Formed, TransportError> {
    let start = Instant::now();
    let name = name(os::user(), &config.job);
    let own = Member {
        incarnation: os::random().map_err(|e| system("getting a random number", &e, config))?,
        bell: Bell::new().map_err(|e| system("eventfd", &e, config))?,
        process: own_process().map_err(|e| system("pidfd_open", &e, config))?,
    };
    let mut patience = Patience::new(config, interrupt);
    if config.rank == 0 {
        Leader::new(config, start, &mut patience).lead(own, &name)
    } else {
        join(config, start, own, &name, &mut patience)
    }
}

/// The abstract name of a job's meeting point.
fn name(user: u32, job: &str) -> Vec<u8> {
    format!("isobit/{user}/{:016x}", checksum(job.as_bytes())).into_bytes()
}

fn host() -> Result<String, TransportError> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|error| unavailable(format!("no boot id ({error}): mount /proc")))?;
    Ok(id.trim().to_owned())
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
mod tests;
