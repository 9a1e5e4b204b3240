//! The executor over the CPU's kernels: one operation's memory and arithmetic on one rank.

use isobit_core::engine::Executor;
use isobit_core::schedule::{Buf, Content, Operand, Region};
use isobit_core::{Contract, Dtype, law};
use isobit_sys::os::checksum;
use isobit_sys::{KernelError, Kernels, Memory, Prepared, ReadSpan, WriteSpan, Written};

use crate::link::LinkFrame;
use crate::transport::Lent;

/// A received message, as it waits for its readers.
pub(crate) enum Message {
    /// Lent by the transport.
    Lent(LinkFrame),
    /// Copied, because it came before it was asked for.
    Kept(Vec<u8>),
}

impl Message {
    pub(crate) fn payload(&self) -> ReadSpan<'_> {
        match self {
            Message::Lent(frame) => frame.payload(),
            Message::Kept(bytes) => ReadSpan::from(bytes.as_slice()),
        }
    }
}

/// A region in bytes. An empty one names no memory: its buffer may not exist.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    buf: Buf,
    start: usize,
    len: usize,
}

/// What is behind a view.
enum View {
    Unbound,
    Bound(Message),
    /// A small message, which was read to its place among `Kept::small`.
    Small,
}

/// The buffers of one operation and the kernels that work on them.
pub(crate) struct CpuExecutor<'a> {
    kernels: &'static Kernels,
    contract: Option<&'a Contract>,
    dtype: Dtype,
    parts: &'a [ReadSpan<'a>],
    out: WriteSpan<'a>,
    slots: &'a [Memory],
    kept: &'a mut Kept,
    overwritten: &'a mut Memory,
}

/// What a program keeps from one run to the next.
pub(crate) struct Kept {
    views: Vec<View>,
    /// Memory for small messages: by view, and at last for those that have none.
    small: Vec<Vec<u8>>,
    /// Its different reductions, ready to run.
    reductions: Vec<Prepared>,
    streams: Streams,
}

/// What of a result goes past the caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Streams {
    /// What is moved into it.
    pub(crate) moved: bool,
    /// What is reduced into it.
    pub(crate) reduced: bool,
}

