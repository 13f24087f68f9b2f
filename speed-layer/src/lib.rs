//! The speed layer: real-time states of every view of a source, in exactly-once micro-batches.
//!
//! Each source has a Trident topology, which feeds all of its views: a spout that writes down the ranges of a batch
//! before it emits them, and decodes each event once; the views' own plans over each task's part of the batch; and
//! the shards as a state, which merge these partial states into what they hold. What the coordinator may do, and what
//! it must do after a crash or a refused write, is decided by [`stratus_seam`]; here is only the I/O around those
//! decisions.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod combiner;
mod coordinator;
mod error;
mod heart;
mod housekeeping;
mod layer;
mod ledger;
mod live;
mod partials;
mod shards;
mod spout;
mod standby;
mod standing;
mod startup;
mod states;
mod topology;
mod work;

pub use combiner::SqlCombiner;
pub use error::SpeedError;
pub use layer::{Limits, SpeedLayer};
pub use standing::Standing;
pub use stratus_topology::LocalCluster;
