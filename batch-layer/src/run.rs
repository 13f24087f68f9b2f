//! One recompute of one view: cut, absorb, compute, publish.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream;
use stratus_lake::{Lake, MasterDataset, Runs};
use stratus_seam::catalog::{Action, CatalogMisfit, RunKind, Source, Version, ViewDefinition};
use stratus_seam::catalog_log::{Catalog, CatalogError, now_ms};
use stratus_seam::crash;
use stratus_seam::ids::ViewId;
use stratus_seam::retention::Grace;
use stratus_seam::runs::{RunRecord, RunStatus, Trigger};
use stratus_seam::store::StateStore;
use stratus_sql::cataloged::{DimensionTables, tables_of};
use stratus_sql::{FailedRows, SqlError, View};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::cut::{self, Cut};
use crate::error::BatchError;
use crate::first_run::FirstFailure;
use crate::tracker::{Progress, Tracker};
use crate::work::Work;

/// Files that no version lists any more stay for so long: queries may still read them.
const GRACE: Duration = Duration::from_secs(15 * 60);
/// Between two looks at the master dataset.
const POLL: Duration = Duration::from_millis(50);

/// How long a run waits for the other layers.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For the speed layer to take the cut.
    pub cut: Duration,
    /// For ingest to absorb it.
    pub absorb: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { cut: Duration::from_secs(60), absorb: Duration::from_secs(600) }
    }
}

/// The batch layer of all views.
#[derive(Debug)]
pub struct BatchLayer {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) states: Arc<dyn StateStore>,
    pub(crate) lake: Lake,
    /// Requests and records of runs.
    pub(crate) records: Runs,
    dimensions: Arc<dyn DimensionTables>,
    /// Where recomputes run, apart from sockets and commits.
    compute: Handle,
    patience: Patience,
    /// Of the views compiled so far.
    pub(crate) fingerprints: Mutex<HashMap<ViewId, String>>,
    /// One run of a view at a time, from its cut to its publication: cuts of one view are published in order.
    runs: Mutex<HashMap<ViewId, Arc<Mutex<()>>>>,
    /// One computation at a time: it takes the machine's memory and cores. Waiting for a cut, or for the master
    /// dataset, takes neither, so that a source that stands still holds up its own views alone.
    turn: Mutex<()>,
    /// The runs that are queued or under way.
    pub(crate) work: Work,
    /// The first runs that failed last.
    pub(crate) first_failures: Mutex<HashMap<ViewId, FirstFailure>>,
    /// How long files stay that nothing lists any more.
    pub(crate) grace: Duration,
    /// Since when which of them have been so.
    pub(crate) unused: Mutex<Grace>,
    /// What their time is counted from.
    pub(crate) began: Instant,
    /// For how long a run of another process shows no sign of life until it counts as ended.
    pub(crate) silence: Duration,
}

impl BatchLayer {
    /// A batch layer that computes on the runtime of `compute`.
    pub fn new(
        catalog: Arc<Catalog>,
        states: Arc<dyn StateStore>,
        lake: Lake,
        dimensions: Arc<dyn DimensionTables>,
        compute: Handle,
        patience: Patience,
    ) -> Self {
        Self {
            catalog,
            states,
            records: lake.runs(),
            lake,
            dimensions,
            compute,
            patience,
            fingerprints: Mutex::default(),
            runs: Mutex::default(),
            turn: Mutex::new(()),
            work: Work::default(),
            first_failures: Mutex::default(),
            grace: GRACE,
            unused: Mutex::default(),
            began: Instant::now(),
            silence: Duration::ZERO,
        }
    }

