//! A log in memory whose operator lets it forget its beginning, or lose its tail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stratus_seam::log::{Chunk, Log, LogError, LogId, RecordSpan};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};

/// One partition's records by offset, and where it begins and ends.
#[derive(Debug, Default)]
struct Lane {
    records: Vec<(Offset, Vec<u8>)>,
    earliest: Offset,
    end: Offset,
}

/// A clone is the same log.
#[derive(Debug, Clone, Default)]
pub(crate) struct ForgetfulLog(Arc<Mutex<Vec<Lane>>>);

impl ForgetfulLog {
    pub(crate) fn new(partitions: usize) -> Self {
        Self(Arc::new(Mutex::new((0..partitions).map(|_| Lane::default()).collect())))
    }

    /// Appends a record `hole` offsets behind the one before, and says where it stands.
    pub(crate) fn append(&self, partition: usize, hole: u64, payload: impl Into<Vec<u8>>) -> Offset {
        let lane = &mut self.0.lock().unwrap()[partition];
        let offset = lane.end + hole;
        lane.records.push((offset, payload.into()));
        lane.end = offset + 1;
        offset
    }

    pub(crate) fn forget(&self, partition: usize, below: Offset) {
        let lane = &mut self.0.lock().unwrap()[partition];
        lane.earliest = lane.earliest.max(below);
        lane.end = lane.end.max(below);
        lane.records.retain(|(offset, _)| *offset >= below);
    }

    pub(crate) fn lose_tail(&self, partition: usize, from: Offset) {
        let lane = &mut self.0.lock().unwrap()[partition];
        lane.end = from;
        lane.records.retain(|(offset, _)| *offset < from);
    }
}

#[async_trait]
impl Log for ForgetfulLog {
    async fn id(&self) -> Result<LogId, LogError> {
        Ok(LogId("the-log".into()))
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        Ok(u32::try_from(self.0.lock().unwrap().len()).unwrap())
    }

    async fn end(&self) -> Result<OffsetVector, LogError> {
        Ok((0..).zip(self.0.lock().unwrap().iter()).map(|(partition, lane)| (partition, lane.end)).collect())
    }

    async fn earliest(&self) -> Result<OffsetVector, LogError> {
        let lanes = self.0.lock().unwrap();
        Ok((0..).zip(lanes.iter()).map(|(partition, lane)| (partition, lane.earliest)).collect())
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        let lanes = self.0.lock().unwrap();
        let lane = &lanes[partition as usize];
        if from < lane.earliest {
            return Err(LogError::Gone { log: "the-log".into(), partition, from, earliest: lane.earliest });
        }
        let mut chunk = Chunk { partition, from, to: from, ..Chunk::default() };
        let mut bytes = Vec::new();
        for (offset, payload) in lane.records.iter().filter(|(offset, _)| *offset >= from) {
            let full = !chunk.records.is_empty() && bytes.len() + payload.len() > max_bytes;
            if full || until.is_some_and(|until| *offset >= until) {
                break;
            }
            let start = u32::try_from(bytes.len()).unwrap();
            bytes.extend_from_slice(payload);
            let end = u32::try_from(bytes.len()).unwrap();
            chunk.records.push(RecordSpan { offset: *offset, start, end, timestamp: Some(*offset as i64) });
            chunk.to = offset + 1;
        }
        chunk.bytes = bytes.into();
        Ok(chunk)
    }

    async fn appended(&self, seen: &OffsetVector, patience: Duration) -> Result<(), LogError> {
        if seen.covers(&self.end().await?) {
            tokio::time::sleep(patience.min(Duration::from_millis(10))).await;
        }
        Ok(())
    }
}
