//! Connectors of topologies: what brings tuples in from elsewhere, and takes them there.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod drpc;
pub mod kafka;
pub mod redis;