    /// The same, with another time for which files stay that nothing lists any more: 15 minutes if not told.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The same beside other processes with a batch layer, or where there may be some: their runs show signs of life
    /// every second, and those that do are left alone. One that has been silent for so long counts as ended.
    #[must_use]
    pub fn among_others(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Recomputes a view in full at a fresh cut and publishes the version, here and not in [`BatchLayer::run`].
    ///
    /// # Errors
    /// [`BatchError`]; the view's earlier versions go on answering.
    pub async fn refresh(&self, name: &str) -> Result<Version, BatchError> {
        let catalog = self.catalog.refresh().await?;
        let view = catalog.views.get(name).ok_or_else(|| BatchError::NoSuchView(name.to_owned()))?;
        let source = catalog.source(view.source).ok_or_else(|| BatchError::NoSuchView(name.to_owned()))?;
        let record = RunRecord::requested(view.id, Trigger::Request, None, now_ms());
        let tracker = self.work.begin(Tracker::new(self.records.clone(), record));
        let _listed = self.work.listed(&tracker);
        let run = self.run_of(view.id).await;
        let _run = run.lock().await;
        self.perform(&tracker, source, view, None).await
    }

    /// Makes a run with its record, at a cut that stands in the ledger or at a fresh one. The caller holds the
    /// view's run.
    pub(crate) async fn perform(
        &self,
        tracker: &Tracker,
        source: &Source,
        view: &ViewDefinition,
        cut: Option<Cut>,
    ) -> Result<Version, BatchError> {
        let outcome = match cut {
            Some(cut) => self.recompute(tracker, source, view, cut).await,
            None => self.recompute_at_fresh_cut(tracker, source, view).await,
        };
        self.end(tracker, outcome.as_ref().map(RunStatus::published).unwrap_or_else(failure)).await;
        outcome
    }

    /// Writes how a run ended, and removes records that are too many.
    pub(crate) async fn end(&self, tracker: &Tracker, status: RunStatus) {
        tracker.enter(status).await;
        let record = tracker.record();
        self.work.end(record.id);
        if let Err(error) = self.prune(record.view).await {
            tracing::warn!(view = %record.view, "old records of runs were not removed: {error}");
        }
    }

    /// What makes the runs of one view follow on one another.
    pub(crate) async fn run_of(&self, view: ViewId) -> Arc<Mutex<()>> {
        Arc::clone(self.runs.lock().await.entry(view).or_default())
    }

    /// Cuts and recomputes. The caller holds the view's run.
    async fn recompute_at_fresh_cut(
        &self,
        tracker: &Tracker,
        source: &Source,
        view: &ViewDefinition,
    ) -> Result<Version, BatchError> {
        tracker.enter(RunStatus::WaitingForCut).await;
        let state = self.states.source(source.id).await?;
        let requested = cut::request(state.ledger.as_ref(), view);
        let cut =
            tokio::time::timeout(self.patience.cut, requested).await.map_err(|_| BatchError::NoCut {
                view: view.name.clone(),
                source_name: source.name.clone(),
                seconds: self.patience.cut.as_secs(),
            })??;
        self.recompute(tracker, source, view, cut).await
    }

    /// Recomputes at a cut that stands in the ledger. The caller holds the view's run.
    async fn recompute(
        &self,
        tracker: &Tracker,
        source: &Source,
        view: &ViewDefinition,
        cut: Cut,
    ) -> Result<Version, BatchError> {
        let began = Instant::now();
        tracker.enter(RunStatus::WaitingForMaster).await;
        let master = MasterDataset::open(&self.lake, source).await?;
        let absorbed = tokio::time::timeout(self.patience.absorb, master.wait_absorbed(&cut.at, POLL)).await;
        absorbed.map_err(|_| BatchError::NotAbsorbed {
            source_name: source.name.clone(),
            cut: cut.at.clone(),
            seconds: self.patience.absorb.as_secs(),
        })??;
        let _turn = self.turn.lock().await;
        let catalog = self.catalog.refresh().await?;
        let compiled = View::of(view, &catalog).await?;
        let snapshot = master.snapshot().await?;
        let events = snapshot.count_below(&cut.at, None).await?;
        let parent = catalog.versions_of(view.id).last().map(|version| version.number);
        let number = parent.unwrap_or(0) + 1;
        tracker.enter(RunStatus::Computing { events: 0, of: events }).await;

        let tables = tables_of(view, self.dimensions.as_ref()).await?;
        let below = snapshot.events_below(&cut.at, None)?;
        let plan = compiled.states_plan(below, &tables)?;
        let failed = plan.failed.clone();
        let schema = compiled.descriptor().state_schema();
        let descriptor = serde_json::to_value(compiled.descriptor()).map_err(|error| {
            SqlError::new("XX000", format!("the states of the view cannot be described: {error}"))
        })?;
        let (lake, id, run) = (self.lake.clone(), view.id, tracker.record().id);
        let computed = self.compute.spawn({
            let progress = tracker.progress();
            async move {
                let states = stream(plan.plan, &progress).await?;
                Ok::<_, BatchError>(lake.write_version(id, number, run, schema, states).await?)
            }
        });
        let abort = AbortOnDrop(computed.abort_handle());
        let written = computed.await.map_err(|_| BatchError::Ended(view.name.clone()))??;
        drop(abort);
        crash::point("batch:after-files");

        let version = Version {
            view: view.id,
            number,
            parent,
            cut: cut.at,
            generation: cut.generation,
            fingerprint: compiled.fingerprint().to_owned(),
            descriptor,
            files: written.files,
            kind: RunKind::Full,
            groups: written.groups,
            events,
            failed_rows: failed_rows(&failed),
            published_ms: now_ms(),
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            run: Some(run),
        };
        self.publish(view, &version).await?;
        crash::point("batch:after-publish");
        tracing::info!(
            view = view.name, version = version.number, cut = %version.cut, events, groups = version.groups,
            failed_rows = version.failed_rows, ms = version.took_ms, "version published"
        );
        metrics::counter!("stratus_batch_runs_total", "view" => view.name.clone()).increment(1);
        Ok(version)
    }

    /// One catalog commit. The catalog refuses it unless the parent is still the newest version and the cut lies at
    /// or above its cut.
    async fn publish(&self, view: &ViewDefinition, version: &Version) -> Result<(), BatchError> {
        let decide = |catalog: &stratus_seam::catalog::CatalogState| {
            if catalog.view(view.id).is_none() {
                return Err(CatalogError::from(CatalogMisfit::Missing(view.name.clone())));
            }
            Ok(vec![Action::PublishVersion(version.clone())])
        };
        self.catalog.commit(decide).await?;
        Ok(())
    }
}

fn failed_rows(failed: &FailedRows) -> u64 {
    failed.count()
}

/// How a run that failed ended.
pub(crate) fn failure(error: &BatchError) -> RunStatus {
    let SqlError { sqlstate, message, detail, hint, .. } = SqlError::from(error);
    RunStatus::Failed { sqlstate: sqlstate.to_owned(), reason: message, detail, hint }
}

async fn stream(
    plan: datafusion::logical_expr::LogicalPlan,
    progress: &Progress,
) -> Result<SendableRecordBatchStream, SqlError> {
    let started = async {
        let session = stratus_sql::session::session_context();
        let frame = session.execute_logical_plan(plan).await?;
        let context = Arc::new(frame.task_ctx());
        let plan = frame.create_physical_plan().await?;
        progress.follow(Arc::clone(&plan));
        execute_stream(plan, context)
    };
    started.await.map_err(|error| stratus_sql::sqlstate_of(&error))
}

/// A run whose caller went away stops computing.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
