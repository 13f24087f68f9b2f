//! One partition as it is read: librdkafka's queue, and where in it we stand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset as Place, TopicPartitionList};
use stratus_seam::log::{Chunk, RecordSpan};
use stratus_seam::offsets::{Offset, Partition};
use tokio::sync::Notify;

use super::PATIENCE;
use super::native::{Item, PartitionQueue};

/// For how long an end that was seen is believed without asking the brokers.
const BELIEVED: Duration = Duration::from_millis(100);
/// How long one wait for records lasts before what else may have happened is looked at.
const STEP: Duration = Duration::from_millis(100);

/// Why a read has no chunk.
#[derive(Debug)]
pub(super) enum LaneError {
    /// The brokers no longer have the offset, or do not have it yet.
    OutOfRange,
    /// Anything else.
    Kafka(KafkaError),
}

impl From<KafkaError> for LaneError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// A partition that is read from one end to the other.
pub(super) struct Lane {
    /// Taken from the queue and not yet delivered. Dropped before everything else: a client waits for its records.
    pending: VecDeque<Item>,
    consumer: Arc<BaseConsumer>,
    asker: Arc<BaseConsumer>,
    topic: Arc<str>,
    partition: Partition,
    queue: PartitionQueue,
    /// The offset after the last delivered record, or where reading was begun; none before that.
    position: Option<Offset>,
    /// Where the partition ended when its end was last reached.
    end: Option<Offset>,
    /// When the brokers last said that there is nothing behind `end`.
    asked: Option<Instant>,
}

impl Lane {
    /// Reads with `consumer`; what else is to be known is asked for with `asker`, so that it need not wait for a fetch.
    pub(super) fn new(
        consumer: &Arc<BaseConsumer>,
        asker: &Arc<BaseConsumer>,
        topic: &Arc<str>,
        partition: Partition,
        filled: &Arc<Notify>,
    ) -> Result<Self, LaneError> {
        let number =
            i32::try_from(partition).map_err(|_| KafkaError::Global(RDKafkaErrorCode::UnknownPartition))?;
        let queue = PartitionQueue::split(consumer, topic, number, filled).map_err(KafkaError::Global)?;
        Ok(Self {
            consumer: Arc::clone(consumer),
            asker: Arc::clone(asker),
            topic: Arc::clone(topic),
            partition,
            queue,
            position: None,
            pending: VecDeque::new(),
            end: None,
            asked: None,
        })
    }

    fn list(&self, place: Place) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        // It was an i32 before.
        list.add_partition_offset(&self.topic, self.partition as i32, place)?;
        Ok(list)
    }

    /// Goes to an offset, unless reading stands there. What was fetched before is dropped by librdkafka.
    pub(super) fn go_to(&mut self, from: Offset) -> Result<(), LaneError> {
        if self.position == Some(from) {
            return Ok(());
        }
        if self.position.take().is_some() {
            self.consumer.incremental_unassign(&self.list(Place::Invalid)?)?;
        }
        self.pending.clear();
        (self.end, self.asked) = (None, None);
        let place = Place::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        self.consumer.incremental_assign(&self.list(place)?)?;
        self.position = Some(from);
        Ok(())
    }

    /// Whether there is something to be read, without waiting.
    pub(super) fn has_more(&mut self) -> bool {
        if !self.pending.iter().any(|item| matches!(item, Item::Record(_) | Item::Error(_))) {
            self.queue.take(Duration::ZERO, &mut self.pending);
        }
        self.pending.iter().any(|item| matches!(item, Item::Record(_) | Item::Error(_)))
    }

    /// Reads on from `from`. Waits until there is a record, or it is known that there is none.
    pub(super) fn read(
        &mut self,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LaneError> {
        let read = self.go_to(from).and_then(|()| self.collect(from, until, max_bytes));
        if read.is_err() && self.position.take().is_some() {
            // The next read begins anew; that the partition cannot be given back now is no further news.
            _ = self.list(Place::Invalid).and_then(|list| self.consumer.incremental_unassign(&list));
        }
        read
    }

    fn collect(&mut self, from: Offset, until: Option<Offset>, max_bytes: usize) -> Result<Chunk, LaneError> {
        let (began, mut bytes, mut records) = (Instant::now(), BytesMut::new(), Vec::<RecordSpan>::new());
        let mut to = from;
        loop {
            let Some(item) = self.pending.pop_front() else {
                if self.queue.take(Duration::ZERO, &mut self.pending) > 0 {
                    continue;
                }
                let wait = if records.is_empty() { STEP } else { Duration::ZERO };
                if records.is_empty() && self.is_at_its_end()? {
                    break;
                }
                if self.queue.take(wait, &mut self.pending) == 0 {
                    if !records.is_empty() {
                        break;
                    }
                    if began.elapsed() > PATIENCE {
                        return Err(
                            KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into()
                        );
                    }
                }
                continue;
            };
            match item {
                Item::Record(record) => {
                    let offset = record.offset();
                    if offset < to {
                        continue;
                    }
                    let payload = record.payload();
                    let full = !records.is_empty() && bytes.len() + payload.len() > max_bytes;
                    if full || until.is_some_and(|until| offset >= until) {
                        self.pending.push_front(Item::Record(record));
                        break;
                    }
                    // A chunk is about `max_bytes` long, or one record, which the brokers bound by an i32.
                    let start = bytes.len() as u32;
                    bytes.extend_from_slice(payload);
                    let end = bytes.len() as u32;
                    records.push(RecordSpan { offset, start, end, timestamp: record.timestamp() });
                    to = offset + 1;
                }
                Item::End(end) => (self.end, self.asked) = (Some(end), None),
                Item::Error(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    return Err(LaneError::OutOfRange);
                }
                Item::Error(code) => return Err(KafkaError::MessageConsumption(code).into()),
            }
        }
        self.position = Some(to);
        Ok(Chunk { partition: self.partition, from, to, bytes: bytes.freeze(), records })
    }

    /// Whether everything that is committed was delivered. The end that was reached may be an old one, so the brokers
    /// are asked for the present one.
    fn is_at_its_end(&mut self) -> Result<bool, LaneError> {
        let Some(end) = self.end else { return Ok(false) };
        if self.asked.is_some_and(|asked| asked.elapsed() < BELIEVED) {
            return Ok(true);
        }
        let asked = Instant::now();
        let (_, stable) = self.asker.fetch_watermarks(&self.topic, self.partition as i32, PATIENCE)?;
        let nothing = u64::try_from(stable).is_ok_and(|stable| stable <= end);
        if nothing {
            self.asked = Some(asked);
        } else {
            // Records, or what shows as none, are on their way; then a new end is told.
            self.end = None;
        }
        Ok(nothing)
    }
}
