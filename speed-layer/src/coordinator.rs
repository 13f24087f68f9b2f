//! The coordinator of a source's batches: the only writer of its ledger.
//!
//! It says what is in a batch, ledger first, and moves T when every shard holds one. What it may do, and what it must
//! do after a crash or a refused write, is decided by [`stratus_seam`]; here is only the I/O around those decisions.

mod catalog;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use stratus_seam::catalog::CatalogState;
use stratus_seam::crash;
use stratus_seam::ids::TxId;
use stratus_seam::log::{Chunk, LogError};
use stratus_seam::offsets::{OffsetRange, Partition};
use stratus_seam::store::{Durability, TxnChanges};
use stratus_topology::TaskError;
use stratus_trident::{BatchCoordinator, Recovery};

use crate::batch;
use crate::coordinator::catalog::can_feed;
use crate::error::SpeedError;
use crate::heart::Heart;
use crate::live::LiveViews;
use crate::standby::stand_by;
use crate::startup::{self, Hold};
use crate::work::{Batch, Work};

/// How long the coordinator waits after a failure before it recovers.
const BACKOFF: Duration = Duration::from_millis(200);
/// How long it waits for a log that cannot be read.
const LOG_BACKOFF: Duration = Duration::from_millis(500);
/// How long it waits for records before it looks after the catalog and requests again.
const IDLE: Duration = Duration::from_millis(50);
/// How long it waits for records while batches are under way, whose commits wait for it.
const BUSY: Duration = Duration::from_millis(2);
/// Entries more than this many txids behind T are forgotten: ten minutes of batches at the least time between two.
/// A shard lags T only if the store lost its tail; a short lag is replayed, a longer one begins a new generation.
const ENTRIES_KEPT: u64 = 30_000;

type Ranges = BTreeMap<Partition, OffsetRange>;

/// What the coordinator works with once it has recovered.
struct Held {
    hold: Arc<Hold>,
    catalog: Arc<CatalogState>,
    views: Arc<LiveViews>,
    /// Says that this writer is there.
    _heart: Option<Heart>,
    /// When it was last seen that the shards are all there.
    checked: Instant,
    /// When the catalog was last looked at.
    followed: Instant,
    /// When views that could not be prepared were last tried.
    tried: Instant,
    /// When it was last told that the lake does not answer, while it does not.
    lake_is_away: Option<Instant>,
    /// Batches end before the ledger follows the catalog.
    drains: bool,
    /// What feeds nothing was skipped, so that a first view can begin.
    skipped: bool,
}

/// The coordinator; see [`BatchCoordinator`].
pub(crate) struct ViewCoordinator {
    work: Arc<Work>,
    held: Option<Held>,
    open: BTreeMap<TxId, (Arc<Batch>, Instant)>,
    rests_until: Option<Instant>,
}

impl ViewCoordinator {
    pub(crate) fn new(work: Arc<Work>) -> Self {
        Self { work, held: None, open: BTreeMap::new(), rests_until: None }
    }

    async fn prepare(&self, catalog: &CatalogState, before: Option<&LiveViews>) -> Arc<LiveViews> {
        let layer = &self.work.layer;
        let views = LiveViews::prepare(&layer.source, catalog, layer.dimensions.as_ref(), before).await;
        for (_, error) in views.unprepared().values() {
            tracing::warn!(source = self.work.source(), "{error}: it is tried again");
        }
        Arc::new(views)
    }

