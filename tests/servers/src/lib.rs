//! Real servers for tests: each on a free port of loopback, in a folder of its own, and ended when it is dropped,
//! also when the test fails. Only processes that were started here are ever signalled.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod kafka;
mod process;
pub mod proxy;
pub mod redis;

pub use process::{ServerProcess, free_port};
