//! isobit: deterministic collective communication. The same contributions give the same bits.
#![forbid(unsafe_code)]

pub mod transport;
