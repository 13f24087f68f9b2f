//! The ingest layer: from a source's log into its master dataset.
//!
//! One ingester per source reads on from where the dataset stands, decodes every column, and appends events and dead
//! letters with the offsets they were read from. The dataset alone says where it stands, so that a restart needs
//! nothing else.
//!
//! It also decides what is lost. A log keeps its records for a time; what it forgot before it was read here is in
//! neither place: a **gap**. It is recorded in the catalog before the dataset moves past it, so that no crash between
//! the two can lose it, and recorded once however often it is found.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod retention;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stratus_lake::{DeadLetter, Lake, LakeError, SourceTables};
use stratus_logs::READ_BYTES;
use stratus_logs::codec::{BadRecord, CodecError, CodecOptions, JsonCodec};
use stratus_seam::catalog::Source;
use stratus_seam::catalog_log::{Catalog, CatalogError, now_ms};
use stratus_seam::crash;
use stratus_seam::gaps::Gap;
use stratus_seam::log::{Chunk, Log, LogError};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use tokio::sync::watch;

/// How long the ingester waits after a failure before it opens the dataset anew.
const BACKOFF: Duration = Duration::from_millis(500);
/// How long it waits for records at a time.
const IDLE: Duration = Duration::from_millis(100);
/// The least time from one look at where the log begins and ends to the next.
const LOOK: Duration = Duration::from_secs(5);

/// Why an ingester ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A person must look; trying again changes nothing.
    #[error("{0}")]
    Stop(String),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The codec, other than for a bad record.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Bounds of a commit to the master dataset.
#[derive(Debug, Clone)]
pub struct Limits {
    /// About how many bytes of records a commit holds at most.
    pub commit_bytes: usize,
    /// The least time from one commit to the next: what comes in meanwhile goes into one.
    pub interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { commit_bytes: 64 << 20, interval: Duration::from_secs(1) }
    }
}

/// The ingester of one source.
#[derive(Debug)]
pub struct Ingester {
    /// The source.
    pub source: Source,
    /// Its log.
    pub log: Arc<dyn Log>,
    /// The lake.
    pub lake: Lake,
    /// The catalog, to notice that the source was dropped.
    pub catalog: Arc<Catalog>,
    /// How records are decoded.
    pub codec: CodecOptions,
    /// Bounds of a commit.
    pub limits: Limits,
}

