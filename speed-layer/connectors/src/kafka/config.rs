//! Settings of a Kafka spout.

use std::time::Duration;

use stratus_logs::kafka::KafkaSettings;

use super::{retries::RetryPolicy, start::FirstPollOffsetStrategy};

/// What is promised about each record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessingGuarantee {
    /// Its offset is committed when its tree is done, and it is emitted again until it is.
    #[default]
    AtLeastOnce,
    /// Its offset is committed before it is emitted, once.
    AtMostOnce,
    /// The offsets of what was emitted are committed now and then; after a crash, records may be repeated or missing.
    NoGuarantee,
}

/// Settings of a Kafka spout. They begin as [`new`](Self::new) says, and are changed by field.
#[derive(Clone, Debug)]
pub struct KafkaSpoutConfig {
    /// How the cluster is reached.
    pub kafka: KafkaSettings,
    /// The topic.
    pub topic: String,
    /// The group that remembers how far the topology is. It must have no members that Kafka assigns partitions to.
    pub group: String,
    /// Where reading begins: uncommitted earliest.
    pub first_poll: FirstPollOffsetStrategy,
    /// What is promised about each record: at least once.
    pub guarantee: ProcessingGuarantee,
    /// How often offsets are committed: every 30 s.
    pub commit_interval: Duration,
    /// How often the spout looks for new partitions: every 2 s.
    pub refresh_interval: Duration,
    /// Records of one partition that may be emitted and not committed, whether done or not: 10,000,000. Beyond that,
    /// only failed records are emitted. Offsets are committed before their interval is over if that makes room.
    pub max_uncommitted_offsets: usize,
    /// Records of one emission, at most: 4,096.
    pub batch_rows: usize,
    /// Bytes of keys and values of one emission, about: 4 MiB.
    pub batch_bytes: usize,
    /// When failed records are emitted again.
    pub retries: RetryPolicy,
    /// Whether tuples are followed although nothing depends on it, that is with another guarantee than at least once:
    /// so that they count as pending, and the topology's limit of those slows the spout down. No.
    pub track_tuples: bool,
}

impl KafkaSpoutConfig {
    /// Reads a topic for a group, with Storm's defaults.
    pub fn new(kafka: KafkaSettings, topic: &str, group: &str) -> Self {
        Self {
            kafka,
            topic: topic.to_owned(),
            group: group.to_owned(),
            first_poll: FirstPollOffsetStrategy::default(),
            guarantee: ProcessingGuarantee::default(),
            commit_interval: Duration::from_secs(30),
            refresh_interval: Duration::from_secs(2),
            max_uncommitted_offsets: 10_000_000,
            batch_rows: 4_096,
            batch_bytes: 4 << 20,
            retries: RetryPolicy::default(),
            track_tuples: false,
        }
    }

    pub(super) fn is_at_least_once(&self) -> bool {
        self.guarantee == ProcessingGuarantee::AtLeastOnce
    }
}
