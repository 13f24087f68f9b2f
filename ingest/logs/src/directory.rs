//! The directory log: a folder with one file of JSON lines per partition.
//!
//! ```text
//! <dir>/log.json     {"id": "<uuid>", "partitions": 1}
//! <dir>/0.jsonl      one record per line; a record's offset is the position of its first byte
//! <dir>/0.owner      there if only the appender may write to 0.jsonl
//! <dir>/appender.lock
//! ```
//! Any program may append whole lines to files without an owner, and put files with higher numbers beside them.
//! Nothing may ever be changed or taken away: what was read has been counted. A line without its newline is still
//! being written, and waited for; blank lines are no records. A line above the limit for records is delivered cut,
//! one byte above the limit, once its end is there, and takes neither memory nor the rest of the partition with it.
//!
//! That a file was replaced is seen by its name pointing elsewhere, by its being shorter than what was read, by a
//! `log.json` with another id, and by an offset at which no line begins. A file that was rewritten in place, while
//! nobody looked, with other lines that end at just the same places, is not told from the old one.

mod manifest;
mod partition;
mod scan;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use stratus_seam::log::{Chunk, Log, LogError, LogId};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use manifest::{MAX_PARTITIONS, partition_path, sync_directory};
use manifest::{Manifest, Stamp};
use partition::PartitionFile;

use crate::DEFAULT_MAX_RECORD_BYTES;

/// How long [`Log::appended`] sleeps between two looks at the files, at first and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// The highest limit for records: spans count bytes in 32 bits.
const HIGHEST_LIMIT: usize = 1 << 30;

/// A directory log. Clones share what they know of the files, and wake up together when an [`crate::Appender`] that
/// was opened with one of them has appended.
#[derive(Debug, Clone)]
pub struct DirectoryLog {
    inner: Arc<Inner>,
    max_record_bytes: usize,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    manifest: Mutex<(Stamp, Manifest)>,
    /// The identity that the log was opened with; offsets mean something only under it.
    opened: LogId,
    most_partitions: AtomicU32,
    files: Mutex<BTreeMap<Partition, Arc<PartitionFile>>>,
    appends: Appends,
}

/// What an appender tells the readers in its process.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    /// How much of each owned file is on disk: records above it could still be lost, so nobody may count them yet.
    durable: Mutex<BTreeMap<Partition, Offset>>,
    news: Notify,
}

impl Appends {
    pub(crate) fn set_durable(&self, partition: Partition, len: Offset) {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, len);
        self.news.notify_waiters();
    }

    /// Nobody appends in this process any more; all that the file holds may be read.
    pub(crate) fn release(&self, partition: Partition) {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }

    fn durable(&self, partition: Partition) -> Option<Offset> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }
}

impl DirectoryLog {
    /// Opens the log in a folder, and makes the folder and its `log.json` if they are not there. A log that is there
    /// stays as it is, and so do files that were put into the folder before.
    ///
    /// # Errors
    /// If the folder cannot be written or read, or for 0 or more than 4,096 partitions.
    pub fn create(dir: impl AsRef<Path>, partitions: u32) -> Result<Self, LogError> {
        let dir = dir.as_ref();
        Manifest::create(dir, partitions)
            .map_err(|source| unavailable(format!("cannot create a log in {}", dir.display()), source))?;
        Self::open(dir)
    }

    /// Opens the log in a folder.
    ///
    /// # Errors
    /// If there is none, or its `log.json` cannot be understood.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, LogError> {
        let dir = dir.as_ref().to_path_buf();
        let path = manifest::path(&dir);
        let read = manifest::stamp(&path).and_then(|stamp| Ok((stamp, Manifest::read(&dir)?)));
        let (stamp, manifest) =
            read.map_err(|source| unavailable(format!("cannot read {}", path.display()), source))?;
        let strangers = manifest::strangers(&dir)
            .map_err(|source| unavailable(format!("cannot list {}", dir.display()), source))?;
        for name in strangers {
            tracing::warn!(dir = %dir.display(), file = name, "not a partition: partitions are named 0.jsonl, 1.jsonl ...");
        }
        let inner = Inner {
            dir,
            manifest: Mutex::new((stamp, manifest)),
            opened: LogId(manifest.id.to_string()),
            most_partitions: AtomicU32::new(0),
            files: Mutex::default(),
            appends: Appends::default(),
        };
        inner.partitions()?;
        Ok(Self { inner: Arc::new(inner), max_record_bytes: DEFAULT_MAX_RECORD_BYTES })
    }

    /// Cuts payloads that are longer than `bytes` (at most 1 GiB) one byte above it. The codec must have the same
    /// limit, to see that they are too long.
    #[must_use]
    pub fn with_max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes.clamp(1, HIGHEST_LIMIT);
        self
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// How many partitions `log.json` asks for.
    pub(crate) fn declared_partitions(&self) -> Result<u32, LogError> {
        Ok(self.inner.same_log()?.partitions)
    }

    pub(crate) fn appends(&self) -> &Appends {
        &self.inner.appends
    }

    /// Does file work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(error) => Err(LogError::Unavailable {
                what: format!("reading {} was interrupted", self.inner.dir.display()),
                source: error.into(),
            }),
        }
    }
}