    /// Lets go of what was held, and says why; waits if another process should go on in our place.
    async fn let_go(&mut self) -> Result<(), SpeedError> {
        let held = self.held.take();
        if let Some(held) = &held {
            held.hold.end();
        }
        self.open.clear();
        self.work.clear();
        let failure = self.work.take_failure();
        let mut past = self.work.past.lock().await;
        if let Some(failure) = &failure {
            past.unreadable = failure.unreadable().or_else(|| past.unreadable.take());
            let lost = matches!(
                failure,
                SpeedError::LostLedger | SpeedError::Refused { .. } | SpeedError::LostShard(_)
            );
            past.stands_by = lost || (past.stands_by && held.is_none());
        }
        if let Some(failure) = failure {
            if failure.is_final() {
                let told = failure.to_string();
                self.work.end(Err(failure));
                return Err(SpeedError::Recovers(told));
            }
            let source = self.work.source();
            metrics::counter!("stratus_speed_recoveries_total", "source" => source.to_owned()).increment(1);
            tracing::warn!(source, "the speed layer recovers: {failure}");
        } else if past.began {
            tracing::warn!(source = self.work.source(), "the speed layer recovers: its coordinator ended");
        }
        let mut stop = self.work.stop.clone();
        let stands_by = past.stands_by;
        let waits = async {
            if stands_by {
                let ledger = self.work.layer.state.ledger.as_ref();
                stand_by(ledger, &past.own, self.work.source()).await;
            }
            if past.began {
                tokio::time::sleep(BACKOFF).await;
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Err(SpeedError::Recovers("the source's work ends".into())),
            () = waits => {}
        }
        past.began = true;
        Ok(())
    }

    /// Takes over what there is. Answers with the entries to be processed again.
    async fn take_over(&mut self) -> Result<Recovery, SpeedError> {
        self.let_go().await?;
        let work = Arc::clone(&self.work);
        let layer = &work.layer;
        let mut catalog = layer.catalog.refresh().await?;
        if catalog.source(layer.source.id).is_none() {
            self.work.end(Ok(()));
            return Err(SpeedError::Recovers("the source was dropped".into()));
        }
        let mut views = self.prepare(&catalog, None).await;
        // Looked at before the ledger is taken: what is waited for here may take long.
        if let Some(ledger) = layer.state.ledger.read().await? {
            can_feed(&ledger, &views)?;
        }
        let mut past = self.work.past.lock().await;
        let (hold, replay) = startup::take_over(
            &layer.source,
            &views.versions(&catalog),
            layer.log.as_ref(),
            &layer.state,
            layer.shards,
            past.unreadable.as_ref(),
        )
        .await?;
        let hold = Arc::new(hold);
        past.hold(hold.ledger.lock().await.record().token);
        drop(past);
        // Read again now that nobody else can write the ledger: every view that it lists is in this catalog, or was
        // dropped. With an older one an entry's views could be passed over for dropped ones.
        catalog = layer.catalog.refresh().await?;
        views = self.prepare(&catalog, Some(&views)).await;
        hold.forget_dropped(&catalog).await?;
        let record = hold.ledger.lock().await.record().clone();
        can_feed(&record, &views)?;
        let committed = replay.first().map_or(record.appended, |txn| txn.txid - 1);
        let mut open = Vec::with_capacity(replay.len());
        for txn in replay {
            let (txid, chunks) = (txn.txid, txn.feeds.is_empty().then(Vec::new));
            let batch = Batch::new(Arc::clone(&hold), &record, txn, Arc::clone(&views), chunks);
            open.push((txid, self.opened(batch)));
        }
        let heart = layer.limits.shared.then(|| Heart::beat(Arc::clone(&work), Arc::clone(&hold)));
        self.held = Some(Held {
            hold,
            catalog,
            views,
            _heart: heart,
            checked: Instant::now(),
            followed: Instant::now(),
            tried: Instant::now(),
            lake_is_away: None,
            drains: false,
            skipped: false,
        });
        Ok(Recovery { committed, epoch: record.token.counter, open })
    }

    fn opened(&mut self, batch: Batch) -> String {
        let batch = self.work.open(batch);
        let metadata = metadata(&batch);
        self.open.insert(batch.txn.txid, (batch, Instant::now()));
        metadata
    }

    /// The next batch, if there is one now.
    async fn begin(&mut self) -> Result<Option<Batch>, SpeedError> {
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return Ok(None);
        }
        self.rests_until = None;
        let idle = self.open.is_empty();
        if self.work.has_failed() || (self.held.as_ref().is_some_and(|held| held.drains) && !idle) {
            return Ok(None);
        }
        // The lake may be far away, and the commits of batches under way wait for this.
        let due = self.held.as_ref().is_some_and(|held| idle || held.followed.elapsed() >= IDLE);
        if due && !self.follow(idle).await? {
            return Ok(None);
        }
        let Some(held) = &mut self.held else { return Ok(None) };
        let record = held.hold.ledger.lock().await.record().clone();
        if record.views.is_empty() {
            return self.first_view(idle).await;
        }
        let work = Arc::clone(&self.work);
        let (log, position) = (work.layer.log.as_ref(), &record.appended_to);
        let most = work.layer.limits.batch_bytes;
        let mut chunks = batch::read_new(log, position, most).await;
        if chunks.as_ref().is_ok_and(Vec::is_empty) {
            if idle && !position.covers(&record.target) {
                // As long as answers wait for the generation's target, partitions whose log has no record left below
                // its end are moved there by an entry without records.
                let left = batch::nothing_left(log, position).await;
                let Some(ranges) = self.or_rest(left)? else { return Ok(None) };
                if !ranges.is_empty() {
                    return self.append(ranges, Vec::new()).await.map(Some);
                }
            }
            let mut stop = self.work.stop.clone();
            let waited = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
                waited = log.appended(position, if idle { IDLE } else { BUSY }) => waited,
            };
            if self.or_rest(waited.map_err(SpeedError::from))?.is_none() {
                return Ok(None);
            }
            chunks = batch::read_new(log, position, most).await;
        }
        match self.or_rest(chunks)? {
            Some(chunks) if !chunks.is_empty() => self.append(batch::ranges(&chunks), chunks).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Ledger first: the ranges are written down before anything is computed from them.
    async fn append(&mut self, ranges: Ranges, chunks: Vec<Chunk>) -> Result<Batch, SpeedError> {
        let Some(held) = &self.held else { return Err(SpeedError::LostLedger) };
        crash::point("speed:before-append");
        let mut ledger = held.hold.ledger.lock().await;
        let (next, txn) = ledger.record().append(ranges)?;
        let forget_below = next.committed.saturating_sub(ENTRIES_KEPT);
        let changes = TxnChanges { append: Some(txn.clone()), forget_below, forget_all: false };
        ledger.advance(next, changes, Durability::Later).await?;
        crash::point("speed:after-append");
        Ok(Batch::new(Arc::clone(&held.hold), ledger.record(), txn, Arc::clone(&held.views), Some(chunks)))
    }

    /// A log that cannot be read now is waited for, in place: what was taken over is still held, and readers go on at
    /// T. So is ingest, which has yet to say what becomes of records that the log no longer has.
    fn or_rest<T>(&mut self, read: Result<T, SpeedError>) -> Result<Option<T>, SpeedError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(SpeedError::Log(failure @ LogError::Unavailable { .. })) => {
                let source = self.work.source();
                metrics::counter!("stratus_speed_log_waits_total", "source" => source.to_owned())
                    .increment(1);
                tracing::warn!(source, "the speed layer waits for the log: {failure}");
                self.work.layer.standing.fails(&failure);
                self.rests_until = Some(Instant::now() + LOG_BACKOFF);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Every shard holds this txid: T moves to it.
    async fn move_t(&mut self, txid: TxId) -> Result<(), SpeedError> {
        let Some((batch, began)) = self.open.remove(&txid) else { return Err(SpeedError::LostLedger) };
        if batch.hold.shards.lowest() < txid {
            return Err(SpeedError::Recovers(format!("txid {txid} is not on every shard")));
        }
        crash::point("speed:after-shards");
        let tally = batch.tally();
        let mut ledger = batch.hold.ledger.lock().await;
        if ledger.record().committed < txid {
            let next = ledger.record().commit(&batch.txn, &tally.failed)?;
            ledger.advance(next, TxnChanges::default(), Durability::Now).await?;
            crash::point("speed:after-commit");
        }
        let committed_to = ledger.record().committed_to.clone();
        drop(ledger);
        self.work.layer.standing.goes_on();
        self.work.close(txid);
        self.work.layer.log.acknowledge(&committed_to).await;
        let records: u64 = batch.txn.ranges.values().map(|range| range.records).sum();
        let source = || self.work.source().to_owned();
        metrics::counter!("stratus_speed_records_total", "source" => source()).increment(records);
        metrics::counter!("stratus_speed_bad_records_total", "source" => source())
            .increment(tally.bad_records);
        metrics::counter!("stratus_speed_batches_total", "source" => source()).increment(1);
        metrics::histogram!("stratus_speed_batch_duration_seconds", "source" => source())
            .record(began.elapsed().as_secs_f64());
        Ok(())
    }
}

/// What the spout's tasks are told of a batch: its number, and its ranges for those who look on.
fn metadata(batch: &Batch) -> String {
    json!({ "batch": batch.number, "ranges": batch.txn.ranges }).to_string()
}

#[async_trait]
impl BatchCoordinator for ViewCoordinator {
    async fn recover(&mut self) -> Result<Recovery, TaskError> {
        match self.take_over().await {
            Ok(recovery) => Ok(recovery),
            Err(error @ SpeedError::Recovers(_)) => Err(error.into()),
            Err(error) => Err(self.work.broken(error).into()),
        }
    }

    async fn next(&mut self, txid: u64) -> Result<Option<String>, TaskError> {
        match self.begin().await {
            Ok(None) if self.work.has_failed() => Err("the hold on the source's state was lost".into()),
            Ok(None) => {
                if self.open.is_empty() && self.rests_until.is_none() {
                    self.work.layer.standing.goes_on();
                }
                Ok(None)
            }
            Ok(Some(batch)) if batch.txn.txid == txid => Ok(Some(self.opened(batch))),
            Ok(Some(_)) => Err(self.work.broken(SpeedError::LostLedger).into()),
            Err(error) => Err(self.work.broken(error).into()),
        }
    }

    async fn again(&mut self, txid: u64, metadata: &str) -> Result<String, TaskError> {
        if self.work.has_failed() {
            return Err("the hold on the source's state was lost".into());
        }
        self.work.layer.standing.tries_again(txid);
        self.still_wanted(txid).await.map_err(|error| self.work.broken(error))?;
        Ok(metadata.to_owned())
    }

    async fn committed(&mut self, txid: u64) -> Result<(), TaskError> {
        self.move_t(txid).await.map_err(|error| self.work.broken(error).into())
    }
}
