//! Payloads that one rank sends to several: put once where all of them can read, and named by a message to each.
//!
//! An outbox is memory that its owner alone writes and every peer may read. A message whose payload lies there has no
//! payload in its ring, only the place. So a rank that sends the same to seven others writes it once, and makes its
//! checksum once.
//!
//! # Why it is sound
//! A payload stays as it is from before the first message that names it is sent until every ring that has such a message
//! has given that message's room back, which its consumer does when nothing reads the payload any more: `head`, loaded with
//! Acquire, has passed the message. The owner keeps by itself which messages those are; nothing in shared memory says so. A
//! payload that one consumer found damaged is not written again in its place, where others may read it, but into a spare
//! place, for that consumer alone, which copies it out before the message counts as verified: a lease may last until other
//! messages have come, and one of those may wait for the spare place. A consumer that breaks the protocol can spoil the
//! payloads that others read, as it can spoil its own.

use std::collections::VecDeque;

use super::producer::Kept;
use super::{
    ALIGN, HEAD, HEAD_BYTES, MAIL_BYTES, Payload, Producer, Ring, RingError, VERIFIED, Way, frame_bytes,
    is_measured, populate,
};
use crate::clock::ticks;
use crate::os::shared::SharedBytes;
use crate::{ReadSpan, WriteSpan};

/// The outbox of a rank, at its owner's.
pub struct Outbox {
    memory: SharedBytes,
    /// Bytes for payloads; the spare place is behind them.
    pub(super) capacity: usize,
    /// From the oldest on.
    blocks: VecDeque<Block>,
    /// The number of the oldest.
    first: u64,
    /// Where the newest ends.
    tail: usize,
    /// Whether it starts anew whenever it is empty, see [`Producer::stay_warm`](super::Producer::stay_warm).
    stays_warm: bool,
    /// The message for which the spare place was used last: its ring and its number.
    spare: Option<(Ring, u64)>,
    /// Up to where its pages have been made.
    populated: usize,
}

struct Block {
    payload: Payload,
    sum: u64,
    /// How many messages may still name it.
    readers: u32,
    /// The messages that name it and whose room has not been given back: the ring, and where the frame ends.
    sent: Vec<(Ring, u64)>,
}

/// A payload in an outbox.
#[derive(Clone, Copy, Debug)]
pub struct Share(u64);

impl Outbox {
    /// The outbox in `memory`, of which the last `payload_bytes_max` bytes are the spare place.
    ///
    /// # Safety
    /// Nobody else writes there, and peers read only what messages name.
    pub(crate) unsafe fn new(memory: SharedBytes, payload_bytes_max: usize) -> Outbox {
        let capacity = memory.len() - payload_bytes_max.next_multiple_of(ALIGN);
        let (blocks, first, tail, spare) = (VecDeque::new(), 0, 0, None);
        Outbox { memory, capacity, blocks, first, tail, stays_warm: false, spare, populated: 0 }
    }

    /// As [`Producer::stay_warm`](super::Producer::stay_warm).
    pub fn stay_warm(&mut self) {
        self.stays_warm = true;
    }

    /// Puts a payload of more than [`MAIL_BYTES`] there for `readers` messages, if there is room. It goes the way of the
    /// first of them.
    pub fn share(&mut self, payload: ReadSpan<'_>, readers: u32, first: &mut Producer) -> Option<Share> {
        assert!(payload.len() > MAIL_BYTES, "a payload that its frame need not have");
        self.free();
        let place = self.place(payload.len().next_multiple_of(ALIGN))?;
        let end = place + payload.len().next_multiple_of(ALIGN);
        if end > self.populated {
            self.populated = populate(&self.memory, 0, self.populated..end, self.capacity);
        }
        let (way, start) = (first.way(payload.len()), ticks());
        let sum = way.write(payload, self.span(place, payload.len()));
        if is_measured(self.first + self.blocks.len() as u64, payload.len()) {
            first.choice.took(way, payload.len(), ticks() - start);
        }
        self.tail = end;
        let payload = Payload { place, bytes: payload.len(), way, is_shared: true };
        self.blocks.push_back(Block { payload, sum, readers, sent: Vec::new() });
        Some(Share(self.first + self.blocks.len() as u64 - 1))
    }

