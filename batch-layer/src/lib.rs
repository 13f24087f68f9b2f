//! The batch layer: recompute a view from the master dataset at a cut, and publish the version.
//!
//! It talks to the other layers through the lake and the state store alone: it finds requests for runs in the lake,
//! leaves a request for a cut in the ledger, waits until the master dataset has absorbed it, computes, publishes by
//! one catalog commit, and keeps a record of each run in the lake. Who asks for a run ([`request::refresh`]) needs
//! nothing but the lake.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cut;
mod error;
mod first_run;
pub mod request;
mod run;
mod schedule;
mod scheduling;
mod sweeping;
mod tracker;
mod unfinished;
mod work;
mod worker;

pub use error::BatchError;
pub use run::{BatchLayer, Patience};
pub use schedule::{Missed, Outlook, SCHEDULE_OPTIONS, Schedule, ScheduleError};
pub use sweeping::Swept;
