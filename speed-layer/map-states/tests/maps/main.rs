//! Map states on every store, as their users see them.

#![allow(clippy::unwrap_used)]

mod chaos;
mod conformance;
mod guard;
mod log;
mod losses;
mod redb;
mod redis;
mod snapshots;
mod stores;
mod yahoo;
