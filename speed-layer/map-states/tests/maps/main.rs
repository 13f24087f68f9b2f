//! Map states on every store, as their users see them.

#![allow(clippy::unwrap_used)]

mod chaos;
mod conformance;
#[path = "../../../trident/tests/trident/emitted.rs"]
mod emitted;
mod guard;
mod log;
mod losses;
mod network;
mod redb;
mod redis;
mod snapshots;
mod stores;
mod yahoo;
