//! A log in memory.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use stratus_seam::{
    log::{Chunk, Log, LogError, LogId, RecordSpan},
    offsets::{Offset, OffsetVector, Partition},
};

/// Lines by partition; a line's offset is its number. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLog(Arc<Mutex<Vec<Vec<String>>>>);

impl MemoryLog {
    pub(crate) fn new(partitions: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![Vec::new(); partitions])))
    }

    pub(crate) fn append(&self, partition: usize, line: &str) {
        self.0.lock().unwrap()[partition].push(line.to_owned());
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn id(&self) -> Result<LogId, LogError> {
        Ok(LogId("memory".to_owned()))
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        Ok(self.0.lock().unwrap().len() as u32)
    }

    async fn end(&self) -> Result<OffsetVector, LogError> {
        let mut end = OffsetVector::zero();
        let partitions = self.0.lock().unwrap();
        partitions.iter().enumerate().for_each(|(at, lines)| end.set(at as Partition, lines.len() as Offset));
        Ok(end)
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        let partitions = self.0.lock().unwrap();
        let lines = &partitions[partition as usize];
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        for offset in from..until.unwrap_or(u64::MAX).min(lines.len() as Offset) {
            if !records.is_empty() && bytes.len() >= max_bytes {
                break;
            }
            let start = bytes.len() as u32;
            bytes.extend_from_slice(lines[offset as usize].as_bytes());
            records.push(RecordSpan { offset, start, end: bytes.len() as u32, timestamp: None });
        }
        let to = from + records.len() as Offset;
        Ok(Chunk { partition, from, to, bytes: bytes.into(), records })
    }

    async fn appended(&self, _seen: &OffsetVector, _patience: Duration) -> Result<(), LogError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}
