//! Schedules: who sends, receives and reduces what, as data.
//!
//! A schedule is a program for each rank: steps over ranges of elements, each with the earlier
//! steps of the same rank that it must wait for. It holds no values, addresses or times.
//!
//! [`choose`] picks an algorithm from sizes alone, [`plan`] and [`plan_rank`] write the programs,
//! [`predict`] says what one should take; see `docs/algorithms.md` for what each algorithm does and sends.

mod algorithm;
mod builder;
mod chunks;
mod costs;
mod layout;
mod leaf_cost;
mod model;
mod movement;
mod program;
mod reduce;
mod request;
mod roll_call;
mod scoreboard;
mod steps;
pub mod verify;

pub use algorithm::{Algorithm, choose, choose_because, plan, plan_rank};
pub use costs::{Cost, cost};
pub use layout::Layout;
pub use leaf_cost::{LeafCost, leaf_cost};
pub use model::{Constants, Machine, Outlook, Prediction, TERMS, Terms, outlook, predict};
pub use program::{Action, Buf, Content, Operand, Program, Region, Schedule, Step, StepIndex};
pub use request::{Counts, Limits, PlanError, Request, Topology};
pub use steps::{Steps, steps};
