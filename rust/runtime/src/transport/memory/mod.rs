//! The memory transport: ranks are threads of one process. For tests, notebooks and the reader.
//!
//! One mutex guards all links; payloads are copied, summed and verified outside it. A lent frame
//! owns its payload and counts against the window until it is dropped.

mod state;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use isobit_core::Rank;
use isobit_core::wire::{Channel, Draft, HEADER_BYTES, Header};
use isobit_sys::os::checksum;
use isobit_sys::os::shared::SharedBytes;
use isobit_sys::os::sites::Sites;
use isobit_sys::{ReadSpan, WriteSpan};

use super::tamper::flip;
use super::{
    ABORT_BYTES_MAX, Attempt, BREAK_BYTES_MAX, Break, Capabilities, Look, MessageNumber, Share, Tamper,
    Transport, TransportError, corruption,
};
use state::{Breaks, Link, Message, Shared, State};

pub use state::MemoryFrame;

/// The limits of a memory group. Tests reach every path with small ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOptions {
    /// The largest payload of a message.
    pub payload_bytes_max: usize,
    /// The window of each (peer, channel); each message takes its header's length of it as well.
    pub window_bytes: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions { payload_bytes_max: 64 * 1024, window_bytes: 1024 * 1024 }
    }
}

/// The transports of a new group of `world_size` ranks, by rank. Each goes to its own thread.
///
/// ```
/// use isobit::transport::{Transport, memory};
/// let transports = memory::group(3);
/// assert_eq!(transports[2].rank(), 2);
/// assert_eq!(transports[0].group(), transports[1].group());
/// ```
pub fn group(world_size: u32) -> Vec<MemoryTransport> {
    group_with(world_size, MemoryOptions::default())
}

/// Groups that some of their ranks have joined.
static JOINING: Mutex<BTreeMap<String, Vec<Option<MemoryTransport>>>> = Mutex::new(BTreeMap::new());

/// The transport of one rank of a group of that name; the first rank to come forms it. Names are used
/// once: each rank joins once.
///
/// ```
/// use isobit::transport::{Transport, memory};
/// let [first, second] = [0, 1].map(|rank| memory::join("a name".to_owned(), rank, 2));
/// assert_eq!(first.group(), second.group());
/// ```
pub fn join(name: String, rank: Rank, world_size: u32) -> MemoryTransport {
    let mut joining = JOINING.lock().unwrap_or_else(PoisonError::into_inner);
    let ranks =
        joining.entry(name.clone()).or_insert_with(|| group(world_size).into_iter().map(Some).collect());
    let own = ranks[rank as usize].take().expect("each rank joins once");
    if ranks.iter().all(Option::is_none) {
        joining.remove(&name);
    }
    own
}

/// A group with limits of its own.
pub fn group_with(world_size: u32, options: MemoryOptions) -> Vec<MemoryTransport> {
    assert!(world_size > 0, "a group has at least one rank");
    assert!(
        options.window_bytes >= options.payload_bytes_max + HEADER_BYTES,
        "the window holds the largest message"
    );
    let ranks = world_size as usize;
    let state = State {
        links: (0..ranks * ranks * 2).map(|_| Link::default()).collect(),
        changes: vec![0; ranks],
        closed: vec![None; ranks],
        abort: None,
        breaks: Breaks::default(),
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        bells: (0..ranks).map(|_| Condvar::new()).collect(),
        world_size,
        group: RandomState::new().hash_one(0),
        incarnations: (0..ranks).map(|rank| RandomState::new().hash_one(rank)).collect(),
        options,
    });
    let sites = SharedBytes::zeroed(Sites::bytes(world_size));
    (0..world_size)
        .map(|rank| MemoryTransport {
            rank,
            sites: Sites::new(sites.clone(), rank, world_size),
            shared: Arc::clone(&shared),
            damaged: vec![None; ranks * 2],
            seen: 0,
            tamper: None,
        })
        .collect()
}

/// One rank's end of a memory group. Dropping it is a loss for its peers.
pub struct MemoryTransport {
    rank: Rank,
    sites: Sites,
    shared: Arc<Shared>,
    /// By (peer, channel): the message that is waited for once more.
    damaged: Vec<Option<MessageNumber>>,
    /// How many changes had been seen when the last wait ended.
    seen: u64,
    tamper: Option<Tamper>,
}

impl MemoryTransport {
    /// Gives this rank's sends a fault.
    pub fn set_tamper(&mut self, tamper: Tamper) {
        self.tamper = Some(tamper);
    }

    fn check_rank(&self, peer: Rank) {
        assert!(
            peer < self.shared.world_size && peer != self.rank,
            "rank {peer} is no peer of rank {} in a world of {}",
            self.rank,
            self.shared.world_size
        );
    }

