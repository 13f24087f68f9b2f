//! The serving layer: SQL over both layers, merged.
//!
//! A query resolves its names against the catalog, opens every view it mentions at one txid of its source, and reads
//! the batch version's files and the speed layer's states under one union. The front doors know only
//! [`service`]; the engine knows nothing of wires.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod domain;
mod engine;
mod error;
mod key_set;
pub mod pg;
mod reading;
mod relation;
pub mod service;
mod session;
mod speed_table;
mod system;

pub use engine::{Administration, Engine, Logs, Parts};
pub use error::{catalog_error, lake_error};
