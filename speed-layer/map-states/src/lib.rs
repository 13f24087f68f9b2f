//! Trident's map states on redb and on Redis.
//!
//! A **store** ([`RedbMaps`], [`RedisMaps`]) holds states by name; a **factory** makes the states of a topology's tasks
//! over it. All tasks of a state share its keys, so that another parallelism after a restart finds every key.
//!
//! Beside its values a state keeps the highest transaction that wrote, in the same atomic write. Transactions commit in
//! order, and the spout's ledger says that one is committed before the next one commits; so after a crash the first
//! transaction is at least the highest that any task of the state has written. A lower one means that the ledger was
//! lost, and is refused: its batches would be counted twice or not at all. A late write of an earlier life is refused
//! by the same rule.
//!
//! ```no_run
//! # use stratus_map_states::{MapStore, RedisMaps};
//! # async fn example() -> Result<(), stratus_map_states::MapError> {
//! let maps = RedisMaps::open("redis://:secret@127.0.0.1:6379/0").await?;
//! let counts = maps.opaque::<i64>("counts").cached(10_000);
//! // stream.group_by(&["word"]).persistent_aggregate(counts, &[], Count, "count")
//! # Ok(()) }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod factory;
mod front;
mod guard;
mod json;
mod redb;
mod redis;
mod standing;
mod store;

pub use error::MapError;
pub use factory::{NonTransactionalStates, OpaqueStates, TransactionalStates};
pub use front::Front;
pub use redb::{RedbMap, RedbMaps};
pub use redis::{RedisMap, RedisMaps};
pub use store::{MapStore, Stored};