    fn pack(&mut self, header: &Header, payload: ReadSpan<'_>, attempt: Attempt) -> Message {
        let mut bytes = vec![0; payload.len()];
        let payload_checksum = checksum::copy(payload, WriteSpan::from(&mut bytes[..]));
        if let Some(bit) = self.tamper.as_mut().and_then(|tamper| tamper(attempt)) {
            flip(&mut bytes, bit);
        }
        let header = Header { payload_bytes: bytes.len() as u32, payload_checksum, ..*header };
        Message { header, payload: bytes, number: attempt.number }
    }
}

impl Transport for MemoryTransport {
    type Frame = MemoryFrame;

    fn rank(&self) -> Rank {
        self.rank
    }

    fn world_size(&self) -> u32 {
        self.shared.world_size
    }

    fn group(&self) -> u64 {
        self.shared.group
    }

    fn incarnation(&self, rank: Rank) -> u64 {
        self.shared.incarnations[rank as usize]
    }

    fn capabilities(&self) -> Capabilities {
        let MemoryOptions { payload_bytes_max, window_bytes } = self.shared.options;
        let messages = window_bytes / Message::cost(payload_bytes_max);
        Capabilities {
            name: "memory",
            payload_bytes_max,
            buffered_bytes_max: None,
            window_bytes: messages * payload_bytes_max,
            cores: None,
        }
    }

    fn try_send(
        &mut self,
        to: Rank,
        channel: Channel,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        self.check_rank(to);
        assert!(payload.len() <= self.shared.options.payload_bytes_max, "the payload exceeds the largest");
        let link = self.shared.link(self.rank, to, channel);
        let cost = Message::cost(payload.len());
        let number = {
            let mut state = self.shared.lock();
            state.check_abort()?;
            state.check_peer(to)?;
            let link = &mut state.links[link];
            if link.used + cost > self.shared.options.window_bytes {
                return Ok(None);
            }
            link.used += cost;
            link.sent += 1;
            link.sent - 1
        };
        let message = self.pack(header, payload, Attempt { to, channel, number, again: false });
        let mut state = self.shared.lock();
        state.links[link].queue.push_back(message);
        self.shared.ring(&mut state, to);
        Ok(Some(number))
    }

    fn try_share(
        &mut self,
        _first: Rank,
        _payload: ReadSpan<'_>,
        _readers: u32,
    ) -> Result<Option<Share>, TransportError> {
        Ok(None)
    }

    fn try_send_shared(
        &mut self,
        _to: Rank,
        _header: &Header,
        _share: Share,
        _payload: ReadSpan<'_>,
    ) -> Result<Option<MessageNumber>, TransportError> {
        unreachable!("nothing is shared")
    }

    fn end_shares(&mut self) {}

    fn try_send_buffered(
        &mut self,
        _to: Rank,
        _channel: Channel,
        _header: &Draft,
        _payload: ReadSpan<'_>,
    ) -> Result<bool, TransportError> {
        unreachable!("no payload can be sent buffered")
    }

    fn try_recv_expected(
        &mut self,
        _from: Rank,
        _channel: Channel,
        _expected: &Draft,
        _out: WriteSpan<'_>,
    ) -> Result<bool, TransportError> {
        Ok(false)
    }

