//! The stores against the conformance suite, against a model, and through faults and restarts.

#![allow(clippy::unwrap_used)]

#[path = "state/client.rs"]
mod client;
#[path = "state/model.rs"]
mod model;
#[path = "state/random.rs"]
mod random;
#[path = "state/redis.rs"]
mod redis;
#[path = "state/redis_waiting.rs"]
mod redis_waiting;
#[path = "state/stores.rs"]
mod stores;
