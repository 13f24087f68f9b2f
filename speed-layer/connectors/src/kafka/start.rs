//! Where a spout begins to read, and how a topology knows its own commits.

use std::fmt;

use chrono::{DateTime, Utc};
use stratus_logs::kafka::{Committed, Start};

/// Where a partition is read from when the spout is opened.
///
/// The first three apply when the topology reads the partition for the first time, not when it is started again: then
/// it goes on where it was. Topologies are told apart by the name that they were submitted under, which stands beside
/// every offset that they commit; a spout commits the place where it begins before it emits anything, so a topology
/// that dies early begins at the same place again. To begin anew: take another group or another name, or reset the
/// group's offsets with Kafka's tools while the topology does not run.
///
/// A partition that is added to the topic while the topology runs is read from its first record, whatever is said here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstPollOffsetStrategy {
    /// The first record that the partition still has.
    Earliest,
    /// The next record.
    Latest,
    /// The first record at or after this moment.
    Timestamp(DateTime<Utc>),
    /// Where the group is, whoever committed that; [`Earliest`](Self::Earliest) if it is nowhere.
    #[default]
    UncommittedEarliest,
    /// Where the group is, whoever committed that; [`Latest`](Self::Latest) if it is nowhere.
    UncommittedLatest,
}

/// Where one partition is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Where this topology has been.
    GoOn(u64),
    /// Where somebody else of the group has been.
    TakeOver(u64),
    /// Where the topic has it.
    Ask(Start),
}

impl FirstPollOffsetStrategy {
    /// Where a partition is read from, of which the group remembers `committed`.
    pub fn beginning(self, committed: Option<&Committed>, topology: &CommitNote) -> Beginning {
        match (self, committed) {
            (_, Some(committed)) if topology.wrote(committed) => Beginning::GoOn(committed.offset),
            (Self::UncommittedEarliest | Self::UncommittedLatest, Some(committed)) => {
                Beginning::TakeOver(committed.offset)
            }
            (Self::Earliest | Self::UncommittedEarliest, _) => Beginning::Ask(Start::Earliest),
            (Self::Latest | Self::UncommittedLatest, _) => Beginning::Ask(Start::Latest),
            (Self::Timestamp(moment), _) => Beginning::Ask(Start::At(moment)),
        }
    }
}

/// What a topology writes beside the offsets that it commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitNote(String);

impl CommitNote {
    /// Of the topology with this name.
    pub fn of(topology: &str) -> Self {
        Self(format!("stratus topology {topology}"))
    }

    /// An offset with the note.
    pub fn at(&self, offset: u64) -> Committed {
        Committed { offset, metadata: self.0.clone() }
    }

    /// Whether the topology has committed this.
    pub fn wrote(&self, committed: &Committed) -> bool {
        committed.metadata == self.0
    }
}

impl fmt::Display for CommitNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use FirstPollOffsetStrategy::{Earliest, Latest, Timestamp, UncommittedEarliest, UncommittedLatest};

    use super::*;

    #[test]
    fn a_topology_goes_on_where_it_was_whatever_the_strategy() {
        let note = CommitNote::of("counts");
        let moment = DateTime::UNIX_EPOCH;
        for strategy in [Earliest, Latest, Timestamp(moment), UncommittedEarliest, UncommittedLatest] {
            assert_eq!(strategy.beginning(Some(&note.at(7)), &note), Beginning::GoOn(7));
        }
    }

    #[test]
    fn a_new_topology_begins_as_the_strategy_says() {
        let (note, other) = (CommitNote::of("counts"), CommitNote::of("counts-2").at(7));
        let moment = DateTime::UNIX_EPOCH;
        let cases = [
            (Earliest, Beginning::Ask(Start::Earliest), Beginning::Ask(Start::Earliest)),
            (Latest, Beginning::Ask(Start::Latest), Beginning::Ask(Start::Latest)),
            (Timestamp(moment), Beginning::Ask(Start::At(moment)), Beginning::Ask(Start::At(moment))),
            (UncommittedEarliest, Beginning::TakeOver(7), Beginning::Ask(Start::Earliest)),
            (UncommittedLatest, Beginning::TakeOver(7), Beginning::Ask(Start::Latest)),
        ];
        for (strategy, with, without) in cases {
            assert_eq!(strategy.beginning(Some(&other), &note), with);
            assert_eq!(strategy.beginning(None, &note), without);
        }
    }
}