    /// Where there is room for a block of so many bytes.
    fn place(&self, bytes: usize) -> Option<usize> {
        let Some(oldest) = self.blocks.front().map(|block| block.payload.place) else {
            let place = if self.stays_warm || self.tail + bytes > self.capacity { 0 } else { self.tail };
            return (bytes <= self.capacity).then_some(place);
        };
        if self.tail <= oldest {
            // They go round the end.
            return (self.tail + bytes <= oldest).then_some(self.tail);
        }
        if self.tail + bytes <= self.capacity { Some(self.tail) } else { (bytes <= oldest).then_some(0) }
    }

    /// Takes the room back that no message needs any more.
    fn free(&mut self) {
        while let Some(block) = self.blocks.front_mut().filter(|block| block.readers == 0) {
            while block.sent.last().is_some_and(|(ring, end)| ring.load(HEAD) >= *end) {
                block.sent.pop();
            }
            if !block.sent.is_empty() {
                return;
            }
            self.blocks.pop_front();
            self.first += 1;
        }
    }

    fn index(&self, Share(number): Share) -> usize {
        (number - self.first) as usize
    }

    /// No more messages will name any of those that are there.
    pub fn close(&mut self) {
        self.blocks.iter_mut().for_each(|block| block.readers = 0);
    }

    /// Whether no message needs the spare place: once one is verified its consumer has read it out.
    fn is_spare_free(&self) -> bool {
        self.spare.as_ref().is_none_or(|(ring, number)| ring.load(VERIFIED) > *number)
    }

    /// The bytes of a payload, to write.
    pub(super) fn span(&self, place: usize, len: usize) -> WriteSpan<'_> {
        // SAFETY: called for places that no message names, or none that anybody reads yet; the owner alone writes.
        unsafe { self.memory.writing(place, len) }
    }
}

impl Producer {
    /// Sends a message whose payload is in this rank's outbox, if there is room for what says so: its number. `head` gets the
    /// payload's checksum, and the payload, if this is the first that names it.
    pub fn try_push_shared(
        &mut self,
        outbox: &mut Outbox,
        share: Share,
        mark: u64,
        head: impl FnOnce(u64, Option<WriteSpan<'_>>) -> [u8; HEAD_BYTES],
    ) -> Result<Option<u64>, RingError> {
        let Some(room) = self.make_room(frame_bytes(0), true)? else { return Ok(None) };
        let index = outbox.index(share);
        let Block { payload, sum, ref sent, .. } = outbox.blocks[index];
        let kept = Kept::new(room, payload, None);
        let head = head(sum, sent.is_empty().then(|| outbox.span(payload.place, payload.bytes)));
        let seal = self.write_head(&kept, self.sent, &head);
        let block = &mut outbox.blocks[index];
        block.sent.push((self.ring.clone(), kept.end));
        block.readers -= 1;
        Ok(Some(self.send(kept, seal, mark, true)))
    }

    /// Whether the message that is wanted again, the first that is not verified, is in an outbox.
    pub fn wants_shared(&self) -> bool {
        self.kept.front().is_some_and(|kept| kept.payload.is_shared)
    }

    /// Sends that message again, from the outbox's spare place, unless another message needs that: whether it did.
    /// Panics like [`resend`](Producer::resend).
    pub fn try_resend_shared(
        &mut self,
        outbox: &mut Outbox,
        number: u64,
        payload: ReadSpan<'_>,
        head: impl FnOnce(u64, WriteSpan<'_>) -> [u8; HEAD_BYTES],
    ) -> Result<bool, RingError> {
        let place = outbox.capacity;
        let mut kept = self.wanted(number, payload)?;
        if !outbox.is_spare_free() {
            return Ok(false);
        }
        kept.payload = Payload { place, way: Way::Cached, ..kept.payload };
        outbox.spare = Some((self.ring.clone(), number));
        let spare = outbox.span(place, payload.len());
        let sum = Way::Cached.write(payload, spare);
        self.write_head(&kept, number, &head(sum, spare));
        self.kept[0] = kept;
        self.say_resent(number);
        Ok(true)
    }
}
