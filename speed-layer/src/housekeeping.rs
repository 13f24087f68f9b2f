//! What the ledger's writer does between batches: take up new views, cut, raise floors, clean shards.
//!
//! All of it is done while no batch is under way: an entry feeds what the ledger said when it was appended.

use std::collections::BTreeMap;

use stratus_seam::catalog::{CatalogState, Source, Version};
use stratus_seam::catalog_log::now_ms;
use stratus_seam::crash;
use stratus_seam::ids::{EpochNo, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::retention;
use stratus_seam::shard::Scope;
use stratus_seam::store::{CutRequest, Durability, Pin, TxnChanges};

use crate::error::SpeedError;
use crate::ledger::HeldLedger;
use crate::live::LiveViews;
use crate::startup::Hold;

/// Views that are in the catalog but not in the ledger, and that can be computed.
pub(crate) fn new_views(ledger: &Ledger, live: &LiveViews) -> Vec<ViewId> {
    live.views.keys().filter(|view| !ledger.views.contains_key(view)).copied().collect()
}

/// A view that the ledger feeds, that is still in the catalog, and that cannot be computed: without it no entry can be
/// processed.
pub(crate) fn missing_view<'a>(ledger: &Ledger, live: &'a LiveViews) -> Option<(&'a str, &'a SpeedError)> {
    let missing = live.unprepared().iter().find(|(view, _)| ledger.views.contains_key(view));
    missing.map(|(_, (name, error))| (name.as_str(), error))
}

/// Views that are in the ledger but no longer in the catalog.
fn dropped_views(ledger: &Ledger, catalog: &CatalogState) -> Vec<ViewId> {
    ledger.views.keys().filter(|view| catalog.view(**view).is_none()).copied().collect()
}

/// The floors that can be raised.
fn floors(
    ledger: &Ledger,
    versions: &BTreeMap<ViewId, Vec<Version>>,
    pins: &[Pin],
) -> Vec<(ViewId, EpochNo)> {
    let floor = |(view, versions): (&ViewId, &Vec<Version>)| {
        let cuts: Vec<OffsetVector> = versions.iter().map(|version| version.cut.clone()).collect();
        Some((*view, retention::disposable(ledger, *view, &cuts, pins, now_ms())?))
    };
    versions.iter().filter_map(floor).collect()
}

impl Hold {
    /// Whether the ledger has something to follow. Pins that have run out are taken away.
    pub(crate) async fn house_is_to_be_kept(
        &self,
        catalog: &CatalogState,
        live: &LiveViews,
    ) -> Result<bool, SpeedError> {
        let ledger = self.ledger.lock().await;
        let record = ledger.record();
        let pins = ledger.store().pins().await?;
        for pin in pins.iter().filter(|pin| pin.until_ms <= now_ms()) {
            ledger.store().unpin(pin.id).await?;
        }
        Ok(!new_views(record, live).is_empty()
            || !dropped_views(record, catalog).is_empty()
            || !floors(record, &live.versions(catalog), &pins).is_empty()
            || !retention::gone(record, &self.shards.scopes(), &pins, now_ms()).is_empty()
            || !ledger.store().requests().await?.is_empty())
    }

    /// Forgets the views that were dropped: what an entry holds for them is nobody's.
    pub(crate) async fn forget_dropped(&self, catalog: &CatalogState) -> Result<(), SpeedError> {
        forget_dropped(&mut *self.ledger.lock().await, catalog).await
    }

    /// Lets the ledger follow the catalog and its requests. No batch is under way.
    pub(crate) async fn keep_house(
        &self,
        source: &Source,
        catalog: &CatalogState,
        live: &LiveViews,
    ) -> Result<(), SpeedError> {
        let mut ledger = self.ledger.lock().await;
        forget_dropped(&mut ledger, catalog).await?;
        take_up(&mut ledger, source, live).await?;
        cut(&mut ledger).await?;
        raise_floors(&mut ledger, &live.versions(catalog)).await?;
        let held: Vec<Scope> = self.shards.scopes();
        // Read again, now that the floors stand: whoever pins from here on reads them.
        let pins = ledger.store().pins().await?;
        let gone = retention::gone(ledger.record(), &held, &pins, now_ms());
        if !gone.is_empty() {
            self.shards.drop_scopes(&gone).await?;
        }
        Ok(())
    }
}

async fn write(ledger: &mut HeldLedger, next: Ledger) -> Result<(), SpeedError> {
    ledger.advance(next, TxnChanges::default(), Durability::Now).await
}

async fn forget_dropped(ledger: &mut HeldLedger, catalog: &CatalogState) -> Result<(), SpeedError> {
    let gone = dropped_views(ledger.record(), catalog);
    if gone.is_empty() {
        return Ok(());
    }
    let next = ledger.record().drop_views(&gone);
    write(ledger, next).await
}

async fn take_up(ledger: &mut HeldLedger, source: &Source, live: &LiveViews) -> Result<(), SpeedError> {
    for view in new_views(ledger.record(), live) {
        let next = ledger.record().add_view(view);
        write(ledger, next).await?;
        tracing::info!(source = source.name, %view, at = %ledger.record().appended_to, "view taken up");
    }
    Ok(())
}

/// Answers the cut requests. A request may turn up again after it was answered, so the headers are asked first.
async fn cut(ledger: &mut HeldLedger) -> Result<(), SpeedError> {
    for request in ledger.store().requests().await? {
        let open = unanswered(ledger.record(), &request);
        if !open.is_empty() {
            let next = ledger.record().cut(&open, request.id)?;
            write(ledger, next).await?;
            crash::point("speed:after-cut");
        }
        ledger.store().withdraw(request.id).await?;
    }
    Ok(())
}

/// Lets epochs go that no reader can need: the floor first, the shards after it.
async fn raise_floors(
    ledger: &mut HeldLedger,
    versions: &BTreeMap<ViewId, Vec<Version>>,
) -> Result<(), SpeedError> {
    let pins = ledger.store().pins().await?;
    for (view, floor) in floors(ledger.record(), versions, &pins) {
        let next = ledger.record().raise_floor(view, floor)?;
        write(ledger, next).await?;
        crash::point("speed:after-floor");
    }
    Ok(())
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
