//! Trident as its users see it.

#![allow(clippy::unwrap_used)]

mod aggregations;
mod chains;
mod chaos;
mod counting;
mod drpc;
mod emitted;
mod emitting;
mod faults;
mod feeder;
mod log_spout;
mod memory_log;
mod operations;
mod pairs;
mod partitions;
mod planning;
mod recutting;
mod refusals;
mod rich_spout;
mod snapshots;
mod states;
mod storm;
mod support;
mod word_count;
