//! The Yahoo Streaming Benchmark's events from Kafka to committed Redis state, beside the bare Kafka consumer and the
//! bare decoder in the same run; then how fresh SQL answers are while 50,000 events a second come in.
//!
//! ```text
//! cargo bench --workspace --bench kafka
//! YAHOO_EVENTS=5000000 KAFKA_RATE=50000 cargo bench --workspace --bench kafka
//! ```
//!
//! Stratus, the consumer and the decoder run on core 0; Kafka and Redis on the others. Prints one JSON object.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use stratus_logs::kafka::{KafkaLog, KafkaSettings};
use stratus_logs::{CodecOptions, JsonCodec};
use stratus_seam::catalog::Connector;
use stratus_seam::catalog_log::Catalog;
use stratus_seam::log::{Chunk, Log, LogId, RecordSpan};
use stratus_seam::offsets::OffsetVector;
use stratus_seam::store::StateStore;
use stratus_servers::kafka::Kafka;
use stratus_servers::redis::Redis;
use stratus_speed::{LocalCluster, SpeedLayer};
use stratus_tests::process::{Stratus, connect};
use stratus_tests::yahoo::{Ads, columns};
use tokio::sync::watch;

const TOPIC: &str = "ad-events";
const PARTITIONS: i32 = 4;
/// Probes of the freshness.
const PROBES: u64 = 200;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Keeps a process, with all its threads, to some cores.
fn pin(process: u32, cores: &str) {
    let taskset = Command::new("taskset").args(["-a", "-c", "-p", cores, &process.to_string()]).output();
    assert!(taskset.unwrap().status.success(), "taskset");
}

fn producer(brokers: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "50")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap()
}

