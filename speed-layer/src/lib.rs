//! The speed layer: real-time states of every view of a source, in exactly-once micro-batches.
//!
//! One coordinator per source tails the log, writes down the ranges of a batch before it reads them, aggregates the
//! batch once per view, and commits it to every shard and then to the ledger. What it may do, and what it must do
//! after a crash or a refused write, is decided by [`stratus_seam`]; here is only the I/O around those decisions.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod coordinator;
mod error;
mod groups;
mod housekeeping;
mod ledger;
mod live;
mod shards;
mod standby;
mod startup;

pub use coordinator::{Limits, SpeedLayer};
pub use error::SpeedError;
