//! The collectives, as they are called.

use isobit_core::wire::Collective;
use isobit_core::{Contract, ContractSpec, Dtype, Order, Rank, ReduceOp};
use isobit_sys::{ReadSpan, WriteSpan};

use super::Communicator;
use super::asked::Asked;
use super::operation::Call;
use crate::error::{Error, ErrorKind};

/// What a reduction is asked to be; see [`ContractSpec`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reduction {
    /// The operation.
    pub op: ReduceOp,
    /// The order.
    pub order: Order,
    /// The dtype of the contributions.
    pub dtype: Dtype,
    /// The accumulator, where the default is not wanted.
    pub accumulate: Option<Dtype>,
    /// The dtype of the result, where it is another.
    pub out_dtype: Option<Dtype>,
    /// What a mean divides by, where it is not the number of leaves.
    pub divisor: Option<u64>,
}

impl Reduction {
    /// A reduction in the tree order with everything optional left open.
    pub fn new(op: ReduceOp, dtype: Dtype) -> Reduction {
        Reduction { op, order: Order::Tree, dtype, accumulate: None, out_dtype: None, divisor: None }
    }

    pub(super) fn contract(&self, leaves: u32) -> Result<Contract, String> {
        let Reduction { op, order, dtype, accumulate, out_dtype, divisor } = *self;
        let spec = ContractSpec { op, order, leaves, dtype, accumulate, out_dtype, divisor };
        Contract::new(spec).map_err(|error| error.to_string())
    }
}

/// Memory that nothing is written to.
fn nowhere<'a>() -> WriteSpan<'a> {
    WriteSpan::from(&mut [][..])
}

impl Communicator {
    /// Everyone gets the reduction of everyone's `input`. `out` may be `input`'s memory.
    ///
    /// ```
    /// use isobit::{Call, Communicator, Dtype, ReduceOp, Reduction};
    /// let mut comm = Communicator::solo();
    /// let (input, mut out) = (1.5f32.to_le_bytes(), [0; 4]);
    /// let mut call = Call { shape: &[1], timeout: None, interrupt: &mut || false };
    /// let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    /// comm.all_reduce((&input[..]).into(), (&mut out[..]).into(), &sum, &mut call).unwrap();
    /// assert_eq!(f32::from_le_bytes(out), 1.5);
    /// ```
    pub fn all_reduce(
        &mut self,
        input: ReadSpan<'_>,
        out: WriteSpan<'_>,
        reduction: &Reduction,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::reduction(Collective::AllReduce, reduction).gives(input.len()).gets(out.len());
        self.ask(asked, 0, &[input], out, call)
    }

    /// The root gets the reduction of everyone's `input`; `out` is needed there only.
    pub fn reduce(
        &mut self,
        input: ReadSpan<'_>,
        out: Option<WriteSpan<'_>>,
        reduction: &Reduction,
        root: Rank,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::reduction(Collective::Reduce, reduction).rooted(root);
        let asked = asked.gives(input.len()).gets(out.map(WriteSpan::len));
        let out = out.filter(|_| self.rank() == root).unwrap_or_else(nowhere);
        self.ask(asked, 0, &[input], out, call)
    }

    /// Each rank gets its block of the reduction: `input` is the blocks of all ranks, one after the
    /// other, of equal length unless `counts` says how many elements each rank gets.
    pub fn reduce_scatter(
        &mut self,
        input: ReadSpan<'_>,
        out: WriteSpan<'_>,
        reduction: &Reduction,
        counts: Option<&[u64]>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::reduction(Collective::ReduceScatter, reduction).counted([counts, None]);
        let asked = asked.gives(input.len()).gets(out.len());
        self.ask(asked, 0, &[input], out, call)
    }

