//! Real servers for tests: each on a free port of loopback, in a folder of its own, and ended when it is dropped,
//! also when the test fails. Only processes that were started here are ever signalled. Tests that leave a server as it
//! is take one that the environment names instead (`KAFKA_BROKERS`, `REDIS_URL`), with names of their own.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod given;
pub mod kafka;
mod process;
pub mod proxy;
pub mod redis;

pub use process::{ServerProcess, free_port};
