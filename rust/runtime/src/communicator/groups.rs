//! Groups within groups: some of the ranks, with a transport and a sequence of calls of their own.

use std::time::Instant;

use isobit_core::wire::Collective;
use isobit_core::{Dtype, Rank};

use super::operation::Call;
use super::shapes::RANKS;
use super::{Communicator, Failure};
use crate::error::Error;

/// What a rank says in a split: whether it takes part, its color and its key.
const CHOICE_BYTES: usize = 17;

impl Communicator {
    /// Splits the group: the ranks that give the same color form one, numbered by key and, where
    /// keys are equal, by their rank here. A rank that gives no color joins none and gets `None`.
    /// Every rank of the group must call it.
    ///
    /// The new group is independent of this one: both may be used in turn, or from two threads.
    ///
    /// ```
    /// let mut comm = isobit::Communicator::solo();
    /// let mut call = isobit::Call { shape: &[], timeout: None, interrupt: &mut || false };
    /// let alone = comm.split(Some(7), 0, &mut call).unwrap().unwrap();
    /// assert_eq!((alone.rank(), alone.world_size()), (0, 1));
    /// ```
    pub fn split(
        &mut self,
        color: Option<u64>,
        key: i64,
        call: &mut Call<'_>,
    ) -> Result<Option<Communicator>, Error> {
        let name = format!("{:016x}.{}.{}", self.group(), self.epoch(), self.next_sequence());
        let deadline = Instant::now() + call.timeout.unwrap_or(self.timeout());
        let mut own = [0; CHOICE_BYTES];
        own[0] = u8::from(color.is_some());
        own[1..9].copy_from_slice(&color.unwrap_or(0).to_le_bytes());
        own[9..].copy_from_slice(&key.to_le_bytes());
        let mut all = vec![0; CHOICE_BYTES * self.world_size() as usize];
        self.all_gather(own[..].into(), all.as_mut_slice().into(), Dtype::U8, None, call)?;
        let Some(color) = color else { return Ok(None) };
        let mut members: Vec<(i64, Rank)> = (0..)
            .zip(all.chunks_exact(CHOICE_BYTES))
            .filter(|(_, choice)| choice[..9] == own[..9])
            .map(|(rank, choice)| (i64::from_le_bytes(choice[9..].try_into().expect("8 bytes")), rank))
            .collect();
        members.sort_unstable();
        let place = members.iter().position(|(_, rank)| *rank == self.rank()).expect("it gave this color");
        let (rank, world_size) = (count(place), count(members.len()));
        let name = format!("{name}.{color}");
        let link = self.link.subgroup(name, rank, world_size, deadline, &mut *call.interrupt);
        let link = link.map_err(|error| Failure::from(error).at(self.place_of("split")))?;
        let mut group = Communicator::over(link);
        group.set_timeout(self.timeout());
        Ok(Some(group))
    }

    /// The group of the given ranks, numbered in the order given; `None` on the others. Every rank
    /// of this group must call it with the same ranks.
    pub fn new_group(&mut self, ranks: &[Rank], call: &mut Call<'_>) -> Result<Option<Communicator>, Error> {
        self.check_group(ranks).inspect_err(|error| self.refuse(error))?;
        let mut shape = vec![RANKS];
        shape.extend(ranks.iter().map(|rank| u64::from(*rank)));
        let place = ranks.iter().position(|rank| *rank == self.rank());
        let key = place.map_or(0, |place| i64::from(count(place)));
        let mut call = Call { shape: &shape, timeout: call.timeout, interrupt: call.interrupt };
        self.split(place.map(|_| 0), key, &mut call)
    }

    fn check_group(&self, ranks: &[Rank]) -> Result<(), Error> {
        let wrong = |message: String| Err(self.wrong(Collective::AllGather, format!("new_group: {message}")));
        if ranks.is_empty() {
            return wrong("a group has at least one rank".to_owned());
        }
        for (index, rank) in ranks.iter().enumerate() {
            if *rank >= self.world_size() {
                return wrong(format!(
                    "rank {rank} does not exist: ranks are 0 to {}",
                    self.world_size() - 1
                ));
            }
            if ranks[..index].contains(rank) {
                return wrong(format!("rank {rank} is named twice"));
            }
        }
        Ok(())
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("world sizes are u32")
}
