//! A topic of a real broker as a log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset as Place, TopicPartitionList};
use stratus_logs::conformance::{LogFixture, every_promise};
use stratus_logs::kafka::{KafkaAppender, KafkaLog, KafkaSettings, KafkaTopic, Start};
use stratus_seam::log::{Log, LogError};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use stratus_servers::kafka::Kafka;

const PATIENCE: Duration = Duration::from_secs(20);

/// One broker for all tests that leave it as it is; each has topics of its own. It is let go with the last of them.
fn broker() -> Option<Arc<Kafka>> {
    static BROKER: OnceLock<Mutex<std::sync::Weak<Kafka>>> = OnceLock::new();
    let mut broker = BROKER.get_or_init(Mutex::default).lock().unwrap();
    if let Some(running) = broker.upgrade() {
        return Some(running);
    }
    let started = Arc::new(Kafka::shared().unwrap()?);
    *broker = Arc::downgrade(&started);
    Some(started)
}

fn settings(kafka: &Kafka) -> KafkaSettings {
    KafkaSettings::new(kafka.brokers(), &BTreeMap::new()).unwrap()
}

fn config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers()).set("linger.ms", "0");
    config
}

struct Topic {
    kafka: Arc<Kafka>,
    name: String,
    partitions: AtomicU32,
}

impl Topic {
    fn new(kafka: &Arc<Kafka>, partitions: u32, settings: &[(&str, &str)]) -> Self {
        let name = kafka.topic(partitions as i32, settings).unwrap();
        Self { kafka: Arc::clone(kafka), name, partitions: AtomicU32::new(partitions) }
    }

    async fn open(&self) -> KafkaLog {
        KafkaLog::open(&settings(&self.kafka), &self.name, "stratus-test").await.unwrap()
    }

    async fn send(&self, partition: Partition, payloads: &[&[u8]]) {
        let producer: FutureProducer = config(&self.kafka).create().unwrap();
        let sends = payloads.iter().map(|payload| {
            let record =
                FutureRecord::<(), [u8]>::to(&self.name).partition(partition as i32).payload(*payload);
            producer.send(record, PATIENCE)
        });
        for sent in futures::future::join_all(sends).await {
            sent.unwrap();
        }
    }

    /// A producer with an open transaction.
    fn transaction(&self, id: &str) -> BaseProducer {
        let id = format!("{}-{id}", self.name);
        let producer: BaseProducer = config(&self.kafka).set("transactional.id", id).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        producer
    }

    /// A transaction over partition 0.
    fn transact(&self, id: &str, payloads: &[&str], commit: bool) {
        let producer = self.transaction(id);
        for payload in payloads {
            producer.send(BaseRecord::<(), str>::to(&self.name).partition(0).payload(payload)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        match commit {
            true => producer.commit_transaction(PATIENCE).unwrap(),
            false => producer.abort_transaction(PATIENCE).unwrap(),
        }
    }
}

#[async_trait]
impl LogFixture for Topic {
    async fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.open().await)
    }

    async fn append(&self, partition: Partition, payloads: &[&[u8]]) {
        self.send(partition, payloads).await;
        // For so long a reader may believe that there is nothing more.
        tokio::time::sleep(Duration::from_millis(120)).await;
    }

    async fn add_partition(&self) -> bool {
        let partitions = self.partitions.fetch_add(1, Ordering::SeqCst) + 1;
        self.kafka.add_partitions(&self.name, partitions as i32).unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
        true
    }

    async fn replace(&self) -> bool {
        self.kafka.delete_topic(&self.name).unwrap();
        self.kafka.create_topic(&self.name, 2, &[]).unwrap();
        true
    }
}

