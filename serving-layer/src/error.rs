//! Errors of the engine, as a SQL client sees them.

use datafusion::error::DataFusionError;
use stratus_lake::LakeError;
use stratus_seam::catalog_log::CatalogError;
use stratus_seam::encoding::EncodingError;
use stratus_seam::reading::{NotYet, Stale};
use stratus_seam::store::StoreError;
use stratus_sql::SqlError;

/// Why a view could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// Nothing to answer from yet.
    #[error("view \"{view}\" cannot be read yet: {why}")]
    NotYet { view: String, why: NotYet },
    /// What was read has moved on: start over.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The source has no speed state at all. It was lost if the view has had a version, and then is rebuilt.
    #[error("view \"{view}\" cannot be read yet: the speed layer of its source has not begun")]
    NotBegun { view: String, lost: bool },
    /// The state store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored state cannot be read.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
}

impl ReadError {
    /// Whether the same read may succeed shortly.
    pub(crate) const fn passes(&self) -> bool {
        match self {
            Self::NotYet { why, .. } => matches!(why, NotYet::CatchingUp { .. }),
            Self::Stale(_) => true,
            Self::NotBegun { lost, .. } => *lost,
            // A store that is away comes back, and one that lost something is replaced by a new generation.
            Self::Store(_) => true,
            Self::Encoding(_) => false,
        }
    }

    /// A stale read that a query's planning ran into.
    pub(crate) fn within(error: &DataFusionError) -> Option<&Self> {
        let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = at {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            if let Some(DataFusionError::External(inner)) = error.downcast_ref::<DataFusionError>()
                && let Some(found) = inner.downcast_ref::<Self>()
            {
                return Some(found);
            }
            at = error.source();
        }
        None
    }
}

impl From<&ReadError> for SqlError {
    fn from(error: &ReadError) -> Self {
        let message = error.to_string();
        match error {
            ReadError::NotYet { why: NotYet::NoVersion | NotYet::NotTakenUp | NotYet::NoChain, .. }
            | ReadError::NotBegun { lost: false, .. } => Self::new("55000", message)
                .hint("its first run follows by itself; SELECT * FROM stratus.views and stratus.lag show the progress"),
            ReadError::Store(StoreError::Unavailable { .. }) => Self::new("57P03", message)
                .hint("the state store could not be reached for a while; `stratus doctor` looks into it"),
            ReadError::NotYet { .. } | ReadError::NotBegun { .. } => Self::new("57P03", message)
                .hint("SELECT * FROM stratus.lag shows the progress; SET stratus.allow_stale = on allows an older answer meanwhile"),
            ReadError::Stale(_) => Self::new("72000", format!("the answer could not be read in time: {message}")),
            ReadError::Store(_) => Self::new("58030", message),
            ReadError::Encoding(_) => Self::new("XX001", message),
        }
    }
}

/// The catalog's errors.
pub fn catalog_error(error: &CatalogError) -> SqlError {
    SqlError::new(error.sqlstate(), error.to_string())
}

/// The lake's errors.
pub fn lake_error(error: &LakeError) -> SqlError {
    SqlError::new(error.sqlstate(), error.to_string())
}
