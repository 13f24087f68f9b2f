//! The topic as a [`Log`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset as Place, TopicPartitionList};
use stratus_seam::log::{Chunk, Log, LogError, LogId};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use tokio::sync::Notify;

use super::lane::{Lane, LaneError};
use super::native::{self, Description};
use super::settings::KafkaSettings;
use super::{PATIENCE, blocking, unavailable, unavailable_code};

/// For how long the topic's id, once seen, is believed while records come in. Records that were fetched from another
/// topic of the same name within that time could be delivered: the old topic would have to be deleted, the new one
/// made, and filled beyond where we read, all in less.
const BELIEVED: Duration = Duration::from_millis(50);
/// The least time between two writes of the group's offsets.
const ACKNOWLEDGED: Duration = Duration::from_secs(1);
/// For how long the number of partitions is believed.
const PARTITIONS_BELIEVED: Duration = Duration::from_millis(500);

/// A topic, read with `read_committed` from the places that the reader gives. Each handle reads each partition from
/// one end to the other; a read elsewhere seeks.
///
/// # Offsets
/// They have holes: control records, aborted transactions, compaction. [`Log::end`] is the offset after the last
/// record that a reader is given, which may lie below the last stable offset: a target beyond every record would
/// never be reached.
#[derive(Clone)]
pub struct KafkaLog(Arc<Inner>);

struct Inner {
    topic: Arc<str>,
    reader: String,
    settings: KafkaSettings,
    consumer: Arc<BaseConsumer>,
    /// For questions. Brokers answer a connection's requests in turn, and where the records end they hold the consumer's
    /// fetch up for `fetch.wait.max.ms`: whatever it asks would wait behind that.
    asker: Arc<BaseConsumer>,
    /// The incarnation that is read.
    opened: LogId,
    seen: Mutex<Seen>,
    lanes: Mutex<HashMap<Partition, Arc<Mutex<Lane>>>>,
    filled: Arc<Notify>,
    /// By partition, the last stable offset and the offset after the last record below it.
    ends: Mutex<BTreeMap<Partition, (i64, Offset)>>,
    /// What the group was last told, and when.
    acknowledged: Mutex<Option<(Instant, OffsetVector)>>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    id: LogId,
    partitions: u32,
}