impl Inner {
    /// What `log.json` says now.
    fn manifest(&self) -> Result<Manifest, LogError> {
        let path = manifest::path(&self.dir);
        let failed = |source| unavailable(format!("cannot read {}", path.display()), source);
        let stamp = manifest::stamp(&path).map_err(failed)?;
        let mut cached = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.0 != stamp {
            *cached = (stamp, Manifest::read(&self.dir).map_err(failed)?);
        }
        Ok(cached.1)
    }

    /// As [`Inner::manifest`], if it is still the log that was opened.
    fn same_log(&self) -> Result<Manifest, LogError> {
        let manifest = self.manifest()?;
        if manifest.id.to_string() == self.opened.0 {
            return Ok(manifest);
        }
        Err(LogError::Replaced {
            log: self.dir.display().to_string(),
            what: format!("log.json has id {} now; the log was opened with {}", manifest.id, self.opened),
            todo: "Put the old log back, or drop the source and declare it anew".to_owned(),
        })
    }

    fn partitions(&self) -> Result<u32, LogError> {
        let declared = self.same_log()?.partitions;
        let named = manifest::partitions_by_name(&self.dir)
            .map_err(|source| unavailable(format!("cannot list {}", self.dir.display()), source))?;
        let now = declared.max(named).max(1);
        Ok(self.most_partitions.fetch_max(now, Ordering::Relaxed).max(now))
    }

    fn file(&self, partition: Partition) -> Arc<PartitionFile> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file =
            files.entry(partition).or_insert_with(|| Arc::new(PartitionFile::new(&self.dir, partition)));
        Arc::clone(file)
    }

    fn end(&self) -> Result<OffsetVector, LogError> {
        let partitions = self.partitions()?;
        (0..partitions).map(|p| Ok((p, self.file(p).end(self.appends.durable(p))?))).collect()
    }
}

fn unavailable(what: String, source: io::Error) -> LogError {
    LogError::Unavailable { what, source: source.into() }
}

#[async_trait]
impl Log for DirectoryLog {
    async fn id(&self) -> Result<LogId, LogError> {
        self.blocking(|inner| Ok(LogId(inner.manifest()?.id.to_string()))).await
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        self.blocking(Inner::partitions).await
    }

    async fn end(&self) -> Result<OffsetVector, LogError> {
        self.blocking(Inner::end).await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        let limit = self.max_record_bytes;
        self.blocking(move |inner| {
            inner.same_log()?;
            let durable = inner.appends.durable(partition);
            inner.file(partition).read(from, until, max_bytes, limit, durable)
        })
        .await
    }

    async fn appended(&self, seen: &OffsetVector, patience: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + patience;
        let (mut pause, longest) = POLL;
        loop {
            // Before the look, so that nothing that is appended after it goes unnoticed.
            let news = self.inner.appends.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if !seen.covers(&self.end().await?) {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(());
            }
            let woken = tokio::time::timeout_at(deadline.min(now + pause), news).await.is_ok();
            if !woken {
                pause = (pause * 2).min(longest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_shown_before_it_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let log = DirectoryLog::create(dir.path(), 1).unwrap();
        std::fs::write(dir.path().join("0.jsonl"), "{\"a\":1}\n{\"a\":2}\n").unwrap();
        for (durable, end) in [(0, 0), (7, 0), (8, 8), (15, 8), (16, 16)] {
            log.appends().set_durable(0, durable);
            assert_eq!(log.end().await.unwrap().get(0), end, "durable up to {durable}");
            let chunk = log.read(0, 0, None, READ).await.unwrap();
            assert_eq!((chunk.to, chunk.records.len() as u64), (end, end / 8));
            assert_eq!(log.read(0, 8, None, READ).await.unwrap().to, end.max(8));
        }
    }

    const READ: usize = 1 << 20;
}
