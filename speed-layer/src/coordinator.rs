//! The coordinator of one source: the only writer of its ledger and shards.
//!
//! An interim loop: one batch at a time, from the log to the commit. The decisions are those of [`stratus_seam`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use stratus_logs::codec::CodecOptions;
use stratus_seam::catalog::{CatalogState, Source};
use stratus_seam::catalog_log::Catalog;
use stratus_seam::crash;
use stratus_seam::ids::Token;
use stratus_seam::ledger::Txn;
use stratus_seam::log::{Chunk, Log, LogError};
use stratus_seam::offsets::{OffsetRange, OffsetVector};
use stratus_seam::recovery::Unreadable;
use stratus_seam::store::{Durability, SourceState, TxnChanges};
use stratus_sql::cataloged::DimensionTables;
use tokio::sync::watch;

use crate::batch;
use crate::error::SpeedError;
use crate::groups::{self, Effects};
use crate::ledger::HeldLedger;
use crate::live::LiveViews;
use crate::standby::{HEARTBEAT, stand_by};
use crate::startup::{self, Hold};

/// How long the coordinator waits after a failure before it recovers.
const BACKOFF: Duration = Duration::from_millis(200);
/// How long it waits for a log that cannot be read.
const LOG_BACKOFF: Duration = Duration::from_millis(500);
/// How long it waits for records before it looks after the catalog and requests again.
const IDLE: Duration = Duration::from_millis(50);
/// Entries more than this many txids behind T are forgotten: ten minutes of batches at the least time between two.
/// A shard lags T only if the store lost its tail; a short lag is replayed, a longer one begins a new generation.
const ENTRIES_KEPT: u64 = 30_000;

/// Bounds of a micro-batch.
#[derive(Debug, Clone)]
pub struct Limits {
    /// About how many bytes of records a batch holds at most.
    pub batch_bytes: usize,
    /// The least time from one batch to the next: what comes in meanwhile goes into one.
    pub linger: Duration,
    /// Whether other processes can reach the state, so that one may stand by for this one.
    pub shared: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch_bytes: 16 << 20, linger: Duration::from_millis(20), shared: false }
    }
}

/// The speed layer of one source.
#[derive(Debug)]
pub struct SpeedLayer {
    /// The source.
    pub source: Source,
    /// Its log.
    pub log: Arc<dyn Log>,
    /// Its state.
    pub state: SourceState,
    /// The catalog, for its views and their versions.
    pub catalog: Arc<Catalog>,
    /// The dimension tables that the views join.
    pub dimensions: Arc<dyn DimensionTables>,
    /// How records are decoded.
    pub codec: CodecOptions,
    /// How many shards a new generation has.
    pub shards: u32,
    /// Bounds of a batch.
    pub limits: Limits,
}

