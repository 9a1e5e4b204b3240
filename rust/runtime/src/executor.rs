//! The executor over the CPU's kernels: one operation's memory and arithmetic on one rank.

use isobit_core::engine::Executor;
use isobit_core::schedule::{Buf, Content, Operand, Region};
use isobit_core::{Contract, Dtype, law};
use isobit_sys::{Input, KernelError, Kernels, Memory, ReadSpan, WriteSpan};

use crate::transport::Frame;

/// A received message, as it waits for its readers.
#[derive(Debug)]
pub(crate) enum Message<F> {
    /// Lent by the transport.
    Lent(F),
    /// Copied, because it came before it was asked for.
    Kept(Vec<u8>),
}

impl<F: Frame> Message<F> {
    pub(crate) fn payload(&self) -> ReadSpan<'_> {
        match self {
            Message::Lent(frame) => frame.payload(),
            Message::Kept(bytes) => ReadSpan::from(bytes.as_slice()),
        }
    }
}

/// The buffers of one operation and the kernels that work on them.
pub(crate) struct CpuExecutor<'a, F> {
    kernels: &'static Kernels,
    contract: Option<Contract>,
    dtype: Dtype,
    parts: &'a [ReadSpan<'a>],
    out: WriteSpan<'a>,
    slots: &'a [Memory],
    views: Vec<Option<Message<F>>>,
}

impl<'a, F: Frame> CpuExecutor<'a, F> {
    pub(crate) fn new(
        contract: Option<Contract>,
        dtype: Dtype,
        parts: &'a [ReadSpan<'a>],
        out: WriteSpan<'a>,
        slots: &'a [Memory],
        views: u32,
    ) -> Self {
        let views = (0..views).map(|_| None).collect();
        CpuExecutor { kernels: Kernels::best(), contract, dtype, parts, out, slots, views }
    }

    /// Bytes of one element of `content`.
    pub(crate) fn element_bytes(&self, content: Content) -> usize {
        law::element_bytes(content, self.contract.as_ref(), self.dtype)
    }

    /// The bytes of a region, for reading. An empty one names no memory: its buffer may not exist.
    pub(crate) fn read(&self, region: Region, content: Content) -> ReadSpan<'_> {
        if region.len == 0 {
            return ReadSpan::from(&[][..]);
        }
        let whole = match region.buf {
            Buf::Part(part) => self.parts[part as usize],
            Buf::Out => self.out.into(),
            Buf::Slot(slot) => self.slots[slot as usize].span().into(),
            Buf::View(view) => {
                self.views[view as usize].as_ref().expect("a step reads a view that is bound").payload()
            }
        };
        let (start, len) = self.bytes(region, content);
        whole.slice(start, len)
    }

    fn write(&self, region: Region, content: Content) -> WriteSpan<'a> {
        if region.len == 0 {
            return WriteSpan::from(&mut [][..]);
        }
        let whole = match region.buf {
            Buf::Out => self.out,
            Buf::Slot(slot) => self.slots[slot as usize].span(),
            Buf::Part(_) | Buf::View(_) => unreachable!("schedules write to slots and the result only"),
        };
        let (start, len) = self.bytes(region, content);
        whole.slice(start, len)
    }

    fn bytes(&self, region: Region, content: Content) -> (usize, usize) {
        let size = self.element_bytes(content);
        let elements =
            |count: u64| usize::try_from(count).expect("a region of memory fits the address space");
        (elements(region.start) * size, elements(region.len) * size)
    }
}

impl<F: Frame> Executor for CpuExecutor<'_, F> {
    type Frame = Message<F>;
    type Error = KernelError;

    fn bind(&mut self, view: u32, frame: Message<F>) {
        self.views[view as usize] = Some(frame);
    }

    fn release(&mut self, view: u32) {
        self.views[view as usize] = None;
    }

    fn store(&mut self, frame: Message<F>, dst: Region, content: Content) -> Result<(), KernelError> {
        self.kernels.copy(frame.payload(), self.write(dst, content));
        Ok(())
    }

    fn reduce(&mut self, inputs: &[Operand], target: Content, out: Region) -> Result<(), KernelError> {
        let contract = self.contract.as_ref().expect("only reductions have Reduce steps");
        let inputs: Vec<Input<'_>> = inputs
            .iter()
            .map(|operand| Input {
                content: operand.content,
                span: self.read(operand.region, operand.content),
            })
            .collect();
        self.kernels.reduce(contract, &inputs, target, self.write(out, target))
    }

    fn copy(&mut self, src: Region, dst: Region, content: Content) -> Result<(), KernelError> {
        let (from, to) = (self.read(src, content), self.write(dst, content));
        if from.as_ptr() != to.as_ptr().cast_const() {
            self.kernels.copy(from, to);
        }
        Ok(())
    }
}
