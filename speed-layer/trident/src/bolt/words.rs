//! What the coordinator and the tasks of a batch tell one another.

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use std::sync::Arc;
use stratus_topology::{TaskError, fields};

/// The stream that counts travel by.
pub(crate) const COORD: &str = "$coord";
/// The coordinator's stream of batches to emit.
pub(crate) const BATCH: &str = "$batch";
/// The coordinator's stream of batches to commit.
pub(crate) const COMMIT: &str = "$commit";

pub(crate) fn coord_schema() -> SchemaRef {
    fields([("count", DataType::Int64)])
}

pub(crate) fn batch_schema() -> SchemaRef {
    fields([("spout", DataType::Utf8), ("metadata", DataType::Utf8), ("committed", DataType::Int64)])
}

pub(crate) fn commit_schema() -> SchemaRef {
    fields([("committed", DataType::Int64), ("digest", DataType::Int64)])
}

/// A batch to emit, for every spout of its group.
pub(crate) fn batch_rows(spouts: &[(String, String)], committed: u64) -> Result<RecordBatch, TaskError> {
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(spouts.iter().map(|(name, _)| name)));
    let metadata: ArrayRef =
        Arc::new(StringArray::from_iter_values(spouts.iter().map(|(_, metadata)| metadata)));
    let committed: ArrayRef = Arc::new(Int64Array::from(vec![committed as i64; spouts.len()]));
    Ok(RecordBatch::try_new(batch_schema(), vec![names, metadata, committed])?)
}

/// A batch to commit, with the digest of what is written down of it, if it is known.
pub(crate) fn commit_row(committed: u64, digest: Option<u64>) -> Result<RecordBatch, TaskError> {
    let committed: ArrayRef = Arc::new(Int64Array::from(vec![committed as i64]));
    let digest: ArrayRef = Arc::new(Int64Array::from(vec![digest.map(u64::cast_signed)]));
    Ok(RecordBatch::try_new(commit_schema(), vec![committed, digest])?)
}
