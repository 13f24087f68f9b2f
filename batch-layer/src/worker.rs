//! What the batch layer does as long as it runs: takes up requests, keeps schedules, gives every view a version,
//! shows signs of life, and sweeps.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use stratus_seam::catalog::CatalogState;
use stratus_seam::ids::ViewId;
use stratus_seam::runs::{RunRecord, RunStatus, prunable};
use tokio::sync::watch;

use crate::error::BatchError;
use crate::run::{BatchLayer, failure};
use crate::tracker::Tracker;

/// Between two looks at the catalog for views without a version, and at the queues.
const POLL: Duration = Duration::from_millis(25);
/// Between two looks for requests.
const REQUESTS_POLL: Duration = Duration::from_millis(200);
/// After a look that failed.
const BACKOFF: Duration = Duration::from_secs(1);
/// Between two signs of life of a run.
const BEAT: Duration = Duration::from_secs(1);

impl BatchLayer {
    /// Takes up what is asked for, keeps the views' schedules, gives every view that has no usable version one, and
    /// removes what nobody can need any more, until `stop` says so. Runs that are then under way are interrupted;
    /// those that are queued are taken up by the next batch layer.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let work = async {
            self.settle_at_once().await;
            tokio::join!(
                self.attend_views(),
                self.take_requests(),
                self.keep_schedules(),
                self.beat(),
                self.keep_swept(),
                self.watch_others()
            )
        };
        // A run that waits for the other layers must not hold up the end of the process.
        tokio::select! {
            // A sender that is gone has stopped, too.
            _ = stop.wait_for(|stop| *stop) => {}
            _ = work => {}
        }
        for tracker in self.work.all() {
            if tracker.record().status != RunStatus::Queued {
                tracker.enter(RunStatus::Interrupted).await;
            }
            self.work.end(tracker.record().id);
        }
    }

    /// Queues a run and writes so.
    pub(crate) async fn queue(&self, record: RunRecord) {
        let tracker = self.work.queue(Tracker::new(self.records.clone(), record));
        match tracker.record().status {
            RunStatus::Requested => tracker.enter(RunStatus::Queued).await,
            _ => tracker.beat().await,
        }
    }

    /// Follows the catalog: each view has its runs one after the other, beside those of other views.
    async fn attend_views(&self) -> Infallible {
        let mut attended: HashSet<ViewId> = HashSet::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            let pause = match self.catalog.refresh().await {
                Ok(catalog) => {
                    for view in catalog.views.values().map(|view| view.id) {
                        if attended.insert(view) {
                            under_way.push(self.attend(Arc::clone(&catalog), view));
                        }
                    }
                    POLL
                }
                Err(error) => {
                    tracing::warn!("the catalog cannot be read: {error}");
                    BACKOFF
                }
            };
            let pause = tokio::time::sleep(pause);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    Some(view) = under_way.next(), if !under_way.is_empty() => drop(attended.remove(&view)),
                }
            }
        }
    }

    /// The next run of a view, if there is one to be made.
    async fn attend(&self, catalog: Arc<CatalogState>, id: ViewId) -> ViewId {
        let run = self.run_of(id).await;
        // A run that is under way elsewhere in the process comes first.
        let Ok(_run) = run.try_lock() else { return id };
        let Some(view) = catalog.view(id) else { return id };
        let Some(tracker) = self.work.next(id) else {
            self.make_readable(&catalog, view).await;
            return id;
        };
        let outcome = match catalog.source(view.source) {
            Some(source) => self.perform(&tracker, source, view, None).await,
            None => Err(BatchError::NoSuchView(view.name.clone())),
        };
        if let Err(error) = outcome {
            self.end(&tracker, failure(&error)).await;
            tracing::warn!(view = view.name, "a recompute failed: {error}");
        }
        id
    }

    /// Turns requests into queued runs.
    async fn take_requests(&self) -> Infallible {
        loop {
            let pause = match self.try_to_take_requests().await {
                Ok(()) => REQUESTS_POLL,
                Err(error) => {
                    tracing::warn!("requests for runs cannot be read: {error}");
                    BACKOFF
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_to_take_requests(&self) -> Result<(), BatchError> {
        let requests = self.records.requests().await?;
        let catalog = if requests.is_empty() { self.catalog.seen() } else { self.catalog.refresh().await? };
        for request in requests {
            let id = request.id;
            // One that has a record was taken up before, by a process that did not come to remove it.
            let known = self.work.has(id) || self.records.read(request.view, id).await?.is_some();
            if !known {
                self.queue(request).await;
            }
            self.records.withdraw(id).await?;
        }
        for tracker in self.work.of_others(|view| catalog.view(view).is_some()) {
            let gone = BatchError::NoSuchView(tracker.record().view.to_string());
            self.end(&tracker, failure(&gone)).await;
        }
        Ok(())
    }

    /// Shows that the runs under way are alive.
    async fn beat(&self) -> Infallible {
        loop {
            tokio::time::sleep(BEAT).await;
            for tracker in self.work.all() {
                tracker.beat().await;
            }
        }
    }

    /// Removes the oldest records of a view that are too many.
    pub(crate) async fn prune(&self, view: ViewId) -> Result<(), BatchError> {
        let records = self.records.ids(view).await?;
        for run in prunable(&records, |run| self.work.has(run)) {
            self.records.remove(view, run).await?;
        }
        Ok(())
    }
}
