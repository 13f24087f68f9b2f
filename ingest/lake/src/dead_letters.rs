//! Records that could not be decoded, as rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use stratus_seam::log::LogId;
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use stratus_seam::schema::{ColumnType, LOG_COLUMN, OFFSET_COLUMN, PARTITION_COLUMN, TIMESTAMP_COLUMN};

use crate::LakeError;

/// A record that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: Offset,
    /// The record's own timestamp in microseconds since the epoch, if it has one.
    pub timestamp: Option<i64>,
    /// Why it could not be decoded.
    pub reason: String,
    /// The record as it stands in the log.
    pub raw: Bytes,
}

/// The schema of a source's dead letters: where the record stands, why it was refused, and its bytes.
pub fn dead_letter_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(LOG_COLUMN, DataType::Utf8, false),
        Field::new(PARTITION_COLUMN, DataType::Int32, false),
        Field::new(OFFSET_COLUMN, DataType::Int64, false),
        Field::new(TIMESTAMP_COLUMN, ColumnType::TimestampTz.arrow(), true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("raw", DataType::Binary, false),
    ]))
}

/// The letters that a table which has absorbed `written` does not have yet.
///
/// After a crash between the commit of the dead letters and that of their events, the events are replayed, perhaps
/// in batches that end elsewhere. Every bad record below `written` is in the table, whichever batch brought it.
pub(crate) fn not_yet_written(letters: &[DeadLetter], written: &OffsetVector) -> Vec<DeadLetter> {
    letters.iter().filter(|letter| letter.offset >= written.get(letter.partition)).cloned().collect()
}

/// The letters as a batch.
pub(crate) fn to_batch(letters: &[DeadLetter], log: &LogId) -> Result<RecordBatch, LakeError> {
    let beyond = |letter: &DeadLetter| {
        LakeError::Invalid(format!(
            "partition {}, offset {} is beyond what the lake can hold",
            letter.partition, letter.offset
        ))
    };
    let partitions: Vec<i32> = letters
        .iter()
        .map(|letter| i32::try_from(letter.partition).map_err(|_| beyond(letter)))
        .collect::<Result<_, _>>()?;
    let offsets: Vec<i64> = letters
        .iter()
        .map(|letter| i64::try_from(letter.offset).map_err(|_| beyond(letter)))
        .collect::<Result<_, _>>()?;
    let timestamps: TimestampMicrosecondArray = letters.iter().map(|letter| letter.timestamp).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(letters.iter().map(|_| &log.0))),
        Arc::new(Int32Array::from(partitions)),
        Arc::new(Int64Array::from(offsets)),
        Arc::new(timestamps.with_timezone("UTC")),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| &letter.reason))),
        Arc::new(BinaryArray::from_iter_values(letters.iter().map(|letter| &letter.raw))),
    ];
    RecordBatch::try_new(dead_letter_schema(), columns)
        .map_err(LakeError::unavailable("could not make a batch of dead letters"))
}
