//! Asking the speed layer for a cut, and reading it where it stands: in the headers.

use std::time::Duration;

use stratus_seam::catalog::ViewDefinition;
use stratus_seam::crash;
use stratus_seam::ids::{Generation, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::store::{CutRequest, LedgerStore, StoreError};
use uuid::Uuid;

/// Between two looks at the ledger.
const POLL: Duration = Duration::from_millis(10);

/// A cut of one view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) at: OffsetVector,
    pub(crate) generation: Generation,
}

/// The cut that answers a request, if its header stands in the ledger.
fn answer(ledger: &Ledger, view: ViewId, request: Uuid) -> Option<Cut> {
    let epochs = &ledger.views.get(&view)?.epochs;
    let epoch = epochs.iter().find(|epoch| epoch.request == Some(request))?;
    Some(Cut { at: epoch.from.clone(), generation: ledger.generation })
}

/// Requests a cut of a view and waits for it, for ever. A request that got lost, with a store that was lost, is left
/// anew.
pub(crate) async fn request(ledger: &dyn LedgerStore, view: &ViewDefinition) -> Result<Cut, StoreError> {
    let id = Uuid::new_v4();
    let request = CutRequest { id, views: vec![view.id] };
    ledger.request(request.clone()).await?;
    crash::point("batch:after-request");
    let mut looks = 0u32;
    loop {
        let record = ledger.read().await?;
        if let Some(cut) = record.as_ref().and_then(|record| answer(record, view.id, id)) {
            ledger.withdraw(id).await?;
            crash::point("batch:after-cut");
            return Ok(cut);
        }
        looks += 1;
        if looks.is_multiple_of(100) && !ledger.requests().await?.contains(&request) {
            ledger.request(request.clone()).await?;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The vector at which a view's speed state begins, if it can serve as the cut of the first version, or of one that
/// joins on again after the speed state was lost: it must lie at or above the newest version's cut.
pub(crate) fn beginning(ledger: &Ledger, view: ViewId, newest: Option<&OffsetVector>) -> Option<Cut> {
    let first = ledger.views.get(&view)?.epochs.first()?;
    let fits = newest.is_none_or(|newest| first.from.covers(newest));
    fits.then(|| Cut { at: first.from.clone(), generation: ledger.generation })
}
