//! States in a Redis server.
//!
//! Two keys hold the state `NAME`, whatever the parallelism:
//!
//! - `trident:{NAME}`, a hash: a field per key of the state, whose value is JSON: `value`, `[txid,value]` or
//!   `[txid,value,previous]`.
//! - `trident:{NAME}:meta`, a hash: `layout` (`1`), `kind` (`opaque`, `transactional` or `non-transactional`), `txid`,
//!   the highest transaction that wrote, `fence`, which tells the highest attempt at it that wrote from those before it, and
//!   `writes`, how many puts there were, in decimal digits; these three are missing before the first put.
//!
//! A put is one call of a script, which Redis runs alone and writes to its append-only file as one transaction. Whether
//! it is durable when it is answered is up to the server: `appendonly yes` and `appendfsync always`.
//!
//! `writes` shows that a server has lost the end of what it had acknowledged. The txid alone does not: several tasks
//! write in a transaction, and the first one's write may be there when the last one's is lost.

mod address;
mod connection;
mod examine;
mod map;
mod script;
mod trouble;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use stratus_trident::StateKind;

use self::{address::Address, connection::Connection};
use crate::{
    MapError, MapStore, Stored,
    guard::{self, Guard},
    standing::Standings,
};

pub use map::RedisMap;

/// States in a standalone Redis server. Clones are handles on the same server.
#[derive(Clone)]
pub struct RedisMaps(Arc<Server>);

struct Server {
    address: Arc<Address>,
    standings: Standings,
}

impl RedisMaps {
    /// States in the server at `redis://[[user]:password@]host[:port][/db][?timeout_ms=5000]`. The time-out is how long
    /// an answer may take; special characters of a password are percent-encoded.
    ///
    /// # Errors
    ///
    /// The address cannot be used, the server does not answer, or it may evict keys.
    pub async fn open(url: &str) -> Result<Self, MapError> {
        let address = Arc::new(Address::of(url)?);
        let what = format!("Redis {}", address.server);
        let info: String = Connection::to(&address)
            .run(&redis::cmd("INFO"))
            .await
            .map_err(|error| trouble::told(&format!("{what}: opening"), &error))?;
        for warning in examine::warnings(&what, &info)? {
            tracing::warn!("{what}: {warning}");
        }
        Ok(Self(Arc::new(Server { address, standings: Standings::default() })))
    }
}

impl fmt::Debug for RedisMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisMaps").field(&self.0.address.server).finish()
    }
}

/// The keys of a state.
#[derive(Clone, Debug)]
struct Keys {
    values: String,
    meta: String,
}

impl Keys {
    fn of(name: &str) -> Self {
        Self { values: format!("trident:{{{name}}}"), meta: format!("trident:{{{name}}}:meta") }
    }

    /// Transactions have written, and there is nothing of it.
    fn values_are_gone(&self) -> String {
        format!(
            "{} says that transactions have written, and {} is gone, deleted or evicted: restore it, or clear the state and the spout's ledger and count again (and see that maxmemory-policy is noeviction)",
            self.meta, self.values
        )
    }
}

#[async_trait]
impl MapStore for RedisMaps {
    type Map<T: Stored> = RedisMap<T>;

    async fn map<T: Stored>(&self, kind: StateKind, name: &str) -> Result<RedisMap<T>, MapError> {
        let what = format!("Redis {}: state {name:?}", self.0.address.server);
        let (keys, mut connection) = (Keys::of(name), Connection::to(&self.0.address));
        let answer: Vec<String> = connection
            .call(&script::CLAIM, &keys, &[guard::name(kind)])
            .await
            .map_err(|error| trouble::told(&what, &error))?;
        let damaged = |cause: String| Err(MapError::Damaged { what: what.clone(), cause });
        match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["held", held] if held == guard::name(kind) => {
                let guard = Guard::new(kind, self.0.standings.of(name));
                Ok(RedisMap::new(connection, keys, guard, what))
            }
            ["held", held] => {
                let (held, asked) = (held.to_owned(), guard::name(kind).to_owned());
                Err(MapError::OtherKind { what, held, asked })
            }
            ["type", key, found] => damaged(format!(
                "its key {key} holds a {found} where a hash belongs: somebody else uses this name; take another one, or delete the key"
            )),
            ["values"] => damaged(format!(
                "{} holds values, and {} is gone: restore it, or delete both with the spout's ledger and count again",
                keys.values, keys.meta
            )),
            ["meta"] => damaged(keys.values_are_gone()),
            ["layout", found] => damaged(format!("{} has layout {found}, this version knows 1", keys.meta)),
            _ => damaged(format!("an answer that is not known: {answer:?}")),
        }
    }

    async fn clear(&self, name: &str) -> Result<(), MapError> {
        let keys = Keys::of(name);
        let removed: Result<u64, _> =
            Connection::to(&self.0.address).run(redis::cmd("UNLINK").arg(&keys.values).arg(&keys.meta)).await;
        let what = format!("Redis {}: clearing the state {name:?}", self.0.address.server);
        removed.map_err(|error| trouble::told(&what, &error))?;
        self.0.standings.cleared(name);
        Ok(())
    }
}
