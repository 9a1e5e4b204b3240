//! The side of the ring that sends: it lays frames out, and lays one out again that arrived damaged, or a copy at once.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use super::pace::{Choice, Pace};
use super::{
    ALIGN, BASE, BUFFERED_BYTES_MAX, CACHED_PACE, CONTROL_BYTES, COPIES, COPIES_BYTES, FIRST_LINE_BYTES,
    HEAD, HEAD_BYTES, HEADS_KEPT, KIND, LAZY_BYTES, MAIL, MAIL_BYTES, MAIL_SEAL, MAIL_WORDS, MARK, NO_COPY,
    PAYLOAD_AT, PLACE, Payload, RESENT, Ring, RingError, STREAM_BYTES_MIN, STREAMED_PACE, TAIL, Turn,
    VERIFIED, WANTED, WITHDRAWN, WRAP, Way, damaged, frame_bytes, is_measured, mailed, payload_bytes_max,
    populate, seal_of,
};
use crate::clock::ticks;
use crate::os::shared::SharedBytes;
use crate::os::sync::fence;
use crate::{Beside, ReadSpan, WriteSpan};

/// The side that sends.
pub struct Producer {
    pub(super) ring: Ring,
    base: u64,
    /// Where the latest run of messages began after which the ring may start anew.
    run: u64,
    tail: u64,
    /// The last `head` seen.
    head: u64,
    /// The last `verified` seen.
    verified: u64,
    resent: u64,
    /// Messages that may be wanted again, oldest first; the last has number `sent - 1`.
    pub(super) kept: VecDeque<Kept>,
    /// Where the latest copy ends.
    copied: usize,
    pub(super) sent: u64,
    pub(super) choice: Choice,
    /// The way that a test wants them to go.
    only: Option<Way>,
    /// See [`Producer::stay_warm`].
    stays_warm: bool,
    /// Up to where the ring's pages have been made, or need not be.
    populated: usize,
}

/// A message that may be wanted again.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    /// Where its frame begins.
    place: usize,
    /// Where that ends.
    pub(super) end: u64,
    pub(super) payload: Payload,
    /// Where its copy begins, if it is buffered.
    copy: Option<usize>,
    is_withdrawn: bool,
}

impl Kept {
    pub(super) fn new(Room { place, end }: Room, payload: Payload, copy: Option<usize>) -> Kept {
        Kept { place, end, payload, copy, is_withdrawn: false }
    }
}

/// Room for a frame.
pub(super) struct Room {
    place: usize,
    /// The position behind it.
    end: u64,
}

/// After so many bytes of small messages a producer goes back to the start of a ring that is empty, and with its copies
/// to the start of theirs: what each of many rings takes of a core's cache.
const WARM_BYTES: u64 = if cfg!(all(test, loom)) { ALIGN as u64 } else { 8 * 1024 };

/// The largest payload that counts as small there. Larger ones go round the whole ring: by the time that a line is
/// written again it is not in the consumer's own cache any more, from where it would take longer to get back.
const WARM_PAYLOAD_MAX: usize = 2 * 1024;

impl Producer {
    /// The producer of the ring in `memory`.
    ///
    /// # Safety
    /// `memory` is all zero except for what its consumer wrote, is a ring and nothing else, and has no
    /// other producer.
    pub(crate) unsafe fn new(memory: SharedBytes) -> Producer {
        let ring = Ring::new(memory, None);
        Producer {
            ring,
            base: 0,
            run: 0,
            tail: 0,
            head: 0,
            verified: 0,
            resent: 0,
            kept: VecDeque::new(),
            copied: 0,
            sent: 0,
            choice: Choice::new(),
            only: None,
            stays_warm: false,
            populated: LAZY_BYTES,
        }
    }

    /// For ranks that share cores, and have more rings than a cache holds: the ring starts anew whenever it is empty,
    /// after large messages as well. Then their memory stays in the caches, and that counts for more than whose cache
    /// has a line.
    pub fn stay_warm(&mut self) {
        self.stays_warm = true;
    }

