//! The executor over the CPU's kernels: one operation's memory and arithmetic on one rank.

use isobit_core::engine::Executor;
use isobit_core::schedule::{Buf, Content, Operand, Region};
use isobit_core::{Contract, Dtype, law};
use isobit_sys::os::checksum;
use isobit_sys::{KernelError, Kernels, Memory, Prepared, ReadSpan, WriteSpan};

use crate::link::LinkFrame;
use crate::transport::Lent;

/// A received message, as it waits for its readers.
pub(crate) enum Message {
    /// Lent by the transport.
    Lent(LinkFrame),
    /// Read, because it is small.
    Small(Vec<u8>),
    /// Copied, because it came before it was asked for.
    Kept(Vec<u8>),
}

impl Message {
    pub(crate) fn payload(&self) -> ReadSpan<'_> {
        match self {
            Message::Lent(frame) => frame.payload(),
            Message::Small(bytes) | Message::Kept(bytes) => ReadSpan::from(bytes.as_slice()),
        }
    }
}

/// The buffers of one operation and the kernels that work on them.
pub(crate) struct CpuExecutor<'a> {
    kernels: &'static Kernels,
    contract: Option<Contract>,
    dtype: Dtype,
    parts: &'a [ReadSpan<'a>],
    out: WriteSpan<'a>,
    slots: &'a [Memory],
    kept: &'a mut Kept,
}

/// What a program keeps from one run to the next.
pub(crate) struct Kept {
    views: Vec<Option<Message>>,
    /// Memory for small messages.
    spare: Vec<Vec<u8>>,
    /// Its different reductions, ready to run.
    reductions: Vec<Prepared>,
    /// Whether what is moved into the result goes past the caches.
    streams: bool,
}

impl Kept {
    /// For a program with so many views.
    pub(crate) fn new(views: u32, streams: bool) -> Kept {
        let views = (0..views).map(|_| None).collect();
        Kept { views, spare: Vec::new(), reductions: Vec::new(), streams }
    }

    /// Has no more use for a message.
    fn let_go(&mut self, message: Message) {
        if let Message::Small(memory) = message {
            self.spare.push(memory);
        }
    }
}

/// The operands of a reduction, what they become, and where.
pub(crate) type Reducing<'a> = (&'a [Operand], Content, Region);

/// How many operands of a reduction go without an allocation.
const FEW: usize = 8;

