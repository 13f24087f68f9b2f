//! Why the lake could not do what it was asked.

use std::error::Error;

use stratus_seam::offsets::OffsetVector;

/// Why the lake could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// The object store, or a library over it, failed. A write may have happened.
    #[error("{what}: {source}")]
    Unavailable {
        /// What was tried, and on what.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something in the lake is not as this crate writes it.
    #[error("{path}: {what}")]
    Damaged {
        /// Its path in the lake.
        path: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Another writer has taken the table version that this one wanted. Two processes ingest one source, or a
    /// maintenance tool ran: this writer knows no longer what the table has absorbed, and must stop.
    #[error(
        "another ingester has written {table}: version {version} is not ours. Only one process may ingest a \
         source; stop the other one, or this one"
    )]
    Superseded {
        /// The table.
        table: String,
        /// The table version.
        version: u64,
    },
    /// The batch does not begin where the table ends.
    #[error("{table} has absorbed {absorbed}, so a batch from {from} on would leave out or repeat events")]
    OutOfStep {
        /// The table.
        table: String,
        /// What it has absorbed.
        absorbed: OffsetVector,
        /// Where the batch begins.
        from: OffsetVector,
    },
    /// The caller asked for something that has no meaning.
    #[error("{0}")]
    Invalid(String),
    /// A file that was to be copied cannot be used.
    #[error("{file}: {what}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A line of a file that was to be copied cannot be used.
    #[error("{file}:{line}: {what}")]
    Line {
        /// The file.
        file: String,
        /// The line at which the row begins, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl LakeError {
    /// What a SQL client is told: five characters, as PostgreSQL's appendix A lists them.
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::File { .. } | Self::Line { .. } => "22P04",
            Self::Invalid(_) => "22023",
            Self::Damaged { .. } => "XX001",
            Self::Unavailable { .. } | Self::Superseded { .. } | Self::OutOfStep { .. } => "58030",
        }
    }

    /// An [`Unavailable`](Self::Unavailable) for a `map_err`.
    pub(crate) fn unavailable<E>(what: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let what = what.into();
        move |source| Self::Unavailable { what, source: source.into() }
    }
}
