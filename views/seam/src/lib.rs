//! The seam between the layers: what has been absorbed, what may be merged, who may write.
//!
//! Everything here is pure: offsets, records, and decisions over observed facts. The layers do the I/O and carry
//! out what is decided here, so that the rules that keep the merged answer exact stand in one place and can be
//! tested exhaustively. The traits at the edge ([`log::Log`], [`store::ShardStore`], [`store::LedgerStore`]) say
//! what the outside world must promise.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod catalog;
pub mod catalog_log;
pub mod crash;
pub mod encoding;
pub mod gaps;
pub mod ids;
pub mod ledger;
pub mod log;
pub mod offsets;
pub mod reading;
pub mod recovery;
pub mod retention;
pub mod runs;
pub mod schema;
pub mod shard;
pub mod store;
