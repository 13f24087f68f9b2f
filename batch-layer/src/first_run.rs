//! The runs that nobody asks for: a view's first version, and one that joins on again after the speed state was
//! lost while a run was in flight.

use std::time::{Duration, Instant};

use stratus_seam::catalog::{CatalogState, ViewDefinition};
use stratus_seam::catalog_log::now_ms;
use stratus_seam::ids::RunId;
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::runs::{RunRecord, Trigger};
use stratus_sql::View;
use stratus_sql::cataloged::readable_versions;

use crate::cut;
use crate::error::BatchError;
use crate::run::BatchLayer;
use crate::tracker::Tracker;

/// After a failed run.
const BACKOFF: Duration = Duration::from_secs(1);

/// Whether a view needs a run of itself: it has no version that joins on to the speed state.
fn needs_run(ledger: &Ledger, view: &ViewDefinition, cuts: &[OffsetVector]) -> bool {
    let epochs = ledger.views.get(&view.id);
    epochs.is_some_and(|epochs| cuts.iter().all(|cut| epochs.chain(cut).is_none()))
}

/// The last first run of a view, which failed.
#[derive(Debug)]
pub(crate) struct FirstFailure {
    at: Instant,
    /// Its record, if it came so far.
    run: Option<RunId>,
}

impl BatchLayer {
    /// The fingerprint of a view, compiled once.
    async fn fingerprint(&self, catalog: &CatalogState, view: &ViewDefinition) -> Result<String, BatchError> {
        let known = self.fingerprints.lock().await.get(&view.id).cloned();
        if let Some(fingerprint) = known {
            return Ok(fingerprint);
        }
        let fingerprint = View::of(view, catalog).await?.fingerprint().to_owned();
        self.fingerprints.lock().await.insert(view.id, fingerprint.clone());
        Ok(fingerprint)
    }

    /// Gives a view a version if it has no usable one. The caller holds the view's run. After a failure it is tried
    /// again a second later; of attempts that fail one after the other the last keeps its record.
    pub(crate) async fn make_readable(&self, catalog: &CatalogState, view: &ViewDefinition) {
        let failed = self.first_failures.lock().await.get(&view.id).map(|failed| failed.at.elapsed());
        if failed.is_some_and(|since| since < BACKOFF) {
            return;
        }
        let mut run = None;
        let outcome = self.try_to_make_readable(catalog, view, &mut run).await;
        let mut failures = self.first_failures.lock().await;
        match outcome {
            Ok(()) => drop(failures.remove(&view.id)),
            Err(error) => {
                tracing::warn!(view = view.name, "a first run failed and will be tried again: {error}");
                let before = failures.insert(view.id, FirstFailure { at: Instant::now(), run });
                drop(failures);
                let replaced = before.and_then(|before| before.run).filter(|_| run.is_some());
                if let Some(replaced) = replaced
                    && let Err(error) = self.records.remove(view.id, replaced).await
                {
                    tracing::debug!(%replaced, "the record of a failed run was not removed: {error}");
                }
            }
        }
    }

    async fn try_to_make_readable(
        &self,
        catalog: &CatalogState,
        view: &ViewDefinition,
        run: &mut Option<RunId>,
    ) -> Result<(), BatchError> {
        let Some(source) = catalog.source(view.source) else { return Ok(()) };
        let state = self.states.source(source.id).await?;
        let Some(ledger) = state.ledger.read().await? else { return Ok(()) };
        let fingerprint = self.fingerprint(catalog, view).await?;
        let readable = readable_versions(catalog, view.id, &fingerprint);
        let cuts: Vec<OffsetVector> = readable.into_iter().map(|version| version.cut).collect();
        if !needs_run(&ledger, view, &cuts) {
            return Ok(());
        }
        let newest = catalog.versions_of(view.id).last().map(|version| &version.cut);
        let cut = cut::beginning(&ledger, view.id, newest);
        let record = RunRecord::requested(view.id, Trigger::First, None, now_ms());
        *run = Some(record.id);
        let tracker = self.work.begin(Tracker::new(self.records.clone(), record));
        self.perform(&tracker, source, view, cut).await.map(drop)
    }
}
