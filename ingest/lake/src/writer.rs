//! Batches of a source's rows, checked against the offsets they claim, as Parquet files with what Delta notes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use deltalake::kernel::Add;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, LogicalType, Type, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde_json::json;
use stratus_seam::catalog_log::now_ms;
use stratus_seam::log::LogId;
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use stratus_seam::schema::{LOG_COLUMN, OFFSET_COLUMN, PARTITION_COLUMN};

use crate::LakeError;
use crate::span::Span;

/// A partition with at least so many rows in a commit gets a file of its own, so that its offsets tell exactly
/// whether a reader needs it; fewer rows share one, because many small files are dear to read.
const OWN_FILE_ROWS: usize = 65_536;

/// How all Parquet files of the lake are written.
///
/// Columns of floats get no statistics. Parquet leaves NaN out of them, while for a query NaN is a value, the greatest
/// one: a reader that prunes by them misses the NaN group of `x = 'NaN'` and of `x > 5`.
pub(crate) fn properties(schema: &Schema) -> Result<WriterProperties, LakeError> {
    let leaves = ArrowSchemaConverter::new()
        .convert(schema)
        .map_err(LakeError::unavailable("could not write the columns as Parquet"))?;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(131_072))
        .set_created_by("stratus".into());
    for leaf in leaves.columns() {
        let is_half = leaf.logical_type_ref() == Some(&LogicalType::Float16);
        if is_half || matches!(leaf.physical_type(), Type::FLOAT | Type::DOUBLE) {
            let none = EnabledStatistics::None;
            properties = properties.set_column_statistics_enabled(leaf.path().clone(), none);
        }
    }
    Ok(properties.build())
}

/// Rows of one file.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    batches: Vec<RecordBatch>,
    ranges: BTreeMap<Partition, (Offset, Offset)>,
    rows: usize,
}

impl Rows {
    fn push(&mut self, batch: RecordBatch, partition: Partition, low: Offset, high: Offset) {
        self.rows += batch.num_rows();
        self.batches.push(batch);
        let range = self.ranges.entry(partition).or_insert((low, high));
        *range = (range.0.min(low), range.1.max(high));
    }

    fn append(&mut self, other: Self) {
        self.rows += other.rows;
        self.batches.extend(other.batches);
        self.ranges.extend(other.ranges);
    }
}

/// Sorts checked rows into files.
///
/// # Errors
/// [`LakeError::Invalid`] if a batch has another schema, or a row is of another log, outside [from, to), or not
/// behind the row before it in its partition: such rows would be read twice or never.
pub(crate) fn arrange(
    batches: Vec<RecordBatch>,
    schema: &SchemaRef,
    log: &LogId,
    from: &OffsetVector,
    to: &OffsetVector,
) -> Result<Vec<Rows>, LakeError> {
    let mut partitions: BTreeMap<Partition, Rows> = BTreeMap::new();
    for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
        let batch = with_schema(&batch, schema)?;
        for run in runs(&batch, log)? {
            let rows = partitions.entry(run.partition).or_default();
            let previous = rows.ranges.get(&run.partition).map(|range| range.1);
            let (low, high) = run.check(previous, from, to)?;
            rows.push(batch.slice(run.start, run.offsets.len()), run.partition, low, high);
        }
    }
    let (mut files, mut shared) = (Vec::new(), Rows::default());
    for rows in partitions.into_values() {
        if rows.rows >= OWN_FILE_ROWS {
            files.push(rows);
        } else {
            shared.append(rows);
        }
    }
    if shared.rows > 0 {
        files.push(shared);
    }
    Ok(files)
}

/// The batch with exactly this schema; fields may differ in nullability and metadata only.
pub(crate) fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, LakeError> {
    let named = |schema: &SchemaRef| -> Vec<String> {
        schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect()
    };
    if named(&batch.schema()) != named(schema) {
        return Err(LakeError::Invalid(format!(
            "a batch has the columns {}, not {}",
            named(&batch.schema()).join(", "),
            named(schema).join(", ")
        )));
    }
    RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec())
        .map_err(|error| LakeError::Invalid(format!("a batch does not fit its schema: {error}")))
}

