//! The batch layer: recompute a view from the master dataset at a cut, and publish the version.
//!
//! It talks to the other layers through the lake and the state store alone: it leaves a request for a cut in the
//! ledger, waits until the master dataset has absorbed it, computes, and publishes by one catalog commit.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cut;
mod error;
mod first_run;
mod run;

pub use error::BatchError;
pub use run::{BatchLayer, Patience};
