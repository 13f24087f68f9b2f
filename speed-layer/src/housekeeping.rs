//! What the ledger's writer does between batches: take up new views, cut, raise floors, clean shards.

use std::collections::BTreeMap;

use stratus_seam::catalog::{CatalogState, Source, Version};
use stratus_seam::catalog_log::now_ms;
use stratus_seam::crash;
use stratus_seam::ids::ViewId;
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::retention;
use stratus_seam::shard::Scope;
use stratus_seam::store::{CutRequest, Durability, TxnChanges};

use crate::error::SpeedError;
use crate::live::LiveViews;
use crate::startup::Hold;

impl Hold {
    /// Views that are in the catalog but not in the ledger.
    pub(crate) fn new_views(&self, source: &Source, catalog: &CatalogState) -> Vec<ViewId> {
        let known = &self.ledger.record().views;
        catalog.views_of(source.id).map(|view| view.id).filter(|view| !known.contains_key(view)).collect()
    }

    /// Lets the ledger follow the catalog and its requests. Answers whether anything was written.
    pub(crate) async fn keep_house(
        &mut self,
        source: &Source,
        catalog: &CatalogState,
        live: &LiveViews,
    ) -> Result<bool, SpeedError> {
        let before = self.ledger.record().revision;
        self.take_up(source, catalog).await?;
        self.cut().await?;
        self.raise_floors(&live.versions(catalog)).await?;
        Ok(self.ledger.record().revision != before)
    }

    async fn write(&mut self, next: Ledger) -> Result<(), SpeedError> {
        self.ledger.advance(next, TxnChanges::default(), Durability::Now).await
    }

    async fn take_up(&mut self, source: &Source, catalog: &CatalogState) -> Result<(), SpeedError> {
        let record = self.ledger.record();
        let gone: Vec<ViewId> =
            record.views.keys().filter(|view| catalog.view(**view).is_none()).copied().collect();
        if !gone.is_empty() {
            self.write(record.drop_views(&gone)).await?;
        }
        for view in self.new_views(source, catalog) {
            let next = self.ledger.record().add_view(view);
            self.write(next).await?;
            tracing::info!(source = source.name, %view, at = %self.ledger.record().appended_to, "view taken up");
        }
        Ok(())
    }

    /// Answers the cut requests. A request may turn up again after it was answered, so the headers are asked first.
    async fn cut(&mut self) -> Result<(), SpeedError> {
        for request in self.ledger.store().requests().await? {
            let open = unanswered(self.ledger.record(), &request);
            if !open.is_empty() {
                let next = self.ledger.record().cut(&open, request.id)?;
                self.write(next).await?;
                crash::point("speed:after-cut");
            }
            self.ledger.store().withdraw(request.id).await?;
        }
        Ok(())
    }

    /// Lets epochs go that no reader can need: the floor first, the shards after it.
    async fn raise_floors(&mut self, versions: &BTreeMap<ViewId, Vec<Version>>) -> Result<(), SpeedError> {
        let pins = self.ledger.store().pins().await?;
        for (view, versions) in versions {
            let cuts: Vec<OffsetVector> = versions.iter().map(|version| version.cut.clone()).collect();
            let record = self.ledger.record();
            if let Some(floor) = retention::disposable(record, *view, &cuts, &pins, now_ms()) {
                self.write(record.raise_floor(*view, floor)?).await?;
                crash::point("speed:after-floor");
            }
        }
        let held: Vec<Scope> = self.shards.scopes.iter().copied().collect();
        // Read again, now that the floors stand: whoever pins from here on reads them.
        let pins = self.ledger.store().pins().await?;
        let gone = retention::gone(self.ledger.record(), &held, &pins, now_ms());
        if !gone.is_empty() {
            self.shards.drop_scopes(&gone).await?;
        }
        for pin in pins.iter().filter(|pin| pin.until_ms <= now_ms()) {
            self.ledger.store().unpin(pin.id).await?;
        }
        Ok(())
    }
}

/// The views of a request that are in the ledger and that it has not cut yet.
fn unanswered(ledger: &Ledger, request: &CutRequest) -> Vec<ViewId> {
    let cut = |view: &ViewId| {
        ledger
            .views
            .get(view)
            .is_none_or(|epochs| epochs.epochs.iter().any(|e| e.request == Some(request.id)))
    };
    request.views.iter().filter(|view| !cut(view)).copied().collect()
}
