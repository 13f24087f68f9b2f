//! The master dataset read as a log: for what a source's log no longer holds.
//!
//! Every record that ingest has absorbed is in one of two tables, at its own offset: the good ones as events, the
//! bad ones as dead letters. Both, merged by offset, are the records that the log delivered then, as many of them
//! and with the same verdicts: an event is written as JSON that decodes to the very same row ([`crate::row_json`]),
//! and a dead letter as bytes that no codec takes for a record.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::logical_expr::ident;
use datafusion::prelude::{SessionConfig, SessionContext};
use stratus_seam::catalog::Source;
use stratus_seam::log::{Chunk, Log, LogError, LogId, RecordSpan};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use stratus_seam::schema::{Column, OFFSET_COLUMN, TIMESTAMP_COLUMN};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::files::FileTable;
use crate::master::{MasterDataset, TableFiles};
use crate::row_json::RowWriter;
use crate::span::{Place, Span, Window};
use crate::{Lake, LakeError};

/// Between two looks at a table whose reader waits for more.
const POLL: Duration = Duration::from_millis(100);
/// How many rows are decoded ahead of a reader at most: one read of a file is good for many chunks.
const AHEAD_ROWS: u64 = 16_384;
/// About how many bytes they may have, guessed from the size of their file.
const AHEAD_BYTES: u64 = 16 << 20;
/// How much larger a row is as JSON than compressed in its file, at a guess.
const JSON_PER_PARQUET: u64 = 6;
/// What makes a dead letter bad whatever reads it: no UTF-8 text holds this byte. Its bytes alone would not do. Those
/// of a record that was too long are cut, and could be a whole document.
const NEVER_TEXT: u8 = 0xff;

/// A source's master dataset as a [`Log`]. It ends where the dataset stands, and forgets nothing.
#[derive(Debug)]
pub struct MasterLog {
    lake: Lake,
    what: String,
    id: LogId,
    columns: Vec<Column>,
    max_record_bytes: usize,
    dataset: MasterDataset,
    ahead: Mutex<BTreeMap<Partition, Ahead>>,
}

/// Records of one partition that were read and not yet delivered: the first ones from `from` on.
#[derive(Debug)]
struct Ahead {
    from: Offset,
    records: VecDeque<Record>,
}

#[derive(Debug)]
struct Record {
    offset: Offset,
    timestamp: Option<i64>,
    payload: Bytes,
}

impl MasterLog {
    /// The master dataset of a source. `max_record_bytes` is the limit of the codec that reads the records: one that
    /// was shorter when it came in may be longer as it is written here.
    ///
    /// # Errors
    /// As [`MasterDataset::open`].
    pub async fn open(lake: &Lake, source: &Source, max_record_bytes: usize) -> Result<Self, LakeError> {
        Ok(Self {
            lake: lake.clone(),
            what: format!("the master dataset of source \"{}\"", source.name),
            id: source.log.clone(),
            columns: source.columns.clone(),
            max_record_bytes,
            dataset: MasterDataset::open(lake, source).await?,
            ahead: Mutex::default(),
        })
    }

    fn failed(&self, partition: Partition, from: Offset) -> impl FnOnce(LakeError) -> LogError {
        let what = format!("could not read {}, partition {partition}, from offset {from}", self.what);
        move |error| LogError::Unavailable { what, source: error.into() }
    }

    /// Reads some records from `from` on; none only if there are none below what the dataset has absorbed.
    async fn load(&self, partition: Partition, from: Offset) -> Result<Ahead, LakeError> {
        // The events first: every bad record below what they have absorbed is then among the dead letters.
        let (absorbed, events) = self.dataset.event_files().await?;
        let letters = self.dataset.dead_letter_files().await?;
        let end = absorbed.get(partition);
        let mut at = from;
        while at < end {
            // Up to the end of the file that ends first, so that few files are read at once.
            let to = events.first_end(partition, at).unwrap_or(end).min(end);
            let limit = events.rows_of(AHEAD_BYTES).clamp(1, AHEAD_ROWS);
            let (mut records, to) = self.rows(&events, partition, (at, to), limit).await?;
            let (bad, to) = self.rows(&letters, partition, (at, to), AHEAD_ROWS / 16).await?;
            records.retain(|record| record.offset < to);
            records.extend(bad);
            if !records.is_empty() {
                records.sort_by_key(|record| record.offset);
                return Ok(Ahead { from, records: records.into() });
            }
            at = to;
        }
        Ok(Ahead { from, records: VecDeque::new() })
    }

