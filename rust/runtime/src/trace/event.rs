//! The entries of a timeline, and their form in Chrome's trace-event format.
//!
//! Operations are `B` and `E`, so that one that never ends is seen, too; steps are `X`. All that a
//! communicator does it does in one thread, so that what is on one of its lanes nests.

use isobit_core::Rank;
use isobit_core::wire::Descriptor;

use super::Ranks;
use crate::error::ErrorKind;
use crate::json::Object;
use crate::site::Site;

/// What a step does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Copies a message into the transport.
    Send(Rank),
    /// Verifies a message, and copies it if it is not read where it lies.
    Recv(Rank),
    Reduce,
    Copy,
    /// Has nothing to do until one of these ranks does something.
    Wait(Ranks),
    /// Writes the timeline.
    Trace,
}

/// One entry. Times are in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Begin {
        at: u64,
        descriptor: Descriptor,
        epoch: u32,
        sequence: u64,
        peer: Option<Rank>,
        sends: bool,
        bytes: u64,
        site: Site,
    },
    End {
        at: u64,
        failed: Option<ErrorKind>,
    },
    Step {
        step: Step,
        start: u64,
        end: u64,
        bytes: u64,
    },
}

/// Where a communicator's entries are shown: the process is its rank's lane, the thread is it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lane {
    pub(super) process: Rank,
    pub(super) thread: u32,
}

impl Lane {
    pub(super) fn object(&self, text: String, kind: &str, ns: u64) -> Object {
        let object = Object::on(text).text("ph", kind).micros("ts", ns);
        object.number("pid", self.process).number("tid", self.thread)
    }

    /// An entry about the lane itself.
    pub(super) fn metadata(
        &self,
        text: String,
        name: &str,
        arguments: impl FnOnce(Object) -> Object,
    ) -> String {
        self.object(text, "M", 0).text("name", name).object("args", arguments).end()
    }
}

impl Event {
    /// The entry as JSON at the end of `text`; times count from `origin`.
    pub(super) fn write(&self, lane: &Lane, text: String, origin: u64) -> String {
        let since = |ns: u64| ns.saturating_sub(origin);
        match self {
            Event::Begin { at, descriptor, epoch, sequence, peer, sends, bytes, site } => {
                let name = match peer {
                    Some(peer) if *sends => format!("send to rank {peer}"),
                    Some(peer) => format!("recv from rank {peer}"),
                    None => descriptor.collective.name().to_owned(),
                };
                lane.object(text, "B", since(*at))
                    .text("cat", "operation")
                    .text("name", &name)
                    .object("args", |arguments| {
                        arguments
                            .text("call", &descriptor.to_string())
                            .number("sequence", *sequence)
                            .number("epoch", *epoch)
                            .number("bytes", *bytes)
                            .optional_text("site", site.name().as_deref())
                    })
                    .end()
            }
            Event::End { at, failed } => lane
                .object(text, "E", since(*at))
                .object("args", |arguments| match failed {
                    Some(kind) => arguments.text("error", kind.name()),
                    None => arguments,
                })
                .end(),
            Event::Step { step, start, end, bytes } => {
                let (name, peer) = match step {
                    Step::Send(rank) => (format!("send to rank {rank}"), Some(*rank)),
                    Step::Recv(rank) => (format!("recv from rank {rank}"), Some(*rank)),
                    Step::Reduce => ("reduce".to_owned(), None),
                    Step::Copy => ("copy".to_owned(), None),
                    Step::Trace => ("write the trace".to_owned(), None),
                    Step::Wait(ranks) => {
                        let all: Vec<String> = ranks.iter().map(|rank| rank.to_string()).collect();
                        let plural = if all.len() == 1 { "" } else { "s" };
                        (format!("wait for rank{plural} {}", all.join(", ")), Some(ranks.first))
                    }
                };
                let object = lane
                    .object(text, "X", since(*start))
                    .micros("dur", since(*end).saturating_sub(since(*start)))
                    .text("cat", if matches!(step, Step::Wait(_)) { "wait" } else { "step" })
                    .text("name", &name);
                object
                    .object("args", |arguments| match (step, peer) {
                        (Step::Wait(_), Some(peer)) => arguments.number("peer", peer),
                        (_, Some(peer)) => arguments.number("bytes", *bytes).number("peer", peer),
                        (Step::Trace, None) => arguments,
                        (_, None) => arguments.number("bytes", *bytes),
                    })
                    .end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_names_its_peer_its_bytes_and_its_time_in_microseconds() {
        let lane = Lane { process: 3, thread: 1 };
        let event = Event::Step { step: Step::Send(2), start: 5_001_234, end: 5_003_235, bytes: 77 };
        let expected = concat!(
            r#"{"ph":"X","ts":1.234,"pid":3,"tid":1,"dur":2.001,"cat":"step","name":"send to rank 2","#,
            r#""args":{"bytes":77,"peer":2}}"#
        );
        assert_eq!(event.write(&lane, String::new(), 5_000_000), expected);
    }

    #[test]
    fn a_wait_names_every_rank_that_it_waits_for() {
        let name = |ranks: &[Rank]| {
            let step = Step::Wait(Ranks::of(ranks.iter().copied()).unwrap());
            Event::Step { step, start: 0, end: 1, bytes: 0 }.write(
                &Lane { process: 0, thread: 1 },
                String::new(),
                0,
            )
        };
        assert!(name(&[1]).contains("\"wait for rank 1\""));
        assert!(name(&[0, 2, 63]).contains("\"wait for ranks 0, 2, 63\""));
        assert!(name(&[70]).contains("\"wait for rank 70\""));
        assert_eq!(Ranks::of(std::iter::empty()), None);
    }
}
