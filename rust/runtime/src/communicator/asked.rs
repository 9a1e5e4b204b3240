//! What a call asks for, in its caller's terms: an operation and the lengths of tensors. Everything else follows from
//! that, so a call that asks for the same as the one before is neither checked nor looked up again.

use isobit_core::wire::{Collective, Descriptor};
use isobit_core::{Contract, Dtype, Rank, digest};
use isobit_sys::{ReadSpan, WriteSpan};

use super::Communicator;
use super::collectives::Reduction;
use super::operation::Call;
use super::plans::NoPlan;
use super::signature::{Amounts, Signature};
use crate::error::{Error, ErrorKind};

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked<'a> {
    collective: Collective,
    reduction: Option<Reduction>,
    dtype: Dtype,
    /// The root; the sender of a send or receive.
    root: Option<Rank>,
    /// The receiver of a send or receive.
    receiver: Option<Rank>,
    /// Bytes of what this rank gives and gets, if it does.
    input: Option<usize>,
    out: Option<usize>,
    /// Elements to or of each rank, and from each, if the caller says them.
    counts: [Option<&'a [u64]>; 2],
}

/// What the latest call was.
pub(super) struct Latest {
    /// What it asked for, unless that had counts or was no plain call.
    asked: Option<Asked<'static>>,
    shape: Vec<u64>,
    /// The place of its plan.
    pub(super) plan: usize,
    pub(super) descriptor: Descriptor,
}

impl<'a> Asked<'a> {
    /// An operation that moves data.
    pub(super) fn movement(collective: Collective, dtype: Dtype) -> Asked<'a> {
        let (root, receiver, input, out) = (None, None, None, None);
        Asked { collective, reduction: None, dtype, root, receiver, input, out, counts: [None; 2] }
    }

    /// An operation that reduces.
    pub(super) fn reduction(collective: Collective, reduction: &Reduction) -> Asked<'a> {
        Asked { reduction: Some(*reduction), ..Asked::movement(collective, reduction.dtype) }
    }

    /// With so many bytes that this rank gives.
    pub(super) fn gives(self, bytes: impl Into<Option<usize>>) -> Asked<'a> {
        Asked { input: bytes.into(), ..self }
    }

    /// With room for so many bytes that it gets.
    pub(super) fn gets(self, bytes: impl Into<Option<usize>>) -> Asked<'a> {
        Asked { out: bytes.into(), ..self }
    }

    /// With the elements to or of each rank, and from each, if the caller says them.
    pub(super) fn counted(self, counts: [Option<&'a [u64]>; 2]) -> Asked<'a> {
        Asked { counts, ..self }
    }

    /// With a root.
    pub(super) fn rooted(self, root: Rank) -> Asked<'a> {
        Asked { root: Some(root), ..self }
    }

    /// Between two ranks.
    pub(super) fn between(self, [from, to]: [Rank; 2]) -> Asked<'a> {
        Asked { receiver: Some(to), ..self.rooted(from) }
    }

    /// The same without what can't be kept: none, if it has counts.
    fn kept(self) -> Option<Asked<'static>> {
        (self.counts == [None; 2]).then_some(Asked { counts: [None; 2], ..self })
    }

    /// Checks all that can be checked before anything is sent. Apart, as `look_up` is, so that a call that is like the
    /// latest has none of it in its way.
    #[inline(never)]
    fn signature(self, comm: &Communicator) -> Result<Signature, Error> {
        let Asked { collective, dtype, root, receiver, input, out, counts: [counts, recv_counts], .. } = self;
        let (root, given, got) = (root.unwrap_or(0), input.unwrap_or(0), out.unwrap_or(0));
        if let Some(reduction) = self.reduction {
            let contract = reduction.contract(comm.world_size());
            return self.reducing(comm, contract.map_err(|message| comm.wrong(collective, message))?);
        }
        Ok(match collective {
            Collective::Barrier => Signature::movement(collective, dtype, Amounts::Same(0)),
            Collective::Broadcast => {
                comm.check_rank(collective, "root", root)?;
                let count = comm.elements(collective, "buffer", got, dtype)?;
                Signature::movement(collective, dtype, Amounts::Same(count)).rooted(root)
            }
            Collective::AllGather => {
                let counts = comm.blocks_like(collective, given, dtype, counts)?;
                comm.check_len(collective, "out", got, comm.total(&counts), dtype)?;
                Signature::movement(collective, dtype, counts)
            }
            Collective::Gather => {
                let counts = comm.blocks_like(collective, given, dtype, counts)?;
                if let Some(got) = comm.rooted(collective, root, "out", out)? {
                    comm.check_len(collective, "out", got, comm.total(&counts), dtype)?;
                }
                Signature::movement(collective, dtype, counts).rooted(root)
            }
            Collective::Scatter => {
                let counts = comm.blocks_like(collective, got, dtype, counts)?;
                if let Some(given) = comm.rooted(collective, root, "input", input)? {
                    comm.check_len(collective, "input", given, comm.total(&counts), dtype)?;
                }
                Signature::movement(collective, dtype, counts).rooted(root)
            }
            Collective::AllToAll => {
                let sends = comm.elements(collective, "input", given, dtype)?;
                let receives = comm.elements(collective, "out", got, dtype)?;
                let send = comm.listed(collective, sends, counts)?;
                let recv = comm.listed(collective, receives, recv_counts)?;
                if send[comm.rank() as usize] != recv[comm.rank() as usize] {
                    return Err(comm.wrong(
                        collective,
                        "this rank sends itself another number of elements than it receives",
                    ));
                }
                Signature::movement(collective, dtype, Amounts::Pairs { send, recv })
            }
            Collective::PointToPoint => {
                let (name, bytes) = if input.is_some() { ("input", given) } else { ("out", got) };
                let count = comm.elements(collective, name, bytes, dtype)?;
                let to = receiver.expect("a message has a receiver");
                comm.check_rank(collective, "peer", root.max(to))?;
                if root == to {
                    return Err(comm.wrong(
                        collective,
                        format!("rank {to} can't exchange messages with itself: copy instead"),
                    ));
                }
                let signature = Signature::movement(collective, dtype, Amounts::Same(count)).rooted(root);
                Signature { receiver, ..signature }
            }
            Collective::AllReduce | Collective::Reduce | Collective::ReduceScatter => {
                unreachable!("these reduce")
            }
        })
    }

    fn reducing(self, comm: &Communicator, contract: Contract) -> Result<Signature, Error> {
        let Asked { collective, root, input, out, counts: [counts, _], .. } = self;
        let (given, got) = (input.unwrap_or(0), out.unwrap_or(0));
        let count = comm.elements(collective, "input", given, contract.dtype_in())?;
        let check = |got, count| comm.check_len(collective, "out", got, count, contract.dtype_out());
        if collective == Collective::ReduceScatter {
            let counts = comm.blocks_of(collective, count, counts)?;
            check(got, comm.block(&counts))?;
            return Ok(Signature::reduction(collective, contract, counts));
        }
        let signature = Signature::reduction(collective, contract, Amounts::Same(count));
        let Some(root) = root else {
            check(got, count)?;
            return Ok(signature);
        };
        if let Some(got) = comm.rooted(collective, root, "out", out)? {
            check(got, count)?;
        }
        Ok(signature.rooted(root))
    }
}

