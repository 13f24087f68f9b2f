//! What goes wrong inside the file, and how callers are told; and the threads that may wait for the disk.

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

use crate::MapError;

/// A failure, before it is known what was asked.
#[derive(Debug)]
pub(super) enum Trouble {
    Redb(redb::Error),
    Damaged(String),
    /// Decided already.
    Told(MapError),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Trouble {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
            }
        }
    )*};
}

from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError);

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Redb(redb::Error::Io(error))
    }
}

impl From<MapError> for Trouble {
    fn from(error: MapError) -> Self {
        Self::Told(error)
    }
}

const RESTORE: &str = "restore the file, or delete it and the spout's ledger and count again";

impl Trouble {
    fn told(self, what: &str) -> MapError {
        let what = what.to_owned();
        let error = match self {
            Self::Told(error) => return error,
            Self::Damaged(cause) => return MapError::Damaged { what, cause: format!("{cause}; {RESTORE}") },
            Self::Redb(error) => error,
        };
        let cause = match error {
            redb::Error::DatabaseAlreadyOpen => {
                "it is in use: a redb file belongs to one process, states that several share need Redis".into()
            }
            redb::Error::PreviousIo => {
                "the file is closed to writing after an earlier I/O error; free disk space or mend the disk, then restart the process".into()
            }
            redb::Error::Io(error) if error.kind() != std::io::ErrorKind::InvalidData => error.to_string(),
            redb::Error::TableDoesNotExist(_) => return MapError::Cleared { what },
            other => return Self::Damaged(other.to_string()).told(&what),
        };
        MapError::Unavailable { what, cause }
    }
}

/// Does what may wait for the disk on a thread of its own. It is done to its end, also if nobody waits for it any more.
pub(super) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, MapError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|trouble| trouble.told(what)),
        Err(gone) if gone.is_panic() => Err(Trouble::Damaged(panicked(gone)).told(what)),
        Err(_) => {
            let cause = "the process is shutting down".to_owned();
            Err(MapError::Unavailable { what: what.to_owned(), cause })
        }
    }
}

/// What a panic of the storage engine said. It panics on pages that no crash leaves behind.
fn panicked(gone: tokio::task::JoinError) -> String {
    let panic = gone.into_panic();
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}
