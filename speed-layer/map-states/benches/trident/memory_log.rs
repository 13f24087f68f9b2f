//! A log of lines in memory, which tells how far its reader has committed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use stratus_seam::{
    log::{Chunk, Log, LogError, LogId, RecordSpan},
    offsets::{Offset, OffsetVector, Partition},
};
use tokio::sync::{Notify, watch};

/// One partition of lines. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lines: Mutex<Vec<Arc<str>>>,
    news: Notify,
    committed: watch::Sender<Offset>,
}

impl MemoryLog {
    pub(crate) fn new() -> Self {
        let committed = watch::Sender::new(0);
        Self(Arc::new(Inner { lines: Mutex::default(), news: Notify::new(), committed }))
    }

    /// Appends lines; the offset behind them.
    pub(crate) fn append(&self, lines: &[Arc<str>]) -> Offset {
        let mut all = self.0.lines.lock().unwrap();
        all.extend(lines.iter().cloned());
        let end = all.len() as Offset;
        drop(all);
        self.0.news.notify_waiters();
        end
    }

    /// Waits until the ledger says that all below this offset is committed.
    pub(crate) async fn committed(&self, offset: Offset) {
        self.0.committed.subscribe().wait_for(|committed| *committed >= offset).await.unwrap();
    }

    fn len(&self) -> Offset {
        self.0.lines.lock().unwrap().len() as Offset
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn id(&self) -> Result<LogId, LogError> {
        Ok(LogId("memory".to_owned()))
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        Ok(1)
    }

    async fn end(&self) -> Result<OffsetVector, LogError> {
        Ok(OffsetVector::from([(0, self.len())]))
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        let lines = self.0.lines.lock().unwrap();
        let (mut bytes, mut records) = (Vec::with_capacity(max_bytes.min(1 << 20)), Vec::new());
        for offset in from..until.unwrap_or(u64::MAX).min(lines.len() as Offset) {
            if !records.is_empty() && bytes.len() >= max_bytes {
                break;
            }
            let start = bytes.len() as u32;
            bytes.extend_from_slice(lines[offset as usize].as_bytes());
            records.push(RecordSpan { offset, start, end: bytes.len() as u32, timestamp: None });
        }
        Ok(Chunk { partition, from, to: from + records.len() as Offset, bytes: bytes.into(), records })
    }

    async fn appended(&self, seen: &OffsetVector, patience: Duration) -> Result<(), LogError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let mut news = std::pin::pin!(self.0.news.notified());
            // From here on, so that what comes while we look is not missed.
            news.as_mut().enable();
            if self.len() > seen.get(0) || tokio::time::timeout_at(deadline, news).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn acknowledge(&self, absorbed: &OffsetVector) {
        // The spout says so when its ledger has it.
        self.0.committed.send_replace(absorbed.get(0));
    }
}
