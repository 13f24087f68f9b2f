//! Opening a store by its kind, as the configuration names it.

use std::sync::Arc;

use stratus_seam::store::StateStore;

use crate::memory::MemoryStore;
use crate::redb::{self, RedbStore};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration names a kind that does not exist.
    #[error(
        "there is no state store of kind '{0}': use 'redb' with the path of a file, or 'memory' for a trial without restarts"
    )]
    UnknownKind(String),
    /// A redb store without a path.
    #[error("the state store 'redb' needs the path of its file")]
    NoPath,
    /// The file could not be opened.
    #[error(transparent)]
    Redb(#[from] redb::OpenError),
    /// The process is shutting down.
    #[error("the state store was not opened: the process is shutting down")]
    Stopping,
}

/// Opens the store of a kind: `memory`, which ignores `location`, or `redb`, where it is the path of the file.
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