    /// Sends a message if there is room: its number. `head` gets the checksum of the payload, which
    /// is computed in the same pass as its copy, and that copy. `mark` tells a consumer whether the head is the one that
    /// it expects, but for that checksum; it counts for payloads of more than [`MAIL_BYTES`] only.
    pub fn try_push(
        &mut self,
        payload: ReadSpan<'_>,
        mark: u64,
        head: impl FnOnce(u64, WriteSpan<'_>) -> [u8; HEAD_BYTES],
    ) -> Result<Option<u64>, RingError> {
        self.push(payload, mark, |sum, [sent, _]: [WriteSpan<'_>; 2]| head(sum, sent), None, None)
    }

    /// The same; if it is sent, another copy is made in the same pass.
    pub fn try_push_beside(
        &mut self,
        payload: ReadSpan<'_>,
        mark: u64,
        head: impl FnOnce(u64, WriteSpan<'_>) -> [u8; HEAD_BYTES],
        beside: Beside<'_>,
    ) -> Result<Option<u64>, RingError> {
        self.push(payload, mark, |sum, [sent, _]: [WriteSpan<'_>; 2]| head(sum, sent), None, Some(beside))
    }

    /// Sends a message of at most [`BUFFERED_BYTES_MAX`] bytes if there is room for it and for a copy, which the
    /// consumer takes if the message is damaged: `payload` is not needed any more after that. `head` gets both
    /// places where it was put.
    #[inline]
    pub fn try_push_buffered(
        &mut self,
        payload: ReadSpan<'_>,
        mark: u64,
        head: impl FnOnce(u64, [WriteSpan<'_>; 2]) -> [u8; HEAD_BYTES],
    ) -> Result<Option<u64>, RingError> {
        assert!(payload.len() <= BUFFERED_BYTES_MAX, "a payload that may be copied");
        let copy = match self.copy_place(payload.len()) {
            Some(copy) if (copy as u64) < WARM_BYTES => Some(copy),
            _ => {
                self.verified()?;
                self.copy_place(payload.len())
            }
        };
        if copy.is_some() { self.push(payload, mark, head, copy, None) } else { Ok(None) }
    }

    /// Where the next copy can be: behind the latest, or at the start if it is free and as much as stays in the caches
    /// is used.
    fn copy_place(&self, payload_bytes: usize) -> Option<usize> {
        let (next, bytes) = (self.copied, HEAD_BYTES + payload_bytes);
        // Mostly that of the first: found without the iterator.
        let first = self.kept.front().and_then(|kept| kept.copy);
        let Some(oldest) = first.or_else(|| self.kept.iter().find_map(|kept| kept.copy)) else {
            return Some(0);
        };
        if next <= oldest {
            // The copies go round the end.
            return (next + bytes <= oldest).then_some(next);
        }
        let starts_anew = next as u64 >= WARM_BYTES || next + bytes > COPIES_BYTES;
        if starts_anew && bytes <= oldest {
            return Some(0);
        }
        (next + bytes <= COPIES_BYTES).then_some(next)
    }

    fn push(
        &mut self,
        payload: ReadSpan<'_>,
        mark: u64,
        head: impl FnOnce(u64, [WriteSpan<'_>; 2]) -> [u8; HEAD_BYTES],
        copy: Option<usize>,
        beside: Option<Beside<'_>>,
    ) -> Result<Option<u64>, RingError> {
        assert!(payload.len() <= payload_bytes_max(self.ring.capacity), "a payload that always fits");
        let stays_warm = self.stays_warm || payload.len() <= WARM_PAYLOAD_MAX;
        let Some(room) = self.make_room(frame_bytes(payload.len()), stays_warm)? else { return Ok(None) };
        let way = self.way(payload.len());
        let (place, bytes) = (room.place + PAYLOAD_AT, payload.len());
        let kept = Kept::new(room, Payload { place, bytes, way, is_shared: false }, copy);
        // What is made beside it would count as the way's.
        let start = (beside.is_none() && is_measured(self.sent, payload.len())).then(ticks);
        let seal = self.write_frame(&kept, self.sent, payload, head, beside);
        if let Some(start) = start {
            self.choice.took(way, payload.len(), ticks() - start);
        }
        self.copied = copy.map_or(self.copied, |copy| copy + HEAD_BYTES + payload.len());
        Ok(Some(self.send(kept, seal, mark, stays_warm)))
    }

    /// Room for a frame of so many bytes and for one more message, if there is any.
    #[inline(always)]
    pub(super) fn make_room(&mut self, frame: usize, stays_warm: bool) -> Result<Option<Room>, RingError> {
        let capacity = self.ring.capacity;
        if stays_warm {
            self.rewind()?;
        }
        let place = self.ring.place(self.base, self.tail);
        let wraps = frame > capacity - place;
        let needed = if wraps { capacity - place + frame } else { frame };
        let kept = |ring: &Producer| ring.kept.len() < HEADS_KEPT;
        if !self.has_room(needed)? || !(kept(self) || self.verified().map(|_| kept(self))?) {
            return Ok(None);
        }
        if wraps {
            self.write_prefix(place, WRAP, 0, [0; 3]);
        }
        let place = if wraps { 0 } else { place };
        if place + frame > self.populated {
            let needed = self.populated..place + frame;
            self.populated = populate(&self.ring.memory, CONTROL_BYTES, needed, capacity);
        }
        Ok(Some(Room { place, end: self.tail + needed as u64 }))
    }

    /// Sends the next message, which has been written: its number.
    #[inline(always)]
    pub(super) fn send(&mut self, kept: Kept, seal: u64, mark: u64, stays_warm: bool) -> u64 {
        self.write_mail(&kept, self.sent, seal, mark);
        self.tail = kept.end;
        self.kept.push_back(kept);
        if !stays_warm {
            self.run = self.tail;
        }
        self.ring.in_turn(self.sent).word(TAIL).store(self.tail, Release);
        self.sent += 1;
        self.sent - 1
    }

    /// The way that a payload of so many bytes goes.
    #[inline]
    pub(super) fn way(&mut self, payload_bytes: usize) -> Way {
        if let Some(only) = self.only {
            return only;
        }
        if payload_bytes < STREAM_BYTES_MIN {
            return Way::Cached;
        }
        let theirs = Pace { cached: self.ring.load(CACHED_PACE), streamed: self.ring.load(STREAMED_PACE) };
        self.choice.way(theirs)
    }

    /// Sends everything one way: for tests.
    pub fn send_only(&mut self, way: Way) {
        self.only = Some(way);
    }

    /// Gives up the messages that are not verified, but for those that are buffered: their payloads can't be
    /// given again and may change when this has returned. The consumer takes what it has read whole, and passes
    /// over the rest. Whether there is any.
    pub fn withdraw(&mut self) -> Result<bool, RingError> {
        self.verified()?;
        let mut any = false;
        for kept in self.kept.iter_mut().filter(|kept| kept.copy.is_none() && !kept.is_withdrawn) {
            (kept.is_withdrawn, any) = (true, true);
        }
        if any {
            self.ring.store(WITHDRAWN, self.sent);
            // Before anything that the caller does with the payloads.
            fence(SeqCst);
        }
        Ok(any)
    }

    /// How many messages the consumer has verified.
    pub fn verified(&mut self) -> Result<u64, RingError> {
        let found = self.ring.load(VERIFIED);
        if found < self.verified || found > self.sent {
            let detail = format!("{found} messages where {} to {} are possible", self.verified, self.sent);
            return Err(damaged("count of verified messages", detail));
        }
        self.kept.drain(..(found - self.verified) as usize);
        self.verified = found;
        Ok(found)
    }

    /// Another value whenever the consumer has given room back, verified or asked again.
    pub fn news(&self) -> u64 {
        [HEAD, VERIFIED, WANTED].into_iter().fold(0, |sum, word| self.ring.load(word).wrapping_add(sum))
    }

    /// How many messages were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The message that the consumer wants once more.
    pub fn resend_wanted(&mut self) -> Result<Option<u64>, RingError> {
        let wanted = self.ring.load(WANTED);
        if wanted == self.resent {
            return Ok(None);
        }
        // Only the first that is not verified can have been found damaged.
        let first = self.verified()?;
        if wanted != first + 1 || first == self.sent {
            let detail = format!("message {} where only {first} can be", wanted.wrapping_sub(1));
            return Err(damaged("wish for a message", detail));
        }
        let kept = self.kept.front().expect("what is not verified is kept");
        if kept.copy.is_some() {
            let detail = format!("message {first}, which has a copy");
            return Err(damaged("wish for a message", detail));
        }
        // What is withdrawn is not wanted any more, even if the consumer does not know that yet.
        Ok((!kept.is_withdrawn).then_some(first))
    }

    /// Sends that message again; panics if `number` is not the one, or has another length.
    pub fn resend(
        &mut self,
        number: u64,
        payload: ReadSpan<'_>,
        head: impl FnOnce(u64, WriteSpan<'_>) -> [u8; HEAD_BYTES],
    ) -> Result<(), RingError> {
        let kept = self.wanted(number, payload)?;
        self.write_frame(&kept, number, payload, |sum, [sent, _]| head(sum, sent), None);
        self.say_resent(number);
        Ok(())
    }

    /// What is kept of the message that is wanted again; panics if `number` is not the one, or has another length.
    pub(super) fn wanted(&mut self, number: u64, payload: ReadSpan<'_>) -> Result<Kept, RingError> {
        assert_eq!(self.resend_wanted()?, Some(number), "only a message that is wanted is sent again");
        let kept = *self.kept.front().expect("what is not verified is kept");
        assert_eq!(payload.len(), kept.payload.bytes, "the same message is sent again");
        Ok(kept)
    }

    /// Says that a message has been written again.
    pub(super) fn say_resent(&mut self, number: u64) {
        self.resent = number + 1;
        self.ring.store(RESENT, self.resent);
    }

    /// Goes back to the start of the ring after a run of small messages, if nothing is left in it. After large ones
    /// only where it is to stay warm: else their lines would have to be taken out of the consumer's cache, which is slower
    /// than to get others from the cache that both share.
    #[inline]
    fn rewind(&mut self) -> Result<(), RingError> {
        if self.tail - self.run >= WARM_BYTES && self.has_room(self.ring.capacity)? {
            (self.base, self.run) = (self.tail, self.tail);
            self.ring.store(BASE, self.base);
        }
        Ok(())
    }

    #[inline]
    fn has_room(&mut self, needed: usize) -> Result<bool, RingError> {
        let (capacity, tail) = (self.ring.capacity as u64, self.tail);
        let room = |head| capacity - (tail - head) >= needed as u64;
        Ok(room(self.head) || room(self.find_head()?))
    }

    /// How far the consumer is by now.
    #[inline(never)]
    fn find_head(&mut self) -> Result<u64, RingError> {
        let found = self.ring.load(HEAD);
        if found < self.head || found > self.tail || !found.is_multiple_of(ALIGN as u64) {
            let detail = format!("{found} where {} to {} are possible", self.head, self.tail);
            return Err(damaged("head", detail));
        }
        self.head = found;
        Ok(found)
    }

    #[inline]
    fn write_prefix(&self, place: usize, kind: u32, payload_bytes: u32, words: [u64; 3]) {
        let [number, seal, copy] = words;
        let first = u64::from(payload_bytes) << 32 | u64::from(kind);
        let prefix = [first, number, seal, copy].map(u64::to_le_bytes);
        self.write(place, prefix.as_flattened());
    }

    #[inline(always)]
    fn write_frame(
        &self,
        kept: &Kept,
        number: u64,
        payload: ReadSpan<'_>,
        head: impl FnOnce(u64, [WriteSpan<'_>; 2]) -> [u8; HEAD_BYTES],
        beside: Option<Beside<'_>>,
    ) -> u64 {
        // SAFETY: no message that is not verified has its copy there, and this thread has no other span over it.
        let copy = |at| unsafe { self.ring.memory.writing(COPIES + at, HEAD_BYTES + payload.len()) };
        let copy = kept.copy.map(copy);
        let copied = copy.map_or(WriteSpan::from(&mut [][..]), |copy| copy.slice(HEAD_BYTES, payload.len()));
        if copy.is_some() {
            payload.copy_to(copied);
        }
        // SAFETY: the frame is the producer's, between `tail` and `head + capacity` or handed back
        // by `wanted`, and this thread has no other span over it.
        let sent = unsafe { self.ring.writing(kept.payload.place, payload.len()) };
        let way = kept.payload.way;
        let sum = match beside {
            Some(beside) => way.write_beside(payload, sent, beside),
            None => way.write(payload, sent),
        };
        let head = head(sum, [sent, copied]);
        if let Some(copy) = copy {
            copy.slice(0, HEAD_BYTES).write(&head);
        }
        self.write_head(kept, number, &head)
    }

    /// Writes a message's head and what stands before its payload: its seal.
    #[inline(always)]
    pub(super) fn write_head(&self, kept: &Kept, number: u64, head: &[u8; HEAD_BYTES]) -> u64 {
        // SAFETY: the message is not sent yet, or handed back, and all 128 before it are verified: the
        // head's place is the producer's.
        unsafe { self.ring.memory.writing(Ring::head_at(number), HEAD_BYTES) }.write(head);
        let (seal, payload) = (seal_of(head), kept.payload);
        let place = if payload.is_shared { Some(payload.place) } else { kept.copy };
        let words = [number, seal, place.map_or(NO_COPY, |at| at as u64)];
        self.write_prefix(kept.place, payload.kind(), payload.bytes as u32, words);
        seal
    }

    /// Puts a small message into the line of its tail as well, and of any its seal: the tail that comes with
    /// a message's seal is that message's. Of a large one what its consumer has to know before it reads it.
    #[inline(always)]
    fn write_mail(&self, kept: &Kept, number: u64, seal: u64, mark: u64) {
        let (turn, payload) = (self.ring.in_turn(number), kept.payload);
        let (place, payload_bytes) = (payload.place, payload.bytes);
        turn.word(MAIL_SEAL).store(mailed(seal, number), Relaxed);
        if payload_bytes == 0 {
            return;
        }
        if payload_bytes > MAIL_BYTES {
            turn.word(KIND).store(payload.kind().into(), Relaxed);
            turn.word(MARK).store(mark, Relaxed);
            turn.word(PLACE).store(place as u64, Relaxed);
            return;
        }
        // A fixed number of words needs no loop, and a frame has whole lines.
        if payload_bytes <= FIRST_LINE_BYTES {
            self.post::<{ FIRST_LINE_BYTES / 8 }>(place, turn);
        } else if payload_bytes <= ALIGN {
            self.post::<{ ALIGN / 8 }>(place, turn);
        } else {
            self.post::<MAIL_WORDS>(place, turn);
        }
    }

    #[inline(always)]
    fn post<const WORDS: usize>(&self, place: usize, turn: Turn<'_>) {
        let mut words = [[0; 8]; WORDS];
        // SAFETY: the frame that was just written, which has as many lines as this takes; it is not sent yet.
        unsafe { self.ring.reading(place, WORDS * 8) }.read(words.as_flattened_mut());
        for (word, bytes) in words.into_iter().enumerate() {
            turn.word(MAIL + word * 8).store(u64::from_le_bytes(bytes), Relaxed);
        }
    }

    #[inline]
    pub(super) fn write(&self, place: usize, bytes: &[u8]) {
        // SAFETY: called for bytes that are the producer's, by `push` and `resend` only.
        unsafe { self.ring.writing(place, bytes.len()) }.write(bytes);
    }
}
