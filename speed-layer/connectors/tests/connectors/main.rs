//! The connectors against real servers.

#![allow(clippy::unwrap_used, missing_docs)]

mod broker;
mod compaction;
mod crashes;
mod drpc;
#[allow(dead_code, reason = "its main is not run here")]
#[path = "../../examples/drpc_words.rs"]
mod drpc_words;
mod exactly_once;
mod guarantees;
mod judge;
#[allow(dead_code, reason = "its main is not run here")]
#[path = "../../examples/kafka_counts.rs"]
mod kafka_counts;
mod mishaps;
mod outage;
mod partitions;
mod redis_beginnings;
mod redis_counts;
mod redis_example;
mod redis_failures;
mod redis_lookups;
mod redis_roles;
mod redis_server;
mod redis_stores;
mod replay;
mod starts;
