//! End to end, on the real binary.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod clients;
mod crash_points;
mod demo;
mod failover;
mod faults;
mod gaps;
mod kills;
mod platform;
mod production;
mod run;
mod stuck;
mod topologies;
mod tour;
