//! One broker for all tests, with topics of their own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset as Place, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
};
use stratus_connectors::kafka::{KafkaSettings, KafkaSpoutConfig};
use stratus_servers::kafka::Kafka;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A broker, and a client of the group that all tests share: to find a group's coordinator takes a client a second.
pub(crate) struct Broker {
    kafka: Kafka,
    consumer: BaseConsumer,
}

/// The group of all spouts. It remembers offsets by topic, and each test has its own.
const GROUP: &str = "connectors";

/// It is ended when the last test lets go of it.
fn broker() -> Option<Arc<Broker>> {
    static BROKER: OnceLock<Mutex<Weak<Broker>>> = OnceLock::new();
    let mut broker = BROKER.get_or_init(Mutex::default).lock().unwrap();
    if let Some(running) = broker.upgrade() {
        return Some(running);
    }
    let started = Arc::new(start()?);
    *broker = Arc::downgrade(&started);
    Some(started)
}

fn start() -> Option<Broker> {
    let kafka = Kafka::start().unwrap()?;
    let mut config = ClientConfig::new();
    let consumer = config.set("bootstrap.servers", kafka.brokers()).set("group.id", GROUP).create().unwrap();
    Some(Broker { kafka, consumer })
}

pub(crate) struct Topic {
    broker: Arc<Broker>,
    pub(crate) name: String,
}

impl Topic {
    /// None if there is no broker to be had.
    pub(crate) fn new(partitions: i32) -> Option<Self> {
        Self::with(partitions, &[])
    }

    /// The same with settings.
    pub(crate) fn with(partitions: i32, settings: &[(&str, &str)]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let broker = broker()?;
        let name = format!("topic-{}", NEXT.fetch_add(1, SeqCst));
        broker.kafka.create_topic(&name, partitions, settings).unwrap();
        Some(Self { broker, name })
    }

    /// On a broker of its own, which may be killed.
    pub(crate) fn alone(partitions: i32) -> Option<Self> {
        let broker = start()?;
        broker.kafka.create_topic("alone", partitions, &[]).unwrap();
        Some(Self { broker: Arc::new(broker), name: "alone".to_owned() })
    }

    /// A broker that no other test uses.
    pub(crate) fn own_kafka(&mut self) -> &mut Kafka {
        &mut Arc::get_mut(&mut self.broker).unwrap().kafka
    }

    pub(crate) fn kafka(&self) -> &Kafka {
        &self.broker.kafka
    }

    pub(crate) fn settings(&self) -> KafkaSettings {
        KafkaSettings::new(self.kafka().brokers(), &BTreeMap::new()).unwrap()
    }

    /// A spout's settings, with a group of the topic's own and everything done at once.
    pub(crate) fn config(&self) -> KafkaSpoutConfig {
        KafkaSpoutConfig {
            commit_interval: Duration::from_millis(50),
            refresh_interval: Duration::from_millis(100),
            ..KafkaSpoutConfig::new(self.settings(), &self.name, GROUP)
        }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka().brokers()).set("linger.ms", "1");
        config
    }

    /// Sends these values to a partition; the key is the value, too.
    pub(crate) fn send(&self, partition: i32, values: &[impl AsRef<str>]) {
        self.send_at(partition, values, None);
    }

    /// The same with timestamps: the n-th value's is `first` + 1,000 n.
    pub(crate) fn send_at(&self, partition: i32, values: &[impl AsRef<str>], first: Option<i64>) {
        let producer: BaseProducer = self.client().create().unwrap();
        for (n, value) in values.iter().enumerate() {
            let value = value.as_ref();
            let mut record = BaseRecord::to(&self.name).partition(partition).key(value).payload(value);
            if let Some(first) = first {
                record = record.timestamp(first + 1_000 * n as i64);
            }
            producer.send(record).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// Sends one record for each key to partition 0; the value is the key with a number.
    pub(crate) fn send_keys(&self, keys: &[&str]) {
        let producer: BaseProducer = self.client().create().unwrap();
        for (n, key) in keys.iter().enumerate() {
            let value = format!("{key}-{n}");
            producer.send(BaseRecord::to(&self.name).partition(0).key(*key).payload(&value)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// The offsets that partition 0 has records at.
    pub(crate) fn records(&self) -> Vec<i64> {
        let mut config = self.client();
        config
            .set("group.id", "records")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, 0, Place::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let (mut offsets, began) = (Vec::new(), Instant::now());
        loop {
            match consumer.poll(PATIENCE) {
                Some(Ok(record)) => offsets.push(record.offset()),
                Some(Err(KafkaError::PartitionEOF(_))) => return offsets,
                Some(Err(error)) => assert!(began.elapsed() < PATIENCE, "{error}"),
                None => panic!("the partition does not end"),
            }
        }
    }

    /// A transaction over partition 0.
    pub(crate) fn transact(&self, id: &str, values: &[&str], commit: bool) {
        let producer: BaseProducer =
            self.client().set("transactional.id", format!("{}-{id}", self.name)).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for value in values {
            producer
                .send(BaseRecord::<str, str>::to(&self.name).partition(0).key(value).payload(value))
                .unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        match commit {
            true => producer.commit_transaction(PATIENCE).unwrap(),
            false => producer.abort_transaction(PATIENCE).unwrap(),
        }
    }

    /// What the group remembers of a partition, with what stands beside it.
    pub(crate) fn committed(&self, partition: i32) -> Option<(i64, String)> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, partition);
        let began = Instant::now();
        let list = loop {
            // A broker that has just begun is not the group's coordinator yet.
            match self.broker.consumer.committed_offsets(list.clone(), PATIENCE) {
                Ok(found) => break found,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let element = &list.elements()[0];
        match element.offset() {
            Place::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        }
    }

    pub(crate) fn committed_offset(&self, partition: i32) -> Option<i64> {
        self.committed(partition).map(|(offset, _)| offset)
    }

    /// Commits as somebody else would.
    pub(crate) fn commit(&self, partition: i32, offset: i64) {
        self.commit_with(partition, offset, "");
    }

    /// Commits with something beside it.
    pub(crate) fn commit_with(&self, partition: i32, offset: i64, metadata: &str) {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.name, partition);
        element.set_offset(Place::Offset(offset)).unwrap();
        element.set_metadata(metadata);
        self.broker.consumer.commit(&list, CommitMode::Sync).unwrap();
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, holds).await;
}

/// The same for what may take longer.
pub(crate) async fn eventually_within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + patience;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Numbers as texts.
pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}
