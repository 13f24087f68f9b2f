//! Bolts that write to a Redis server, and that ask one.
//!
//! | bolt | with a tuple it | emits |
//! |---|---|---|
//! | [`RedisStoreBolt`] | writes a value to a key | nothing |
//! | [`RedisIncrementBolt`] | adds an amount to a field of a hash | nothing |
//! | [`RedisLookupBolt`] | looks a key up | what its mapper makes of the tuple and the value |
//! | [`RedisFilterBolt`] | looks whether a key is there | the tuple if so |
//!
//! A mapper, as in Storm, says what the key and the value of a tuple are; for keys and values that are fields of the
//! tuple there are [`StoreFields`], [`IncrementField`], [`LookupField`] and [`FilterField`].
//!
//! Everything is **at least once**. The commands of a batch of tuples go to the server together and are answered
//! together; a tuple is acked after the server has answered its command, and fails, so that its spout emits it again,
//! when the server refuses the command or does not answer in time. A command that was not answered may have taken
//! effect: to set a key twice does no harm, but appending to a list and adding to a number twice are seen, and an older
//! value that is emitted again may cover a newer one until that comes again too. For counts that are right whatever
//! fails, keep them in a Trident state.
//!
//! Tuples that fail are held until the next tick, at most a tenth of a second, so that one that fails whenever it comes
//! does not keep a spout and a server busy that emit and refuse it as fast as they can. A server that is not reached
//! is tried again after pauses from 50 ms up to 2 s; the queue in front of the bolt fills meanwhile and slows the spout
//! down. What happened is in the failure's reason, and in the component's errors.
//!
//! The server is a single one, or the master of one. Of a Redis Cluster nothing but what the named node holds itself
//! works: a command for a key of another node is refused (`MOVED`), which fails its tuple with a reason that says so.
//! Sentinels are not asked.

mod batch;
mod connection;
mod data_type;
mod desk;
mod error;
mod fields;
mod filter;
mod found;
mod held;
mod increment;
mod lookup;
mod settings;
mod store;

pub use data_type::{RedisDataType, RedisMembership};
pub use error::RedisBoltError;
pub use fields::{FilterField, IncrementField, LookupField, StoreFields};
pub use filter::{RedisFilterBolt, RedisFilterMapper};
pub use found::RedisFound;
pub use increment::{RedisIncrement, RedisIncrementBolt, RedisIncrementMapper};
pub use lookup::{LookupRows, RedisLookupBolt, RedisLookupMapper};
pub use settings::RedisSettings;
pub use store::{RedisStoreBolt, RedisStoreMapper};
