//! What goes wrong inside the file, and how callers are told.

use std::path::PathBuf;

use redb::{CommitError, DatabaseError, SetDurabilityError, StorageError, TableError, TransactionError};
use stratus_seam::store::StoreError;

/// Why a state file could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error(
        "the state file {} is in use by another process: redb belongs to one process, layers in separate processes need Redis",
        .0.display()
    )]
    InUse(PathBuf),
    /// It is damaged, no state file at all, or of another version.
    #[error(
        "the state file {} cannot be read: {cause}. It holds nothing that the log and the lake do not hold: stop the process, delete the file, and its state is rebuilt by itself",
        .path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The operating system refused: permissions, a full disk, a missing folder.
    #[error("the state file {} cannot be opened: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The refusal.
        #[source]
        source: std::io::Error,
    },
}

/// A failure within a transaction, before it is known what was asked of whom.
#[derive(Debug)]
pub(super) enum Trouble {
    Redb(redb::Error),
    Damaged(String),
    TooLarge(String),
    /// Decided elsewhere already.
    Store(StoreError),
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

from_redb!(StorageError, TableError, TransactionError, CommitError, SetDurabilityError, DatabaseError);

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(format!("a record in it is not what was written: {error}"))
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What to do about a file whose contents are not what was written.
const REBUILT: &str =
    "stop the process and delete it, its state is rebuilt by itself from the log and the lake";

impl Trouble {
    /// As a caller is told. `what` says what was tried, where.
    pub(super) fn told(self, what: &str) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Damaged(cause) | Self::Redb(redb::Error::Corrupted(cause)) => damaged(what, &cause),
            Self::TooLarge(cause) => unavailable(what, cause),
            Self::Redb(error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed)) => {
                unavailable(what, Self::Redb(error).cause())
            }
            Self::Redb(error) => StoreError::Unavailable { what: what.into(), source: Box::new(error) },
        }
    }

    /// The cause alone, in words.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Store(error) => error.to_string(),
            Self::Redb(redb::Error::PreviousIo) => {
                "the state file is closed to writing after an earlier I/O error; free disk space or mend the disk, then restart the process".into()
            }
            Self::Redb(error) => error.to_string(),
            Self::Damaged(cause) | Self::TooLarge(cause) => cause.clone(),
        }
    }
}

pub(super) fn damaged(what: &str, cause: &str) -> StoreError {
    StoreError::Damaged(format!("{what}: the state file is damaged: {cause}; {REBUILT}"))
}

pub(super) fn unavailable(what: &str, cause: String) -> StoreError {
    StoreError::Unavailable { what: what.into(), source: cause.into() }
}

impl OpenError {
    pub(super) fn from_redb(path: PathBuf, error: DatabaseError) -> Self {
        use std::io::ErrorKind::{InvalidData, UnexpectedEof};
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse(path),
            DatabaseError::Storage(StorageError::Io(source))
                if !matches!(source.kind(), InvalidData | UnexpectedEof) =>
            {
                Self::Io { path, source }
            }
            other => Self::Unreadable { path, cause: other.to_string() },
        }
    }
}