    /// The first rows of a table in a range of one partition, up to `limit` of them, and up to where these are all.
    async fn rows(
        &self,
        table: &TableFiles,
        partition: Partition,
        (from, to): (Offset, Offset),
        limit: u64,
    ) -> Result<(Vec<Record>, Offset), LakeError> {
        let window = Window { from: [(partition, from)].into(), cut: [(partition, to)].into() };
        let files = FileTable {
            lake: self.lake.clone(),
            schema: table.schema(),
            whole: Vec::new(),
            across: table.placed(&window, |place| place != Place::Outside),
            condition: Some(window.condition()),
        };
        if files.across.is_empty() {
            return Ok((Vec::new(), to));
        }
        let rows = usize::try_from(limit).unwrap_or(usize::MAX);
        let collect = async {
            let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
            let frame = context.read_table(std::sync::Arc::new(files))?;
            let sorted = frame.sort(vec![ident(OFFSET_COLUMN).sort(true, false)])?;
            sorted.limit(0, Some(rows))?.collect().await
        };
        let batches = collect
            .await
            .map_err(LakeError::unavailable(format!("could not read {from}..{to} of {}", self.what)))?;
        let mut records = Vec::new();
        for batch in &batches {
            match table.is_dead_letters() {
                true => self.letters(batch, &mut records)?,
                false => self.events(batch, &mut records)?,
            }
        }
        let complete = match records.last() {
            Some(last) if records.len() as u64 >= limit => last.offset + 1,
            _ => to,
        };
        Ok((records, complete))
    }

    fn events(&self, batch: &RecordBatch, records: &mut Vec<Record>) -> Result<(), LakeError> {
        let writer = RowWriter::new(&self.columns, batch)?;
        for (row, position) in positions(batch)?.enumerate() {
            let (offset, timestamp) = position?;
            let payload = writer.row(row)?;
            if payload.len() > self.max_record_bytes {
                return Err(LakeError::Invalid(format!(
                    "the event at offset {offset} has {} bytes as it is written for the codec, more than its limit of {} bytes; raise max_record_bytes",
                    payload.len(),
                    self.max_record_bytes
                )));
            }
            records.push(Record { offset, timestamp, payload: payload.into() });
        }
        Ok(())
    }

    fn letters(&self, batch: &RecordBatch, records: &mut Vec<Record>) -> Result<(), LakeError> {
        let raw = batch.column_by_name("raw").and_then(|column| column.as_binary_opt::<i32>());
        let raw = raw.ok_or_else(|| damaged("raw"))?;
        for ((offset, timestamp), raw) in
            positions(batch)?.collect::<Result<Vec<_>, _>>()?.into_iter().zip(raw)
        {
            let payload = raw.unwrap_or_default().iter().copied().chain([NEVER_TEXT]).collect();
            records.push(Record { offset, timestamp, payload });
        }
        Ok(())
    }
}

fn damaged(column: &str) -> LakeError {
    LakeError::Invalid(format!("rows without a column {column} cannot be read as records"))
}

