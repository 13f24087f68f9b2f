//! How the coordinator follows the catalog: views and sources come and go, and so do batches of theirs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stratus_seam::catalog::CatalogState;
use stratus_seam::catalog_log::CatalogError;
use stratus_seam::ids::TxId;
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::{OffsetRange, OffsetVector};

use super::{IDLE, Ranges, ViewCoordinator};
use crate::error::SpeedError;
use crate::housekeeping::{missing_view, new_views};
use crate::live::LiveViews;
use crate::standby::HEARTBEAT;
use crate::work::Batch;

/// Between two attempts to prepare views that could not be prepared.
const PREPARED_AGAIN: Duration = Duration::from_secs(5);
/// Between two warnings that the lake does not answer, which is asked many times a second.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

impl ViewCoordinator {
    /// The catalog as it is now, or as it was last seen while the lake does not answer; none if the source is no
    /// longer in it, and the work is over.
    pub(super) async fn look_at_catalog(&mut self) -> Result<Option<Arc<CatalogState>>, SpeedError> {
        let layer = &self.work.layer;
        let Some(held) = &mut self.held else { return Ok(None) };
        held.followed = Instant::now();
        let catalog = match layer.catalog.refresh().await {
            Ok(catalog) => {
                held.lake_is_away = None;
                catalog
            }
            Err(error @ CatalogError::Unavailable { .. }) => {
                let source = layer.source.name.as_str();
                metrics::counter!("stratus_speed_catalog_waits_total", "source" => source.to_owned())
                    .increment(1);
                if held.lake_is_away.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
                    held.lake_is_away = Some(Instant::now());
                    tracing::warn!(source, "the speed layer goes on by the catalog that it knows: {error}");
                }
                Arc::clone(&held.catalog)
            }
            Err(error) => return Err(error.into()),
        };
        if catalog.source(layer.source.id).is_none() {
            self.work.end(Ok(()));
            return Ok(None);
        }
        Ok(Some(catalog))
    }

    /// A batch that failed is tried again, unless it feeds what was dropped meanwhile: then the hold is let go, and
    /// the next one processes the entry without it. While batches fail nothing else asks the catalog.
    pub(super) async fn still_wanted(&mut self, txid: TxId) -> Result<(), SpeedError> {
        if self.held.as_ref().is_none_or(|held| held.followed.elapsed() < IDLE) {
            return Ok(());
        }
        let Some(catalog) = self.look_at_catalog().await? else {
            return Err(SpeedError::Recovers("the source was dropped".into()));
        };
        let Some((batch, _)) = self.open.get(&txid) else { return Ok(()) };
        match batch.feeds.iter().find(|feed| catalog.view(feed.scope.view).is_none()) {
            Some(feed) => Err(SpeedError::Recovers(format!(
                "view \"{}\", which a batch that failed feeds, was dropped",
                feed.view.name
            ))),
            None => Ok(()),
        }
    }

    /// Lets the ledger follow the catalog. Answers whether there may be a batch now.
    pub(super) async fn follow(&mut self, idle: bool) -> Result<bool, SpeedError> {
        let work = Arc::clone(&self.work);
        let layer = &work.layer;
        let Some(catalog) = self.look_at_catalog().await? else { return Ok(false) };
        let outdated = self.held.as_ref().filter(|held| {
            let again = !held.views.unprepared().is_empty() && held.tried.elapsed() >= PREPARED_AGAIN;
            held.views.head() != catalog.head || again
        });
        if let Some(before) = outdated.map(|held| Arc::clone(&held.views)) {
            let views = self.prepare(&catalog, Some(&before)).await;
            if let Some(held) = &mut self.held {
                (held.views, held.tried) = (views, Instant::now());
            }
        }
        let Some(held) = &mut self.held else { return Ok(false) };
        held.catalog = catalog;
        let (hold, catalog, views) = (&held.hold, &held.catalog, &held.views);
        // What feeds nothing is skipped before the first view is taken up.
        let first = {
            let ledger = hold.ledger.lock().await;
            let record = ledger.record();
            record.views.is_empty() && !new_views(record, views).is_empty()
        };
        if !first || held.skipped {
            if !held.drains && hold.house_is_to_be_kept(catalog, views).await? {
                held.drains = true;
            }
            if held.drains {
                if !idle {
                    return Ok(false);
                }
                hold.keep_house(&layer.source, catalog, views).await?;
                (held.drains, held.skipped) = (false, false);
            }
        }
        if idle && layer.limits.shared && held.checked.elapsed() >= HEARTBEAT {
            hold.shards.check().await?;
            held.checked = Instant::now();
        }
        Ok(true)
    }

    /// A source without views is not read. Before its first view is taken up the ledger moves to the end of the
    /// log, by an entry that feeds nothing, so that the view's speed state begins there and its first run covers
    /// what lies below.
    pub(super) async fn first_view(&mut self, idle: bool) -> Result<Option<Batch>, SpeedError> {
        let Some(held) = &mut self.held else { return Ok(None) };
        let record = held.hold.ledger.lock().await.record().clone();
        if !idle {
            return Ok(None);
        }
        let layer = &self.work.layer;
        if new_views(&record, &held.views).is_empty() {
            let mut stop = self.work.stop.clone();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = tokio::time::sleep(IDLE) => {}
            }
            return Ok(None);
        }
        let end = layer.log.end().await.map_err(SpeedError::from);
        let Some(end) = self.or_rest(end)? else { return Ok(None) };
        if let Some(held) = &mut self.held {
            held.skipped = true;
        }
        let ranges = skipped(&record.appended_to, &end);
        if ranges.is_empty() {
            return Ok(None);
        }
        self.append(ranges, Vec::new()).await.map(Some)
    }
}

/// Without every view that it feeds no entry of the ledger can be processed.
pub(super) fn can_feed(ledger: &Ledger, views: &LiveViews) -> Result<(), SpeedError> {
    match missing_view(ledger, views) {
        Some((view, error)) => Err(SpeedError::View {
            view: view.to_owned(),
            message: format!(
                "{error} (all views of the source wait until it can be prepared, or is dropped)"
            ),
        }),
        None => Ok(()),
    }
}

/// The ranges between two places, as ones without records.
fn skipped(at: &OffsetVector, end: &OffsetVector) -> Ranges {
    end.iter()
        .filter(|(partition, to)| at.get(*partition) < *to)
        .map(|(partition, to)| (partition, OffsetRange { from: at.get(partition), to, records: 0 }))
        .collect()
}
