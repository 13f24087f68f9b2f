//! State in a Redis server, version 7 or later, or Valkey: for layers in separate processes.
//!
//! Every call on a ledger or a shard is one call of a function inside the server, and so is atomic. The layout, byte
//! by byte, the rights that its user needs and what each setting of the server promises are in `docs/redis.md`.
//!
//! Nothing is remembered between calls: a server that was flushed, lost the end of its file, or was replaced by a
//! replica that is behind answers for itself, and the seam's tokens and revisions find it out. The server's own
//! promise ([`appendfsync`](https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/)) holds for
//! ledger and shards alike, so [`Durability`](stratus_seam::store::Durability) changes nothing here.

mod address;
mod connections;
mod examine;
mod layout;
mod ledger;
mod library;
mod rights;
mod shards;
mod trouble;
mod whole;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use redis::Value;
use stratus_seam::ids::SourceId;
use stratus_seam::store::{SourceState, StateStore, StoreError};

use self::address::Address;
use self::connections::{Connections, Lane};
pub use self::examine::{Clock, Facts};
use self::layout::{array, other_shape, text};
pub use self::rights::Rights;
pub use self::trouble::OpenError;
use self::trouble::Trouble;

/// A store in a Redis server. Clones share its connections.
#[derive(Clone)]
pub struct RedisStore(Arc<Server>);

struct Server {
    connections: Connections,
    namespace: String,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { connections, namespace } = &*self.0;
        f.debug_struct("RedisStore")
            .field("server", &connections.server)
            .field("namespace", namespace)
            .finish()
    }
}

impl RedisStore {
    /// Connects to a server, looks whether it can be used, and gives it the functions that the store calls.
    ///
    /// `url` is `redis://user:password@host:port/db`, `rediss://` for TLS, or `unix://<path>`. Parameters:
    /// `namespace` (the first part of every key, `stratus`), `timeout_ms` (how long an answer may take, 5000),
    /// `cafile` (certificates to trust instead of the system's).
    ///
    /// # Errors
    /// [`OpenError`], which says what to do and holds no secrets.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let address = Address::of(url)?;
        let connections = Connections::to(&address)?;
        let store = Self(Arc::new(Server { connections, namespace: address.namespace }));
        let facts = store.examine().await?;
        if let Some(cause) = facts.refusal() {
            return Err(OpenError::Unsuitable { server: store.0.connections.server.clone(), cause });
        }
        let load = store.0.connections.load().await;
        load.map_err(|trouble| trouble.told(&store.0.what("load the functions")))?;
        Ok(store)
    }
}

impl Server {
    fn what(&self, verb: &str) -> String {
        format!("redis {}: {verb}", self.connections.server)
    }

    /// Deletes a source's keys. They are looked for by name, so that leftovers of any age are found; the server is
    /// not held up by it.
    async fn forget(&self, source: SourceId) -> Result<(), Trouble> {
        let pattern = layout::all_of(&self.namespace, source);
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
            let answer = self.connections.run(Lane::Pages, &scan).await?;
            let [next, keys] = array(&answer)? else { return Err(other_shape().into()) };
            for key in array(keys)? {
                let Value::BulkString(key) = key else { return Err(other_shape().into()) };
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(key.as_slice());
                self.connections.run(Lane::Pages, &unlink).await?;
            }
            cursor = text(next)?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl StateStore for RedisStore {
    async fn source(&self, source: SourceId) -> Result<SourceState, StoreError> {
        let handle = Arc::new(RedisSource { server: Arc::clone(&self.0), source });
        Ok(SourceState { ledger: handle.clone(), shards: handle })
    }

    async fn forget(&self, source: SourceId) -> Result<(), StoreError> {
        let forgotten = self.0.forget(source).await;
        forgotten.map_err(|trouble| trouble.told(&self.0.what(&format!("forget source {source}"))))
    }
}

/// One source in the server.
struct RedisSource {
    server: Arc<Server>,
    source: SourceId,
}

impl fmt::Debug for RedisSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.server.connections.server;
        f.debug_struct("RedisSource").field("server", server).field("source", &self.source).finish()
    }
}

impl RedisSource {
    async fn told<T>(
        &self,
        verb: &str,
        call: impl Future<Output = Result<T, Trouble>> + Send,
    ) -> Result<T, StoreError> {
        let done = call.await;
        done.map_err(|trouble| trouble.told(&self.server.what(&format!("source {}: {verb}", self.source))))
    }
}
