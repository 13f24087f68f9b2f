//! JSON records to Arrow, by the declared schema. Both layers decode with this codec, so a record is good in both
//! or bad in both; what a record says does not depend on which columns are wanted, nor on its neighbours.
//!
//! # Rules
//! A record is one JSON object (RFC 8259) in UTF-8, and nothing but white space around it. Everything else is a
//! bad record: broken JSON, half a document or two, another value than an object, broken UTF-8, more bytes than
//! the limit. Names are compared exactly, after escapes. Fields that are not declared are ignored: they must be
//! JSON, but their strings' surrogates, their numbers' sizes and their nesting are not looked at (the check needs
//! no stack, so no nesting is too deep for it). Of a name that occurs more than once the last value counts, and
//! every one must fit. A missing field is NULL, and so is `null`; a NOT NULL column makes it a bad record. A NOT
//! NULL field of a struct is only missed where the struct itself is there.
//!
//! | declared | JSON |
//! |---|---|
//! | BOOLEAN | `true`, `false` |
//! | SMALLINT, INT, BIGINT | a number whose value is an integer in range, however it is spelled (`3`, `3.0`, `3e0`); no strings |
//! | REAL, DOUBLE | a number, to the nearest value; too large, or too small to be told from 0, is out of range; no strings |
//! | NUMERIC(p, s) | a number, or a string spelled as JSON spells numbers (many producers can write exact decimals only so); more digits than the type has, other than trailing zeros, are never rounded away: the record is bad |
//! | TEXT | a string; a lone surrogate (`"\ud800"`) is bad |
//! | BYTEA | a string in base64 (RFC 4648, section 4, with padding) |
//! | DATE | a string `YYYY-MM-DD` |
//! | TIMESTAMP | a string in RFC 3339 *without* a zone (`T` or a space between date and time), or a number of the source's `timestamp_unit` since the epoch, also in a string |
//! | TIMESTAMPTZ | a string in RFC 3339 *with* a zone, or such a number |
//! | STRUCT | an object, by the same rules |
//! | type`[]` | an array; its items may be NULL |
//!
//! Timestamps lie in the years 0000 to 9999; digits finer than microseconds must be zeros; leap seconds are bad.
//!
//! # Why not arrow-json
//! Its decoder takes strings for numbers, cuts fractions off integers, and judges only the columns that it builds,
//! so verdicts would depend on the projection; one bad value fails its whole batch. Here `serde_json` reads each
//! record straight into columns that can take back a row. That is also faster: 4.0 million of the Yahoo benchmark's
//! events a second on one core, all seven columns, where arrow-json's decoder makes 1.45 (`examples/rates.rs`).

mod column;
mod fields;
mod number;
mod time;
mod value;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use serde::de::DeserializeSeed;
use stratus_seam::log::{Chunk, LogId};
use stratus_seam::offsets::{Offset, Partition};
use stratus_seam::schema::{self, Column, ColumnType};

use fields::{FieldSet, ObjectSeed};
pub use time::TimestampUnit;

use crate::DEFAULT_MAX_RECORD_BYTES;

/// How deep structs and lists may be nested in a declared schema.
const MAX_SCHEMA_DEPTH: usize = 32;
/// Longer reasons are cut: serde quotes the value that it did not expect, whatever its length.
const MAX_REASON_BYTES: usize = 500;

/// What a source's records are read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecOptions {
    /// What numbers in TIMESTAMP and TIMESTAMPTZ columns count.
    pub timestamp_unit: TimestampUnit,
    /// A record with more bytes is a bad one. Must be the limit that the source's log has too, since a log cuts
    /// longer payloads one byte above its limit.
    pub max_record_bytes: usize,
}

impl Default for CodecOptions {
    fn default() -> Self {
        Self { timestamp_unit: TimestampUnit::default(), max_record_bytes: DEFAULT_MAX_RECORD_BYTES }
    }
}

/// What can be wrong other than a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The declared schema or the projection cannot be decoded to.
    #[error("{0}")]
    Schema(String),
    /// A chunk has more bytes than one batch can hold; read it in smaller pieces.
    #[error(
        "partition {partition}: the chunk from offset {from} has {bytes} bytes; at most {most} can be decoded at once"
    )]
    ChunkTooLarge {
        /// The partition.
        partition: Partition,
        /// Where the chunk begins.
        from: Offset,
        /// Its size.
        bytes: usize,
        /// The largest size.
        most: usize,
    },
    /// A partition's number or a record's offset does not fit into its column.
    #[error(
        "partition {partition}, offset {offset}: too large for {}, {}",
        schema::PARTITION_COLUMN,
        schema::OFFSET_COLUMN
    )]
    Position {
        /// The partition.
        partition: Partition,
        /// The offset.
        offset: Offset,
    },
    /// Arrow refused the decoded columns.
    #[error("the decoded columns do not fit together: {0}")]
    Arrow(#[from] ArrowError),
}

