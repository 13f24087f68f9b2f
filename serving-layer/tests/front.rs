//! The PostgreSQL front door, from the outside: a real listener on a free loopback port, over a small engine of
//! plain DataFusion; and look-ups by key through the product's own engine.

#![allow(clippy::unwrap_used)]
#![allow(missing_docs, unreachable_pub)]

#[path = "front/catalog.rs"]
mod catalog;
#[path = "front/engine.rs"]
mod engine;
#[path = "front/interruption.rs"]
mod interruption;
#[path = "front/look_ups.rs"]
mod look_ups;
#[path = "front/protocol.rs"]
mod protocol;
#[path = "front/raw.rs"]
mod raw;
#[path = "front/users.rs"]
mod users;
#[path = "front/values.rs"]
mod values;