/// Consecutive rows of one partition.
struct Run<'a> {
    partition: Partition,
    start: usize,
    offsets: &'a [i64],
}

impl Run<'_> {
    fn check(
        &self,
        mut previous: Option<Offset>,
        from: &OffsetVector,
        to: &OffsetVector,
    ) -> Result<(Offset, Offset), LakeError> {
        let (from, to) = (from.get(self.partition), to.get(self.partition));
        let partition = self.partition;
        let mut low = None;
        for offset in self.offsets {
            let offset = Offset::try_from(*offset)
                .ok()
                .filter(|offset| from <= *offset && *offset < to)
                .ok_or_else(|| {
                    LakeError::Invalid(format!(
                        "partition {partition}: offset {offset} is not in the batch's range [{from}, {to})"
                    ))
                })?;
            if let Some(previous) = previous.filter(|previous| *previous >= offset) {
                return Err(LakeError::Invalid(format!(
                    "partition {partition}: offset {offset} comes after {previous}; a partition's offsets must go up"
                )));
            }
            previous = Some(offset);
            low = low.or(previous);
        }
        low.zip(previous).ok_or_else(|| LakeError::Invalid("a run has no rows".into()))
    }
}

/// Cuts a batch where its partition changes.
fn runs<'a>(batch: &'a RecordBatch, log: &LogId) -> Result<Vec<Run<'a>>, LakeError> {
    let missing = |name: &str| LakeError::Invalid(format!("a batch has no column {name} without NULLs"));
    let column = |name: &str| {
        batch.column_by_name(name).filter(|column| column.null_count() == 0).ok_or_else(|| missing(name))
    };
    let logs = column(LOG_COLUMN)?.as_string_opt::<i32>().ok_or_else(|| missing(LOG_COLUMN))?;
    if let Some(other) = logs.iter().flatten().find(|other| *other != log.0) {
        return Err(LakeError::Invalid(format!("a row is of the log {other}, but the table is of {log}")));
    }
    let partitions = column(PARTITION_COLUMN)?
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(|| missing(PARTITION_COLUMN))?
        .values();
    let mut rest: &[i64] = column(OFFSET_COLUMN)?
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(|| missing(OFFSET_COLUMN))?
        .values();
    let (mut runs, mut start) = (Vec::new(), 0);
    for run in partitions.chunk_by(|a, b| a == b) {
        let number = run.first().copied().unwrap_or(-1);
        let partition = Partition::try_from(number)
            .map_err(|_| LakeError::Invalid(format!("a row is of partition {number}")))?;
        let (offsets, behind) = rest.split_at(run.len());
        runs.push(Run { partition, start, offsets });
        rest = behind;
        start += run.len();
    }
    Ok(runs)
}

/// The rows as the bytes of a Parquet file. Computes for a while: not for a thread that others wait on.
pub(crate) fn encode(rows: &Rows, schema: &SchemaRef) -> Result<Bytes, LakeError> {
    to_parquet(&rows.batches, schema)
}

/// Batches of this very schema as the bytes of a Parquet file.
pub(crate) fn to_parquet(batches: &[RecordBatch], schema: &SchemaRef) -> Result<Bytes, LakeError> {
    let properties = properties(schema)?;
    let write = || -> parquet::errors::Result<Vec<u8>> {
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.into_inner()
    };
    write().map(Bytes::from).map_err(LakeError::unavailable("could not write rows as Parquet"))
}

/// What Delta notes of a file.
pub(crate) fn add(path: String, bytes: usize, rows: &Rows) -> Add {
    let stats = Span::around(&rows.ranges).map(|span| {
        json!({
            "numRecords": rows.rows,
            "minValues": { PARTITION_COLUMN: span.partitions.0, OFFSET_COLUMN: span.offsets.0 },
            "maxValues": { PARTITION_COLUMN: span.partitions.1, OFFSET_COLUMN: span.offsets.1 },
            "nullCount": { PARTITION_COLUMN: 0, OFFSET_COLUMN: 0 },
        })
        .to_string()
    });
    Add {
        path,
        size: i64::try_from(bytes).unwrap_or(i64::MAX),
        partition_values: Default::default(),
        modification_time: i64::try_from(now_ms()).unwrap_or(i64::MAX),
        data_change: true,
        stats,
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}
