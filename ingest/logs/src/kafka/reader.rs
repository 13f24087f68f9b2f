//! Partitions of a topic read as they come: whole records, with their keys, and without ever waiting.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset as Place, TopicPartitionList};
use stratus_seam::log::LogError;
use stratus_seam::offsets::{Offset, Partition};
use tokio::sync::Notify;

use super::group::KafkaGroup;
use super::native::{Item, PartitionQueue, Record};
use super::unavailable;

/// A record, still in the client's memory.
pub struct KafkaRecord {
    record: Record,
    /// It must go before its client does.
    _consumer: Arc<BaseConsumer>,
}

impl KafkaRecord {
    /// Its offset in its partition.
    pub fn offset(&self) -> Offset {
        self.record.offset()
    }

    /// Its key, if it has one.
    pub fn key(&self) -> Option<&[u8]> {
        self.record.key()
    }

    /// Its value; a tombstone has none.
    pub fn value(&self) -> Option<&[u8]> {
        self.record.value()
    }

    /// Milliseconds since the epoch.
    pub fn timestamp(&self) -> Option<i64> {
        self.record.timestamp().map(|microseconds| microseconds / 1_000)
    }
}

impl fmt::Debug for KafkaRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaRecord").field("offset", &self.offset()).finish_non_exhaustive()
    }
}

/// Why there are no records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The brokers do not have the offset: its record was deleted, or the partition ends before it.
    /// [`KafkaGroup::range`] says what they have.
    #[error("topic {topic}, partition {partition}: the brokers do not have offset {offset}")]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// Where reading was to go on.
        offset: Offset,
    },
    /// Reading has failed; the same call may succeed later.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Reads partitions, each from where it was told to begin. What is fetched ahead waits in the client, with its bounds.
pub struct KafkaReader {
    group: KafkaGroup,
    filled: Arc<Notify>,
    cursors: BTreeMap<Partition, Cursor>,
}

struct Cursor {
    /// Before the queue: what is here must go before the client does.
    pending: VecDeque<Item>,
    queue: PartitionQueue,
    position: Offset,
    /// Whether it is being fetched from `position` on.
    assigned: bool,
}

impl KafkaReader {
    /// Reads over the connection of `group`, of which there must be only one reader.
    pub fn new(group: KafkaGroup) -> Self {
        Self { group, filled: Arc::default(), cursors: BTreeMap::new() }
    }

    /// The group.
    pub fn group(&self) -> &KafkaGroup {
        &self.group
    }

    /// Where reading of a partition goes on: behind the last record, and behind what is none where the partition, or what
    /// was asked for, ends.
    pub fn position(&self, partition: Partition) -> Option<Offset> {
        self.cursors.get(&partition).map(|cursor| cursor.position)
    }

    /// Begins, or goes on, at this offset of a partition.
    ///
    /// # Errors
    /// [`ReadError::Log`] if the client refuses.
    pub fn seek(&mut self, partition: Partition, offset: Offset) -> Result<(), ReadError> {
        if let Some(cursor) = self.cursors.get(&partition)
            && cursor.position == offset
        {
            return Ok(());
        }
        self.stop(partition);
        match self.cursors.get_mut(&partition) {
            Some(cursor) => cursor.position = offset,
            None => {
                let queue = PartitionQueue::split(
                    &self.group.consumer,
                    &self.group.topic,
                    partition as i32,
                    &self.filled,
                )
                .map_err(|code| self.failed(partition, offset, KafkaError::Global(code)))?;
                let cursor = Cursor { queue, position: offset, assigned: false, pending: VecDeque::new() };
                self.cursors.insert(partition, cursor);
            }
        }
        self.fetch(partition)
    }

    /// Fetches no more of a partition, and forgets what was fetched. The next read begins where this one stopped.
    pub fn stop(&mut self, partition: Partition) {
        let list = self.list(partition, Place::Invalid);
        let Some(cursor) = self.cursors.get_mut(&partition) else { return };
        cursor.pending.clear();
        if std::mem::take(&mut cursor.assigned)
            && let Err(error) = list.and_then(|list| self.group.consumer.incremental_unassign(&list))
        {
            tracing::debug!(partition, "a partition cannot be given back: {error}");
        }
    }

