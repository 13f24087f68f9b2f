//! Counts the words of a Kafka topic in a Redis hash, as they come.
//!
//! ```text
//! cargo run -p stratus-connectors --example kafka_counts -- \
//!     --brokers localhost:9092 --topic lines --redis redis://localhost:6379
//! redis-cli HGETALL counts
//! ```
//!
//! The Kafka spout emits records, `split` makes words of them, and `count` adds to the words' fields of the hash. The
//! fields grouping sends equal words to the same task, which adds those of a batch up before it tells Redis. An offset
//! is committed when all words of its record, and of those before it, are counted: after a crash, and after a failure
//! of Redis, some words are counted twice, and none is left out.
//!
//! Ctrl-C stops reading, lets what was read be counted and commits how far that came.

use std::{collections::BTreeMap, io::IsTerminal, process::ExitCode, time::Duration};

use arrow::datatypes::DataType;
use stratus_connectors::{
    kafka::{KafkaSettings, KafkaSpout, KafkaSpoutConfig},
    redis::{IncrementField, RedisIncrementBolt, RedisSettings},
};
use stratus_logs::kafka::KafkaGroup;
use stratus_topology::{
    BasicBolt, BasicOutputCollector, LocalCluster, OutputFieldsDeclarer, PerTuple, TaskError, Topology,
    TopologyBuilder, Tuple, fields,
};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "\
usage: kafka_counts --brokers HOST:PORT[,...] --topic TOPIC --redis redis://[user:password@]HOST:PORT
                    [--hash counts] [--group kafka-counts]
A password need not be an argument: without --redis the variable REDIS_URL is the address.";

/// How long the words that were read may take to be counted after Ctrl-C.
const DRAIN: Duration = Duration::from_secs(30);

/// What is counted, and where.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    /// May hold a password.
    pub(crate) redis: String,
    pub(crate) hash: String,
    pub(crate) group: String,
}

impl Arguments {
    /// From the command line; `redis_url` is the address unless that says otherwise.
    pub(crate) fn of(
        arguments: impl IntoIterator<Item = String>,
        redis_url: Option<String>,
    ) -> Result<Self, TaskError> {
        let mut given = BTreeMap::new();
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            if !["--brokers", "--topic", "--redis", "--hash", "--group"].contains(&name.as_str()) {
                return Err(format!("{name} is not an argument\n{USAGE}").into());
            }
            let value = arguments.next().ok_or_else(|| format!("{name} has no value\n{USAGE}"))?;
            given.insert(name, value);
        }
        if let Some(url) = redis_url {
            given.entry("--redis".to_owned()).or_insert(url);
        }
        let mut take = |name: &str| given.remove(name).ok_or_else(|| format!("{name} is missing\n{USAGE}"));
        Ok(Self {
            brokers: take("--brokers")?,
            topic: take("--topic")?,
            redis: take("--redis")?,
            hash: take("--hash").unwrap_or_else(|_| "counts".to_owned()),
            group: take("--group").unwrap_or_else(|_| "kafka-counts".to_owned()),
        })
    }
}

/// Makes words of records.
struct Split;

impl BasicBolt for Split {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(fields([("word", DataType::Utf8)]));
    }

    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        // A tombstone has no words.
        let Some(value) = tuple.get_by_name::<Option<&[u8]>>("value")? else { return Ok(()) };
        for word in String::from_utf8_lossy(value).split_whitespace() {
            out.emit((word,))?;
        }
        Ok(())
    }
}

/// The topology.
fn topology(spout: KafkaSpout, redis: RedisSettings, hash: &str) -> Result<Topology, TaskError> {
    let count = RedisIncrementBolt::new(redis, IncrementField::new(hash, "word"));
    let mut builder = TopologyBuilder::new();
    builder.set_spout("records", move || spout.clone(), 1);
    builder.set_bolt("split", || PerTuple::new(Split), 2).shuffle_grouping("records");
    builder.set_bolt("count", move || count.clone(), 2).fields_grouping("split", &["word"]);
    Ok(builder.build()?)
}

/// Counts until `stop` is done.
pub(crate) async fn run(arguments: Arguments, stop: impl Future) -> Result<(), TaskError> {
    let Arguments { brokers, topic, redis, hash, group } = arguments;
    let redis = RedisSettings::new(&redis)?;
    let kafka = KafkaSettings::new(&brokers, &BTreeMap::new())?;
    // A topology waits for servers that are not there; whoever has mistyped an address would wait for long.
    redis.check().await?;
    let (_, partitions) = KafkaGroup::new(&kafka, &topic, &group)?.describe().await?;
    let spout = KafkaSpout::new(KafkaSpoutConfig {
        commit_interval: Duration::from_secs(1),
        ..KafkaSpoutConfig::new(kafka, &topic, &group)
    });
    let cluster = LocalCluster::new();
    cluster.submit("kafka-counts", topology(spout, redis.clone(), &hash)?)?;
    eprintln!(
        "counting the words of {topic} ({partitions} partitions) in the hash {hash} of {}; Ctrl-C ends it",
        redis.server()
    );
    stop.await;
    eprintln!("ending: what was read is being counted");
    let ended = cluster.kill("kafka-counts", DRAIN).await?;
    match ended.drained {
        true => Ok(()),
        false => Err(format!("after {DRAIN:?} not everything was counted; the next run counts it").into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,librdkafka=error".into());
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    let ran = match Arguments::of(std::env::args().skip(1), std::env::var("REDIS_URL").ok()) {
        Ok(arguments) => run(arguments, tokio::signal::ctrl_c()).await,
        Err(error) => Err(error),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kafka_counts: {error}");
            ExitCode::FAILURE
        }
    }
}
