//! A log that forgets, with the master dataset behind it.
//!
//! A log keeps its records for a time. What it has forgotten, the master dataset holds, if ingest was in time; what
//! neither holds is a gap, and that is for ingest alone to decide. So a reader here is never told that records are
//! gone: it gets them from the master dataset, waits as long as ingest has not come to where it stands, and reads on
//! behind a gap once ingest has.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stratus_seam::log::{Chunk, Log, LogError, LogId};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};

/// A source's log, and behind it the source's master dataset read as a log.
#[derive(Debug, Clone)]
pub struct BackedLog {
    live: Arc<dyn Log>,
    master: Arc<dyn Log>,
}

impl BackedLog {
    /// A log that has what either has: `live` as long as it holds a record, `master` after that.
    pub fn new(live: Arc<dyn Log>, master: Arc<dyn Log>) -> Self {
        Self { live, master }
    }

    /// Reads records that the log has forgotten: those of [from, until) below `earliest`. None if the master dataset
    /// has absorbed all of that and holds no record there.
    async fn forgotten(
        &self,
        partition: Partition,
        (from, to): (Offset, Offset),
        max_bytes: usize,
    ) -> Result<Option<Chunk>, LogError> {
        let absorbed = self.master.end().await?.get(partition);
        if absorbed > from {
            // Looked up before it was read: up to here, what is not found is not there.
            let chunk = self.master.read(partition, from, Some(to.min(absorbed)), max_bytes).await?;
            if !chunk.records.is_empty() {
                return Ok(Some(chunk));
            }
        }
        if absorbed >= to {
            return Ok(None);
        }
        Err(LogError::Unavailable {
            what: format!("could not read partition {partition} from offset {from}"),
            source: format!(
                "the log no longer has offsets {from}..{to}, and the master dataset has absorbed {absorbed} only: waiting for ingest, which reads them or records them as lost. Is it running? See stratus.lag"
            )
            .into(),
        })
    }
}

#[async_trait]
impl Log for BackedLog {
    async fn id(&self) -> Result<LogId, LogError> {
        self.live.id().await
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        self.live.partitions().await
    }

    /// The end of the log. One that ends below what the master dataset has absorbed from it has lost its tail, and
    /// will use the same offsets for other records.
    async fn end(&self) -> Result<OffsetVector, LogError> {
        // The master dataset first: whatever it holds by now, the log had before.
        let absorbed = self.master.end().await?;
        let end = self.live.end().await?;
        match absorbed.iter().find(|(partition, absorbed)| end.get(*partition) < *absorbed) {
            None => Ok(end),
            Some((partition, absorbed)) => {
                Err(LogError::lost_its_tail(partition, end.get(partition), absorbed))
            }
        }
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        let mut at = from;
        loop {
            let earliest = match self.live.read(partition, at, until, max_bytes).await {
                Ok(chunk) if at == from => return Ok(chunk),
                // Behind a gap: what stands between is nothing, so the chunk may begin where it was asked for.
                Ok(chunk) if chunk.records.is_empty() => return Ok(Chunk { from, to: from, ..chunk }),
                Ok(chunk) => return Ok(Chunk { from, ..chunk }),
                Err(LogError::Gone { earliest, .. }) if earliest > at => earliest,
                Err(error) => return Err(error),
            };
            let to = until.map_or(earliest, |until| until.min(earliest));
            if to > at
                && let Some(chunk) = self.forgotten(partition, (at, to), max_bytes).await?
            {
                return Ok(Chunk { from, ..chunk });
            }
            if to < earliest {
                return Ok(Chunk { partition, from, to: from, ..Chunk::default() });
            }
            at = earliest;
        }
    }

    async fn appended(&self, seen: &OffsetVector, patience: Duration) -> Result<(), LogError> {
        self.live.appended(seen, patience).await
    }

    async fn acknowledge(&self, absorbed: &OffsetVector) {
        self.live.acknowledge(absorbed).await;
    }
}
