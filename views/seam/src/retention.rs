//! Which epochs may go: those that no reader can need.

use crate::ids::{EpochNo, ViewId};
use crate::ledger::{Ledger, ViewEpochs};
use crate::offsets::OffsetVector;
use crate::shard::Scope;
use crate::store::Pin;

/// To what number the floor of a view may rise: the first epoch of the newest version that readers can use now,
/// unless a live pin still holds a lower one. None if there is nothing to drop. `cuts` are those of the view's
/// versions, oldest first.
pub fn disposable(
    ledger: &Ledger,
    view: ViewId,
    cuts: &[OffsetVector],
    pins: &[Pin],
    now_ms: u64,
) -> Option<EpochNo> {
    let epochs = ledger.views.get(&view)?;
    let needed = first_needed(ledger, epochs, cuts)?;
    let pinned = pins
        .iter()
        .filter(|pin| pin.view == view && pin.until_ms > now_ms)
        .map(|pin| pin.epoch)
        .fold(needed, EpochNo::min);
    (pinned > epochs.floor && epochs.epochs.iter().any(|epoch| epoch.number < pinned)).then_some(pinned)
}

/// The first epoch of the chain that joins on to the newest version which T has passed.
fn first_needed(ledger: &Ledger, epochs: &ViewEpochs, cuts: &[OffsetVector]) -> Option<EpochNo> {
    cuts.iter()
        .rev()
        .filter(|cut| ledger.committed_to.covers(cut))
        .find_map(|cut| epochs.chain(cut))
        .and_then(|chain| chain.first())
        .map(|epoch| epoch.number)
}

/// Of the scopes that a shard holds, those that may be deleted: of views that the ledger no longer lists, or below
/// their view's floor with no live pin on them. Only asked after the floor was raised: whoever pins later reads the
/// new floor.
pub fn gone(ledger: &Ledger, held: &[Scope], pins: &[Pin], now_ms: u64) -> Vec<Scope> {
    let unlisted =
        |scope: &Scope| ledger.views.get(&scope.view).is_none_or(|epochs| scope.epoch < epochs.floor);
    let pinned = |scope: &Scope| {
        pins.iter().any(|pin| pin.view == scope.view && pin.epoch <= scope.epoch && pin.until_ms > now_ms)
    };
    held.iter().filter(|scope| unlisted(scope) && !pinned(scope)).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::*;
    use crate::log::LogId;
    use crate::offsets::OffsetRange;

    fn cut_once(view: ViewId) -> Ledger {
        let views = BTreeMap::from([(view, OffsetVector::zero())]);
        let ledger = Ledger::begin("test", "e", LogId("l".into()), 2, &views, OffsetVector::zero(), 0);
        let range = OffsetRange { from: 0, to: 5, records: 5 };
        let (ledger, txn) = ledger.append(BTreeMap::from([(0, range)])).unwrap();
        let ledger = ledger.cut(&[view], Uuid::new_v4()).unwrap();
        assert_eq!(disposable(&ledger, view, &[OffsetVector::zero(), at_cut()], &[], 0), None);
        ledger.commit(&txn, &BTreeMap::new()).unwrap()
    }

    fn at_cut() -> OffsetVector {
        OffsetVector::from([(0, 5)])
    }

    fn pin(view: ViewId, epoch: EpochNo, until_ms: u64) -> Pin {
        Pin { id: Uuid::new_v4(), view, epoch, until_ms }
    }

    #[test]
    fn an_epoch_goes_once_a_newer_version_is_readable_and_no_pin_holds_it() {
        let view = ViewId::new();
        let ledger = cut_once(view);
        assert_eq!(disposable(&ledger, view, &[OffsetVector::zero()], &[], 0), None);
        let cuts = [OffsetVector::zero(), at_cut()];
        assert_eq!(disposable(&ledger, view, &cuts, &[], 0), Some(2));
        assert_eq!(disposable(&ledger, view, &cuts, &[pin(view, 1, 9)], 0), None);
        assert_eq!(disposable(&ledger, view, &cuts, &[pin(view, 1, 9)], 9), Some(2));
        assert_eq!(disposable(&ledger, view, &cuts, &[pin(ViewId::new(), 1, 9)], 0), Some(2));
    }

    #[test]
    fn a_pinned_epoch_below_the_floor_stays_in_the_shards() {
        let view = ViewId::new();
        let ledger = cut_once(view).raise_floor(view, 2).unwrap();
        let held = [1, 2].map(|epoch| Scope { view, epoch });
        assert!(gone(&ledger, &held, &[pin(view, 1, 9)], 0).is_empty());
        assert_eq!(gone(&ledger, &held, &[pin(view, 2, 9)], 0), [held[0]]);
        assert_eq!(gone(&ledger, &held, &[], 0), [held[0]]);
        let dropped = [Scope { view: ViewId::new(), epoch: 2 }];
        assert_eq!(gone(&ledger, &dropped, &[], 0), dropped);
    }
}