/// Calls `run` with so many spans.
fn with_spans<'s, T>(
    count: usize,
    span: impl Fn(usize) -> ReadSpan<'s>,
    run: impl FnOnce(&[ReadSpan<'s>]) -> T,
) -> T {
    if count > FEW {
        return run(&(0..count).map(span).collect::<Vec<_>>());
    }
    let mut spans = [ReadSpan::from(&[][..]); FEW];
    spans[..count].iter_mut().enumerate().for_each(|(index, at)| *at = span(index));
    run(&spans[..count])
}

impl<'a> CpuExecutor<'a> {
    pub(crate) fn new(
        contract: Option<Contract>,
        dtype: Dtype,
        parts: &'a [ReadSpan<'a>],
        out: WriteSpan<'a>,
        slots: &'a [Memory],
        kept: &'a mut Kept,
    ) -> Self {
        CpuExecutor { kernels: Kernels::best(), contract, dtype, parts, out, slots, kept }
    }

    /// Gives back every message that is still there.
    pub(crate) fn clear(&mut self) {
        for view in 0..self.kept.views.len() {
            if let Some(message) = self.kept.views[view].take() {
                self.kept.let_go(message);
            }
        }
    }

    /// Memory for a small message, as [`Message::Small`].
    pub(crate) fn spare(&mut self, bytes: usize) -> Vec<u8> {
        let mut memory = self.kept.spare.pop().unwrap_or_default();
        memory.resize(bytes, 0);
        memory
    }

    /// Takes memory back that was not used.
    pub(crate) fn put_back(&mut self, memory: Vec<u8>) {
        self.kept.let_go(Message::Small(memory));
    }

    /// The place, among those kept, of the reduction of these operands.
    fn reduction(&mut self, inputs: &[Operand], target: Content) -> Result<usize, KernelError> {
        let contents = || inputs.iter().map(|operand| operand.content);
        if let Some(place) = self.kept.reductions.iter().position(|kept| kept.is_of(contents(), target)) {
            return Ok(place);
        }
        let contract = self.contract.as_ref().expect("only reductions have Reduce steps");
        let contents: Vec<Content> = contents().collect();
        self.kept.reductions.push(self.kernels.prepare(contract, &contents, target)?);
        Ok(self.kept.reductions.len() - 1)
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
                self.kept.views[view as usize].as_ref().expect("a step reads a view that is bound").payload()
            }
        };
        let (start, len) = self.bytes(region, content);
        whole.slice(start, len)
    }

    /// Whether the result shares no memory with what this rank contributes.
    pub(crate) fn is_apart(&self) -> bool {
        self.parts.iter().all(|part| part.is_disjoint(self.out))
    }

    /// Whether a reduction leaves its operands as they are, but for one that is a message: if that is damaged, the
    /// others are needed again.
    pub(crate) fn keeps_operands(&self, (inputs, target, out): Reducing<'_>, message: usize) -> bool {
        let out = self.write(out, target);
        let is_kept = |input: &Operand| self.read(input.region, input.content).is_disjoint(out);
        inputs.iter().enumerate().all(|(index, input)| index == message || is_kept(input))
    }

    /// Reduces as `reduce` does, where one operand is a message that no view has yet; gives its checksum.
    pub(crate) fn reduce_message(
        &mut self,
        (inputs, target, out): Reducing<'_>,
        message: usize,
        payload: ReadSpan<'_>,
    ) -> Result<u64, KernelError> {
        let place = self.reduction(inputs, target)?;
        let (prepared, out) = (&self.kept.reductions[place], self.write(out, target));
        let span = |index: usize| match &inputs[index] {
            _ if index == message => payload,
            input => self.read(input.region, input.content),
        };
        with_spans(inputs.len(), span, |spans| checksum::reduce(prepared, spans, message, out))
    }

    /// Whether what is moved into the result goes past the caches.
    pub(crate) fn streams(&self) -> bool {
        self.kept.streams
    }

    /// The bytes of a region, for writing.
    pub(crate) fn write(&self, region: Region, content: Content) -> WriteSpan<'a> {
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

impl Executor for CpuExecutor<'_> {
    type Frame = Message;
    type Error = KernelError;

    fn bind(&mut self, view: u32, frame: Message) {
        self.kept.views[view as usize] = Some(frame);
    }

    fn release(&mut self, view: u32) {
        if let Some(message) = self.kept.views[view as usize].take() {
            self.kept.let_go(message);
        }
    }

    fn store(&mut self, frame: Message, dst: Region, content: Content) -> Result<(), KernelError> {
        self.kernels.copy(frame.payload(), self.write(dst, content));
        self.kept.let_go(frame);
        Ok(())
    }

    fn reduce(&mut self, inputs: &[Operand], target: Content, out: Region) -> Result<(), KernelError> {
        let place = self.reduction(inputs, target)?;
        let span = |index: usize| self.read(inputs[index].region, inputs[index].content);
        let (prepared, out) = (&self.kept.reductions[place], self.write(out, target));
        with_spans(inputs.len(), span, |spans| prepared.run(spans, out))
    }

    fn copy(&mut self, src: Region, dst: Region, content: Content) -> Result<(), KernelError> {
        let (from, to) = (self.read(src, content), self.write(dst, content));
        if from.as_ptr() != to.as_ptr().cast_const() {
            if self.kept.streams { self.kernels.stream(from, to) } else { self.kernels.copy(from, to) }
        }
        Ok(())
    }
}