/// The offset and timestamp of each row.
fn positions(
    batch: &RecordBatch,
) -> Result<impl Iterator<Item = Result<(Offset, Option<i64>), LakeError>> + '_, LakeError> {
    let offsets = batch.column_by_name(OFFSET_COLUMN).and_then(|c| c.as_primitive_opt::<Int64Type>());
    let stamps =
        batch.column_by_name(TIMESTAMP_COLUMN).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    let offsets = offsets.ok_or_else(|| damaged(OFFSET_COLUMN))?;
    let stamps = stamps.ok_or_else(|| damaged(TIMESTAMP_COLUMN))?;
    Ok(offsets.values().iter().enumerate().map(|(row, offset)| {
        let offset = Offset::try_from(*offset).map_err(|_| damaged(OFFSET_COLUMN))?;
        Ok((offset, stamps.is_valid(row).then(|| stamps.value(row))))
    }))
}

impl TableFiles {
    /// Where the first file ends that may hold rows of a partition at or above `from`; none if there is no such file,
    /// or one of which nothing is known.
    fn first_end(&self, partition: Partition, from: Offset) -> Option<Offset> {
        let mut first: Option<Offset> = None;
        for span in self.spans() {
            let Span { partitions: (low, high), offsets: (_, last) } = span?;
            if low <= partition && partition <= high && last >= from {
                let end = last.saturating_add(1);
                first = Some(first.map_or(end, |first| first.min(end)));
            }
        }
        first
    }

    /// About how many rows have so many bytes as JSON.
    fn rows_of(&self, bytes: u64) -> u64 {
        let (rows, held) = self.size();
        let each = held.saturating_mul(JSON_PER_PARQUET) / rows.max(1);
        bytes / each.max(1)
    }
}

impl Ahead {
    /// Takes the records below `until`, about `max_bytes` of them, and at least one.
    fn chunk(&mut self, partition: Partition, until: Option<Offset>, max_bytes: usize) -> Chunk {
        let mut chunk = Chunk { partition, from: self.from, to: self.from, ..Chunk::default() };
        let mut bytes = Vec::new();
        while let Some(next) = self.records.front() {
            let full = !chunk.records.is_empty() && bytes.len() + next.payload.len() > max_bytes;
            if full || until.is_some_and(|until| next.offset >= until) {
                break;
            }
            let (offset, timestamp) = (next.offset, next.timestamp);
            let start = bytes.len() as u32;
            bytes.extend_from_slice(&next.payload);
            chunk.records.push(RecordSpan { offset, start, end: bytes.len() as u32, timestamp });
            chunk.to = offset + 1;
            self.records.pop_front();
        }
        self.from = chunk.to;
        chunk.bytes = bytes.into();
        chunk
    }
}

#[async_trait]
impl Log for MasterLog {
    async fn id(&self) -> Result<LogId, LogError> {
        Ok(self.id.clone())
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        Ok(self.end().await?.iter().last().map_or(0, |(partition, _)| partition + 1))
    }

    async fn end(&self) -> Result<OffsetVector, LogError> {
        self.dataset.absorbed().await.map_err(|error| LogError::Unavailable {
            what: format!("could not see where {} stands", self.what),
            source: error.into(),
        })
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        let max_bytes = max_bytes.min(i32::MAX as usize);
        let mut all = self.ahead.lock().await;
        // Records are where they are for ever, so those that were read ahead for the reader that stands here are good.
        let mut ahead = match all.remove(&partition) {
            Some(ahead) if ahead.from == from && !ahead.records.is_empty() => ahead,
            _ => {
                drop(all);
                let ahead = self.load(partition, from).await.map_err(self.failed(partition, from))?;
                all = self.ahead.lock().await;
                ahead
            }
        };
        let chunk = ahead.chunk(partition, until, max_bytes);
        if !ahead.records.is_empty() {
            all.insert(partition, ahead);
        }
        Ok(chunk)
    }

    async fn appended(&self, seen: &OffsetVector, patience: Duration) -> Result<(), LogError> {
        let until = Instant::now() + patience;
        while seen.covers(&self.end().await?) && Instant::now() < until {
            tokio::time::sleep(POLL.min(until.saturating_duration_since(Instant::now()))).await;
        }
        Ok(())
    }
}
