//! Where a task begins to read each of its partitions.

use std::{collections::BTreeMap, sync::Arc};

use stratus_logs::kafka::{Committed, KafkaGroup, Start};
use stratus_seam::log::{LogError, LogId};

use super::{
    config::KafkaSpoutConfig,
    slots::assigned,
    start::{Beginning, CommitNote},
};

/// A task's place among the tasks of its spout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) task: usize,
    pub(super) tasks: usize,
}

/// What the group remembers of a topic when a task begins to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// Where the topology has been, perhaps.
    Offsets,
    /// Nothing that counts: its offsets are of another topic that had the same name.
    OfAnotherTopic,
}

/// What a topic is, and where partitions of it are read from.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: LogId,
    pub(super) partitions: u32,
    pub(super) starts: BTreeMap<u32, u64>,
    /// Starts that the group does not know. It is told before anything is read, so that another beginning begins there
    /// too: what is emitted and not acked would otherwise be skipped by a strategy that asks for the end.
    pub(super) news: BTreeMap<u32, Committed>,
}

/// Finds where a task begins to read, and the note to commit with.
pub(super) async fn open(
    config: &KafkaSpoutConfig,
    past: Past,
    group: &KafkaGroup,
    topology: CommitNote,
    place: Place,
) -> Result<(Found, CommitNote), LogError> {
    let (id, partitions) = group.describe().await?;
    // Those of other tasks, too: the note may stand beside any of them.
    let committed = match past {
        Past::Offsets => group.committed((0..partitions).collect()).await?,
        Past::OfAnotherTopic => BTreeMap::new(),
    };
    let note = topology.first_seeing(partitions, committed.values());
    let (mut starts, mut news) = (BTreeMap::new(), BTreeMap::new());
    for partition in assigned(partitions, place.task, place.tasks) {
        let beginning = match past {
            Past::Offsets => config.first_poll.beginning(partition, committed.get(&partition), &note),
            Past::OfAnotherTopic => Beginning::Ask(Start::Earliest),
        };
        let start = match &beginning {
            Beginning::GoOn(offset) | Beginning::TakeOver(offset) => *offset,
            Beginning::Ask(start) => ask(group, partition, start).await?,
        };
        starts.insert(partition, start);
        if !matches!(beginning, Beginning::GoOn(_)) {
            news.insert(partition, note.at(start));
        }
    }
    if starts.is_empty() {
        tracing::warn!(
            topic = config.topic,
            task = place.task,
            "a task of a Kafka spout has no partitions: the topic has {partitions}, the spout {} tasks",
            place.tasks
        );
    }
    Ok((Found { id, partitions, starts, news }, note))
}

async fn ask(group: &KafkaGroup, partition: u32, start: &Start) -> Result<u64, LogError> {
    let range = group.range(partition).await?;
    Ok(match start {
        Start::Earliest => range.start,
        Start::Latest => range.end,
        Start::At(moment) => {
            let found = group.offset_at(partition, moment.timestamp_millis()).await?;
            found.map_or(range.end, |offset| offset.min(range.end))
        }
    })
}

/// Looks whether a topic has more partitions than it had. A new one is read from its first record on, also if it had
/// some before it was found.
pub(super) async fn refresh(
    group: KafkaGroup,
    note: Arc<CommitNote>,
    place: Place,
    known: u32,
) -> Result<Found, LogError> {
    let (id, partitions) = group.describe().await?;
    let new: Vec<u32> =
        assigned(partitions, place.task, place.tasks).filter(|partition| *partition >= known).collect();
    let (mut starts, mut news) = (BTreeMap::new(), BTreeMap::new());
    if !new.is_empty() {
        let committed = group.committed(new.clone()).await?;
        for partition in new {
            let own = committed.get(&partition).filter(|committed| note.wrote(committed));
            let start = match own {
                Some(committed) => committed.offset,
                None => {
                    let start = group.range(partition).await?.start;
                    news.insert(partition, note.at(start));
                    start
                }
            };
            starts.insert(partition, start);
        }
    }
    Ok(Found { id, partitions, starts, news })
}
