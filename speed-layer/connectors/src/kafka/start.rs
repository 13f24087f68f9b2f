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
/// A partition that is added to the topic after that first time is read from its first record, whatever is said here,
/// and whether the topology runs at that moment or not: its records are all newer than the topology. How many partitions
/// there were at first stands beside the offsets, too.
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
    pub fn beginning(
        self,
        partition: u32,
        committed: Option<&Committed>,
        topology: &CommitNote,
    ) -> Beginning {
        match (self, committed) {
            (_, Some(committed)) if topology.wrote(committed) => Beginning::GoOn(committed.offset),
            (_, None) if topology.is_older_than(partition) => Beginning::Ask(Start::Earliest),
            (Self::UncommittedEarliest | Self::UncommittedLatest, Some(committed)) => {
                Beginning::TakeOver(committed.offset)
            }
            (Self::Earliest | Self::UncommittedEarliest, _) => Beginning::Ask(Start::Earliest),
            (Self::Latest | Self::UncommittedLatest, _) => Beginning::Ask(Start::Latest),
            (Self::Timestamp(moment), _) => Beginning::Ask(Start::At(moment)),
        }
    }
}

/// What a topology writes beside the offsets that it commits: its name, and how many partitions the topic had when the
/// topology first read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitNote {
    topology: String,
    /// `None`: not known yet.
    partitions: Option<u32>,
}

/// Before the number. The name comes last, since it may be any text.
const PARTITIONS: &str = "partitions at first: ";

impl CommitNote {
    /// Of the topology with this name.
    pub fn of(topology: &str) -> Self {
        Self { topology: format!("stratus topology {topology}"), partitions: None }
    }

    /// Of the same topology, which reads a topic that has these partitions, and of which the group remembers this: the
    /// number stays what it was when the first offset was committed.
    #[must_use]
    pub fn first_seeing<'a>(
        self,
        partitions: u32,
        committed: impl IntoIterator<Item = &'a Committed>,
    ) -> Self {
        let own = committed.into_iter().filter_map(|committed| Self::read(&committed.metadata));
        let first =
            own.filter(|note| note.topology == self.topology).filter_map(|note| note.partitions).min();
        Self { partitions: Some(first.unwrap_or(partitions)), ..self }
    }

    fn read(metadata: &str) -> Option<Self> {
        let (partitions, topology) = metadata.strip_prefix(PARTITIONS)?.split_once(", ")?;
        Some(Self { topology: topology.to_owned(), partitions: Some(partitions.parse().ok()?) })
    }

    /// An offset with the note.
    pub fn at(&self, offset: u64) -> Committed {
        Committed { offset, metadata: self.to_string() }
    }

    /// Whether the topology has committed this.
    pub fn wrote(&self, committed: &Committed) -> bool {
        // Without a number it is of an earlier version.
        committed.metadata == self.topology
            || Self::read(&committed.metadata).is_some_and(|note| note.topology == self.topology)
    }

    /// Whether a partition was added after the topology had first read the topic.
    pub fn is_older_than(&self, partition: u32) -> bool {
        self.partitions.is_some_and(|first| partition >= first)
    }
}

impl fmt::Display for CommitNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.partitions {
            write!(f, "{PARTITIONS}{first}, ")?;
        }
        f.write_str(&self.topology)
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
            assert_eq!(strategy.beginning(0, Some(&note.at(7)), &note), Beginning::GoOn(7));
            let later = CommitNote::of("counts").first_seeing(8, [&note.at(7)]);
            assert_eq!(strategy.beginning(9, Some(&note.at(7)), &later), Beginning::GoOn(7));
            assert_eq!(strategy.beginning(0, Some(&later.at(7)), &note), Beginning::GoOn(7));
        }
    }

    #[test]
    fn a_partition_that_was_added_later_is_read_from_its_first_record() {
        let other = CommitNote::of("counts-2").first_seeing(1, []).at(5);
        let first = CommitNote::of("counts").first_seeing(3, [&other]);
        let committed = first.at(7);
        // Another task, or another run, when there are more partitions.
        let later = CommitNote::of("counts").first_seeing(8, [&other, &committed]);
        assert_eq!(later, first);
        for strategy in
            [Earliest, Latest, Timestamp(DateTime::UNIX_EPOCH), UncommittedEarliest, UncommittedLatest]
        {
            assert_eq!(strategy.beginning(3, None, &later), Beginning::Ask(Start::Earliest));
        }
        assert_eq!(
            Latest.beginning(2, None, &later),
            Beginning::Ask(Start::Latest),
            "a task that is slow to open"
        );
        assert_eq!(Latest.beginning(3, Some(&other), &later), Beginning::Ask(Start::Latest), "a reset");
    }

    #[test]
    fn a_note_is_of_the_topology_with_exactly_that_name() {
        let odd = "partitions at first: 3, stratus topology counts";
        for (name, others) in
            [("counts", ["count", odd]), (odd, ["counts", "partitions at first: 3, counts"])]
        {
            let note = CommitNote::of(name).first_seeing(3, []);
            assert!(note.wrote(&note.at(1)) && CommitNote::of(name).wrote(&note.at(1)));
            for other in others {
                assert!(
                    !CommitNote::of(other).first_seeing(9, []).wrote(&note.at(1)),
                    "{other} is not {name}"
                );
            }
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
            assert_eq!(strategy.beginning(0, Some(&other), &note), with);
            assert_eq!(strategy.beginning(0, None, &note), without);
        }
    }
}