/// A record that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Its own timestamp, in microseconds since the epoch.
    pub timestamp: Option<i64>,
    /// What is wrong, for a person.
    pub reason: String,
    /// The payload, whole, or the first `max_record_bytes` of it.
    pub raw: Bytes,
}

/// A decoded chunk: every record of it is in one of the two, once.
#[derive(Debug)]
pub struct Decoded {
    /// The good records, in order, with the schema of [`JsonCodec::schema`].
    pub events: RecordBatch,
    /// The bad ones, in order.
    pub bad: Vec<BadRecord>,
}

/// Decodes JSON records of one source. Keeps its buffers from chunk to chunk, so it wants to be used again.
#[derive(Debug)]
pub struct JsonCodec {
    fields: FieldSet,
    options: CodecOptions,
    all: SchemaRef,
    schema: SchemaRef,
}

impl JsonCodec {
    /// A codec that decodes all declared columns and the four of the log position.
    ///
    /// # Errors
    /// If a name is declared twice or is one of the log position's, if a NUMERIC has another precision than 1 to 38
    /// or a scale above it, if a struct has no fields, or if types are nested deeper than 32.
    pub fn new(columns: &[Column], options: CodecOptions) -> Result<Self, CodecError> {
        check_columns(columns, "the source", 0)?;
        for reserved in
            [schema::LOG_COLUMN, schema::PARTITION_COLUMN, schema::OFFSET_COLUMN, schema::TIMESTAMP_COLUMN]
        {
            if columns.iter().any(|column| column.name == reserved) {
                return Err(CodecError::Schema(format!(
                    "column {reserved} is the master dataset's own; declare it under another name"
                )));
            }
        }
        let all = schema::event_schema(columns);
        Ok(Self {
            fields: FieldSet::new(columns, options.timestamp_unit),
            options,
            schema: Arc::clone(&all),
            all,
        })
    }

    /// Decodes to the named columns only, declared ones and those of the log position. Verdicts stay the same: the
    /// other columns are still checked.
    ///
    /// # Errors
    /// If there is no column of a name.
    pub fn with_projection<S: AsRef<str>>(mut self, needed: &[S]) -> Result<Self, CodecError> {
        let needed: HashSet<&str> = needed.iter().map(AsRef::as_ref).collect();
        if let Some(unknown) = needed.iter().find(|name| self.all.field_with_name(name).is_err()) {
            return Err(CodecError::Schema(format!("there is no column {unknown} in the source")));
        }
        for column in &mut self.fields.columns {
            let kept = needed.contains(column.name.as_str());
            column.truncate(0);
            column.keep(kept);
        }
        let kept = self.all.fields().iter().filter(|field| needed.contains(field.name().as_str())).cloned();
        self.schema = Arc::new(Schema::new(kept.collect::<Vec<_>>()));
        Ok(self)
    }

    /// The schema of decoded events: `stratus_seam::schema::event_schema` of the declared columns, or those of its
    /// columns that the projection names, in the same order.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Decodes the records of a chunk.
    ///
    /// # Errors
    /// Never for a bad record. If the chunk has more than 2 GiB, or positions that no column can hold.
    pub fn decode(&mut self, log: &LogId, chunk: &Chunk) -> Result<Decoded, CodecError> {
        const MOST: usize = i32::MAX as usize;
        if chunk.bytes.len() > MOST {
            let (partition, from, bytes) = (chunk.partition, chunk.from, chunk.bytes.len());
            return Err(CodecError::ChunkTooLarge { partition, from, bytes, most: MOST });
        }
        self.fields.truncate(0);
        let mut positions = Positions::default();
        let mut bad = Vec::new();
        // Mostly all of it is UTF-8, and one check of the whole is cheaper than one for each record.
        let text = std::str::from_utf8(&chunk.bytes).ok();
        for (index, span) in chunk.records.iter().enumerate() {
            let payload = chunk.payload(index);
            let known = text.and_then(|text| text.get(span.start as usize..span.end as usize));
            match self.read(payload, known, positions.offsets.len()) {
                Ok(()) => positions.push(span.offset, span.timestamp, chunk.partition)?,
                Err(reason) => bad.push(BadRecord {
                    partition: chunk.partition,
                    offset: span.offset,
                    timestamp: span.timestamp,
                    reason,
                    // A copy: a slice would keep the whole chunk in memory.
                    raw: Bytes::copy_from_slice(&payload[..payload.len().min(self.options.max_record_bytes)]),
                }),
            }
        }
        let events = self.batch(log, chunk.partition, positions)?;
        Ok(Decoded { events, bad })
    }

