//! What a topic is, for whoever declares a source over it or looks after it.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset as Place, TopicPartitionList};
use stratus_seam::log::{Log, LogError, LogId};
use stratus_seam::offsets::OffsetVector;

use super::log::{KafkaLog, describe};
use super::settings::KafkaSettings;
use super::{PATIENCE, blocking, unavailable};

/// Where a source begins in its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the first record that the topic still has.
    Earliest,
    /// With the next record.
    Latest,
    /// With the first record at or after this moment.
    At(DateTime<Utc>),
}

/// A text that is no [`Start`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("start = '{0}' is not known: it is 'earliest', 'latest', or a moment like '2026-01-31T12:00:00Z'")]
pub struct StartError(String);

impl FromStr for Start {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            moment => match DateTime::parse_from_rfc3339(moment) {
                Ok(moment) => Ok(Self::At(moment.to_utc())),
                Err(_) => Err(StartError(moment.to_owned())),
            },
        }
    }
}

/// What a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    /// This incarnation of it.
    pub log_id: LogId,
    /// How many partitions it has.
    pub partitions: u32,
    /// The first offset of each partition.
    pub earliest: OffsetVector,
    /// The last stable offset of each partition.
    pub end: OffsetVector,
    /// `cleanup.policy`, if the brokers tell.
    pub cleanup_policy: Option<String>,
    /// `retention.ms`, if the brokers tell; none also if it is unlimited.
    pub retention: Option<Duration>,
}

impl TopicFacts {
    /// Whether the brokers remove records that a later record of the same key replaces.
    pub fn is_compacted(&self) -> bool {
        self.cleanup_policy
            .as_deref()
            .is_some_and(|policy| policy.split(',').any(|part| part.trim() == "compact"))
    }
}

/// Questions about topics.
#[derive(Debug)]
pub struct KafkaTopic;

fn consumer(settings: &KafkaSettings, topic: &str) -> Result<BaseConsumer, LogError> {
    let made = settings.consumer("stratus-look").create();
    made.map_err(|error| unavailable(format!("topic {topic} cannot be looked at"), error))
}

impl KafkaTopic {
    /// How many brokers there are, if any answers.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if none does.
    pub async fn brokers(settings: &KafkaSettings) -> Result<usize, LogError> {
        let settings = settings.clone();
        blocking(move || {
            let what = || format!("no broker answers at {}", settings.brokers());
            let consumer: BaseConsumer =
                settings.consumer("stratus-look").create().map_err(|error| unavailable(what(), error))?;
            let metadata =
                consumer.fetch_metadata(None, PATIENCE).map_err(|error| unavailable(what(), error))?;
            Ok(metadata.brokers().len())
        })
        .await
    }

    /// Looks at a topic.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the brokers cannot be reached or have no such topic.
    pub async fn look(settings: &KafkaSettings, topic: &str) -> Result<TopicFacts, LogError> {
        let (own, name) = (settings.clone(), topic.to_owned());
        let mut facts = blocking(move || {
            let consumer = consumer(&own, &name)?;
            let found = describe(&consumer, &name)?;
            let (mut earliest, mut end) = (OffsetVector::zero(), OffsetVector::zero());
            for partition in 0..found.partitions {
                let marks = consumer.fetch_watermarks(&name, partition as i32, PATIENCE);
                let (low, high) = marks.map_err(|error| {
                    unavailable(
                        format!("topic {name}, partition {partition}: its ends cannot be asked for"),
                        error,
                    )
                })?;
                for (vector, offset) in [(&mut earliest, low), (&mut end, high)] {
                    if offset > 0 {
                        vector.set(partition, offset.cast_unsigned());
                    }
                }
            }
            Ok(TopicFacts {
                log_id: LogId(format!("{}/{}", found.cluster, found.topic)),
                partitions: found.partitions,
                earliest,
                end,
                cleanup_policy: None,
                retention: None,
            })
        })
        .await?;
        // Who may read a topic may not be allowed to read its settings; then they stay unknown.
        let admin: AdminClient<DefaultClientContext> = settings
            .client("stratus-look")
            .create()
            .map_err(|error| unavailable(format!("topic {topic} cannot be looked at"), error))?;
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        if let Ok(answers) = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await {
            for entry in answers.into_iter().flatten().flat_map(|resource| resource.entries) {
                match (entry.name.as_str(), entry.value) {
                    ("cleanup.policy", policy) => facts.cleanup_policy = policy,
                    ("retention.ms", Some(text)) => {
                        facts.retention = text.parse().ok().map(Duration::from_millis);
                    }
                    _ => {}
                }
            }
        }
        Ok(facts)
    }

    /// The offsets at which a source begins, resolved once.
    ///
    /// # Errors
    /// As [`KafkaTopic::look`].
    pub async fn resolve_start(
        settings: &KafkaSettings,
        topic: &str,
        start: &Start,
    ) -> Result<OffsetVector, LogError> {
        let facts = Self::look(settings, topic).await?;
        if *start == Start::Earliest {
            return Ok(facts.earliest);
        }
        // Behind the last record, not behind the marks of transactions: no source begins above the end of its log.
        let end = KafkaLog::open(settings, topic, "stratus-look").await?.end().await?;
        let moment = match start {
            Start::Earliest | Start::Latest => return Ok(end),
            Start::At(moment) => moment.timestamp_millis(),
        };
        let (settings, topic) = (settings.clone(), topic.to_owned());
        blocking(move || {
            let told = |error| {
                unavailable(format!("topic {topic}: its offsets at a moment cannot be asked for"), error)
            };
            let mut list = TopicPartitionList::new();
            for partition in 0..facts.partitions {
                list.add_partition_offset(&topic, partition as i32, Place::Offset(moment)).map_err(told)?;
            }
            let found = consumer(&settings, &topic)?.offsets_for_times(list, PATIENCE).map_err(told)?;
            let mut vector = OffsetVector::zero();
            for element in found.elements() {
                let partition = element.partition().cast_unsigned();
                let offset = match element.offset() {
                    Place::Offset(offset) if offset >= 0 => offset.cast_unsigned().min(end.get(partition)),
                    // Nothing is that new.
                    _ => end.get(partition),
                };
                if offset > 0 {
                    vector.set(partition, offset);
                }
            }
            Ok(vector)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_or_a_moment() {
        assert_eq!("earliest".parse(), Ok(Start::Earliest));
        assert_eq!("latest".parse(), Ok(Start::Latest));
        let moment = DateTime::from_timestamp_millis(1_767_225_600_000).unwrap();
        assert_eq!("2026-01-01T01:00:00+01:00".parse(), Ok(Start::At(moment)));
        assert!("yesterday".parse::<Start>().unwrap_err().to_string().contains("'yesterday'"));
    }
}
