//! Opening a store by its kind, as the configuration names it.

use std::sync::Arc;

use stratus_seam::store::StateStore;

use crate::memory::MemoryStore;
use crate::redb::{self, RedbStore};
use crate::redis::{self, RedisStore};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration names a kind that does not exist.
    #[error(
        "there is no state store of kind '{0}': use 'redb' with the path of a file, 'redis' with the address of a server, or 'memory' for a trial without restarts"
    )]
    UnknownKind(String),
    /// A redb store without a path.
    #[error("the state store 'redb' needs the path of its file")]
    NoPath,
    /// The file could not be opened.
    #[error(transparent)]
    Redb(#[from] redb::OpenError),
    /// A Redis store without an address.
    #[error("the state store 'redis' needs the address of its server, such as redis://127.0.0.1:6379")]
    NoAddress,
    /// The server could not be used.
    #[error(transparent)]
    Redis(#[from] redis::OpenError),
    /// The process is shutting down.
    #[error("the state store was not opened: the process is shutting down")]
    Stopping,
}

/// Opens the store of a kind: `memory`, which ignores `location`, `redb`, where it is the path of the file, or
/// `redis`, where it is the address of the server as [`RedisStore::open`] takes it.
///
/// # Errors
/// [`OpenError`], which says what to do.
pub async fn open(kind: &str, location: &str) -> Result<Arc<dyn StateStore>, OpenError> {
    match kind {
        "memory" => Ok(Arc::new(MemoryStore::new())),
        "redb" if location.is_empty() => Err(OpenError::NoPath),
        "redb" => {
            let path = location.to_owned();
            // It reads the whole file.
            let opened = tokio::task::spawn_blocking(move || RedbStore::open(path)).await;
            Ok(Arc::new(opened.map_err(|_| OpenError::Stopping)??))
        }
        "redis" if location.is_empty() => Err(OpenError::NoAddress),
        "redis" => Ok(Arc::new(RedisStore::open(location).await?)),
        other => Err(OpenError::UnknownKind(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kind_that_does_not_exist_is_named() {
        let error = open("mongo", "").await.unwrap_err().to_string();
        assert!(error.contains("'mongo'") && error.contains("'redb'"), "{error}");
        assert!(matches!(open("redb", "").await, Err(OpenError::NoPath)));
        assert!(open("memory", "").await.is_ok());
    }
}
