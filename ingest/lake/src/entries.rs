//! What a Delta table of a source has absorbed, as its transaction entries say it.
//!
//! Delta keeps the newest version number per application id for as long as the table lives, through checkpoints and
//! log cleanup. Three kinds of id carry what a writer must find again; nothing that must last is anywhere else:
//!
//! | application id | number |
//! |---|---|
//! | `<source>/<log id>/<partition>` | the offset after the last record that the table has absorbed |
//! | `<source>/partitions` | one more than the highest partition that has an entry |
//! | `<source>/commit` | the id of the newest commit of ours, random: whose commit it is |
//!
//! Every commit of ours carries all of them, also for partitions that did not move, so that the newest one alone
//! tells everything.

use std::collections::BTreeMap;

use deltalake::kernel::{Action, Transaction};
use stratus_seam::ids::SourceId;
use stratus_seam::log::LogId;
use stratus_seam::offsets::{Offset, OffsetVector, Partition};

/// The application ids of one log of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    source: String,
    log: String,
}

impl Names {
    pub(crate) fn new(source: SourceId, log: &LogId) -> Self {
        Self { source: source.to_string(), log: format!("{source}/{log}/") }
    }

    pub(crate) fn partition(&self, partition: Partition) -> String {
        format!("{}{partition}", self.log)
    }

    pub(crate) fn partitions(&self) -> String {
        format!("{}/partitions", self.source)
    }

    pub(crate) fn commit(&self) -> String {
        format!("{}/commit", self.source)
    }

    fn partition_of(&self, app: &str) -> Option<Partition> {
        app.strip_prefix(&self.log)?.parse().ok()
    }
}

/// The entries of a table as of one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entries {
    /// The table's version.
    pub(crate) version: u64,
    /// What the partitions' entries say; zero for a partition that has none.
    pub(crate) absorbed: OffsetVector,
    /// The newest commit of ours, if there is any.
    pub(crate) commit: Option<i64>,
}

impl Entries {
    /// The entries of a table without any.
    pub(crate) fn none(version: u64) -> Self {
        Self { version, absorbed: OffsetVector::zero(), commit: None }
    }

    /// What holds after one more commit of the table.
    pub(crate) fn after(&self, actions: &[Action], names: &Names) -> Self {
        let mut next = Self { version: self.version + 1, ..self.clone() };
        next.read(actions, names);
        next
    }

    /// Takes over the entries that a commit carries.
    pub(crate) fn read(&mut self, actions: &[Action], names: &Names) {
        for action in actions {
            let Action::Txn(Transaction { app_id, version, .. }) = action else { continue };
            if *app_id == names.commit() {
                self.commit = Some(*version);
            } else if let Some(partition) = names.partition_of(app_id) {
                self.absorbed.set(partition, Offset::try_from(*version).unwrap_or(0));
            }
        }
    }

    /// The entries of a commit of ours that takes the table to `to`; none if an offset is beyond what Delta can say.
    pub(crate) fn write(to: &OffsetVector, commit: i64, names: &Names) -> Option<Vec<Transaction>> {
        let mut entries = BTreeMap::from([(names.commit(), commit)]);
        let mut partitions = 0;
        for (partition, offset) in to.iter() {
            entries.insert(names.partition(partition), i64::try_from(offset).ok()?);
            partitions = i64::from(partition) + 1;
        }
        entries.insert(names.partitions(), partitions);
        Some(entries.into_iter().map(|(app, number)| Transaction::new(app, number)).collect())
    }
}

/// Whether a commit is the one with this id.
pub(crate) fn is_commit(actions: &[Action], names: &Names, id: i64) -> bool {
    let name = names.commit();
    actions
        .iter()
        .any(|action| matches!(action, Action::Txn(entry) if entry.app_id == name && entry.version == id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names::new(SourceId::new(), &LogId("cluster/topic".into()))
    }

    fn actions(to: &OffsetVector, id: i64, names: &Names) -> Vec<Action> {
        Entries::write(to, id, names).unwrap().into_iter().map(Action::Txn).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            to in proptest::collection::btree_map(0..70u32, 0..i64::MAX as u64, 0..9),
            id in 0..i64::MAX,
        ) {
            let names = names();
            let to = OffsetVector::from(to);
            let entries = Entries::none(6).after(&actions(&to, id, &names), &names);
            prop_assert_eq!(entries, Entries { version: 7, absorbed: to, commit: Some(id) });
        }
    }

    #[test]
    fn another_log_or_source_says_nothing() {
        let (ours, theirs) = (names(), names());
        let same_source = Names { log: format!("{}/other/", ours.source), ..ours.clone() };
        let to = OffsetVector::from([(0, 5)]);
        assert_eq!(Entries::none(0).after(&actions(&to, 1, &theirs), &ours), Entries::none(1));
        let other_log = Entries::none(0).after(&actions(&to, 1, &same_source), &ours);
        assert_eq!(other_log, Entries { version: 1, absorbed: OffsetVector::zero(), commit: Some(1) });
    }

    #[test]
    fn a_commit_is_known_by_its_id() {
        let names = names();
        let commit = actions(&OffsetVector::from([(0, 5)]), 77, &names);
        assert!(is_commit(&commit, &names, 77) && !is_commit(&commit, &names, 78));
    }

    #[test]
    fn an_offset_beyond_delta_is_refused() {
        assert!(Entries::write(&OffsetVector::from([(0, u64::MAX)]), 1, &names()).is_none());
    }
}
