//! Words from Kafka are counted in Redis by processes that are killed, for each pair of a spout and a state that is
//! exactly once together; Redis is stopped, or killed and started again, meanwhile. The counts are exact at the end.
//!
//! A soak: `EXACTLY_ONCE_KILLS=2000 cargo test -p stratus-connectors exactly_once -- --nocapture`. It prints its seed,
//! and `EXACTLY_ONCE_SEED` takes one.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::DataType;
use stratus_connectors::kafka::KafkaSettings;
use stratus_logs::kafka::KafkaLog;
use stratus_map_states::{MapStore, RedisMaps};
use stratus_seam::{ids::SourceId, log::Log, store::LedgerStore};
use stratus_servers::redis::Redis;
use stratus_topology::{LocalCluster, TaskError, fields};
use stratus_trident::{Count, LogSpout, Pace, Records, TridentCollector, TridentTopology, TridentTuple};

use crate::broker::Topic;

/// Where the child of this test finds everything: a JSON object.
const CHILD: &str = "EXACTLY_ONCE_CHILD";
/// How long the last counts may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn split(tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
    std::str::from_utf8(tuple.get(0)?)?.split(' ').try_for_each(|word| out.emit((word,)))
}

async fn count(asked: &serde_json::Value) {
    let text = |name: &str| asked[name].as_str().unwrap().to_owned();
    let settings = KafkaSettings::new(&text("brokers"), &BTreeMap::new()).unwrap();
    let log: Arc<dyn Log> = Arc::new(KafkaLog::open(&settings, &text("topic"), "words").await.unwrap());
    let source: SourceId = serde_json::from_value(asked["source"].clone()).unwrap();
    let url = text("redis");
    let maps = RedisMaps::open(&url).await.unwrap();
    let states = stratus_state::open("redis", &url).await.unwrap();
    let ledger: Arc<dyn LedgerStore> = states.source(source).await.unwrap().ledger;
    let spout = match asked["spout"].as_str() {
        Some("opaque") => LogSpout::opaque(log, ledger, Records),
        _ => LogSpout::transactional(log, ledger, Records),
    };
    let spout = spout.max_bytes(2_000);
    let topology = TridentTopology::new().pace(Pace { max_pending: 4, interval: Duration::from_millis(1) });
    let words = topology
        .new_stream("lines", spout)
        .each(&["value"], split, fields([("word", DataType::Utf8)]))
        .parallelism_hint(2)
        .group_by(&["word"]);
    let name = text("name");
    if asked["state"].as_str() == Some("opaque") {
        let _counts = words
            .persistent_aggregate(maps.opaque::<i64>(&name).cached(50), &[], Count, "n")
            .parallelism_hint(2);
    } else {
        let _counts =
            words.persistent_aggregate(maps.transactional::<i64>(&name), &[], Count, "n").parallelism_hint(2);
    }
    let cluster = LocalCluster::new();
    cluster.submit(&name, topology.build().unwrap().topology).unwrap();
    std::future::pending::<()>().await;
}

/// What [`words_are_exact_after_twenty_kills_of_every_pair`] starts, and kills.
#[test]
fn child() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let asked = serde_json::from_str(&asked).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(count(&asked));
}

/// A pair that counts, in a process of its own.
struct Pair {
    name: &'static str,
    asked: serde_json::Value,
    process: Option<Child>,
    topic: Topic,
    truth: BTreeMap<String, i64>,
}

impl Pair {
    fn start(&mut self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "exactly_once::child", "--nocapture"]).env(CHILD, self.asked.to_string());
        self.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGKILL; a process that could not come up, because Redis was away, is gone already.
            let _ = process.kill();
            process.wait().unwrap();
        }
    }

    fn send(&mut self, random: &mut fastrand::Rng, lines: usize) {
        let lines: Vec<String> = (0..lines)
            .map(|_| {
                let words: Vec<String> = (0..random.usize(1..6))
                    .map(|_| format!("w{}", random.usize(0..20) * random.usize(0..20)))
                    .collect();
                for word in &words {
                    *self.truth.entry(word.clone()).or_default() += 1;
                }
                words.join(" ")
            })
            .collect();
        self.topic.send(random.i32(0..3), &lines);
    }

    /// The counts as anybody can read them.
    fn counts(&self, redis: &Redis) -> BTreeMap<String, i64> {
        let Ok(text) = redis.cli(&["HGETALL", &format!("trident:{{{}}}", self.name)]) else {
            return BTreeMap::new();
        };
        let lines: Vec<&str> = text.lines().collect();
        let entries = lines.chunks_exact(2).map(|entry| {
            let key: Vec<String> = serde_json::from_str(entry[0]).unwrap();
            let value: serde_json::Value = serde_json::from_str(entry[1]).unwrap();
            (key[0].clone(), value[1].as_i64().unwrap())
        });
        entries.collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn words_are_exact_after_twenty_kills_of_every_pair() {
    let Some(mut redis) = Redis::start(&["--appendfsync", "always"]).unwrap() else { return };
    let seed = number("EXACTLY_ONCE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = number("EXACTLY_ONCE_KILLS").unwrap_or(20);
    println!("EXACTLY_ONCE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pairs = Vec::new();
    for (name, spout, state) in [
        ("transactional-transactional", "transactional", "transactional"),
        ("transactional-opaque", "transactional", "opaque"),
        ("opaque-opaque", "opaque", "opaque"),
    ] {
        let Some(topic) = Topic::new(3) else { return };
        let asked = serde_json::json!({
            "name": name, "spout": spout, "state": state, "topic": topic.name, "source": SourceId::new(),
            "brokers": topic.kafka().brokers(), "redis": redis.url(),
        });
        pairs.push(Pair { name, asked, process: None, topic, truth: BTreeMap::new() });
    }
    pairs.iter_mut().for_each(Pair::start);
    for _ in 0..kills {
        for pair in &mut pairs {
            pair.send(&mut random, 60);
        }
        std::thread::sleep(Duration::from_millis(random.u64(100..900)));
        match random.u32(0..8) {
            0 => {
                redis.kill().unwrap();
                redis.restart().unwrap();
            }
            1 | 2 => {
                redis.pause().unwrap();
                std::thread::sleep(Duration::from_millis(random.u64(1..300)));
                redis.resume().unwrap();
            }
            _ => {}
        }
        for pair in &mut pairs {
            pair.send(&mut random, 20);
            std::thread::sleep(Duration::from_millis(random.u64(0..60)));
            pair.kill();
            pair.start();
        }
    }
    for pair in &pairs {
        let (began, early) = (Instant::now(), pair.counts(&redis).values().sum::<i64>());
        assert!(early > 0, "{}, seed {seed}: nothing was counted between the kills", pair.name);
        println!("{}: {early} words were counted between the kills", pair.name);
        while pair.counts(&redis) != pair.truth {
            let counts = pair.counts(&redis);
            let (found, sent) = (counts.values().sum::<i64>(), pair.truth.values().sum::<i64>());
            assert!(found <= sent, "{}, seed {seed}: {found} words counted of {sent}", pair.name);
            assert!(
                began.elapsed() < PATIENCE,
                "{}, seed {seed}: {found} of {sent}: {counts:?}, not {:?}",
                pair.name,
                pair.truth
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("{}: {} words, exact after {kills} kills", pair.name, pair.truth.values().sum::<i64>());
    }
    // And so they stay.
    std::thread::sleep(Duration::from_millis(500));
    for pair in &pairs {
        assert_eq!(pair.counts(&redis), pair.truth, "{}, seed {seed}", pair.name);
    }
}
