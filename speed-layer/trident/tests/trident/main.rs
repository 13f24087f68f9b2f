//! Trident as its users see it.

#![allow(clippy::unwrap_used)]

mod chains;
mod chaos;
mod counting;
mod drpc;
mod faults;
mod feeder;
mod log_spout;
mod memory_log;
mod operations;
mod recutting;
mod rich_spout;
mod states;
mod support;
mod word_count;
