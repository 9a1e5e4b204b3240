//! The fault model: everything that the simulated world does to a run, as options.

use crate::Rank;

/// What can happen. `Faults::default()` is a calm network with small random delays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// The longest delay of a message, in ns; each draws its own, and those of a pair stay in order.
    /// Delays decide the order of arrivals, which must never reach a value.
    pub delay_ns_max: u64,
    /// The longest a reduction or copy takes, in ns. It happens at the end of that time, so that
    /// whatever else touches its memory meanwhile does harm that a test can see.
    pub work_ns_max: u64,
    /// The longest a rank lets pass between two calls, in ns, so that others run ahead.
    pub pause_ns_max: u64,
    /// How many payload bytes of one pair may be under way or lent at a time. A schedule that needs
    /// more than its limits said comes to a standstill.
    pub window_bytes: u64,
    /// How many of a million messages are damaged: one to three bits of header or payload flip.
    pub damage_ppm: u32,
    /// How many of a million messages that are sent again are damaged too, which nothing can heal.
    pub damage_again_ppm: u32,
    /// A rank that ends without a word.
    pub crash: Option<Crash>,
    /// A rank that stands still, as after SIGSTOP.
    pub stall: Option<Stall>,
    /// How long a call may take, in ns; the deadline is the only thing that ends a standstill.
    pub timeout_ns: u64,
}

/// A rank that ends; its last messages still arrive. The others learn of it within `delay_ns_max`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crash {
    /// The rank.
    pub rank: Rank,
    /// When, in ns from the start.
    pub at_ns: u64,
}

/// A rank that stands still and then goes on where it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// The rank.
    pub rank: Rank,
    /// When, in ns from the start.
    pub at_ns: u64,
    /// How long, in ns; `u64::MAX` for good.
    pub for_ns: u64,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            delay_ns_max: 10_000,
            work_ns_max: 2_000,
            pause_ns_max: 20_000,
            window_bytes: 1 << 20,
            damage_ppm: 0,
            damage_again_ppm: 0,
            crash: None,
            stall: None,
            timeout_ns: 1_000_000_000,
        }
    }
}
