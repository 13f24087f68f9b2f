//! Trident as its users see it.

#![allow(clippy::unwrap_used)]

mod chaos;
mod drpc;
mod emitting;
mod memory_log;
mod operations;
mod pairs;
mod planning;
mod recutting;
mod refusals;
mod snapshots;
mod states;
mod support;
mod word_count;
