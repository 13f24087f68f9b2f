//! A source's log: partitions of records that are only ever appended.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::offsets::{Offset, OffsetVector, Partition};

/// Tells one incarnation of a log from the next: a log that was deleted and made again has another one.
/// Kafka: cluster id and topic id; a directory log: the UUID in its `log.json`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub String);

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where one record lies within its chunk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSpan {
    /// The record's offset in its partition.
    pub offset: Offset,
    /// The first byte of the payload in [`Chunk::bytes`].
    pub start: u32,
    /// The byte after the payload's last one.
    pub end: u32,
    /// The record's own timestamp in microseconds since the epoch; none in a directory log.
    pub timestamp: Option<i64>,
}

/// Consecutive records of one partition, as they stand in the log: payloads are not yet decoded.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    /// The partition that the records are from.
    pub partition: Partition,
    /// Where the read began.
    pub from: Offset,
    /// The offset after the last delivered record, or `from` if there is none.
    pub to: Offset,
    /// The bytes that the spans point into.
    pub bytes: Bytes,
    /// The records, by offset.
    pub records: Vec<RecordSpan>,
}

impl Chunk {
    /// The payload of the record at `index`.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn payload(&self, index: usize) -> &[u8] {
        let span = &self.records[index];
        &self.bytes[span.start as usize..span.end as usize]
    }
}

/// What a log may answer other than records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The log is another one than before: deleted and made again, shrunk below what was read, or replaced.
    /// Nothing that was absorbed from it can be continued.
    #[error("{log}: {what}; its offsets no longer mean what they meant. {todo}")]
    Replaced {
        /// The topic or directory.
        log: String,
        /// What was seen, with partition and offsets.
        what: String,
        /// What the reader of the message should do.
        todo: String,
    },
    /// Records below `earliest` are gone from the log.
    #[error(
        "{log}, partition {partition}: offset {from} is no longer in the log, which begins at {earliest}"
    )]
    Gone {
        /// The topic or directory.
        log: String,
        /// The partition.
        partition: Partition,
        /// The offset that was asked for.
        from: Offset,
        /// The first offset that the log still has.
        earliest: Offset,
    },
    /// The log could not be reached or read; the same call may succeed later.
    #[error("{what}: {source}")]
    Unavailable {
        /// What was tried, with the file or topic and partition.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl LogError {
    /// A log that ends below what was absorbed from it. Whatever it is given next gets offsets that were used before.
    pub fn lost_its_tail(partition: Partition, end: Offset, absorbed: Offset) -> Self {
        Self::Replaced {
            log: format!("partition {partition} of the log"),
            what: format!(
                "it ends at offset {end}, below {absorbed}, up to which it was absorbed: it lost its tail"
            ),
            todo: "Put the log back, or drop the source and create it anew".into(),
        }
    }
}

/// A source's log.
///
/// # Contract
/// - A record, once delivered, is delivered again with the same offset and bytes by every later read that covers
///   it, until the log says [`LogError::Gone`] or [`LogError::Replaced`].
/// - Records are delivered whole and in order of their offsets. A record that is still being written is not
///   delivered, and neither is anything behind it.
/// - [`Chunk::to`] is the offset after the last *delivered* record, so reading on from it repeats and skips nothing.
///
/// `stratus_logs::conformance` holds every implementation to this.
#[async_trait]
pub trait Log: Send + Sync + std::fmt::Debug {
    /// The id of the incarnation that the log has now.
    async fn id(&self) -> Result<LogId, LogError>;

    /// How many partitions there are now; they are numbered from 0, and their number never goes down.
    async fn partitions(&self) -> Result<u32, LogError>;

    /// The offset after the last whole record of each partition, and at or above [`Log::earliest`] where the log has
    /// forgotten all records. It never goes back: a log that lost its tail is [`LogError::Replaced`].
    async fn end(&self) -> Result<OffsetVector, LogError>;

    /// The first offset of each partition that the log may still hold: below it lies only what it has forgotten. A log
    /// that forgets nothing begins at zero. Never above [`Log::end`].
    async fn earliest(&self) -> Result<OffsetVector, LogError> {
        Ok(OffsetVector::zero())
    }

    /// Reads records of `partition` from offset `from` on. Stops before offset `until` if one is given, and after
    /// about `max_bytes`, but never before one record if there is one. An empty chunk means that there is nothing
    /// further now.
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError>;

    /// Returns when something may have been appended behind `seen`, and after `patience` at the latest.
    async fn appended(&self, seen: &OffsetVector, patience: Duration) -> Result<(), LogError>;

    /// Tells the log how far its reader has come, for those who watch it from outside. Decides nothing, and a log
    /// may ignore it.
    async fn acknowledge(&self, _absorbed: &OffsetVector) {}
}
