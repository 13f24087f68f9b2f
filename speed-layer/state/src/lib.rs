//! Stores of real-time state, behind the traits of [`stratus_seam::store`].
//!
//! [`memory`] is for tests, [`redb`] is the embedded default, [`redis`] is for layers in separate processes. Whatever they hold can be lost at any moment and is
//! rebuilt from the log and the lake; what they must not do is answer wrongly or accept a writer that has lost touch.
//! [`conformance`] says what that means, case by case, and [`faults`] puts any store behind an unreliable network.
//! Neither redb, Redis nor a store's layout is known outside of this crate.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod conformance;
mod decisions;
pub mod faults;
pub mod memory;
mod open;
pub mod redb;
pub mod redis;

pub use crate::open::{OpenError, open};
