//! Which epochs, versions and files may go: those that no reader can need.

use std::collections::HashMap;

use crate::catalog::Version;
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

/// So many of the newest versions of a view stay in any case.
pub const KEPT_VERSIONS: usize = 2;

/// The numbers of the versions of a view that no reader chooses any more: no unbroken chain of epochs joins on to
/// them, or a newer one that is as readable has the same cut, as it comes about when no events do. The newest two
/// stay in any case. `versions` are oldest first.
///
/// Within a generation floors only rise, and the next generation begins at the newest version's cut: what is not
/// joined on to now is not joined on to later. A store that goes back may join on to a retired version again; then
/// the newest one answers once T has passed its cut.
pub fn retirable(ledger: &Ledger, view: ViewId, versions: &[Version]) -> Vec<u32> {
    let Some(epochs) = ledger.views.get(&view) else { return Vec::new() };
    let older = versions.len().saturating_sub(KEPT_VERSIONS);
    let is_needed = |(at, version): &(usize, &Version)| {
        let mut newer = versions[at + 1..].iter();
        let replaced =
            newer.any(|newer| newer.cut == version.cut && newer.fingerprint == version.fingerprint);
        !replaced && epochs.chain(&version.cut).is_some()
    };
    let unneeded = versions.iter().enumerate().take(older).filter(|version| !is_needed(version));
    unneeded.map(|(_, version)| version.number).collect()
}

/// The folder that a run wrote the files of a version into.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionFolder {
    /// Its path in the lake, without a slash at its end.
    pub path: String,
    /// The number that the version has, or was to have.
    pub number: u32,
}

/// Of the folders of a view, those that no version lists and that no run can publish any more: numbers only rise,
/// so once a number is taken, whoever computed another version under it is refused. A run that may still publish
/// has a number above the newest. `versions` are oldest first, as of any moment: an older look finds fewer folders.
pub fn orphaned<'a>(folders: &'a [VersionFolder], versions: &[Version]) -> Vec<&'a VersionFolder> {
    let newest = versions.last().map_or(0, |version| version.number);
    let listed = |folder: &VersionFolder| {
        let files = versions.iter().flat_map(|version| &version.files);
        files
            .into_iter()
            .any(|file| file.path.strip_prefix(&folder.path).is_some_and(|rest| rest.starts_with('/')))
    };
    folders.iter().filter(|folder| folder.number <= newest && !listed(folder)).collect()
}

/// How long each thing has been without use, as one process saw it: a query that runs may still read what it chose
/// before. Times are of a clock that never goes back; a process that begins again waits anew.
#[derive(Debug, Clone, Default)]
pub struct Grace {
    since_ms: HashMap<String, u64>,
}

