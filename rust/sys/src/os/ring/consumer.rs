//! The side of the ring that receives: it verifies frames, lends them in place, and gives their room back.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::lease::{Lease, Leases};
use super::pace::Pace;
use super::{
    ALIGN, BASE, CACHED_PACE, COPIES, COPIES_BYTES, HEAD, HEAD_BYTES, KIND, MAIL, MAIL_BYTES, MAIL_SEAL,
    MAIL_WORDS, MARK, NO_COPY, PAYLOAD_AT, PLACE, PREFIX_BYTES, Payload, RESENT, Ring, RingError,
    STREAMED_PACE, TAIL, Turn, VERIFIED, WANTED, WITHDRAWN, WRAP, Way, damaged, frame_bytes, is_measured,
    mailed, of_kind, payload_bytes_max, seal_of,
};
use crate::clock::ticks;
use crate::os::checksum;
use crate::os::shared::SharedBytes;
use crate::{ReadSpan, WriteSpan};

/// The side that receives.
pub struct Consumer {
    pub(super) ring: Ring,
    /// Where the next frame starts.
    next: u64,
    /// The next message's number.
    number: u64,
    /// If that message was found damaged once, where its frame ends: the producer may be rewriting it.
    asked: Option<u64>,
    leases: Arc<Leases>,
    /// What payloads have taken.
    pace: Pace,
}

/// What was found at the ring's end.
#[derive(Debug)]
pub enum Popped<T, E> {
    /// Nothing, for now.
    Empty,
    /// A message that passed the check, with what the check made of it.
    Frame(T, Lease),
    /// A message that did not pass; it has been asked for again.
    Damaged,
    /// A message that will not come, because its sender has given it up. There may be another.
    Withdrawn,
    /// A message that did not pass a second time, or whose copy did not: its number, and why. Every later call finds
    /// it again.
    DamagedTwice(u64, E),
}

impl Consumer {
    /// The consumer of the ring in `memory`, whose producer may have an outbox.
    ///
    /// # Safety
    /// `memory` is all zero except for what its producer wrote, is a ring and nothing else, and has no
    /// other consumer. The outbox is its producer's.
    pub(crate) unsafe fn new(memory: SharedBytes, outbox: Option<SharedBytes>) -> Consumer {
        let leases = Arc::new(Leases::new());
        Consumer {
            ring: Ring::new(memory, outbox),
            next: 0,
            number: 0,
            asked: None,
            leases,
            pace: Pace::default(),
        }
    }

    /// The next message, if it is there. `check` gets its head, its payload's length and the
    /// checksum of the payload as it lies in the ring.
    pub fn try_pop<T, E>(
        &mut self,
        check: impl Fn(&[u8; HEAD_BYTES], usize, u64) -> Result<T, E>,
    ) -> Result<Popped<T, E>, RingError> {
        if let Some(end) = self.asked.filter(|_| self.ring.load(RESENT) != self.number + 1) {
            return Ok(if self.pass_withdrawn(end) { Popped::Withdrawn } else { Popped::Empty });
        }
        let Some(found) = self.find()? else { return Ok(Popped::Empty) };
        let head = self.head();
        // Out of the spare place at once: whoever waits for that must not wait for a lease.
        let is_spare = self.asked.is_some() && found.payload.is_shared;
        let copied = is_spare.then(|| self.read_with(&found, |payload| payload.to_vec()));
        let sum = match &copied {
            Some(bytes) => checksum::of(ReadSpan::from(&bytes[..])),
            None => self.read_with(&found, checksum::of),
        };
        match check(&head, found.payload.bytes, sum) {
            Ok(checked) => Ok(Popped::Frame(checked, self.lend(&found, copied))),
            Err(error) => match found.copy {
                Some(copy) => self.take_copy(&found, copy, check),
                None => Ok(self.ask_again(found.end, error)),
            },
        }
    }

    /// The next message, if there is one: its head, unless it was found damaged. The message stays.
    pub fn peek(&self) -> Result<Option<Option<[u8; HEAD_BYTES]>>, RingError> {
        if self.asked.is_some() {
            return Ok(Some(None));
        }
        Ok(self.find()?.map(|_| Some(self.head())))
    }