fn log_id(found: &Description) -> LogId {
    LogId(format!("{}/{}", found.cluster, found.topic))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KafkaLog {
    /// Opens a topic for one reader, whose name is its client id and the group under which the usual tools see how
    /// far it is.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the brokers cannot be reached or have no such topic.
    pub async fn open(settings: &KafkaSettings, topic: &str, reader: &str) -> Result<Self, LogError> {
        let (settings, topic, reader) = (settings.clone(), Arc::<str>::from(topic), reader.to_owned());
        blocking(move || {
            let at = Instant::now();
            let client = |name: &str| -> Result<Arc<BaseConsumer>, LogError> {
                let made = settings.consumer(name).create();
                Ok(Arc::new(
                    made.map_err(|error| unavailable(format!("topic {topic} cannot be read"), error))?,
                ))
            };
            let (consumer, asker) = (client(&reader)?, client(&format!("{reader}-asks"))?);
            let found = describe(&asker, &topic)?;
            let id = log_id(&found);
            let seen = Mutex::new(Seen { at, id: id.clone(), partitions: found.partitions });
            Ok(Self(Arc::new(Inner {
                topic,
                reader,
                settings,
                consumer,
                asker,
                opened: id,
                seen,
                lanes: Mutex::default(),
                filled: Arc::new(Notify::new()),
                ends: Mutex::default(),
                acknowledged: Mutex::default(),
            })))
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Inner) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let inner = Arc::clone(&self.0);
        blocking(move || what(&inner)).await
    }
}

/// Asks what the topic is now.
pub(super) fn describe(consumer: &BaseConsumer, topic: &str) -> Result<Description, LogError> {
    native::describe(consumer, topic, PATIENCE).map_err(|code| match code {
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
            unavailable_code(format!("there is no topic {topic}; create it, or name another one"), code)
        }
        code => unavailable_code(format!("topic {topic}: the brokers cannot be asked what it is"), code),
    })
}

impl Inner {
    /// What the topic is, not longer ago than `age`.
    fn look(&self, age: Duration) -> Result<(LogId, u32), LogError> {
        let mut seen = lock(&self.seen);
        if seen.at.elapsed() > age {
            let at = Instant::now();
            let found = describe(&self.asker, &self.topic)?;
            *seen = Seen { at, id: log_id(&found), partitions: found.partitions };
        }
        Ok((seen.id.clone(), seen.partitions))
    }

    /// Fails if the topic is no longer the one that was opened.
    fn check(&self, age: Duration) -> Result<u32, LogError> {
        let (id, partitions) = self.look(age)?;
        if id == self.opened {
            return Ok(partitions);
        }
        Err(LogError::Replaced {
            log: format!("topic {}", self.topic),
            what: format!("it was deleted and created again (it is {id}, it was {})", self.opened),
            todo: "Drop the source and create it anew to read the new topic".to_owned(),
        })
    }

    fn lane(&self, partition: Partition) -> Result<Arc<Mutex<Lane>>, LogError> {
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.get(&partition) {
            return Ok(Arc::clone(lane));
        }
        let lane = Lane::new(&self.consumer, &self.asker, &self.topic, partition, &self.filled)
            .map_err(|error| self.told(partition, 0, error))?;
        let lane = Arc::new(Mutex::new(lane));
        lanes.insert(partition, Arc::clone(&lane));
        Ok(lane)
    }

    fn place(&self, partition: Partition) -> String {
        format!("topic {}, partition {partition}", self.topic)
    }

    fn watermarks(&self, partition: Partition) -> Result<(i64, i64), LogError> {
        // Their number comes from an i32.
        self.asker.fetch_watermarks(&self.topic, partition as i32, PATIENCE).map_err(|error| {
            unavailable(format!("{}: its ends cannot be asked for", self.place(partition)), error)
        })
    }

    /// What a failed read from `from` means.
    fn told(&self, partition: Partition, from: Offset, error: LaneError) -> LogError {
        let error = match error {
            LaneError::Kafka(error) => {
                return unavailable(
                    format!("{}, offset {from}: it cannot be read", self.place(partition)),
                    error,
                );
            }
            LaneError::OutOfRange => {
                match self.check(Duration::ZERO).and_then(|_| self.watermarks(partition)) {
                    Ok(marks) => marks,
                    Err(error) => return error,
                }
            }
        };
        let (low, high) = (error.0.max(0).cast_unsigned(), error.1.max(0).cast_unsigned());
        let log = format!("topic {}", self.topic);
        if from < low {
            return LogError::Gone { log, partition, from, earliest: low };
        }
        if from > high {
            return LogError::Replaced {
                log,
                what: format!("partition {partition} ends at offset {high}, below {from}, up to which it was read"),
                todo: "The brokers have lost records, and will use their offsets again. Restore them, or drop the \
                       source and create it anew"
                    .to_owned(),
            };
        }
        unavailable_code(
            format!("{}, offset {from}: the brokers refuse it and hold {low}..{high}", self.place(partition)),
            RDKafkaErrorCode::OffsetOutOfRange,
        )
    }

    fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        if until.is_some_and(|until| until <= from) {
            return Ok(Chunk { partition, from, to: from, ..Chunk::default() });
        }
        let lane = self.lane(partition)?;
        let read = lock(&lane).read(from, until, max_bytes);
        match read {
            Ok(chunk) => {
                let age = if chunk.records.is_empty() { PARTITIONS_BELIEVED } else { BELIEVED };
                self.check(age)?;
                Ok(chunk)
            }
            Err(error) => {
                // A topic that was deleted fails in many ways; that it is another one says most.
                self.check(Duration::ZERO)?;
                Err(self.told(partition, from, error))
            }
        }
    }

    /// The offset after the last record that a reader is given, found by reading back from the last stable offset.
    fn end_of(&self, partition: Partition) -> Result<Offset, LogError> {
        let (low, stable) = self.watermarks(partition)?;
        if stable <= low {
            return Ok(low.max(0).cast_unsigned());
        }
        if let Some((at, end)) = lock(&self.ends).get(&partition)
            && *at == stable
        {
            // Retention may have taken what lay below it meanwhile.
            return Ok((*end).max(low.max(0).cast_unsigned()));
        }
        let consumer: BaseConsumer = self
            .settings
            .consumer(&format!("{}-end", self.reader))
            .create()
            .map_err(|error| unavailable(self.place(partition), error))?;
        let consumer = Arc::new(consumer);
        let mut lane = Lane::new(&consumer, &self.asker, &self.topic, partition, &Arc::new(Notify::new()))
            .map_err(|error| self.told(partition, 0, error))?;
        let (low, stable_offset) = (low.max(0).cast_unsigned(), stable.cast_unsigned());
        let (mut back, mut end) = (1, low);
        loop {
            let mut at = stable_offset.saturating_sub(back).max(low);
            let begin = at;
            loop {
                let chunk = lane
                    .read(at, Some(stable_offset), 1 << 20)
                    .map_err(|error| self.told(partition, at, error))?;
                if chunk.records.is_empty() {
                    break;
                }
                (at, end) = (chunk.to, chunk.to);
            }
            if end > begin || begin == low {
                break;
            }
            back *= 32;
        }
        lock(&self.ends).insert(partition, (stable, end));
        Ok(end)
    }

    fn vector(
        &self,
        of: impl Fn(&Self, Partition) -> Result<Offset, LogError>,
    ) -> Result<OffsetVector, LogError> {
        let partitions = self.check(Duration::ZERO)?;
        let mut vector = OffsetVector::zero();
        for partition in 0..partitions {
            let offset = of(self, partition)?;
            if offset > 0 {
                vector.set(partition, offset);
            }
        }
        Ok(vector)
    }

    /// Whether there is something behind `seen`. Every partition is being fetched from there afterwards.
    fn has_more(&self, seen: &OffsetVector) -> Result<bool, LogError> {
        // Serves what librdkafka has to tell beside records.
        _ = (self.consumer.poll(Duration::ZERO), self.asker.poll(Duration::ZERO));
        for partition in 0..self.check(PARTITIONS_BELIEVED)? {
            let (lane, from) = (self.lane(partition)?, seen.get(partition));
            let mut lane = lock(&lane);
            lane.go_to(from).map_err(|error| self.told(partition, from, error))?;
            if lane.has_more() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn id(&self) -> Result<LogId, LogError> {
        self.with(|inner| Ok(inner.look(Duration::ZERO)?.0)).await
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        self.with(|inner| inner.check(PARTITIONS_BELIEVED)).await
    }

    async fn end(&self) -> Result<OffsetVector, LogError> {
        self.with(|inner| inner.vector(Inner::end_of)).await
    }

    async fn earliest(&self) -> Result<OffsetVector, LogError> {
        let low = |inner: &Inner, partition| Ok(inner.watermarks(partition)?.0.max(0).cast_unsigned());
        self.with(move |inner| inner.vector(low)).await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        self.with(move |inner| inner.read(partition, from, until, max_bytes)).await
    }

    async fn appended(&self, seen: &OffsetVector, patience: Duration) -> Result<(), LogError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let filled = Arc::clone(&self.0.filled);
            let mut filled = std::pin::pin!(filled.notified());
            // From here on, so that what comes while we look is not missed.
            filled.as_mut().enable();
            let seen = seen.clone();
            if self.with(move |inner| inner.has_more(&seen)).await? {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, filled).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn acknowledge(&self, absorbed: &OffsetVector) {
        let told = lock(&self.0.acknowledged).clone();
        if told.is_some_and(|(at, told)| at.elapsed() < ACKNOWLEDGED || told == *absorbed) {
            return;
        }
        *lock(&self.0.acknowledged) = Some((Instant::now(), absorbed.clone()));
        let mut list = TopicPartitionList::new();
        for (partition, offset) in absorbed.iter() {
            let (Ok(partition), Ok(offset)) = (i32::try_from(partition), i64::try_from(offset)) else {
                continue;
            };
            if let Err(error) = list.add_partition_offset(&self.0.topic, partition, Place::Offset(offset)) {
                tracing::debug!("the group's offsets cannot be written: {error}");
            }
        }
        if let Err(error) = self.0.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(group = self.0.reader, "the group's offsets were not written: {error}");
        }
    }
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog")
            .field("topic", &self.0.topic)
            .field("reader", &self.0.reader)
            .field("id", &self.0.opened)
            .finish()
    }
}