impl SpeedLayer {
    /// Works until `stop` says so: recovers, processes, and recovers again after a failure.
    ///
    /// # Errors
    /// [`SpeedError::Stop`] if a person must look, or [`LogError::Replaced`]; no other failure ends it.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) -> Result<(), SpeedError> {
        let (mut own, mut unreadable) = (Vec::new(), None);
        // Once another process has taken the ledger, this one waits for its silence before every attempt, until one
        // has succeeded.
        let mut stands_by = false;
        while !*stop.borrow() {
            let held = own.len();
            let failure = match self.work(&mut stop, &mut own, unreadable.as_ref()).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.is_final() => return Err(failure),
                Err(failure) => failure,
            };
            unreadable = failure.unreadable().or(unreadable);
            metrics::counter!("stratus_speed_recoveries_total", "source" => self.source.name.clone())
                .increment(1);
            tracing::warn!(source = self.source.name, "the speed layer recovers: {failure}");
            let lost = matches!(
                failure,
                SpeedError::LostLedger | SpeedError::Refused { .. } | SpeedError::LostShard(_)
            );
            stands_by = lost || (stands_by && own.len() == held);
            let pause = async {
                if stands_by {
                    stand_by(self.state.ledger.as_ref(), &own, &self.source.name).await;
                }
                tokio::time::sleep(BACKOFF).await;
            };
            tokio::select! {
                _ = stop.changed() => {}
                () = pause => {}
            }
        }
        Ok(())
    }

    /// `own` gets the token of each hold on the ledger; `unreadable` is the entry whose records turned out to be
    /// others than were written down, if one did.
    async fn work(
        &self,
        stop: &mut watch::Receiver<bool>,
        own: &mut Vec<Token>,
        unreadable: Option<&Unreadable>,
    ) -> Result<(), SpeedError> {
        let mut catalog = self.catalog.refresh().await?;
        if catalog.source(self.source.id).is_none() {
            return Ok(());
        }
        let mut live = self.prepare(&catalog, None).await?;
        let versions = live.versions(&catalog);
        let (log, shards) = (self.log.as_ref(), self.shards);
        let mut hold =
            startup::take_over(&self.source, &versions, log, &self.state, shards, unreadable).await?;
        own.push(hold.ledger.record().token);
        // Read again now that nobody else can write the ledger: every view that it lists is in this catalog, or was
        // dropped. With an older one an entry's views could be passed over for dropped ones.
        catalog = self.catalog.refresh().await?;
        live = self.prepare(&catalog, Some(live)).await?;
        for txn in std::mem::take(&mut hold.replay) {
            let chunks = match txn.feeds.is_empty() {
                true => Vec::new(),
                false => loop {
                    let (log, shared) = (self.log.as_ref(), self.limits.shared);
                    // A log that is away is an answer, too, and no reason to let go.
                    let reading = Box::pin(async { Ok(batch::read_again(log, &txn).await) });
                    let read = Self::beside_heartbeats(shared, &mut hold.ledger, reading).await?;
                    match self.or_wait(stop, read).await? {
                        Some(chunks) => break chunks,
                        None if *stop.borrow() => return Ok(()),
                        None if shared => drop(hold.ledger.keep_alive().await?),
                        None => {}
                    }
                },
            };
            self.process(&mut hold, &mut live, &txn, &chunks).await?;
        }
        while !*stop.borrow() {
            let began = Instant::now();
            catalog = self.catalog.refresh().await?;
            if catalog.source(self.source.id).is_none() {
                return Ok(());
            }
            if live.outdated(&catalog) {
                live = self.prepare(&catalog, Some(live)).await?;
            }
            self.skip_what_feeds_nothing(&mut hold, &mut live, &catalog).await?;
            let kept = hold.keep_house(&self.source, &catalog, &live).await?;
            if self.limits.shared && hold.ledger.keep_alive().await? {
                hold.shards.check().await?;
            }
            self.log.acknowledge(&hold.ledger.record().committed_to).await;
            let position = hold.ledger.record().appended_to.clone();
            if hold.ledger.record().views.is_empty() {
                self.pause(stop, IDLE).await;
                continue;
            }
            let read = batch::read_new(self.log.as_ref(), &position, self.limits.batch_bytes).await;
            let Some(chunks) = self.or_wait(stop, read).await? else { continue };
            if chunks.is_empty() {
                if !kept {
                    self.idle(stop, &mut hold, &mut live, &position).await?;
                }
                continue;
            }
            self.append_and_process(&mut hold, &mut live, batch::ranges(&chunks), &chunks).await?;
            self.pause(stop, self.limits.linger.saturating_sub(began.elapsed())).await;
        }
        Ok(())
    }

    /// A log that cannot be read now is waited for, in place: what was taken over is still held, and readers go on at
    /// T. So is ingest, which has yet to say what becomes of records that the log no longer has.
    async fn or_wait<T>(
        &self,
        stop: &mut watch::Receiver<bool>,
        read: Result<T, SpeedError>,
    ) -> Result<Option<T>, SpeedError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(SpeedError::Log(failure @ LogError::Unavailable { .. })) => {
                metrics::counter!("stratus_speed_log_waits_total", "source" => self.source.name.clone())
                    .increment(1);
                tracing::warn!(source = self.source.name, "the speed layer waits for the log: {failure}");
                self.pause(stop, LOG_BACKOFF).await;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Waits for records. As long as answers wait for the generation's target, partitions whose log has no record
    /// left below its end are moved there by an entry without records.
    async fn idle(
        &self,
        stop: &mut watch::Receiver<bool>,
        hold: &mut Hold,
        live: &mut LiveViews,
        position: &OffsetVector,
    ) -> Result<(), SpeedError> {
        if !position.covers(&hold.ledger.record().target) {
            let left = batch::nothing_left(self.log.as_ref(), position).await;
            let Some(ranges) = self.or_wait(stop, left).await? else { return Ok(()) };
            if !ranges.is_empty() {
                return self.append_and_process(hold, live, ranges, &[]).await;
            }
        }
        let waited = tokio::select! {
            _ = stop.changed() => return Ok(()),
            waited = self.log.appended(position, IDLE) => waited.map_err(SpeedError::from),
        };
        self.or_wait(stop, waited).await.map(drop)
    }

    async fn pause(&self, stop: &mut watch::Receiver<bool>, time: Duration) {
        if !time.is_zero() {
            tokio::select! {
                _ = stop.changed() => {}
                () = tokio::time::sleep(time) => {}
            }
        }
    }

    async fn prepare(
        &self,
        catalog: &CatalogState,
        before: Option<LiveViews>,
    ) -> Result<LiveViews, SpeedError> {
        LiveViews::prepare(&self.source, catalog, &self.dimensions, &self.codec, before).await
    }

    /// A source without views is not read. Before its first view is taken up the ledger moves to the end of the
    /// log, by an entry that feeds nothing, so that the view's speed state begins there and its first run covers
    /// what lies below.
    async fn skip_what_feeds_nothing(
        &self,
        hold: &mut Hold,
        live: &mut LiveViews,
        catalog: &CatalogState,
    ) -> Result<(), SpeedError> {
        if !hold.ledger.record().views.is_empty() || hold.new_views(&self.source, catalog).is_empty() {
            return Ok(());
        }
        let (at, end) = (hold.ledger.record().appended_to.clone(), self.log.end().await?);
        let ranges: BTreeMap<_, _> = end
            .iter()
            .filter(|(partition, to)| at.get(*partition) < *to)
            .map(|(partition, to)| (partition, OffsetRange { from: at.get(partition), to, records: 0 }))
            .collect();
        if !ranges.is_empty() {
            self.append_and_process(hold, live, ranges, &[]).await?;
        }
        Ok(())
    }

    /// Ledger first: the ranges are written down before anything is computed from them.
    async fn append_and_process(
        &self,
        hold: &mut Hold,
        live: &mut LiveViews,
        ranges: BTreeMap<u32, OffsetRange>,
        chunks: &[Chunk],
    ) -> Result<(), SpeedError> {
        crash::point("speed:before-append");
        let (next, txn) = hold.ledger.record().append(ranges)?;
        let forget_below = next.committed.saturating_sub(ENTRIES_KEPT);
        let changes = TxnChanges { append: Some(txn.clone()), forget_below, forget_all: false };
        hold.ledger.advance(next, changes, Durability::Later).await?;
        crash::point("speed:after-append");
        self.process(hold, live, &txn, chunks).await
    }

    /// Works, and says meanwhile that it does: a batch may take longer than the silence that one who stands by waits
    /// for.
    async fn beside_heartbeats<T>(
        shared: bool,
        ledger: &mut HeldLedger,
        mut work: BoxFuture<'_, Result<T, SpeedError>>,
    ) -> Result<T, SpeedError> {
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(HEARTBEAT), if shared => {
                    // Whoever lost the ledger stops at once: the shards would refuse the rest.
                    ledger.keep_alive().await?;
                }
            }
        }
    }

    /// Brings an entry to every shard that lacks it, then moves T to it.
    async fn process(
        &self,
        hold: &mut Hold,
        live: &mut LiveViews,
        txn: &Txn,
        chunks: &[Chunk],
    ) -> Result<(), SpeedError> {
        let began = Instant::now();
        let Hold { ledger, shards, .. } = &mut *hold;
        let record = ledger.record().clone();
        let work = Box::pin(async {
            let Effects { commits, failed, bad_records } =
                groups::effects(txn, chunks, &record, live, shards).await?;
            shards.apply(commits).await?;
            Ok::<_, SpeedError>((failed, bad_records))
        });
        let (failed, bad_records) = Self::beside_heartbeats(self.limits.shared, ledger, work).await?;
        crash::point("speed:after-shards");
        if hold.shards.lowest() >= txn.txid && hold.ledger.record().committed < txn.txid {
            let next = hold.ledger.record().commit(txn, &failed)?;
            hold.ledger.advance(next, TxnChanges::default(), Durability::Now).await?;
            crash::point("speed:after-commit");
        }
        let records: u64 = txn.ranges.values().map(|range| range.records).sum();
        let source = || self.source.name.clone();
        metrics::counter!("stratus_speed_records_total", "source" => source()).increment(records);
        metrics::counter!("stratus_speed_bad_records_total", "source" => source()).increment(bad_records);
        metrics::counter!("stratus_speed_batches_total", "source" => source()).increment(1);
        metrics::histogram!("stratus_speed_batch_duration_seconds", "source" => source())
            .record(began.elapsed().as_secs_f64());
        Ok(())
    }
}