/// Everything from `from` on, as a reader gets it, and where it ends.
async fn drain(log: &dyn Log, partition: Partition, from: Offset) -> (Vec<String>, Offset) {
    let (mut texts, mut at) = (Vec::new(), from);
    loop {
        let chunk = log.read(partition, at, None, 1 << 20).await.unwrap();
        if chunk.records.is_empty() {
            return (texts, at);
        }
        texts
            .extend((0..chunk.records.len()).map(|i| String::from_utf8_lossy(chunk.payload(i)).into_owned()));
        at = chunk.to;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_keeps_every_promise() {
    let Some(kafka) = broker() else { return };
    every_promise(async || Topic::new(&kafka, 2, &[])).await;
}

/// Whatever stands last in the topic, its end is where a reader of everything arrives.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_behind_the_last_record_that_counts() {
    let Some(kafka) = broker() else { return };
    let topic = Topic::new(&kafka, 1, &[]);
    topic.send(0, &[b"a", b"b"]).await;
    topic.transact("t", &["c", "d"], true);
    let check = async |expected: &[&str]| {
        let log = topic.open().await;
        let (texts, to) = drain(&log, 0, 0).await;
        assert_eq!(texts, expected);
        assert_eq!(log.end().await.unwrap(), OffsetVector::from([(0, to)]));
        assert_eq!(topic.open().await.end().await.unwrap().get(0), to, "a handle that has read nothing");
        to
    };
    // Four records and the marker of the commit, which nobody is given.
    assert_eq!(check(&["a", "b", "c", "d"]).await, 4);
    let lost: Vec<String> = (0..100).map(|n| format!("lost {n}")).collect();
    topic.transact("t", &lost.iter().map(String::as_str).collect::<Vec<_>>(), false);
    assert_eq!(check(&["a", "b", "c", "d"]).await, 4);
    let latest = KafkaTopic::resolve_start(&settings(&kafka), &topic.name, &Start::Latest).await.unwrap();
    assert_eq!(latest.get(0), 4, "a source begins behind the last record");

    // An open transaction holds back what stands behind it.
    let open = topic.transaction("open");
    open.send(BaseRecord::<(), str>::to(&topic.name).partition(0).payload("e")).unwrap();
    open.flush(PATIENCE).unwrap();
    topic.send(0, &[b"f"]).await;
    assert_eq!(check(&["a", "b", "c", "d"]).await, 4);
    let reader = topic.open().await;
    assert_eq!(drain(&reader, 0, 0).await.1, 4);
    open.commit_transaction(PATIENCE).unwrap();
    let began = Instant::now();
    reader.appended(&OffsetVector::from([(0, 4)]), 6 * PATIENCE).await.unwrap();
    assert!(began.elapsed() < 3 * PATIENCE, "the commit wakes the reader");
    check(&["a", "b", "c", "d", "e", "f"]).await;
    assert_eq!(drain(&reader, 0, 4).await.0, ["e", "f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_is_gone() {
    let Some(kafka) = broker() else { return };
    let topic = Topic::new(&kafka, 1, &[("cleanup.policy", "delete"), ("retention.ms", "3600000")]);
    let texts: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    topic.send(0, &texts.iter().map(String::as_bytes).collect::<Vec<_>>()).await;
    let log = topic.open().await;
    kafka.delete_records(&topic.name, 0, 6).unwrap();
    let read = log.read(0, 2, None, 1 << 20).await;
    assert!(matches!(read, Err(LogError::Gone { from: 2, earliest: 6, .. })), "{read:?}");
    assert_eq!(drain(&log, 0, 6).await.0, ["6", "7", "8", "9"]);
    let beyond = log.read(0, 99, None, 1 << 20).await;
    assert!(matches!(beyond, Err(LogError::Replaced { .. })), "{beyond:?}");
    kafka.delete_records(&topic.name, 0, 10).unwrap();
    assert_eq!(topic.open().await.end().await.unwrap().get(0), 10, "an empty log ends where it begins");
    let facts = KafkaTopic::look(&settings(&kafka), &topic.name).await.unwrap();
    assert_eq!((facts.partitions, facts.earliest.get(0), facts.end.get(0)), (1, 10, 10));
    assert_eq!((facts.is_compacted(), facts.retention), (false, Some(Duration::from_secs(3600))));
    assert_eq!(facts.log_id, log.id().await.unwrap());
    let compacted = Topic::new(&kafka, 1, &[("cleanup.policy", "compact")]);
    assert!(KafkaTopic::look(&settings(&kafka), &compacted.name).await.unwrap().is_compacted());
    let missing = KafkaTopic::look(&settings(&kafka), "no-such-topic").await.unwrap_err().to_string();
    assert!(missing.contains("no topic no-such-topic"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_begins_where_it_is_told() {
    let Some(kafka) = broker() else { return };
    let topic = Topic::new(&kafka, 2, &[]);
    topic.send(0, &[b"a", b"b"]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let moment = chrono::Utc::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    topic.send(0, &[b"c"]).await;
    let at =
        async |start: &Start| KafkaTopic::resolve_start(&settings(&kafka), &topic.name, start).await.unwrap();
    assert_eq!(at(&Start::Earliest).await, OffsetVector::zero());
    assert_eq!(at(&Start::Latest).await, OffsetVector::from([(0, 3)]));
    assert_eq!(at(&Start::At(moment)).await, OffsetVector::from([(0, 2)]));
}

/// Two readers in one handle's lifetime, tombstones, timestamps, group offsets.
#[tokio::test(flavor = "multi_thread")]
async fn records_have_their_times_and_readers_their_places() {
    let Some(kafka) = broker() else { return };
    let topic = Topic::new(&kafka, 1, &[]);
    let producer: BaseProducer = config(&kafka).create().unwrap();
    let record = BaseRecord::<str, str>::to(&topic.name).partition(0).timestamp(1_767_225_600_123);
    producer.send(record.key("k").payload("v")).unwrap();
    producer.send(BaseRecord::<str, str>::to(&topic.name).partition(0).key("k")).unwrap();
    producer.flush(PATIENCE).unwrap();
    let (one, other) = (topic.open().await, topic.open().await);
    let chunk = one.read(0, 0, None, 1 << 20).await.unwrap();
    assert_eq!(chunk.records[0].timestamp, Some(1_767_225_600_123_000));
    let (texts, _) = drain(&other, 0, 0).await;
    assert_eq!(texts, ["v", ""], "a tombstone is a record without bytes");
    assert_eq!(drain(&one, 0, 1).await.0, [""]);
    assert_eq!(drain(&other, 0, 0).await.0, ["v", ""]);

    one.acknowledge(&OffsetVector::from([(0, 2)])).await;
    let watcher: BaseConsumer = config(&kafka).set("group.id", "stratus-test").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&topic.name, 0);
    let began = Instant::now();
    loop {
        let found = watcher.committed_offsets(list.clone(), PATIENCE).unwrap();
        if found.elements()[0].offset() == Place::Offset(2) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_appends_is_in_the_topic() {
    let Some(kafka) = broker() else { return };
    let topic = Topic::new(&kafka, 2, &[]);
    let appender = KafkaAppender::open(&settings(&kafka), &topic.name).await.unwrap();
    let mut all = Vec::new();
    for body in ["{\"a\":1}\n{\"a\":2}\n", "{\"a\":3}", "\n{\"a\":4}\r\n\n{\"a\":5}\n"] {
        let appended = appender.append(body.into()).await.unwrap();
        assert_eq!(appended.accepted, stratus_logs::lines(body.as_bytes()).count() as u64);
        assert_eq!(appended.offsets.iter().count(), 1);
        all.push(appended.offsets);
    }
    let log = topic.open().await;
    assert_eq!(drain(&log, 0, 0).await.0, ["{\"a\":1}", "{\"a\":2}", "{\"a\":4}", "{\"a\":5}"]);
    assert_eq!(drain(&log, 1, 0).await.0, ["{\"a\":3}"]);
    assert_eq!(all[2], OffsetVector::from([(0, 4)]));
}

/// The broker dies under a reader, which goes on by itself when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_is_waited_for() {
    let Some(mut kafka) = Kafka::start().unwrap() else { return };
    kafka.create_topic("t", 1, &[]).unwrap();
    let log = KafkaLog::open(&settings(&kafka), "t", "stratus-test").await.unwrap();
    let send = async |kafka: &Kafka, text: &str| {
        let producer: FutureProducer = config(kafka).create().unwrap();
        producer.send(FutureRecord::<(), str>::to("t").payload(text), PATIENCE).await.unwrap();
    };
    send(&kafka, "a").await;
    assert_eq!(drain(&log, 0, 0).await.0, ["a"]);
    kafka.kill().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let away = log.end().await;
    assert!(matches!(away, Err(LogError::Unavailable { .. })), "{away:?}");
    assert!(began.elapsed() < Duration::from_secs(60), "it takes {:?} to say so", began.elapsed());
    kafka.restart().unwrap();
    send(&kafka, "b").await;
    let began = Instant::now();
    loop {
        match log.read(0, 1, None, 1 << 20).await {
            Ok(chunk) if !chunk.records.is_empty() => break assert_eq!(chunk.payload(0), b"b"),
            Ok(_) | Err(LogError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the reader does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
