//! The record of a run while it goes: every step is written to the lake, and signs of life between them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::physical_plan::ExecutionPlan;
use stratus_lake::Runs;
use stratus_seam::catalog_log::now_ms;
use stratus_seam::runs::{RunRecord, RunStatus};

/// The record of one run. What cannot be written is told in the log and stops nothing: it is telemetry.
#[derive(Debug)]
pub(crate) struct Tracker {
    runs: Runs,
    /// Held while the record is written, so that an earlier state never overwrites a later one.
    record: tokio::sync::Mutex<RunRecord>,
    /// The same, for whoever cannot wait.
    seen: Mutex<RunRecord>,
    progress: Progress,
}

/// How far a computation is: its plan counts rows as they pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<OnceLock<Arc<dyn ExecutionPlan>>>);

impl Progress {
    /// Makes a computation's plan known.
    pub(crate) fn follow(&self, plan: Arc<dyn ExecutionPlan>) {
        // A run computes once.
        _ = self.0.set(plan);
    }

    fn rows(&self) -> u64 {
        self.0.get().map_or(0, |plan| rows_read(plan.as_ref()))
    }
}

impl Tracker {
    pub(crate) fn new(runs: Runs, record: RunRecord) -> Self {
        let seen = Mutex::new(record.clone());
        Self { runs, record: tokio::sync::Mutex::new(record), seen, progress: Progress::default() }
    }

    /// The record as it stands.
    pub(crate) fn record(&self) -> RunRecord {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a step and writes it. A step that the run cannot take is left out.
    pub(crate) async fn enter(&self, status: RunStatus) {
        let mut record = self.record.lock().await;
        if let Ok(next) = record.step(status, now_ms()) {
            self.write(&mut record, next).await;
        }
    }

    /// Writes a sign of life, with the progress of a computation.
    pub(crate) async fn beat(&self) {
        let mut record = self.record.lock().await;
        if record.status.is_end() {
            return;
        }
        let next = match record.status {
            RunStatus::Computing { events, of } => {
                let events = self.progress.rows().clamp(events, of.max(events));
                record.step(RunStatus::Computing { events, of }, now_ms()).unwrap_or_else(|_| record.alive())
            }
            _ => record.alive(),
        };
        self.write(&mut record, next).await;
    }

    async fn write(&self, record: &mut RunRecord, next: RunRecord) {
        *record = next;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = record.clone();
        if let Err(error) = self.runs.write(record).await {
            tracing::warn!(run = %record.id, status = record.status.name(), "the record of a run was not written: {error}");
        }
    }

    /// Where the computation of the run tells how far it is.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// The rows that a plan's largest scan has given so far: the events, dimension tables are small.
fn rows_read(plan: &dyn ExecutionPlan) -> u64 {
    let children = plan.children();
    if children.is_empty() {
        let rows = plan.metrics().and_then(|metrics| metrics.output_rows());
        return rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
    }
    children.into_iter().map(|child| rows_read(child.as_ref())).max().unwrap_or(0)
}
