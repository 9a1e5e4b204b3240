//! The simulated ranks' executor: the law's scalar code over plain byte vectors.

use std::convert::Infallible;
use std::ops::Range;

use crate::engine::Executor;
use crate::law::{element_bytes, fold};
use crate::schedule::{Buf, Content, Operand, Program, Region};
use crate::{Contract, Dtype};

/// What memory holds before it is written: a value that no test expects.
const UNWRITTEN: u8 = 0xa5;

/// A stretch of one of the executor's memories.
#[derive(Clone, Debug)]
struct Place {
    memory: usize,
    bytes: Range<usize>,
}

/// The parts and the result of one rank in one call.
#[derive(Clone, Debug)]
pub struct Buffers {
    memories: Vec<Vec<u8>>,
    parts: Vec<Place>,
    out: Place,
}

impl Buffers {
    /// The given parts, and a result of `out_bytes` in memory of its own.
    pub fn new(parts: Vec<Vec<u8>>, out_bytes: usize) -> Buffers {
        let mut memories = parts;
        let parts = memories.iter().enumerate();
        let parts = parts.map(|(memory, bytes)| Place { memory, bytes: 0..bytes.len() }).collect();
        let out = Place { memory: memories.len(), bytes: 0..out_bytes };
        memories.push(vec![UNWRITTEN; out_bytes]);
        Buffers { memories, parts, out }
    }

    /// Lets part `part` and the result share memory: the part begins `part_start` bytes into it, the
    /// result `out_start` bytes.
    pub fn share(mut self, part: usize, part_start: usize, out_start: usize) -> Buffers {
        let content = std::mem::take(&mut self.memories[self.parts[part].memory]);
        let of_part = part_start..part_start + content.len();
        let of_out = out_start..out_start + self.out.bytes.len();
        let mut shared = vec![UNWRITTEN; of_part.end.max(of_out.end)];
        shared[of_part.clone()].copy_from_slice(&content);
        self.memories[self.out.memory] = shared;
        self.parts[part] = Place { memory: self.out.memory, bytes: of_part };
        self.out.bytes = of_out;
        self
    }
}

/// One rank's memory during one call, and the law's arithmetic on it.
///
/// Wrong schedules panic here: a region outside its buffer, a write to an input, a view that is
/// not there.
#[derive(Clone, Debug)]
pub struct ScalarExecutor {
    contract: Option<Contract>,
    dtype: Dtype,
    buffers: Buffers,
    views: Vec<Option<Vec<u8>>>,
    slots: Vec<Vec<u8>>,
}

impl ScalarExecutor {
    /// The memory that `program` needs, around a call's buffers.
    pub fn new(
        contract: Option<Contract>,
        dtype: Dtype,
        buffers: Buffers,
        program: &Program,
    ) -> ScalarExecutor {
        let size = |bytes: &u64| usize::try_from(*bytes).expect("a slot fits in memory");
        ScalarExecutor {
            contract,
            dtype,
            buffers,
            views: vec![None; program.views as usize],
            slots: program.slot_bytes.iter().map(|bytes| vec![UNWRITTEN; size(bytes)]).collect(),
        }
    }

    /// The bytes of `region`, which holds `content`.
    pub fn read(&self, region: Region, content: Content) -> &[u8] {
        let range = self.range(region, content);
        let within = |place: &Place| &self.buffers.memories[place.memory][place.bytes.clone()];
        match region.buf {
            Buf::Part(part) => &within(&self.buffers.parts[part as usize])[range],
            Buf::Out => &within(&self.buffers.out)[range],
            Buf::View(view) => &self.views[view as usize].as_ref().expect("the view is lent now")[range],
            Buf::Slot(slot) => &self.slots[slot as usize][range],
        }
    }

    /// The result.
    pub fn into_out(mut self) -> Vec<u8> {
        let Place { memory, bytes } = self.buffers.out;
        self.buffers.memories.swap_remove(memory)[bytes].to_vec()
    }

    fn write(&mut self, region: Region, content: Content, bytes: &[u8]) {
        let range = self.range(region, content);
        match region.buf {
            Buf::Out => {
                let Place { memory, bytes: place } = self.buffers.out.clone();
                self.buffers.memories[memory][place][range].copy_from_slice(bytes);
            }
            Buf::Slot(slot) => self.slots[slot as usize][range].copy_from_slice(bytes),
            Buf::Part(_) | Buf::View(_) => panic!("{:?} is never written", region.buf),
        }
    }

    fn range(&self, region: Region, content: Content) -> Range<usize> {
        let size = element_bytes(content, self.contract.as_ref(), self.dtype);
        let index = |elements: u64| usize::try_from(elements).expect("an index") * size;
        index(region.start)..index(region.start + region.len)
    }
}

impl Executor for ScalarExecutor {
    type Frame = Vec<u8>;
    type Error = Infallible;

    fn bind(&mut self, view: u32, frame: Vec<u8>) {
        assert!(self.views[view as usize].replace(frame).is_none(), "view {view} is bound twice");
    }

    fn release(&mut self, view: u32) {
        assert!(self.views[view as usize].take().is_some(), "view {view} is not bound");
    }

    fn store(&mut self, frame: Vec<u8>, dst: Region, content: Content) -> Result<(), Infallible> {
        self.write(dst, content, &frame);
        Ok(())
    }

    fn reduce(&mut self, inputs: &[Operand], target: Content, out: Region) -> Result<(), Infallible> {
        let contract = self.contract.as_ref().expect("a reduction has a contract");
        let inputs: Vec<(Content, &[u8])> =
            inputs.iter().map(|input| (input.content, self.read(input.region, input.content))).collect();
        let value = fold(contract, &inputs, target);
        self.write(out, target, &value);
        Ok(())
    }

    fn copy(&mut self, src: Region, dst: Region, content: Content) -> Result<(), Infallible> {
        let value = self.read(src, content).to_vec();
        self.write(dst, content, &value);
        Ok(())
    }
}
