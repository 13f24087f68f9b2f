//! Why a recompute did not publish.

use stratus_lake::LakeError;
use stratus_seam::catalog_log::CatalogError;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::store::StoreError;
use stratus_sql::SqlError;

/// Why a recompute did not publish. Nothing is left behind but files that no version lists.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// There is no such view.
    #[error("materialized view \"{0}\" does not exist")]
    NoSuchView(String),
    /// The speed layer did not answer the request for a cut.
    #[error(
        "no cut of view \"{view}\" within {seconds} s: the speed layer of source \"{source_name}\" does not answer. Is it running? See stratus.lag and the log"
    )]
    NoCut {
        /// The view.
        view: String,
        /// Its source.
        source_name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The master dataset did not absorb the cut.
    #[error(
        "the master dataset of source \"{source_name}\" has not absorbed the cut {cut} within {seconds} s. Is its ingest running? See stratus.lag and the log"
    )]
    NotAbsorbed {
        /// The source.
        source_name: String,
        /// The cut.
        cut: OffsetVector,
        /// How long was waited.
        seconds: u64,
    },
    /// The view's definition, or its computation.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The catalog, or a version that no longer fits it.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The state store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The computation ended without an answer.
    #[error("the recompute of view \"{0}\" was ended")]
    Ended(String),
}

/// As a SQL client sees it.
impl From<&BatchError> for SqlError {
    fn from(error: &BatchError) -> Self {
        let sqlstate = match error {
            BatchError::Sql(error) => return error.clone(),
            BatchError::NoSuchView(_) => "42P01",
            BatchError::NoCut { .. } | BatchError::NotAbsorbed { .. } => "57P03",
            BatchError::Catalog(error) => error.sqlstate(),
            BatchError::Lake(error) => error.sqlstate(),
            BatchError::Store(_) | BatchError::Ended(_) => "58030",
        };
        Self::new(sqlstate, error.to_string())
    }
}

impl From<BatchError> for SqlError {
    fn from(error: BatchError) -> Self {
        Self::from(&error)
    }
}