    /// Everyone gets everyone's block, in the order of ranks; blocks are as long as `input` unless
    /// `counts` says how many elements each rank gives.
    pub fn all_gather(
        &mut self,
        input: ReadSpan<'_>,
        out: WriteSpan<'_>,
        dtype: Dtype,
        counts: Option<&[u64]>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::movement(Collective::AllGather, dtype).counted([counts, None]);
        let asked = asked.gives(input.len()).gets(out.len());
        self.ask(asked, 0, &[input], out, call)
    }

    /// The root gets everyone's block; `out` is needed there only. Counts as in `all_gather`.
    pub fn gather(
        &mut self,
        input: ReadSpan<'_>,
        out: Option<WriteSpan<'_>>,
        dtype: Dtype,
        root: Rank,
        counts: Option<&[u64]>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::movement(Collective::Gather, dtype).rooted(root).counted([counts, None]);
        let asked = asked.gives(input.len()).gets(out.map(WriteSpan::len));
        let out = out.filter(|_| self.rank() == root).unwrap_or_else(nowhere);
        self.ask(asked, 0, &[input], out, call)
    }

    /// Each rank gets its block of the root's `input`, which is needed there only. Blocks are as
    /// long as `out` unless `counts` says how many elements each rank gets.
    pub fn scatter(
        &mut self,
        input: Option<ReadSpan<'_>>,
        out: WriteSpan<'_>,
        dtype: Dtype,
        root: Rank,
        counts: Option<&[u64]>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::movement(Collective::Scatter, dtype).rooted(root).counted([counts, None]);
        let asked = asked.gives(input.map(ReadSpan::len)).gets(out.len());
        let input = input.filter(|_| self.rank() == root);
        self.ask(asked, 0, input.as_slice(), out, call)
    }

    /// Everyone's `buffer` becomes the root's.
    pub fn broadcast(
        &mut self,
        buffer: WriteSpan<'_>,
        dtype: Dtype,
        root: Rank,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::movement(Collective::Broadcast, dtype).rooted(root);
        let input = (self.rank() == root).then(|| ReadSpan::from(buffer));
        self.ask(asked.gets(buffer.len()), 0, input.as_slice(), buffer, call)
    }

    /// Each rank gets a block of each: `input` is the blocks for each rank, `out` those from each,
    /// of equal length unless the counts say how many elements go to and come from each rank.
    pub fn all_to_all(
        &mut self,
        input: ReadSpan<'_>,
        out: WriteSpan<'_>,
        dtype: Dtype,
        send_counts: Option<&[u64]>,
        recv_counts: Option<&[u64]>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::movement(Collective::AllToAll, dtype).counted([send_counts, recv_counts]);
        let asked = asked.gives(input.len()).gets(out.len());
        self.ask(asked, 0, &[input], out, call)
    }

    /// Returns when every rank has called it.
    pub fn barrier(&mut self, call: &mut Call<'_>) -> Result<(), Error> {
        self.ask(Asked::movement(Collective::Barrier, Dtype::U8), 0, &[], nowhere(), call)
    }

    /// Sends to one rank; returns when that rank has the message. The sends from one rank to
    /// another are received in their order; `tag` must be the one that the receive gives.
    pub fn send(
        &mut self,
        input: ReadSpan<'_>,
        dtype: Dtype,
        to: Rank,
        tag: u64,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::movement(Collective::PointToPoint, dtype).between([self.rank(), to]);
        self.ask(asked.gives(input.len()), tag, &[input], nowhere(), call)
    }

    /// Receives from one rank.
    pub fn recv(
        &mut self,
        out: WriteSpan<'_>,
        dtype: Dtype,
        from: Rank,
        tag: u64,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        let asked = Asked::movement(Collective::PointToPoint, dtype).between([from, self.rank()]);
        self.ask(asked.gets(out.len()), tag, &[], out, call)
    }
}

impl Error {
    /// Whether the group can go on: nothing was sent.
    pub fn is_harmless(&self) -> bool {
        matches!(self.kind, ErrorKind::Value | ErrorKind::Memory)
    }
}