    fn try_recv_read(
        &mut self,
        _from: Rank,
        _channel: Channel,
        _expected: &Draft,
        _read: &mut dyn FnMut(ReadSpan<'_>) -> u64,
    ) -> Result<Look, TransportError> {
        Ok(Look::Other)
    }

    fn ring(&self, _peer: Rank) {}

    fn looks(&self) -> u32 {
        0
    }

    fn relax(&self) {}

    fn try_recv(&mut self, from: Rank, channel: Channel) -> Result<Option<MemoryFrame>, TransportError> {
        self.check_rank(from);
        let link = self.shared.link(from, self.rank, channel);
        let slot = from as usize * 2 + channel as usize;
        let message = {
            let mut state = self.shared.lock();
            state.check_abort()?;
            // What is asked for again may be withdrawn meanwhile.
            let asked = self.damaged[slot].filter(|_| state.links[link].resent.is_none());
            if asked.is_some_and(|number| !state.links[link].ask_again(number)) {
                self.damaged[slot] = None;
            }
            let found = match self.damaged[slot] {
                Some(_) => state.links[link].resent.take(),
                None => state.links[link].queue.pop_front(),
            };
            match found {
                Some(message) => message,
                None => {
                    state.check_peer(from)?;
                    return Ok(None);
                }
            }
        };
        let intact = message.is_intact();
        let mut state = self.shared.lock();
        let again = self.damaged[slot].is_some() && message.number >= state.links[link].withdrawn;
        if intact {
            self.damaged[slot] = None;
            state.links[link].verified += 1;
            self.shared.ring(&mut state, from);
            drop(state);
            return Ok(Some(MemoryFrame { message, link, from, shared: Arc::clone(&self.shared) }));
        }
        if again {
            let (number, bytes) = (message.number, message.payload.len());
            // Put back, so that the next call finds the same.
            state.links[link].resent = Some(message);
            let detail = format!("wrong payload checksum over {bytes} bytes");
            return Err(corruption(from, self.rank, channel, number, &detail));
        }
        // It takes room again when it comes again.
        state.links[link].used -= Message::cost(message.payload.len());
        self.damaged[slot] = state.links[link].ask_again(message.number).then_some(message.number);
        self.shared.ring(&mut state, from);
        Ok(None)
    }

    fn peek(&mut self, from: Rank, channel: Channel) -> Result<Option<Option<Header>>, TransportError> {
        self.check_rank(from);
        let (link, slot) = (self.shared.link(from, self.rank, channel), from as usize * 2 + channel as usize);
        let state = self.shared.lock();
        state.check_abort()?;
        if self.damaged[slot].is_some() {
            return Ok(Some(None));
        }
        match state.links[link].queue.front() {
            Some(message) => Ok(Some(Some(message.header))),
            None => state.check_peer(from).map(|()| None),
        }
    }

    fn verified(&mut self, to: Rank, channel: Channel) -> Result<u64, TransportError> {
        self.check_rank(to);
        let state = self.shared.lock();
        state.check_abort()?;
        let link = &state.links[self.shared.link(self.rank, to, channel)];
        if link.verified < link.sent {
            state.check_peer(to)?;
        }
        Ok(link.verified)
    }

    fn resend_wanted(&mut self) -> Option<(Rank, Channel, MessageNumber)> {
        let state = self.shared.lock();
        let here = |to: &Rank| *to != self.rank && state.check_peer(*to).is_ok();
        for to in (0..self.shared.world_size).filter(here) {
            for channel in [Channel::Collective, Channel::PointToPoint] {
                if let Some(number) = state.links[self.shared.link(self.rank, to, channel)].wanted {
                    return Some((to, channel, number));
                }
            }
        }
        None
    }

    fn resend(
        &mut self,
        to: Rank,
        channel: Channel,
        number: MessageNumber,
        header: &Header,
        payload: ReadSpan<'_>,
    ) -> Result<bool, TransportError> {
        self.check_rank(to);
        let link = self.shared.link(self.rank, to, channel);
        let message = self.pack(header, payload, Attempt { to, channel, number, again: true });
        let mut state = self.shared.lock();
        state.check_abort()?;
        assert_eq!(state.links[link].wanted, Some(number), "only a message that is wanted is sent again");
        state.check_peer(to)?;
        state.links[link].wanted = None;
        state.links[link].used += Message::cost(message.payload.len());
        state.links[link].resent = Some(message);
        self.shared.ring(&mut state, to);
        Ok(true)
    }

    fn withdraw(&mut self) {
        let mut state = self.shared.lock();
        for to in (0..self.shared.world_size).filter(|to| *to != self.rank) {
            for channel in [Channel::Collective, Channel::PointToPoint] {
                let link = &mut state.links[self.shared.link(self.rank, to, channel)];
                link.withdrawn = link.sent;
                link.wanted = None;
            }
        }
        self.shared.ring_all(&mut state);
    }

    fn wait(&mut self, until: Instant) -> Result<(), TransportError> {
        let rank = self.rank as usize;
        let mut state = self.shared.lock();
        while state.abort.is_none() && state.changes[rank] == self.seen {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                break;
            };
            let waited = self.shared.bells[rank].wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.seen = state.changes[rank];
        state.check_abort()
    }

    fn break_epoch(&mut self, epoch: u32, sequence: u64, reason: &[u8]) {
        let mut state = self.shared.lock();
        if state.breaks.of(epoch).is_none_or(|old| old.epoch == epoch && old.sequence > sequence) {
            let reason = reason[..reason.len().min(BREAK_BYTES_MAX)].to_vec();
            state.breaks.note(Break { rank: self.rank, epoch, sequence, reason });
            self.shared.ring_all(&mut state);
        }
    }

    fn broken(&self, epoch: u32) -> Option<u64> {
        let state = self.shared.lock();
        state.breaks.of(epoch).map(|found| if found.epoch == epoch { found.sequence } else { 0 })
    }

    fn break_of(&self, epoch: u32) -> Option<Break> {
        self.shared.lock().breaks.of(epoch).cloned()
    }

    fn sites(&self) -> &Sites {
        &self.sites
    }

    fn abort(&mut self, reason: &[u8]) {
        let mut state = self.shared.lock();
        if state.abort.is_none() {
            let reason = reason[..reason.len().min(ABORT_BYTES_MAX)].to_vec();
            state.abort = Some((self.rank, reason));
            self.shared.ring_all(&mut state);
        }
    }

    fn close(&mut self, reason: &str) {
        let mut state = self.shared.lock();
        if state.closed[self.rank as usize].is_none() {
            state.closed[self.rank as usize] = Some(reason.to_owned());
            self.shared.ring_all(&mut state);
        }
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.close("its transport was dropped");
    }
}
