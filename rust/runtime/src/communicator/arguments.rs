//! The checks of arguments: lengths, counts and ranks, before anything is sent.

use isobit_core::wire::Collective;
use isobit_core::{Dtype, Rank};

use super::Communicator;
use super::signature::Amounts;
use crate::error::Error;

impl Communicator {
    pub(super) fn blocks_of(
        &self,
        collective: Collective,
        total: u64,
        counts: Option<&[u64]>,
    ) -> Result<Amounts, Error> {
        match counts {
            None => Ok(Amounts::Same(self.even(collective, total)?)),
            Some(_) => Ok(Amounts::PerRank(self.listed(collective, total, counts)?)),
        }
    }

    pub(super) fn blocks_like(
        &self,
        collective: Collective,
        bytes: usize,
        dtype: Dtype,
        counts: Option<&[u64]>,
    ) -> Result<Amounts, Error> {
        let own = self.elements(collective, "this rank's block", bytes, dtype)?;
        let Some(counts) = counts else { return Ok(Amounts::Same(own)) };
        self.check_counts(collective, counts)?;
        let said = counts[self.rank() as usize];
        if said != own {
            return Err(self.wrong(
                collective,
                format!("counts say {said} elements for this rank, its block has {own}"),
            ));
        }
        Ok(Amounts::PerRank(counts.to_vec()))
    }

    /// How many of `total` elements belong to each rank.
    pub(super) fn listed(
        &self,
        collective: Collective,
        total: u64,
        counts: Option<&[u64]>,
    ) -> Result<Vec<u64>, Error> {
        let Some(counts) = counts else {
            return Ok(vec![self.even(collective, total)?; self.world_size() as usize]);
        };
        let sum = self.check_counts(collective, counts)?;
        if sum != total {
            return Err(
                self.wrong(collective, format!("counts add up to {sum}, the tensor has {total} elements"))
            );
        }
        Ok(counts.to_vec())
    }

    /// How many of `total` elements belong to each rank, if those are as many to each.
    fn even(&self, collective: Collective, total: u64) -> Result<u64, Error> {
        let world_size = u64::from(self.world_size());
        if !total.is_multiple_of(world_size) {
            let message =
                format!("{total} elements can't be divided evenly among {world_size} ranks: give counts");
            return Err(self.wrong(collective, message));
        }
        Ok(total / world_size)
    }

    pub(super) fn check_counts(&self, collective: Collective, counts: &[u64]) -> Result<u64, Error> {
        if counts.len() != self.world_size() as usize {
            let message = format!("{} counts were given for {} ranks", counts.len(), self.world_size());
            return Err(self.wrong(collective, message));
        }
        let sum = counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
        sum.ok_or_else(|| self.wrong(collective, "counts add up to more than 2^64 elements"))
    }

    pub(super) fn block(&self, counts: &Amounts) -> u64 {
        match counts {
            Amounts::PerRank(counts) => counts[self.rank() as usize],
            Amounts::Same(block) => *block,
            Amounts::Pairs { .. } => unreachable!("all-to-all has no single block"),
        }
    }

    pub(super) fn total(&self, counts: &Amounts) -> u64 {
        match counts {
            Amounts::PerRank(counts) => counts.iter().sum(),
            Amounts::Same(block) => block * u64::from(self.world_size()),
            Amounts::Pairs { .. } => unreachable!("all-to-all has no single total"),
        }
    }

    pub(super) fn elements(
        &self,
        collective: Collective,
        name: &str,
        bytes: usize,
        dtype: Dtype,
    ) -> Result<u64, Error> {
        if !bytes.is_multiple_of(dtype.size()) {
            return Err(
                self.wrong(collective, format!("{name} has {bytes} bytes, no whole number of {dtype}"))
            );
        }
        Ok((bytes / dtype.size()) as u64)
    }

    pub(super) fn check_len(
        &self,
        collective: Collective,
        name: &str,
        bytes: usize,
        count: u64,
        dtype: Dtype,
    ) -> Result<(), Error> {
        if count.checked_mul(dtype.size() as u64) != Some(bytes as u64) {
            let message = format!("{name} has {bytes} bytes, {count} elements of {dtype} are needed");
            return Err(self.wrong(collective, message));
        }
        Ok(())
    }

    pub(super) fn check_rank(&self, collective: Collective, name: &str, rank: Rank) -> Result<(), Error> {
        if rank >= self.world_size() {
            let message = format!("{name} {rank} does not exist: ranks are 0 to {}", self.world_size() - 1);
            return Err(self.wrong(collective, message));
        }
        Ok(())
    }

    /// What only the root gives: needed there, ignored elsewhere.
    pub(super) fn rooted<T>(
        &self,
        collective: Collective,
        root: Rank,
        name: &str,
        given: Option<T>,
    ) -> Result<Option<T>, Error> {
        self.check_rank(collective, "root", root)?;
        if self.rank() != root {
            return Ok(None);
        }
        match given {
            None => Err(self.wrong(collective, format!("{name} is needed on the root, rank {root}"))),
            given => Ok(given),
        }
    }
}
