//! Where a task begins to read each of its partitions.

use std::{collections::BTreeMap, sync::Arc};

use stratus_logs::kafka::{KafkaGroup, Start};
use stratus_seam::log::{LogError, LogId};

use super::{
    config::KafkaSpoutConfig,
    slots::assigned,
    start::{Beginning, CommitNote, FirstPollOffsetStrategy},
};

/// A task's place among the tasks of its spout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) task: usize,
    pub(super) tasks: usize,
}

/// What a topic is, and where partitions of it are read from.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: LogId,
    pub(super) partitions: u32,
    pub(super) starts: BTreeMap<u32, u64>,
}

/// Finds where a task begins to read, and lets the group know it, so that another beginning begins there too.
pub(super) async fn open(
    config: &KafkaSpoutConfig,
    strategy: FirstPollOffsetStrategy,
    group: &KafkaGroup,
    note: &CommitNote,
    place: Place,
) -> Result<Found, LogError> {
    let (id, partitions) = group.describe().await?;
    let own: Vec<u32> = assigned(partitions, place.task, place.tasks).collect();
    if own.is_empty() {
        tracing::warn!(
            topic = config.topic,
            task = place.task,
            "a task of a Kafka spout has no partitions: the topic has {partitions}, the spout {} tasks",
            place.tasks
        );
        return Ok(Found { id, partitions, starts: BTreeMap::new() });
    }
    let committed = group.committed(own.clone()).await?;
    let (mut starts, mut told) = (BTreeMap::new(), BTreeMap::new());
    for partition in own {
        let beginning = strategy.beginning(committed.get(&partition), note);
        let start = match &beginning {
            Beginning::GoOn(offset) | Beginning::TakeOver(offset) => *offset,
            Beginning::Ask(start) => ask(group, partition, start).await?,
        };
        starts.insert(partition, start);
        if !matches!(beginning, Beginning::GoOn(_)) {
            told.insert(partition, note.at(start));
        }
    }
    group.commit(told).await?;
    Ok(Found { id, partitions, starts })
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

/// Looks whether a topic has more partitions than it had. A new one is read from its first record on.
pub(super) async fn refresh(
    group: KafkaGroup,
    note: Arc<CommitNote>,
    place: Place,
    known: u32,
) -> Result<Found, LogError> {
    let (id, partitions) = group.describe().await?;
    let new: Vec<u32> =
        assigned(partitions, place.task, place.tasks).filter(|partition| *partition >= known).collect();
    let mut starts = BTreeMap::new();
    if !new.is_empty() {
        let committed = group.committed(new.clone()).await?;
        for partition in new {
            let own = committed.get(&partition).filter(|committed| note.wrote(committed));
            let start = match own {
                Some(committed) => committed.offset,
                None => group.range(partition).await?.start,
            };
            starts.insert(partition, start);
        }
    }
    Ok(Found { id, partitions, starts })
}