    /// Whether a record is a good one, and if not, why.
    ///
    /// # Errors
    /// The reason that the record's dead letter would have.
    pub fn check(&mut self, payload: &[u8]) -> Result<(), String> {
        self.fields.truncate(0);
        let verdict = self.read(payload, None, 0);
        self.fields.truncate(0);
        verdict
    }

    /// Reads a payload as row number `row`, or leaves the columns as they were.
    fn read(&mut self, payload: &[u8], known: Option<&str>, row: usize) -> Result<(), String> {
        let most = self.options.max_record_bytes;
        if payload.len() > most {
            return Err(format!("the record is longer than {most} bytes; its first {most} are kept"));
        }
        let text = match known {
            Some(text) => text,
            None => std::str::from_utf8(payload).map_err(|error| format!("not UTF-8: {error}"))?,
        };
        let mut json = serde_json::Deserializer::from_str(text);
        let read =
            ObjectSeed { fields: &mut self.fields, row }.deserialize(&mut json).and_then(|()| json.end());
        read.map_err(|error| {
            self.fields.truncate(row);
            reason(text, &error)
        })
    }

    fn batch(
        &mut self,
        log: &LogId,
        partition: Partition,
        positions: Positions,
    ) -> Result<RecordBatch, CodecError> {
        let rows = positions.offsets.len();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for column in &mut self.fields.columns {
            if column.kept {
                arrays.push(column.take()?);
            }
        }
        self.fields.truncate(0);
        let has = |name| self.schema.column_with_name(name).is_some();
        if has(schema::LOG_COLUMN) {
            arrays.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&log.0, rows))));
        }
        if has(schema::PARTITION_COLUMN) {
            arrays.push(Arc::new(Int32Array::from_value(partition as i32, rows)));
        }
        if has(schema::OFFSET_COLUMN) {
            arrays.push(Arc::new(Int64Array::from(positions.offsets)));
        }
        if has(schema::TIMESTAMP_COLUMN) {
            let timestamps = TimestampMicrosecondArray::from(positions.timestamps);
            arrays.push(Arc::new(timestamps.with_timezone("UTC")));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?)
    }
}

/// Where the good records stand in the log.
#[derive(Default)]
struct Positions {
    offsets: Vec<i64>,
    timestamps: Vec<Option<i64>>,
}

impl Positions {
    fn push(
        &mut self,
        offset: Offset,
        timestamp: Option<i64>,
        partition: Partition,
    ) -> Result<(), CodecError> {
        let (Ok(signed), Ok(_)) = (i64::try_from(offset), i32::try_from(partition)) else {
            return Err(CodecError::Position { partition, offset });
        };
        self.offsets.push(signed);
        self.timestamps.push(timestamp);
        Ok(())
    }
}

/// A reason as dead letters show it.
fn reason(text: &str, error: &serde_json::Error) -> String {
    if text.starts_with('\u{feff}') {
        return "the record begins with a byte order mark".to_owned();
    }
    let mut told = error.to_string();
    if told.len() > MAX_REASON_BYTES {
        let cut = told.floor_char_boundary(MAX_REASON_BYTES);
        told.truncate(cut);
        told.push_str(" ...");
    }
    told
}

fn check_columns(columns: &[Column], owner: &str, depth: usize) -> Result<(), CodecError> {
    let mut names = HashSet::new();
    for column in columns {
        if !names.insert(column.name.as_str()) {
            return Err(CodecError::Schema(format!("{owner} declares column {} twice", column.name)));
        }
        check_type(&column.kind, &column.name, depth)?;
    }
    Ok(())
}

fn check_type(kind: &ColumnType, name: &str, depth: usize) -> Result<(), CodecError> {
    if depth > MAX_SCHEMA_DEPTH {
        return Err(CodecError::Schema(format!(
            "column {name}: types are nested deeper than {MAX_SCHEMA_DEPTH}"
        )));
    }
    match kind {
        ColumnType::Numeric(precision, scale) => {
            let (p, s) = (i16::from(*precision), i16::from(*scale));
            if !(1..=38).contains(&p) || s > p || s < -38 {
                return Err(CodecError::Schema(format!(
                    "column {name}: {kind} needs a precision of 1 to 38 and a scale of -38 up to the precision"
                )));
            }
            Ok(())
        }
        ColumnType::Struct(columns) if columns.is_empty() => {
            Err(CodecError::Schema(format!("column {name}: a struct needs at least one field")))
        }
        ColumnType::Struct(columns) => check_columns(columns, &format!("column {name}"), depth + 1),
        ColumnType::List(item) => check_type(item, name, depth + 1),
        _ => Ok(()),
    }
}