impl Ingester {
    /// Works until `stop` says so, or the source is dropped.
    ///
    /// # Errors
    /// [`IngestError::Stop`] if a person must look, above all if another ingester writes the same dataset; no other
    /// failure ends it.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) -> Result<(), IngestError> {
        while !*stop.borrow() {
            let failure = match self.work(&mut stop).await {
                Ok(()) => return Ok(()),
                Err(
                    failure @ (IngestError::Stop(_)
                    | IngestError::Lake(LakeError::Superseded { .. })
                    | IngestError::Log(LogError::Replaced { .. })),
                ) => return Err(failure),
                Err(failure) => failure,
            };
            tracing::warn!(source = self.source.name, "ingest starts over: {failure}");
            tokio::select! {
                _ = stop.changed() => {}
                () = tokio::time::sleep(BACKOFF) => {}
            }
        }
        Ok(())
    }

    async fn work(&self, stop: &mut watch::Receiver<bool>) -> Result<(), IngestError> {
        let id = self.log.id().await?;
        if id != self.source.log {
            return Err(IngestError::Stop(format!(
                "source \"{}\": the log is not the one that it was created over (it is {id}, it was {}). Drop the source and create it anew, or put the old log back",
                self.source.name, self.source.log
            )));
        }
        let mut tables = SourceTables::open(&self.lake, &self.source).await?;
        let mut codec = JsonCodec::new(&self.source.columns, self.codec)?;
        let mut looked = None;
        while !*stop.borrow() {
            let began = Instant::now();
            if self.catalog.refresh().await?.source(self.source.id).is_none() {
                break;
            }
            let from = tables.absorbed();
            self.log.acknowledge(&from).await;
            if looked.is_none_or(|looked: Instant| looked.elapsed() >= LOOK) {
                self.look(&from).await?;
                looked = Some(Instant::now());
            }
            if !self.append(&mut tables, &mut codec, &from).await? {
                tokio::select! {
                    _ = stop.changed() => {}
                    waited = self.log.appended(&from, IDLE) => waited?,
                }
                continue;
            }
            tokio::select! {
                _ = stop.changed() => {}
                () = tokio::time::sleep(self.limits.interval.saturating_sub(began.elapsed())) => {}
            }
        }
        tables.settle().await;
        Ok(())
    }

    /// Looks where the log begins and ends: that it has not lost what was absorbed, and how far ahead of its retention
    /// ingest is.
    async fn look(&self, absorbed: &OffsetVector) -> Result<(), IngestError> {
        retention::check_end(absorbed, &self.log.end().await?)?;
        let (earliest, partitions) = (self.log.earliest().await?, self.log.partitions().await?);
        for (partition, records) in retention::headroom(absorbed, &earliest, partitions) {
            let labels = [("source", self.source.name.clone()), ("partition", partition.to_string())];
            metrics::gauge!("stratus_ingest_retention_headroom_records", &labels).set(records as f64);
        }
        Ok(())
    }

    /// What stands at `from` in a partition, or behind the gap that begins there.
    async fn read(
        &self,
        tables: &mut SourceTables,
        partition: Partition,
        from: Offset,
    ) -> Result<Chunk, IngestError> {
        let mut at = from;
        loop {
            let answer = match self.log.read(partition, at, None, READ_BYTES).await {
                Ok(chunk) => return Ok(chunk),
                Err(answer) => answer,
            };
            let Some(gap) = retention::gap(&self.source, partition, at, &answer, now_ms()) else {
                return Err(answer.into());
            };
            self.record(tables, &gap).await?;
            at = gap.to;
        }
    }

    /// Records a gap. An ingester that was overtaken knows of records as lost that another one has: it must not
    /// decide, and neither may the other one have a batch under way that holds them.
    async fn record(&self, tables: &mut SourceTables, gap: &Gap) -> Result<(), IngestError> {
        tables.fence().await?;
        let mut is_new = false;
        self.catalog
            .commit(|catalog| {
                let actions = retention::record(catalog, gap);
                is_new = !actions.is_empty();
                Ok::<_, CatalogError>(actions)
            })
            .await?;
        if is_new {
            metrics::counter!("stratus_gaps_total", "source" => self.source.name.clone()).increment(1);
        }
        tracing::warn!(
            source = self.source.name,
            partition = gap.partition,
            from = gap.from,
            to = gap.to,
            is_new,
            "the log forgot records before they were ingested: they are lost, see stratus.gaps"
        );
        Ok(())
    }

    /// Appends what is behind `from`, as one commit. Answers whether there was anything.
    async fn append(
        &self,
        tables: &mut SourceTables,
        codec: &mut JsonCodec,
        from: &OffsetVector,
    ) -> Result<bool, IngestError> {
        let mut to = from.clone();
        let (mut events, mut bad, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut waiting: Vec<_> = (0..self.log.partitions().await?).collect();
        // In rounds, one read of each partition at a time, so that a busy one does not starve the others.
        while !waiting.is_empty() && bytes < self.limits.commit_bytes {
            let mut more = Vec::with_capacity(waiting.len());
            for partition in waiting {
                let chunk = self.read(tables, partition, to.get(partition)).await?;
                // Also where there is no record behind a gap: the dataset stands behind it all the same.
                to.set(partition, chunk.to);
                if chunk.records.is_empty() {
                    continue;
                }
                // A short read has reached the end: what comes in meanwhile goes into the next commit.
                if chunk.bytes.len() >= READ_BYTES / 2 {
                    more.push(partition);
                }
                bytes += chunk.bytes.len();
                let decoded = codec.decode(&self.source.log, &chunk)?;
                events.push(decoded.events);
                bad.extend(decoded.bad.into_iter().map(dead_letter));
            }
            waiting = more;
        }
        if to == *from {
            return Ok(false);
        }
        let (rows, letters) = (events.iter().map(|batch| batch.num_rows()).sum::<usize>(), bad.len());
        crash::point("ingest:before-dead-letters");
        tables.append(from, &to, events, bad).await?;
        crash::point("ingest:after-events");
        let source = || self.source.name.clone();
        metrics::counter!("stratus_ingest_events_total", "source" => source()).increment(rows as u64);
        metrics::counter!("stratus_ingest_dead_letters_total", "source" => source())
            .increment(letters as u64);
        metrics::counter!("stratus_ingest_commits_total", "source" => source()).increment(1);
        Ok(true)
    }
}

fn dead_letter(record: BadRecord) -> DeadLetter {
    let BadRecord { partition, offset, timestamp, reason, raw } = record;
    DeadLetter { partition, offset, timestamp, reason, raw }
}
