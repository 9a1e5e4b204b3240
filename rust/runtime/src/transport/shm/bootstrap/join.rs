//! Every other rank: it finds rank 0, says who it is, and takes what it is given.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use isobit_core::Rank;
use isobit_sys::os;
use isobit_sys::os::segment::Segment;
use isobit_sys::os::socket::Socket;
use isobit_sys::os::wake::Bell;

use super::patience::{Patience, Received};
use super::{Formed, Member, check_user, formed, host};
use crate::transport::TransportError;
use crate::transport::shm::reasons::{segment_error, system, unavailable};
use crate::transport::shm::records::{Join, Record, Welcome};
use crate::transport::shm::{ShmConfig, ShmOptions};

/// Joins the group that rank 0 leads.
pub(super) fn join(
    config: &ShmConfig,
    start: Instant,
    own: Member,
    name: &[u8],
    patience: &mut Patience<'_>,
) -> Result<Formed, TransportError> {
    let host = host()?;
    let late = || TransportError::Timeout { missing: vec![0], waited: start.elapsed() };
    loop {
        let left = config.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        let Some(socket) = Socket::connect(name).map_err(|e| system("connect", &e, config))? else {
            patience.pause(left)?;
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
        match patience.receive(&socket, config.deadline)? {
            Received::Record(Record::Welcome(welcome), files) => {
                let taken = take(config, welcome, files, &socket, patience);
                let record = match &taken {
                    Ok(_) => Record::Ready { rank: config.rank },
                    Err(error) => Record::Failed(error.clone()),
                };
                let _ = socket.send(&record.encode(), &[]);
                let (members, segment) = taken?;
                return match patience.receive(&socket, config.deadline)? {
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
            Received::Record(..) | Received::End => patience.pause(left)?,
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
    patience: &mut Patience<'_>,
) -> Result<(BTreeMap<Rank, Member>, Segment), TransportError> {
    let foreign = || unavailable("rank 0 sent what this release does not understand".to_owned());
    let [memory] = <[OwnedFd; 1]>::try_from(files).map_err(|_| foreign())?;
    let mut capacities = [0; 2];
    for (capacity, sent) in capacities.iter_mut().zip(welcome.capacities) {
        *capacity = usize::try_from(sent).map_err(|_| foreign())?;
    }
    let options = ShmOptions { capacities, payload_bytes_max: welcome.payload_bytes_max as usize };
    options.check()?;
    let layout = options.layout(config.world_size);
    let segment =
        Segment::attach(memory.as_fd(), layout, config.rank).map_err(|e| segment_error(e, config))?;
    let mut members = BTreeMap::new();
    while members.len() + 1 < config.world_size as usize {
        match patience.receive(socket, config.deadline)? {
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
