//! Word count with `group_by` and an opaque `persistent_aggregate` into memory, redb and Redis: tuples a second, and the
//! time from when a batch was due to its commit at a fixed rate.
//!
//! ```text
//! cargo bench -p stratus-map-states --bench trident
//! TRIDENT_SECONDS=5 TRIDENT_RATE=100000 cargo bench -p stratus-map-states --bench trident redis
//! ```
//!
//! Prints one JSON line per store and number of keys. Redis has an append-only file that is flushed every second, redb
//! flushes each commit.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::DataType,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use stratus_map_states::{MapStore, RedbMaps, RedisMaps};
use stratus_servers::redis::Redis;
use stratus_topology::{LocalCluster, fields};
use stratus_trident::{Count, FeederBatchSpout, MapState, MemoryMaps, Pace, StateFactory, TridentTopology};

/// Tuples of a batch, where as much as possible is to be done.
const ROWS: usize = 50_000;
/// Between two batches at a fixed rate.
const EVERY: Duration = Duration::from_millis(10);

fn number(name: &str, otherwise: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn words(random: &mut StdRng, rows: usize, keys: u32) -> RecordBatch {
    let words = (0..rows).map(|_| format!("word-{}", random.random_range(0..keys)));
    let words = StringArray::from_iter_values(words);
    RecordBatch::try_new(fields([("word", DataType::Utf8)]), vec![Arc::new(words)]).unwrap()
}

struct Running {
    spout: FeederBatchSpout,
    cluster: LocalCluster,
}

fn start<F: StateFactory>(states: F, interval: Duration) -> Running
where
    F::State: MapState<i64>,
{
    let spout = FeederBatchSpout::new(fields([("word", DataType::Utf8)]));
    let topology = TridentTopology::new().pace(Pace { max_pending: 3, interval });
    let _counts = topology
        .new_stream("words", spout.clone())
        .parallelism_hint(2)
        .group_by(&["word"])
        .persistent_aggregate(states, &[], Count, "count");
    let cluster = LocalCluster::new();
    cluster.submit("words", topology.build().unwrap().topology).unwrap();
    Running { spout, cluster }
}

/// Tuples a second, and batches a second.
async fn throughput<F: StateFactory>(states: F, keys: u32, time: Duration) -> (f64, f64)
where
    F::State: MapState<i64>,
{
    let Running { spout, cluster } = start(states, Duration::ZERO);
    let mut random = StdRng::seed_from_u64(5);
    let batches: Vec<RecordBatch> = (0..8).map(|_| words(&mut random, ROWS, keys)).collect();
    spout.feed_and_wait(batches[0].clone()).await;
    let (began, mut fed, mut done) = (Instant::now(), 1, 1);
    while began.elapsed() < time {
        // Always some ahead, and no more than that.
        while fed < done + 6 {
            fed = spout.feed(batches[fed as usize % batches.len()].clone());
        }
        done += 1;
        spout.wait(done).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    cluster.kill("words", Duration::from_secs(5)).await.unwrap();
    let batches = (done - 1) as f64 / seconds;
    (batches * ROWS as f64, batches)
}

/// Microseconds from when each batch was due to its commit: the median, the 99th percentile and the most.
async fn latency<F: StateFactory>(states: F, keys: u32, rate: f64, time: Duration) -> [u64; 3]
where
    F::State: MapState<i64>,
{
    let Running { spout, cluster } = start(states, Duration::ZERO);
    let mut random = StdRng::seed_from_u64(6);
    let rows = (rate * EVERY.as_secs_f64()) as usize;
    let batches: Vec<RecordBatch> = (0..50).map(|_| words(&mut random, rows, keys)).collect();
    spout.feed_and_wait(batches[0].clone()).await;
    let took = Arc::new(Mutex::new(Vec::new()));
    let (began, mut waiting) = (Instant::now(), tokio::task::JoinSet::new());
    for n in 0..(time.as_secs_f64() / EVERY.as_secs_f64()) as u32 {
        let due = began + EVERY * n;
        tokio::time::sleep_until(due.into()).await;
        let txid = spout.feed(batches[n as usize % batches.len()].clone());
        let (spout, took) = (spout.clone(), Arc::clone(&took));
        waiting.spawn(async move {
            spout.wait(txid).await;
            took.lock().unwrap().push(due.elapsed().as_micros() as u64);
        });
    }
    while waiting.join_next().await.is_some() {}
    cluster.kill("words", Duration::from_secs(5)).await.unwrap();
    let mut took = took.lock().unwrap().clone();
    took.sort_unstable();
    let at = |quantile: f64| took[((took.len() - 1) as f64 * quantile) as usize];
    [at(0.5), at(0.99), at(1.0)]
}

async fn measure<F: StateFactory>(name: &str, keys: u32, mut states: impl FnMut(u32) -> F)
where
    F::State: MapState<i64>,
{
    let time = Duration::from_secs_f64(number("TRIDENT_SECONDS", 3.0));
    let rate = number("TRIDENT_RATE", 100_000.0);
    let (tuples, batches) = throughput(states(0), keys, time).await;
    let [p50, p99, most] = latency(states(1), keys, rate, time).await;
    println!(
        "{{\"store\":\"{name}\",\"keys\":{keys},\"tuples_per_s\":{tuples:.0},\"batches_per_s\":{batches:.1},\
         \"ms_per_batch\":{:.1},\"rate\":{rate:.0},\"commit_p50_us\":{p50},\"commit_p99_us\":{p99},\"commit_max_us\":{most}}}",
        1_000.0 / batches
    );
}

#[tokio::main]
async fn main() {
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    for keys in [100, 1_000, 10_000] {
        if is_asked("memory") {
            measure("memory", keys, |_| MemoryMaps::<i64>::new()).await;
        }
        if is_asked("redb") {
            let folder = tempfile::tempdir().unwrap();
            let maps = RedbMaps::open(folder.path().join("words.redb")).await.unwrap();
            measure("redb", keys, |run| maps.opaque::<i64>(&format!("words-{run}"))).await;
        }
        if is_asked("redis") {
            let Some(redis) = Redis::start(&["--appendfsync", "everysec"]).unwrap() else { continue };
            let maps = RedisMaps::open(redis.url()).await.unwrap();
            measure("redis", keys, |run| maps.opaque::<i64>(&format!("words-{run}"))).await;
        }
    }
}
