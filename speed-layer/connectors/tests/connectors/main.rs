//! The connectors against real servers.

#![allow(clippy::unwrap_used, missing_docs)]

mod broker;
mod guarantees;
mod judge;
mod mishaps;
mod partitions;
mod replay;
mod starts;
