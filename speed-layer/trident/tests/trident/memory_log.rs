//! A log in memory, which can lose records and be hard to read; and its records as lines.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use stratus_seam::{
    log::{Chunk, Log, LogError, LogId, RecordSpan},
    offsets::{Offset, OffsetVector, Partition},
};
use stratus_topology::{TaskError, fields};
use stratus_trident::Translator;
use tokio::sync::Notify;

/// Lines by partition; a line's offset is its number. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    partitions: Mutex<Vec<Kept>>,
    news: Notify,
    reads: AtomicUsize,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    /// `None`: compacted.
    lines: Vec<Option<String>>,
    earliest: Offset,
    trouble: Option<Trouble>,
}

/// What is wrong with reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Fails,
    /// It has no end.
    Hangs,
}

impl MemoryLog {
    pub(crate) fn new(partitions: usize) -> Self {
        Self(Arc::new(Inner {
            partitions: Mutex::new(vec![Kept::default(); partitions]),
            news: Notify::new(),
            reads: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn append(&self, partition: usize, line: &str) {
        self.append_all(partition, &[line]);
    }

    /// At once: nobody sees some of them only.
    pub(crate) fn append_all(&self, partition: usize, lines: &[&str]) {
        self.lock()[partition].lines.extend(lines.iter().map(|line| Some((*line).to_owned())));
        self.0.news.notify_waiters();
    }

    /// Loses one record, as compaction does: those around it stay.
    pub(crate) fn compact(&self, partition: usize, offset: usize) {
        self.lock()[partition].lines[offset] = None;
    }

    /// Loses all records below an offset for good, as retention does.
    pub(crate) fn forget(&self, partition: usize, earliest: Offset) {
        let lines = &mut self.lock()[partition];
        lines.earliest = lines.earliest.max(earliest);
    }

    /// Loses its end, as a partition does whose leader was behind.
    pub(crate) fn cut_off(&self, partition: usize, end: usize) {
        self.lock()[partition].lines.truncate(end);
        self.0.news.notify_waiters();
    }

    /// From now on reading a partition is like this.
    pub(crate) fn trouble(&self, partition: usize, trouble: Option<Trouble>) {
        self.lock()[partition].trouble = trouble;
    }

    /// How often it was read.
    pub(crate) fn reads(&self) -> usize {
        self.0.reads.load(SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.partitions.lock().unwrap()
    }

    fn ends(&self) -> OffsetVector {
        let mut end = OffsetVector::zero();
        for (at, lines) in self.lock().iter().enumerate() {
            end.set(at as Partition, lines.lines.len() as Offset);
        }
        end
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn id(&self) -> Result<LogId, LogError> {
        Ok(LogId("memory".to_owned()))
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        Ok(self.lock().len() as u32)
    }

    async fn end(&self) -> Result<OffsetVector, LogError> {
        Ok(self.ends())
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        self.0.reads.fetch_add(1, SeqCst);
        let lines = self.lock()[partition as usize].clone();
        match lines.trouble {
            None => {}
            Some(Trouble::Hangs) => std::future::pending().await,
            Some(Trouble::Fails) => {
                let what = format!("reading partition {partition}");
                return Err(LogError::Unavailable { what, source: "no answer".into() });
            }
        }
        if from < lines.earliest {
            let (log, earliest) = ("memory".to_owned(), lines.earliest);
            return Err(LogError::Gone { log, partition, from, earliest });
        }
        let end = lines.lines.len() as Offset;
        if from > end {
            return Err(LogError::lost_its_tail(partition, end, from));
        }
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        for offset in from..until.unwrap_or(u64::MAX).min(end) {
            if !records.is_empty() && bytes.len() >= max_bytes {
                break;
            }
            let Some(line) = &lines.lines[offset as usize] else { continue };
            let start = bytes.len() as u32;
            bytes.extend_from_slice(line.as_bytes());
            records.push(RecordSpan { offset, start, end: bytes.len() as u32, timestamp: None });
        }
        let to = records.last().map_or(from, |record: &RecordSpan| record.offset + 1);
        Ok(Chunk { partition, from, to, bytes: bytes.into(), records })
    }

    async fn appended(&self, seen: &OffsetVector, patience: Duration) -> Result<(), LogError> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let mut news = std::pin::pin!(self.0.news.notified());
            // From here on, so that what comes while we look is not missed.
            news.as_mut().enable();
            if !seen.covers(&self.ends()) || tokio::time::timeout_at(until, news).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Each record's value as a line.
#[derive(Clone)]
pub(crate) struct Lines;

impl Translator for Lines {
    fn schema(&self) -> SchemaRef {
        fields([("line", DataType::Utf8)])
    }

    fn translate(&mut self, records: &Chunk) -> Result<RecordBatch, TaskError> {
        let lines = (0..records.records.len()).map(|index| str::from_utf8(records.payload(index)).unwrap());
        Ok(RecordBatch::try_new(self.schema(), vec![Arc::new(StringArray::from_iter_values(lines))])?)
    }
}