impl Communicator {
    /// Carries out what is asked for; if it is refused before anything is sent, the other ranks are told.
    pub(super) fn ask(
        &mut self,
        asked: Asked<'_>,
        tag: u64,
        parts: &[ReadSpan<'_>],
        out: WriteSpan<'_>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        self.calling(|comm| {
            let is_like = |latest: &Latest| latest.asked == Some(asked) && latest.shape.iter().eq(call.shape);
            if !comm.latest.as_ref().is_some_and(is_like) {
                let signature = asked.signature(comm)?;
                let latest = comm.look_up(signature, call.shape)?;
                latest.asked = asked.kept();
            }
            comm.run(tag, parts, out, call)
        })
    }

    /// Carries out an operation whose arguments were checked.
    pub(super) fn perform(
        &mut self,
        signature: Signature,
        parts: &[ReadSpan<'_>],
        out: WriteSpan<'_>,
        call: &mut Call<'_>,
    ) -> Result<(), Error> {
        self.look_up(signature, call.shape)?;
        self.run(0, parts, out, call)
    }

    /// Makes an operation the latest: finds or makes its plan, and has the others read its shape and counts.
    #[inline(never)]
    fn look_up(&mut self, signature: Signature, shape: &[u64]) -> Result<&mut Latest, Error> {
        self.check_open()?;
        // If there is no plan, the lists that the latest call left to be read may be gone.
        self.latest = None;
        let descriptor = signature.descriptor(digest::words(shape));
        self.told.list(&self.link, &signature, &descriptor, shape);
        let collective = signature.collective;
        let plan = self.plans.find(signature).map_err(|error| match error {
            NoPlan::Plan(error) => self.wrong(collective, error.to_string()),
            NoPlan::Memory { bytes } => {
                let message = format!("no memory for {bytes} bytes of staging");
                self.place(Some((&descriptor, self.sequence))).error(ErrorKind::Memory, None, message)
            }
        })?;
        Ok(self.latest.insert(Latest { asked: None, shape: shape.to_vec(), plan, descriptor }))
    }
}
