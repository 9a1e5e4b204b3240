//! A whole run: everybody's calls in, everybody's outcome out.

use super::member::Member;
use super::network::Network;
use super::{Call, Faults, Outcome, Traffic};
use crate::Rank;

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How each rank ended.
    pub outcomes: Vec<Outcome>,
    /// What each rank has sent.
    pub traffic: Vec<Traffic>,
    /// The digest of all that happened, bytes and times included: equal for equal runs.
    pub log_digest: u64,
    /// How many things happened to ranks that were running.
    pub events: u64,
    /// When the last of these did, in virtual ns.
    pub ended_ns: u64,
}

/// Lets every rank make its calls, one after the other; `calls[rank]` are those of `rank`.
///
/// It always ends: a call that can't be finished ends at its deadline.
pub fn simulate(calls: Vec<Vec<Call>>, faults: &Faults, seed: u64) -> Report {
    let world_size = Rank::try_from(calls.len()).expect("ranks are u32");
    let mut network = Network::new(world_size, *faults, seed);
    let mut members: Vec<Member> =
        (0..world_size).zip(calls).map(|(rank, calls)| Member::new(rank, calls, &mut network)).collect();
    let (mut events, mut ended_ns) = (0, 0);
    while let Some((rank, delivery)) = network.pop() {
        let member = &mut members[rank as usize];
        if member.is_running() {
            events += 1;
            ended_ns = network.now_ns();
            member.on(delivery, &mut network);
        }
    }
    let (outcomes, traffic) = members.into_iter().map(Member::into_outcome).unzip();
    Report { outcomes, traffic, log_digest: network.log_digest(), events, ended_ns }
}
