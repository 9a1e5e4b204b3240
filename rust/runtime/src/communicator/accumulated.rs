//! What a communicator does with an accumulator: it makes one, and reduces what was added to it.

use isobit_core::ReduceOp;
use isobit_core::law::LeafMap;
use isobit_core::wire::Collective;
use isobit_sys::{ReadSpan, WriteSpan};

use super::Communicator;
use super::accumulate::Accumulator;
use super::collectives::Reduction;
use super::operation::Call;
use super::signature::{Amounts, Signature};
use crate::error::Error;

impl Communicator {
    /// What this rank adds its leaves to: `num_leaves` leaves of `count` elements, owned in
    /// contiguous runs by rank. `reduction.op` is a sum or a mean here.
    pub fn accumulator(
        &self,
        reduction: &Reduction,
        num_leaves: u32,
        count: u64,
    ) -> Result<Accumulator, Error> {
        let wrong = |message: String| self.wrong(Collective::AllReduce, message);
        if !matches!(reduction.op, ReduceOp::Sum | ReduceOp::Mean) {
            return Err(wrong(format!(
                "accumulation is for op 'sum' and 'mean', not for '{}'",
                reduction.op
            )));
        }
        let partial = Reduction { op: ReduceOp::Sum, out_dtype: None, divisor: None, ..*reduction };
        let contract = partial.contract(num_leaves).map_err(wrong)?;
        let map = LeafMap::even(num_leaves, self.world_size());
        Ok(Accumulator::new(*reduction, contract, map, self.rank(), count, self.spare.clone()))
    }

    /// Everyone gets the sum or mean of all leaves.
    pub fn accumulated_all_reduce(
        &mut self,
        accumulator: Accumulator,
        op: ReduceOp,
        divisor: Option<u64>,
        out: WriteSpan<'_>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        self.calling(|comm| {
            let counts = Amounts::Same(accumulator.count);
            comm.accumulated(Collective::AllReduce, accumulator, (op, divisor), counts, out, call)
        })
    }

    /// Each rank gets its block of the sum or mean of all leaves; blocks as in `reduce_scatter`.
    pub fn accumulated_reduce_scatter(
        &mut self,
        accumulator: Accumulator,
        op: ReduceOp,
        divisor: Option<u64>,
        out: WriteSpan<'_>,
        counts: Option<&[u64]>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        self.calling(|comm| {
            let counts = comm.blocks_of(Collective::ReduceScatter, accumulator.count, counts)?;
            comm.accumulated(Collective::ReduceScatter, accumulator, (op, divisor), counts, out, call)
        })
    }

    fn accumulated(
        &mut self,
        collective: Collective,
        mut accumulator: Accumulator,
        (op, divisor): (ReduceOp, Option<u64>),
        counts: Amounts,
        out: WriteSpan<'_>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let reduction = Reduction { op, divisor, ..accumulator.reduction };
        let contract = reduction
            .contract(accumulator.map.leaves())
            .map_err(|message| self.wrong(collective, message))?;
        if !matches!(op, ReduceOp::Sum | ReduceOp::Mean) {
            return Err(
                self.wrong(collective, format!("what was accumulated gives 'sum' or 'mean', not '{op}'"))
            );
        }
        if let [leaf, ..] = accumulator.missing[..] {
            let message = format!(
                "{} of this rank's leaves were not added, leaf {leaf} first",
                accumulator.missing.len()
            );
            return Err(self.wrong(collective, message));
        }
        accumulator.complete()?;
        let elements = match collective {
            Collective::AllReduce => accumulator.count,
            _ => self.block(&counts),
        };
        self.check_len(collective, "out", out.len(), elements, contract.dtype_out())?;
        let parts: Vec<ReadSpan<'_>> =
            accumulator.held.values().map(|(_, memory)| memory.span().into()).collect();
        let leaf_map = Some(accumulator.map.clone());
        let signature = Signature { leaf_map, ..Signature::reduction(collective, contract, counts) };
        self.perform(signature, &parts, out, call)
    }
}
