//! The runs that nobody asks for: a view's first version, and one that joins on again after the speed state was
//! lost while a run was in flight.

use std::time::Duration;

use futures::future::join_all;
use stratus_seam::catalog::{CatalogState, ViewDefinition};
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_sql::View;
use stratus_sql::cataloged::readable_versions;
use tokio::sync::watch;

use crate::cut;
use crate::error::BatchError;
use crate::run::BatchLayer;

/// Between two looks at the catalog.
const POLL: Duration = Duration::from_millis(25);
/// After a failed run.
const BACKOFF: Duration = Duration::from_secs(1);

/// Whether a view needs a run of itself: it has no version that joins on to the speed state.
fn needs_run(ledger: &Ledger, view: &ViewDefinition, cuts: &[OffsetVector]) -> bool {
    let epochs = ledger.views.get(&view.id);
    epochs.is_some_and(|epochs| cuts.iter().all(|cut| epochs.chain(cut).is_none()))
}

impl BatchLayer {
    /// Gives every view that has no usable version one, until `stop` says so.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            // A run that waits for the other layers must not hold up the end of the process.
            let outcome = tokio::select! {
                _ = stop.changed() => break,
                outcome = self.make_readable() => outcome,
            };
            let pause = match outcome {
                Ok(()) => POLL,
                Err(error) => {
                    tracing::warn!("a first run failed and will be tried again: {error}");
                    BACKOFF
                }
            };
            tokio::select! {
                _ = stop.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn make_readable(&self) -> Result<(), BatchError> {
        let catalog = self.catalog.refresh().await?;
        let runs = catalog.views.values().map(|view| self.make_view_readable(&catalog, view));
        let mut failures = join_all(runs).await.into_iter().filter_map(Result::err);
        match failures.next() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

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

    async fn make_view_readable(
        &self,
        catalog: &CatalogState,
        view: &ViewDefinition,
    ) -> Result<(), BatchError> {
        let Some(source) = catalog.source(view.source) else { return Ok(()) };
        let run = self.run_of(view.id).await;
        // A run that is under way will make it readable, or fail and leave it to the next look.
        let Ok(_run) = run.try_lock() else { return Ok(()) };
        let state = self.states.source(source.id).await?;
        let Some(ledger) = state.ledger.read().await? else { return Ok(()) };
        let fingerprint = self.fingerprint(catalog, view).await?;
        let readable = readable_versions(catalog, view.id, &fingerprint);
        let cuts: Vec<OffsetVector> = readable.into_iter().map(|version| version.cut).collect();
        if !needs_run(&ledger, view, &cuts) {
            return Ok(());
        }
        let newest = catalog.versions_of(view.id).last().map(|version| &version.cut);
        match cut::beginning(&ledger, view.id, newest) {
            Some(cut) => self.recompute(source, view, cut).await.map(drop),
            None => self.recompute_at_fresh_cut(source, view).await.map(drop),
        }
    }
}
