//! Schedules: who sends, receives and reduces what, as data.
//!
//! A schedule is a program for each rank: steps over ranges of elements, each with the earlier
//! steps of the same rank that it must wait for. It holds no values, addresses or times.

mod program;

pub use program::{Action, Buf, Content, Operand, Program, Region, Schedule, Step, StepIndex};
