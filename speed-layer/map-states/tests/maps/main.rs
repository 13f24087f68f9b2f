//! Map states on every store, as their users see them.

#![allow(clippy::unwrap_used)]

mod chaos;
mod conformance;
#[path = "../../../trident/tests/trident/emitted.rs"]
mod emitted;
mod guard;
mod losses;
#[allow(dead_code)] // Some of it is for those who test spouts.
#[path = "../../../trident/tests/trident/memory_log.rs"]
mod memory_log;
mod network;
mod redb;
mod redis;
mod snapshots;
mod stores;
mod yahoo;
