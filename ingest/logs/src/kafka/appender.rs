//! Events that come over HTTP, produced to the topic.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use stratus_seam::log::LogError;
use stratus_seam::offsets::OffsetVector;

use super::settings::KafkaSettings;
use super::{PATIENCE, blocking, unavailable};
use crate::appender::{AppendError, Appended};
use crate::line;

/// How long the brokers may take to take a request's records.
const DELIVERY: Duration = Duration::from_secs(30);

/// Produces to a topic, idempotently and acknowledged by all replicas.
#[derive(Clone)]
pub struct KafkaAppender {
    topic: Arc<str>,
    producer: FutureProducer,
    partitions: i32,
    turn: Arc<AtomicU32>,
}

impl KafkaAppender {
    /// Opens a topic for appending.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the brokers cannot be reached or have no such topic.
    pub async fn open(settings: &KafkaSettings, topic: &str) -> Result<Self, LogError> {
        let (settings, topic) = (settings.clone(), Arc::<str>::from(topic));
        blocking(move || {
            let told = |error| unavailable(format!("topic {topic} cannot be appended to"), error);
            let mut config = settings.client("stratus-http");
            config
                .set("enable.idempotence", "true")
                .set("acks", "all")
                .set("delivery.timeout.ms", DELIVERY.as_millis().to_string());
            let producer: FutureProducer = config.create().map_err(told)?;
            let metadata = producer.client().fetch_metadata(Some(&topic), PATIENCE).map_err(told)?;
            let found = metadata.topics().first().map_or(0, |found| found.partitions().len());
            let partitions = i32::try_from(found).unwrap_or(i32::MAX);
            if partitions == 0 {
                return Err(told(KafkaError::MessageProduction(
                    rdkafka::error::RDKafkaErrorCode::UnknownTopicOrPartition,
                )));
            }
            Ok(Self { topic, producer, partitions, turn: Arc::default() })
        })
        .await
    }

    /// Appends the lines of `body`, one record each, to one partition; requests take the partitions in turn. Answers
    /// once all replicas have them.
    ///
    /// # Errors
    /// [`AppendError::Log`] if some were not acknowledged: they may be in the topic or not.
    pub async fn append(&self, body: Bytes) -> Result<Appended, AppendError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let partition = i32::try_from(turn % self.partitions.cast_unsigned()).unwrap_or(0);
        let told = |error| {
            let what = format!("topic {}, partition {partition}: records were not acknowledged", self.topic);
            AppendError::Log(Arc::new(unavailable(what, error)))
        };
        let sends: Vec<_> = line::lines(&body)
            .map(|line| FutureRecord::<(), [u8]>::to(&self.topic).partition(partition).payload(line))
            .map(|record| self.producer.send(record, DELIVERY))
            .collect();
        let (mut accepted, mut offsets) = (0, OffsetVector::zero());
        for sent in join_all(sends).await {
            let delivered = sent.map_err(|(error, _)| told(error))?;
            accepted += 1;
            let (partition, after) =
                (delivered.partition.cast_unsigned(), delivered.offset.cast_unsigned() + 1);
            offsets.set(partition, after.max(offsets.get(partition)));
        }
        Ok(Appended { accepted, offsets })
    }
}

impl fmt::Debug for KafkaAppender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaAppender").field("topic", &self.topic).finish()
    }
}
