//! Trident as its users see it.

#![allow(clippy::unwrap_used)]

mod chaos;
mod drpc;
mod emitting;
mod memory_log;
mod operations;
mod pairs;
mod recutting;
mod states;
mod support;
mod word_count;