    fn fetch(&mut self, partition: Partition) -> Result<(), ReadError> {
        let Some(cursor) = self.cursors.get(&partition).filter(|cursor| !cursor.assigned) else {
            return Ok(());
        };
        let position = cursor.position;
        let place = Place::Offset(i64::try_from(position).unwrap_or(i64::MAX));
        let assigned =
            self.list(partition, place).and_then(|list| self.group.consumer.incremental_assign(&list));
        assigned.map_err(|error| self.failed(partition, position, error))?;
        if let Some(cursor) = self.cursors.get_mut(&partition) {
            cursor.assigned = true;
        }
        Ok(())
    }

    /// Takes records of a partition that have been fetched: at most `rows`, about `bytes`, and only those below
    /// `until`. None if there are none yet, or none at all: if a later record shows that there are none below `until`,
    /// the position moves there.
    ///
    /// # Errors
    /// [`ReadError`]; what was taken before is in `into` none the less.
    pub fn take(
        &mut self,
        partition: Partition,
        until: Option<Offset>,
        rows: usize,
        bytes: usize,
        into: &mut Vec<KafkaRecord>,
    ) -> Result<(), ReadError> {
        self.fetch(partition)?;
        let Some(cursor) = self.cursors.get_mut(&partition) else { return Ok(()) };
        let (mut rows, mut bytes) = (rows, bytes);
        let code = loop {
            if rows == 0 || bytes == 0 {
                return Ok(());
            }
            if cursor.pending.is_empty() && cursor.queue.take(Duration::ZERO, &mut cursor.pending) == 0 {
                return Ok(());
            }
            match cursor.pending.pop_front() {
                None => {}
                Some(Item::Record(record)) => {
                    let offset = record.offset();
                    if let Some(until) = until.filter(|until| offset >= *until) {
                        cursor.pending.push_front(Item::Record(record));
                        // Everything below `until` was read: what has not come is no record, or none any more.
                        cursor.position = cursor.position.max(until);
                        return Ok(());
                    }
                    // The first batch that holds an offset may begin before it.
                    if offset >= cursor.position {
                        let size =
                            record.value().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len);
                        (rows, bytes) = (rows - 1, bytes.saturating_sub(size));
                        cursor.position = offset + 1;
                        into.push(KafkaRecord { record, _consumer: Arc::clone(&self.group.consumer) });
                    }
                }
                Some(Item::End(end)) => cursor.position = cursor.position.max(end),
                Some(Item::Error(code)) => break code,
            }
        };
        let offset = cursor.position;
        // The next read begins anew, from the same place.
        self.stop(partition);
        Err(match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                ReadError::OutOfRange { topic: self.group.topic.to_string(), partition, offset }
            }
            code => self.failed(partition, offset, KafkaError::MessageConsumption(code)),
        })
    }

    /// Whether reading stands before this record at the latest, without having to seek.
    pub fn is_before(&self, partition: Partition, offset: Offset) -> bool {
        self.cursors.get(&partition).is_some_and(|cursor| cursor.assigned && cursor.position <= offset)
    }

    /// Serves what the client has to tell beside records.
    pub fn serve(&self) {
        _ = self.group.consumer.poll(Duration::ZERO);
    }

    fn list(&self, partition: Partition, place: Place) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.group.topic, partition as i32, place)?;
        Ok(list)
    }

    fn failed(&self, partition: Partition, offset: Offset, error: KafkaError) -> ReadError {
        let place = format!("topic {}, partition {partition}, offset {offset}", self.group.topic);
        unavailable(format!("{place}: it cannot be read"), error).into()
    }
}

impl fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions: Vec<(Partition, Offset)> =
            self.cursors.iter().map(|(partition, cursor)| (*partition, cursor.position)).collect();
        f.debug_struct("KafkaReader").field("group", &self.group).field("positions", &positions).finish()
    }
}