    /// The head of the next message, which is there.
    fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        // SAFETY: the message is sent and not verified: its head's place is the consumer's.
        unsafe { self.ring.memory.reading(Ring::head_at(self.number), HEAD_BYTES) }.read(&mut head);
        head
    }

    /// Reads the next message to `out`, if it is there and has this length and the seal that `seal` gives for
    /// its payload's checksum: then it is verified, and its room given back. If not, `out` may hold anything,
    /// and there may be another message.
    #[inline]
    pub fn try_pop_expected(
        &mut self,
        out: WriteSpan<'_>,
        seal: impl Fn(u64) -> u64,
    ) -> Result<bool, RingError> {
        let turn = self.ring.in_turn(self.number);
        let tail = turn.word(TAIL).load(Acquire);
        // Words only grow: the tail of the message before last is where this one begins at the latest.
        if tail <= self.next || self.asked.is_some() {
            return Ok(false);
        }
        if out.len() <= MAIL_BYTES {
            read_mail(turn, out);
            let expected = mailed(seal(checksum::of(out.into())), self.number);
            if turn.word(MAIL_SEAL).load(Relaxed) == expected {
                // The mail is this message's, and so is the tail that was seen before it.
                self.check_tail(tail)?;
                self.pass(tail);
                return Ok(true);
            }
        }
        let found = match self.foresee(turn, tail, out.len(), false)? {
            Some(found) => Some(found),
            None => self.find()?.filter(|found| found.payload.bytes == out.len()),
        };
        let Some(found) = found else { return Ok(false) };
        let is_intact = seal(self.read_with(&found, |payload| checksum::copy(payload, out))) == found.seal;
        if is_intact {
            self.pass(found.end);
        }
        Ok(is_intact)
    }

    /// The next message, if it is there, has this length and is alike: its mark is this one, or `is_expected` says yes
    /// to its head. `read` copies or reduces it and gives its checksum, for which `seal` then gives the seal. If it was
    /// taken it is verified; if not, `read` may have read a message that is damaged.
    pub fn try_pop_read(
        &mut self,
        payload_bytes: usize,
        mark: u64,
        is_expected: impl FnOnce(&[u8; HEAD_BYTES]) -> bool,
        seal: impl FnOnce(u64) -> u64,
        read: impl FnOnce(ReadSpan<'_>) -> u64,
    ) -> Result<Look, RingError> {
        let turn = self.ring.in_turn(self.number);
        let tail = turn.word(TAIL).load(Acquire);
        if self.asked.is_some() {
            return Ok(Look::Other);
        }
        if tail <= self.next {
            return Ok(Look::Nothing);
        }
        let is_marked = payload_bytes > MAIL_BYTES && turn.word(MARK).load(Relaxed) == mark;
        let foreseen = if is_marked { self.foresee(turn, tail, payload_bytes, true)? } else { None };
        let found = match foreseen {
            Some(found) => found,
            None => match self.find()? {
                None => return Ok(Look::Nothing),
                Some(found) if found.payload.bytes == payload_bytes && is_expected(&self.head()) => found,
                Some(_) => return Ok(Look::Other),
            },
        };
        let is_intact = seal(self.read_with(&found, read)) == found.seal;
        if !is_intact {
            return Ok(Look::Other);
        }
        self.pass(found.end);
        Ok(Look::Taken)
    }

    /// Where the next message must be if it is of this length and no message has come after it: told without its
    /// prefix, whose line would have to be waited for. The mail that its seal is from may be a later message's: then
    /// no payload has it. Only one whose mark was the expected one `may_be_shared`: else the mail may be any payload.
    #[inline(always)]
    fn foresee(
        &self,
        turn: Turn<'_>,
        tail: u64,
        payload_bytes: usize,
        may_be_shared: bool,
    ) -> Result<Option<Found>, RingError> {
        self.check_tail(tail)?;
        let kind = u32::try_from(turn.word(KIND).load(Relaxed)).ok().and_then(of_kind);
        let (way, is_shared) = kind.unwrap_or((Way::Cached, false));
        let is_shared = is_shared && may_be_shared;
        let mut payload = Payload { place: 0, bytes: payload_bytes, way, is_shared };
        let place = self.ring.place(self.base()?, self.next);
        let (left, frame) = (self.ring.capacity - place, payload.frame_bytes());
        let (start, place) = if frame > left { (self.next + left as u64, 0) } else { (self.next, place) };
        let end = start + frame as u64;
        payload.place = if is_shared { turn.word(PLACE).load(Relaxed) as usize } else { place + PAYLOAD_AT };
        if end != tail || (is_shared && !self.ring.is_in_outbox(payload.place, payload_bytes)) {
            return Ok(None);
        }
        let seal = turn.word(MAIL_SEAL).load(Relaxed).wrapping_sub(self.number);
        Ok(Some(Found { payload, copy: None, seal, end }))
    }

    /// From where the place of the next frame is counted, when a tail behind it was seen.
    #[inline(always)]
    fn base(&self) -> Result<u64, RingError> {
        let base = self.ring.load(BASE);
        if base > self.next || !base.is_multiple_of(ALIGN as u64) {
            return Err(damaged("base", format!("{base} where {} at most is possible", self.next)));
        }
        Ok(base)
    }

    /// Asks for the next message, which is damaged, once more, if it will come again and has not yet.
    fn ask_again<T, E>(&mut self, end: u64, error: E) -> Popped<T, E> {
        if self.pass_withdrawn(end) {
            return Popped::Withdrawn;
        }
        if self.asked.is_some() {
            return Popped::DamagedTwice(self.number, error);
        }
        self.asked = Some(end);
        self.ring.store(WANTED, self.number + 1);
        Popped::Damaged
    }

    /// Passes over the next message, which is damaged, if it will not come again: whether it did. Asked when the
    /// message has been read, for a payload is withdrawn before it changes.
    fn pass_withdrawn(&mut self, end: u64) -> bool {
        let is_withdrawn = self.number < self.ring.load(WITHDRAWN);
        if is_withdrawn {
            self.pass(end);
        }
        is_withdrawn
    }

    /// Takes the next message, which is damaged, from its copy.
    fn take_copy<T, E>(
        &mut self,
        found: &Found,
        place: u64,
        check: impl Fn(&[u8; HEAD_BYTES], usize, u64) -> Result<T, E>,
    ) -> Result<Popped<T, E>, RingError> {
        let bytes = HEAD_BYTES + found.payload.bytes;
        if COPIES_BYTES.checked_sub(bytes).is_none_or(|last| place > last as u64) {
            return Err(damaged("copy", format!("{bytes} bytes at {place} of {COPIES_BYTES}")));
        }
        let (mut head, mut payload) = ([0; HEAD_BYTES], vec![0; found.payload.bytes]);
        // SAFETY: the message is sent and not verified: its copy is the consumer's.
        let copy = unsafe { self.ring.memory.reading(COPIES + place as usize, bytes) };
        copy.slice(0, HEAD_BYTES).read(&mut head);
        copy.slice(HEAD_BYTES, found.payload.bytes).read(&mut payload);
        if seal_of(&head) != found.seal {
            return Err(damaged(
                "copy",
                format!("message {} arrived damaged, and so is its copy", self.number),
            ));
        }
        let sum = checksum::of(ReadSpan::from(&payload[..]));
        Ok(match check(&head, found.payload.bytes, sum) {
            Ok(checked) => Popped::Frame(checked, self.lend(found, Some(payload))),
            Err(error) => Popped::DamagedTwice(self.number, error),
        })
    }

    /// Lets `read` read a payload where it lies, and may tell the producer how long that took.
    #[inline]
    fn read_with<T>(&mut self, found: &Found, read: impl FnOnce(ReadSpan<'_>) -> T) -> T {
        let start = is_measured(self.number, found.payload.bytes).then(ticks);
        // SAFETY: the frame lies between `head` and `tail`: it is the consumer's, with what it names in an outbox, and
        // only read.
        let answer = read(unsafe { self.ring.payload(found.payload) });
        if let Some(start) = start {
            let word = if found.payload.way == Way::Streamed { STREAMED_PACE } else { CACHED_PACE };
            self.ring.store(word, self.pace.took(found.payload.way, found.payload.bytes, ticks() - start));
        }
        answer
    }

    /// Another value whenever the producer has sent, sent again or withdrawn.
    pub fn news(&self) -> u64 {
        let said = self.ring.load(RESENT).wrapping_add(self.ring.load(WITHDRAWN));
        self.ring.tail().wrapping_add(said)
    }

    /// The next frame.
    fn find(&self) -> Result<Option<Found>, RingError> {
        let (tail, capacity) = (self.ring.tail(), self.ring.capacity);
        self.check_tail(tail)?;
        if tail == self.next {
            return Ok(None);
        }
        let (mut start, mut place) = (self.next, self.ring.place(self.base()?, self.next));
        let (mut kind, mut payload_bytes, [mut number, mut seal, mut copy]) = self.read_prefix(place);
        if kind == WRAP {
            start += (capacity - place) as u64;
            place = 0;
            if start >= tail {
                return Err(damaged("frame", format!("nothing follows the wrap at {}", self.next)));
            }
            (kind, payload_bytes, [number, seal, copy]) = self.read_prefix(place);
        }
        let payload = of_kind(kind).map(|(way, is_shared)| Payload {
            // A shared one has no copy, and its place there.
            place: if is_shared { copy as usize } else { place + PAYLOAD_AT },
            bytes: payload_bytes,
            way,
            is_shared,
        });
        let left = ((tail - start) as usize).min(capacity - place);
        let fits = |payload: &Payload| match payload.is_shared {
            true => self.ring.is_in_outbox(payload.place, payload_bytes) && frame_bytes(0) <= left,
            false => payload_bytes <= payload_bytes_max(capacity) && frame_bytes(payload_bytes) <= left,
        };
        let Some(payload) = payload.filter(|payload| number == self.number && fits(payload)) else {
            let detail = format!(
                "kind {kind:08x}, message {number} of {payload_bytes} bytes where message {} of at most {left} can be",
                self.number
            );
            return Err(damaged("frame", detail));
        };
        let end = start + payload.frame_bytes() as u64;
        let copy = Some(copy).filter(|copy| *copy != NO_COPY && !payload.is_shared);
        Ok(Some(Found { payload, copy, seal, end }))
    }

    /// Whether the producer can have come so far.
    #[inline]
    fn check_tail(&self, tail: u64) -> Result<(), RingError> {
        let capacity = self.ring.capacity as u64;
        let freed = self.ring.memory.word(HEAD).load(Relaxed);
        if tail < self.next || tail - freed.min(tail) > capacity || !tail.is_multiple_of(ALIGN as u64) {
            let detail = format!("{tail} where {} to {} are possible", self.next, freed + capacity);
            return Err(damaged("tail", detail));
        }
        Ok(())
    }

    fn read_prefix(&self, place: usize) -> (u32, usize, [u64; 3]) {
        let mut prefix = [0; PREFIX_BYTES];
        // SAFETY: called for bytes between `head` and `tail`, which are the consumer's.
        unsafe { self.ring.reading(place, prefix.len()) }.read(&mut prefix);
        let half = |at: usize| u32::from_le_bytes(prefix[at..at + 4].try_into().expect("four bytes"));
        let word = |at: usize| u64::from_le_bytes(prefix[at..at + 8].try_into().expect("eight bytes"));
        (half(0), half(4) as usize, [word(8), word(16), word(24)])
    }

    fn lend(&mut self, found: &Found, copied: Option<Vec<u8>>) -> Lease {
        let (number, &Found { payload, end, .. }) = (self.number, found);
        self.leases.lend(number, end);
        self.advance(end);
        let (ring, leases) = (self.ring.clone(), Arc::clone(&self.leases));
        Lease { ring, leases, number, payload, copied }
    }

    /// Goes past a message of which nothing is needed any more.
    #[inline]
    fn pass(&mut self, end: u64) {
        self.leases.pass(&self.ring, end);
        self.advance(end);
    }

    fn advance(&mut self, end: u64) {
        self.asked = None;
        self.next = end;
        self.number += 1;
        self.ring.store(VERIFIED, self.number);
    }
}

#[inline]
fn read_mail(turn: Turn<'_>, out: WriteSpan<'_>) {
    let mut words = [[0; 8]; MAIL_WORDS];
    for (word, bytes) in words.iter_mut().enumerate().take(out.len().div_ceil(8)) {
        *bytes = turn.word(MAIL + word * 8).load(Relaxed).to_le_bytes();
    }
    out.write(&words.as_flattened()[..out.len()]);
}

/// The next frame: what its prefix says, and where the frame ends.
struct Found {
    payload: Payload,
    /// Where among the copies it is once more.
    copy: Option<u64>,
    seal: u64,
    end: u64,
}

/// What a look for an expected message found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// No message.
    Nothing,
    /// Another message, or one that is damaged: it is still there.
    Other,
    /// The message, which was taken.
    Taken,
}
