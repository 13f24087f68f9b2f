//! Trident as its users see it.

#![allow(clippy::unwrap_used)]

mod chains;
mod chaos;
mod drpc;
mod memory_log;
mod operations;
mod recutting;
mod states;
mod support;
mod word_count;
