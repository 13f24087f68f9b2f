//! The offsets that a group remembers, for readers that keep their place there instead of with what they computed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset as Place, TopicPartitionList};
use stratus_seam::log::{LogError, LogId};
use stratus_seam::offsets::{Offset, Partition};

use super::log::describe;
use super::native;
use super::settings::KafkaSettings;
use super::{PATIENCE, apart, blocking, unavailable};

/// What a group remembers of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where to read on.
    pub offset: Offset,
    /// What whoever committed it wrote beside it; often nothing.
    pub metadata: String,
}

/// A group and a topic, whose partitions are assigned by hand: the group has no members, and its offsets may be
/// written by anybody. Clones share a connection.
#[derive(Clone)]
pub struct KafkaGroup {
    pub(super) consumer: Arc<BaseConsumer>,
    pub(super) topic: Arc<str>,
    name: Arc<str>,
}

impl KafkaGroup {
    /// Nothing is asked of the brokers yet.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the settings make no client.
    pub fn new(settings: &KafkaSettings, topic: &str, name: &str) -> Result<Self, LogError> {
        let consumer = settings
            .consumer(name)
            .create()
            .map_err(|error| unavailable(format!("topic {topic} cannot be read"), error))?;
        Ok(Self { consumer: Arc::new(consumer), topic: topic.into(), name: name.into() })
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Which incarnation of the topic it is now, and how many partitions it has.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the brokers cannot be reached or have no such topic.
    pub async fn describe(&self) -> Result<(LogId, u32), LogError> {
        self.with(|group| {
            let found = describe(&group.consumer, &group.topic)?;
            Ok((LogId(format!("{}/{}", found.cluster, found.topic)), found.partitions))
        })
        .await
    }

    /// The offsets that a partition has now: from the first one that may still be there to the last stable one.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the brokers do not tell.
    pub async fn range(&self, partition: Partition) -> Result<Range<Offset>, LogError> {
        self.with(move |group| {
            let marks = group.consumer.fetch_watermarks(&group.topic, partition as i32, PATIENCE);
            let (low, high) = marks.map_err(|error| {
                let place = format!("topic {}, partition {partition}", group.topic);
                unavailable(format!("{place}: its ends cannot be asked for"), error)
            })?;
            Ok(low.max(0).cast_unsigned()..high.max(0).cast_unsigned())
        })
        .await
    }

    /// The first offset of a partition whose record is of this moment, in milliseconds since the epoch, or a later one.
    /// None if there is no such record.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the brokers do not tell.
    pub async fn offset_at(&self, partition: Partition, moment: i64) -> Result<Option<Offset>, LogError> {
        self.with(move |group| {
            let told = |error| {
                let place = format!("topic {}, partition {partition}", group.topic);
                unavailable(format!("{place}: its offset at a moment cannot be asked for"), error)
            };
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&group.topic, partition as i32, Place::Offset(moment)).map_err(told)?;
            let found = group.consumer.offsets_for_times(list, PATIENCE).map_err(told)?;
            let offset = found.elements().first().map(|element| element.offset());
            Ok(match offset {
                Some(Place::Offset(offset)) => Offset::try_from(offset).ok(),
                _ => None,
            })
        })
        .await
    }

    /// What the group remembers of these partitions. One of which it remembers nothing is left out.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the brokers do not tell.
    pub async fn committed(
        &self,
        partitions: Vec<Partition>,
    ) -> Result<BTreeMap<Partition, Committed>, LogError> {
        self.with(move |group| {
            let told = |error| unavailable(group.place("offsets cannot be asked for"), error);
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition(&group.topic, partition as i32);
            }
            let list = group.consumer.committed_offsets(list, PATIENCE).map_err(told)?;
            let mut found = BTreeMap::new();
            for element in list.elements() {
                element.error().map_err(told)?;
                if let Place::Offset(offset) = element.offset()
                    && let Ok(offset) = Offset::try_from(offset)
                {
                    let metadata = native::metadata(&list, &group.topic, element.partition());
                    found.insert(element.partition().cast_unsigned(), Committed { offset, metadata });
                }
            }
            Ok(found)
        })
        .await
    }

    /// Lets the group remember these offsets, and waits until the brokers have them. While no broker answers, that is
    /// for as long as it takes: the client holds on to the offsets and sends them again.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if they do not take them.
    pub async fn commit(&self, offsets: BTreeMap<Partition, Committed>) -> Result<(), LogError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let group = self.clone();
        apart(move || {
            let told = |error| unavailable(group.place("offsets were not written"), error);
            let mut list = TopicPartitionList::new();
            for (partition, Committed { offset, metadata }) in &offsets {
                let mut element = list.add_partition(&group.topic, *partition as i32);
                let place = Place::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
                element.set_offset(place).map_err(told)?;
                element.set_metadata(metadata);
            }
            group.consumer.commit(&list, CommitMode::Sync).map_err(told)
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Self) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let group = self.clone();
        blocking(move || what(&group)).await
    }

    fn place(&self, what: &str) -> String {
        format!("group {}, topic {}: its {what}", self.name, self.topic)
    }
}

impl fmt::Debug for KafkaGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaGroup").field("name", &self.name).field("topic", &self.topic).finish()
    }
}
