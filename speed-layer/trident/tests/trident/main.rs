//! Trident as its users see it.

#![allow(clippy::unwrap_used)]

mod aggregations;
mod chaos;
mod drpc;
mod emitting;
mod memory_log;
mod operations;
mod pairs;
mod partitions;
mod planning;
mod recutting;
mod refusals;
mod snapshots;
mod states;
mod storm;
mod support;
mod word_count;