impl Grace {
    /// Of what is without use now, that which has been so for `grace_ms`. What is in use again, or gone, is forgotten.
    pub fn over(
        &mut self,
        unused: impl IntoIterator<Item = String>,
        now_ms: u64,
        grace_ms: u64,
    ) -> Vec<String> {
        let before = std::mem::take(&mut self.since_ms);
        for path in unused {
            let since = before.get(&path).copied().unwrap_or(now_ms);
            self.since_ms.insert(path, since);
        }
        let mut over: Vec<String> = self
            .since_ms
            .iter()
            .filter(|(_, since)| now_ms.saturating_sub(**since) >= grace_ms)
            .map(|(path, _)| path.clone())
            .collect();
        over.sort();
        over
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use uuid::Uuid;

    use super::*;
    use crate::catalog::{RunKind, VersionFile};
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

    fn version(view: ViewId, number: u32, cut: OffsetVector) -> Version {
        let file = VersionFile { path: format!("views/x/v{number}-a/part-0.parquet"), bytes: 1, rows: 1 };
        Version {
            view,
            number,
            parent: number.checked_sub(1).filter(|parent| *parent > 0),
            cut,
            generation: crate::ids::Generation::new(),
            fingerprint: "f".into(),
            descriptor: serde_json::Value::Null,
            files: vec![file],
            kind: RunKind::Full,
            groups: 1,
            events: 1,
            failed_rows: 0,
            published_ms: 0,
            took_ms: 0,
            run: None,
        }
    }

    #[test]
    fn a_version_retires_once_no_chain_joins_on_and_two_newer_ones_are_there() {
        let view = ViewId::new();
        let ledger = cut_once(view);
        let all = [(1, OffsetVector::zero()), (2, at_cut()), (3, at_cut()), (4, at_cut())];
        let versions = all.map(|(number, cut)| version(view, number, cut));
        assert_eq!(retirable(&ledger, view, &versions), [2], "version 3 has its cut");
        let mut other = versions.clone();
        other[1].fingerprint = "another engine's".into();
        assert!(retirable(&ledger, view, &other).is_empty(), "every cut still has its chain");
        let raised = ledger.raise_floor(view, 2).unwrap();
        assert_eq!(retirable(&raised, view, &other), [1]);
        assert_eq!(retirable(&raised, view, &versions), [1, 2]);
        assert!(retirable(&raised, view, &versions[..2]).is_empty(), "two stay in any case");
        assert!(
            retirable(&raised, ViewId::new(), &versions).is_empty(),
            "a ledger that does not know the view"
        );
    }

    #[test]
    fn a_folder_goes_once_its_number_is_taken_by_another_run() {
        let folder =
            |number: u32, run: &str| VersionFolder { path: format!("views/x/v{number}-{run}"), number };
        let folders = [folder(1, "a"), folder(1, "b"), folder(2, "a"), folder(3, "a"), folder(3, "aa")];
        let versions = [1, 2].map(|number| version(ViewId::new(), number, at_cut()));
        assert_eq!(orphaned(&folders, &versions), [&folders[1]]);
        let versions = [2, 3].map(|number| version(ViewId::new(), number, at_cut()));
        assert_eq!(orphaned(&folders, &versions), [&folders[0], &folders[1], &folders[4]]);
        assert!(orphaned(&folders, &[]).is_empty(), "every run may still publish version 1");
    }

    #[test]
    fn grace_counts_from_when_it_was_first_seen_unused_without_a_break() {
        let mut grace = Grace::default();
        let both = || ["a".to_owned(), "b".to_owned()];
        assert!(grace.over(both(), 0, 10).is_empty());
        assert!(grace.over(["a".to_owned()], 5, 10).is_empty());
        assert_eq!(grace.over(both(), 10, 10), ["a"]);
        assert_eq!(grace.over(both(), 20, 10), ["a", "b"]);
    }

    proptest! {
        /// Whoever publishes next, in whatever order runs end: the files that the catalog lists are never orphans.
        #[test]
        fn what_may_still_be_published_is_never_an_orphan(
            begun in proptest::collection::vec((0usize..4, any::<bool>()), 1..12),
        ) {
            let view = ViewId::new();
            let mut versions: Vec<Version> = Vec::new();
            let mut running: Vec<(u32, usize)> = Vec::new();
            let mut folders: Vec<VersionFolder> = Vec::new();
            for (run, (victim, publishes)) in begun.into_iter().enumerate() {
                let newest = versions.last().map_or(0, |version| version.number);
                running.push((newest + 1, run));
                folders.push(VersionFolder { path: format!("views/x/v{}-{run}", newest + 1), number: newest + 1 });
                if publishes {
                    let (number, of) = running.swap_remove(victim % running.len());
                    // The catalog's rule: the parent is still the newest.
                    if number == newest + 1 {
                        let mut next = version(view, number, at_cut());
                        next.files[0].path = format!("views/x/v{number}-{of}/part-0.parquet");
                        versions.push(next);
                    }
                }
                let newest = versions.last().map_or(0, |version| version.number);
                for orphan in orphaned(&folders, &versions) {
                    let within = format!("{}/", orphan.path);
                    let is_listed = versions.iter().any(|version| version.files[0].path.starts_with(&within));
                    prop_assert!(!is_listed);
                    let may_publish = running.iter().any(|(number, run)| {
                        *number == newest + 1 && orphan.path == format!("views/x/v{number}-{run}")
                    });
                    prop_assert!(!may_publish);
                }
            }
        }
    }
}