fn fill(brokers: &str, lines: &[&[u8]]) {
    let producer = producer(brokers);
    for (line, number) in lines.iter().zip(0i32..) {
        let mut record = BaseRecord::<(), [u8]>::to(TOPIC).partition(number % PARTITIONS).payload(line);
        while let Err((_, back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(Duration::from_secs(120)).unwrap();
}

/// Seconds that a bare consumer takes for `count` messages.
fn consume(brokers: &str, count: u64) -> f64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "10")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (began, mut seen, mut bytes) = (Instant::now(), 0, 0);
    while seen < count {
        if let Some(message) = consumer.poll(Duration::from_secs(5)) {
            bytes += message.unwrap().payload_len();
            seen += 1;
        }
    }
    assert!(bytes > 0);
    began.elapsed().as_secs_f64()
}

/// Seconds to decode the lines from memory.
fn decode(lines: &[&[u8]], mut codec: JsonCodec) -> f64 {
    let id = LogId("bench".into());
    let chunks: Vec<Chunk> = lines.chunks(8_192).map(chunk).collect();
    let began = Instant::now();
    for chunk in &chunks {
        assert!(codec.decode(&id, chunk).unwrap().bad.is_empty());
    }
    began.elapsed().as_secs_f64()
}

fn chunk(lines: &[&[u8]]) -> Chunk {
    let (mut bytes, mut records) = (Vec::new(), Vec::new());
    for (line, offset) in lines.iter().zip(0u64..) {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(line);
        records.push(RecordSpan { offset, start, end: bytes.len() as u32, timestamp: None });
    }
    Chunk { partition: 0, from: 0, to: lines.len() as u64, bytes: bytes.into(), records }
}

async fn throughput(kafka: &Kafka, redis: &Redis, folder: &Path, count: u64) -> serde_json::Value {
    let mut ads = Ads::make(folder, 1).await.unwrap();
    let text = ads.events(count);
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let settings = KafkaSettings::new(kafka.brokers(), &BTreeMap::new()).unwrap();
    let log = Arc::new(KafkaLog::open(&settings, TOPIC, "bench").await.unwrap());
    let (source, view) = ads.declare(Connector::Kafka, log.id().await.unwrap(), OffsetVector::zero());
    let catalog = Arc::new(Catalog::new(Arc::new(ads.lake.catalog())));
    ads.create(&catalog, &source, &view).await.unwrap();
    let states: Arc<dyn StateStore> = stratus_state::open("redis", redis.url()).await.unwrap();
    let state = states.source(source.id).await.unwrap();
    let layer = || SpeedLayer {
        source: source.clone(),
        log: log.clone(),
        state: state.clone(),
        catalog: Arc::clone(&catalog),
        dimensions: Arc::new(ads.clone()),
        codec: CodecOptions::default(),
        shards: 16,
        limits: stratus_speed::Limits::default(),
        standing: stratus_speed::Standing::default(),
    };
    // The view is taken up at the end of the topic, which is still empty; then the topic is filled while nobody reads.
    let (stop, stopped) = watch::channel(false);
    let speed = layer();
    let task = tokio::spawn(async move { speed.run(&LocalCluster::new(), stopped).await.unwrap() });
    while !state.ledger.read().await.unwrap().is_some_and(|ledger| ledger.views.contains_key(&view.id)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send_replace(true);
    task.await.unwrap();
    fill(kafka.brokers(), &lines);
    let end = log.end().await.unwrap();
    let batches = state.ledger.read().await.unwrap().unwrap().committed;
    pin(std::process::id(), "0");

    let (stop, stopped) = watch::channel(false);
    let speed = layer();
    let began = Instant::now();
    let task = tokio::spawn(async move { speed.run(&LocalCluster::new(), stopped).await.unwrap() });
    loop {
        let ledger = state.ledger.read().await.unwrap().unwrap();
        if ledger.committed_to.covers(&end) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let committed = began.elapsed().as_secs_f64();
    let batches = state.ledger.read().await.unwrap().unwrap().committed - batches;
    stop.send_replace(true);
    task.await.unwrap();

    let brokers = kafka.brokers().to_owned();
    let consumed = tokio::task::spawn_blocking(move || consume(&brokers, count)).await.unwrap();
    let codec = || JsonCodec::new(&columns(), CodecOptions::default()).unwrap();
    let all = decode(&lines, codec());
    let three = decode(&lines, codec().with_projection(&["ad_id", "event_type", "event_time"]).unwrap());
    let rate = |seconds: f64| (count as f64 / seconds).round();
    serde_json::json!({
        "events": count,
        "bytes": text.len(),
        "bare_consumer_per_s": rate(consumed),
        "decode_all_columns_per_s": rate(all),
        "decode_three_columns_per_s": rate(three),
        "kafka_to_committed_redis_state_per_s": rate(committed),
        "committed_to_decoder_ratio": three / committed,
        "committed_to_consumer_ratio": consumed / committed,
        "batches": batches,
    })
}

/// Milliseconds from the sending of an event to an answer that counts it, while others come in at `rate` a second.
async fn freshness(kafka: &Kafka, redis: &Redis, folder: &Path, rate: u64) -> serde_json::Value {
    let environment = BTreeMap::from([
        ("STRATUS__KAFKA__BROKERS", kafka.brokers().to_owned()),
        ("STRATUS__STATE__KIND", "redis".to_owned()),
        ("STRATUS__STATE__URL", redis.url().to_owned()),
    ]);
    let process = Stratus::up(folder, &environment).await.unwrap();
    let client = connect(&process.pg).await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE ad_events (user_id TEXT, page_id TEXT, ad_id TEXT, ad_type TEXT, event_type TEXT,
                event_time TIMESTAMPTZ, ip_address TEXT)
                WITH (connector = 'kafka', topic = 'ad-events', start = 'latest');
             CREATE MATERIALIZED VIEW ad_views AS SELECT ad_id, date_bin(INTERVAL '10 seconds', event_time) AS w,
                count(*) AS views FROM ad_events WHERE event_type = 'view' GROUP BY 1, 2;
             CREATE MATERIALIZED VIEW probes AS SELECT page_id, count(*) AS seen FROM ad_events
                WHERE ad_type = 'probe' GROUP BY 1",
        )
        .await
        .unwrap();
    let mut ads = Ads::make(&folder.join("ads"), 2).await.unwrap();
    let text = ads.events(200_000);
    let (stop, stopped) = watch::channel(false);
    let brokers = kafka.brokers().to_owned();
    let sending = tokio::task::spawn_blocking(move || {
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let (producer, began, mut sent) = (producer(&brokers), Instant::now(), 0u64);
        for line in lines.iter().cycle() {
            let mut record = BaseRecord::<(), [u8]>::to(TOPIC).partition((sent % 4) as i32).payload(line);
            while let Err((_, back)) = producer.send(record) {
                record = back;
                producer.poll(Duration::from_millis(1));
            }
            sent += 1;
            if sent % 500 == 0 {
                producer.poll(Duration::ZERO);
                let due = began + Duration::from_micros(sent * 1_000_000 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if *stopped.borrow() {
                    break;
                }
            }
        }
        producer.flush(Duration::from_secs(60)).unwrap();
        sent as f64 / began.elapsed().as_secs_f64()
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let probe = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("linger.ms", "0")
        .create::<BaseProducer>()
        .unwrap();
    let query = client.prepare("SELECT seen FROM probes WHERE page_id = $1").await.unwrap();
    let mut took = Vec::new();
    for number in 0..PROBES {
        let page = format!("probe-{number}");
        let event = format!(
            r#"{{"user_id":"u","page_id":"{page}","ad_id":"a","ad_type":"probe","event_type":"probe","event_time":1767225600000}}"#
        );
        let began = Instant::now();
        probe.send(BaseRecord::<(), str>::to(TOPIC).payload(&event)).unwrap();
        probe.poll(Duration::ZERO);
        while client.query_opt(&query, &[&page]).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        took.push(began.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.send_replace(true);
    let reached = sending.await.unwrap();
    process.terminate().await.unwrap();
    took.sort_by(f64::total_cmp);
    let percentile = |p: usize| took[(took.len() * p / 100).min(took.len() - 1)];
    serde_json::json!({
        "events_per_s": reached.round(),
        "probes": took.len(),
        "p50_ms": percentile(50),
        "p99_ms": percentile(99),
        "max_ms": took.last(),
    })
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(kafka), Some(redis)) = (Kafka::start().unwrap(), Redis::start(&[]).unwrap()) else { return };
    kafka.create_topic(TOPIC, PARTITIONS, &[]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for name in ["throughput", "freshness", "freshness/ads"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    let (loaded, fresh) = (folder.path().join("throughput"), folder.path().join("freshness"));
    let throughput = runtime.block_on(throughput(&kafka, &redis, &loaded, number("YAHOO_EVENTS", 3_000_000)));
    pin(std::process::id(), "0-63");
    let fresh = runtime.block_on(freshness(&kafka, &redis, &fresh, number("KAFKA_RATE", 50_000)));
    println!("{}", serde_json::json!({ "throughput": throughput, "freshness": fresh }));
}