impl Kept {
    /// For a program with so many views.
    pub(crate) fn new(views: u32, streams: Streams) -> Kept {
        let views: Vec<View> = (0..views).map(|_| View::Unbound).collect();
        let small = vec![Vec::new(); views.len() + 1];
        Kept { views, small, reductions: Vec::new(), streams }
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
        contract: Option<&'a Contract>,
        dtype: Dtype,
        parts: &'a [ReadSpan<'a>],
        out: WriteSpan<'a>,
        slots: &'a [Memory],
        kept: &'a mut Kept,
        overwritten: &'a mut Memory,
    ) -> Self {
        CpuExecutor { kernels: Kernels::best(), contract, dtype, parts, out, slots, kept, overwritten }
    }

    /// Gives back every message that is still there.
    pub(crate) fn clear(&mut self) {
        // Only those: one that is small holds nothing, and will be small again.
        let is_bound = |view: &&mut View| matches!(view, View::Bound(_));
        self.kept.views.iter_mut().filter(is_bound).for_each(|view| *view = View::Unbound);
    }

    /// Memory for the small message of a `Recv`, until `took_small`.
    pub(crate) fn small(&mut self, dst: Piece) -> WriteSpan<'_> {
        let place = if let Buf::View(view) = dst.buf { view as usize } else { self.kept.views.len() };
        let memory = &mut self.kept.small[place];
        memory.resize(dst.len, 0);
        WriteSpan::from(&mut memory[..])
    }

    /// Has what is in `small` where the `Recv` wants it.
    #[inline(always)]
    pub(crate) fn took_small(&mut self, dst: Piece) {
        match dst.buf {
            Buf::View(view) => {
                let view = &mut self.kept.views[view as usize];
                // Mostly it is already; to say so again would copy as many bytes as a message has.
                if !matches!(view, View::Small) {
                    *view = View::Small;
                }
            }
            _ => {
                let out = self.write_piece(dst);
                self.kernels.copy(self.small(dst).into(), out);
            }
        }
    }

    /// The place, among those kept, of the reduction of these operands.
    pub(crate) fn reduction(&mut self, inputs: &[Operand], target: Content) -> Result<usize, KernelError> {
        let contents = || inputs.iter().map(|operand| operand.content);
        if let Some(place) = self.kept.reductions.iter().position(|kept| kept.is_of(contents(), target)) {
            return Ok(place);
        }
        let contract = self.contract.expect("only reductions have Reduce steps");
        let contents: Vec<Content> = contents().collect();
        self.kept.reductions.push(self.kernels.prepare(contract, &contents, target)?);
        Ok(self.kept.reductions.len() - 1)
    }

    /// Bytes of one element of `content`.
    pub(crate) fn element_bytes(&self, content: Content) -> usize {
        law::element_bytes(content, self.contract, self.dtype)
    }

    /// The bytes of a region, for reading.
    pub(crate) fn read(&self, region: Region, content: Content) -> ReadSpan<'_> {
        self.read_piece(self.piece(region, content))
    }

    /// The same of bytes.
    #[inline(always)]
    pub(crate) fn read_piece(&self, Piece { buf, start, len }: Piece) -> ReadSpan<'_> {
        if len == 0 {
            return ReadSpan::from(&[][..]);
        }
        let whole = match buf {
            Buf::Part(part) => self.parts[part as usize],
            Buf::Out => self.out.into(),
            Buf::Slot(slot) => self.slots[slot as usize].span().into(),
            Buf::View(view) => match &self.kept.views[view as usize] {
                View::Small => ReadSpan::from(&self.kept.small[view as usize][..]),
                View::Bound(message) => message.payload(),
                View::Unbound => unreachable!("a step reads a view that is bound"),
            },
        };
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

    /// Whether what a reduction overwrites can be kept meanwhile, which needs room.
    pub(crate) fn can_keep(&mut self, (inputs, target, out): Reducing<'_>) -> Result<bool, KernelError> {
        let place = self.reduction(inputs, target)?;
        let bytes = self.write(out, target).len();
        if self.kept.reductions[place].can_keep() && self.overwritten.len() < bytes {
            let Some(memory) = Memory::zeroed(bytes) else { return Ok(false) };
            *self.overwritten = memory;
        }
        Ok(self.kept.reductions[place].can_keep())
    }

    /// Gives back what `reduce_message` has overwritten.
    pub(crate) fn restore(&mut self, (_, target, out): Reducing<'_>) {
        let out = self.write(out, target);
        self.kernels.copy(ReadSpan::from(self.overwritten.span()).slice(0, out.len()), out);
    }

    /// Reduces as `reduce` does, where one operand is a message that no view has yet; gives its checksum. If another
    /// is overwritten, `keeps` says that `restore` may be asked for it.
    pub(crate) fn reduce_message(
        &mut self,
        (inputs, target, out): Reducing<'_>,
        message: usize,
        payload: ReadSpan<'_>,
        keeps: bool,
    ) -> Result<u64, KernelError> {
        let place = self.reduction(inputs, target)?;
        let (buf, prepared, out) = (out.buf, &self.kept.reductions[place], self.write(out, target));
        let span = |index: usize| match &inputs[index] {
            _ if index == message => payload,
            input => self.read(input.region, input.content),
        };
        let written = match keeps {
            true => Written::Keeping(self.overwritten.span().slice(0, out.len())),
            false if self.reduces_past(buf) => Written::Streamed,
            false => Written::Cached,
        };
        with_spans(inputs.len(), span, |spans| checksum::reduce(prepared, spans, message, out, written))
    }

    /// Whether what is moved into the result goes past the caches.
    pub(crate) fn streams(&self) -> bool {
        self.kept.streams.moved
    }

    /// Whether what is reduced into a buffer does.
    fn reduces_past(&self, buf: Buf) -> bool {
        self.kept.streams.reduced && buf == Buf::Out && self.is_apart()
    }

    /// Carries out a reduction whose place among those kept is known.
    fn reduce_spans(
        &self,
        place: usize,
        spans: &[ReadSpan<'_>],
        buf: Buf,
        out: WriteSpan<'_>,
    ) -> Result<(), KernelError> {
        let prepared = &self.kept.reductions[place];
        if self.reduces_past(buf) { prepared.run_streamed(spans, out) } else { prepared.run(spans, out) }
    }

    /// The bytes of a region, for writing.
    pub(crate) fn write(&self, region: Region, content: Content) -> WriteSpan<'a> {
        self.write_piece(self.piece(region, content))
    }

    /// The same of bytes.
    #[inline]
    fn write_piece(&self, Piece { buf, start, len }: Piece) -> WriteSpan<'a> {
        if len == 0 {
            return WriteSpan::from(&mut [][..]);
        }
        let whole = match buf {
            Buf::Out => self.out,
            Buf::Slot(slot) => self.slots[slot as usize].span(),
            Buf::Part(_) | Buf::View(_) => unreachable!("schedules write to slots and the result only"),
        };
        whole.slice(start, len)
    }

    /// The bytes of a region.
    pub(crate) fn piece(&self, region: Region, content: Content) -> Piece {
        let size = self.element_bytes(content);
        let elements =
            |count: u64| usize::try_from(count).expect("a region of memory fits the address space");
        let (start, len) = (elements(region.start) * size, elements(region.len) * size);
        Piece { buf: region.buf, start, len }
    }

    /// Carries out a reduction that `reduction` has found the place of.
    #[inline]
    pub(crate) fn reduce_pieces(
        &mut self,
        place: usize,
        inputs: &[Piece],
        out: Piece,
    ) -> Result<(), KernelError> {
        let (buf, out) = (out.buf, self.write_piece(out));
        // Mostly so, and then in line.
        if let [left, right] = inputs {
            return self.reduce_spans(place, &[self.read_piece(*left), self.read_piece(*right)], buf, out);
        }
        let span = |index: usize| self.read_piece(inputs[index]);
        with_spans(inputs.len(), span, |spans| self.reduce_spans(place, spans, buf, out))
    }

    /// Copies bytes that are not those that they are copied to.
    pub(crate) fn copy_piece(&self, src: Piece, dst: Piece) {
        let (from, to) = (self.read_piece(src), self.write_piece(dst));
        if from.as_ptr() != to.as_ptr().cast_const() {
            if self.kept.streams.moved { self.kernels.stream(from, to) } else { self.kernels.copy(from, to) }
        }
    }
}

impl Executor for CpuExecutor<'_> {
    type Frame = Message;
    type Error = KernelError;

    fn bind(&mut self, view: u32, frame: Message) {
        self.kept.views[view as usize] = View::Bound(frame);
    }

    fn release(&mut self, view: u32) {
        self.kept.views[view as usize] = View::Unbound;
    }

    fn store(&mut self, frame: Message, dst: Region, content: Content) -> Result<(), KernelError> {
        self.kernels.copy(frame.payload(), self.write(dst, content));
        Ok(())
    }

    fn reduce(&mut self, inputs: &[Operand], target: Content, out: Region) -> Result<(), KernelError> {
        let place = self.reduction(inputs, target)?;
        let span = |index: usize| self.read(inputs[index].region, inputs[index].content);
        let (buf, out) = (out.buf, self.write(out, target));
        with_spans(inputs.len(), span, |spans| self.reduce_spans(place, spans, buf, out))
    }

    fn copy(&mut self, src: Region, dst: Region, content: Content) -> Result<(), KernelError> {
        self.copy_piece(self.piece(src, content), self.piece(dst, content));
        Ok(())
    }
}
