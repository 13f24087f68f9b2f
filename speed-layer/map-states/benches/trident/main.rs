//! Word count with `group_by` and an opaque `persistent_aggregate` into memory, redb and Redis.
//!
//! Per store and number of different words, one JSON line each of two kinds:
//!
//! - `"from":"log"`: from an event to its commit. Lines of a log are split and counted, and a ledger in the same kind of
//!   store says which are: words a second with a backlog, and at a fixed rate the time from when lines were due in the
//!   log until the ledger covers them.
//! - `"from":"feeder"`: what the state costs by itself. Batches of words are fed by hand, without a ledger: tuples a
//!   second, milliseconds and microseconds a batch and key, and at a fixed rate the time from when a batch was due to its
//!   commit.
//!
//! ```text
//! cargo bench -p stratus-map-states --bench trident
//! TRIDENT_SECONDS=5 TRIDENT_RATE=100000 TRIDENT_BACKLOG=2000000 cargo bench -p stratus-map-states --bench trident redis
//! ```
//!
//! Redis has an append-only file that is flushed every second, redb flushes each commit.

#![allow(clippy::unwrap_used, missing_docs)]

mod event_to_commit;
mod feeder;
mod memory_log;

use std::{sync::Arc, time::Duration};

use stratus_map_states::{MapStore, RedbMaps, RedisMaps};
use stratus_seam::store::StateStore;
use stratus_servers::redis::Redis;
use stratus_trident::{MapState, MemoryMaps, StateFactory};

/// Between two batches, or appends, at a fixed rate.
const EVERY: Duration = Duration::from_millis(10);

fn number(name: &str, otherwise: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The median, the 99th percentile and the most.
fn quantiles(mut took: Vec<u64>) -> [u64; 3] {
    took.sort_unstable();
    let at = |quantile: f64| took[((took.len() - 1) as f64 * quantile) as usize];
    [at(0.5), at(0.99), at(1.0)]
}

/// Measures a store; `states` makes states that nothing is in yet.
async fn measure<F: StateFactory>(
    name: &str,
    keys: u32,
    store: Arc<dyn StateStore>,
    states: impl Fn(&str) -> F,
) where
    F::State: MapState<i64>,
{
    let time = Duration::from_secs_f64(number("TRIDENT_SECONDS", 3.0));
    let rate = number("TRIDENT_RATE", 100_000.0);
    let backlog = number("TRIDENT_BACKLOG", 2_000_000.0) as usize;
    let words = event_to_commit::throughput(states("backlog"), store.as_ref(), keys, backlog).await;
    let [p50, p99, most] = event_to_commit::latency(states("rate"), store.as_ref(), keys, rate, time).await;
    println!(
        "{{\"from\":\"log\",\"store\":\"{name}\",\"keys\":{keys},\"words_per_s\":{words:.0},\"rate\":{rate:.0},\
         \"commit_p50_us\":{p50},\"commit_p99_us\":{p99},\"commit_max_us\":{most}}}"
    );
    let (tuples, batches) = feeder::throughput(states("fed"), keys, time).await;
    let [p50, p99, most] = feeder::latency(states("fed-rate"), keys, rate, time).await;
    println!(
        "{{\"from\":\"feeder\",\"store\":\"{name}\",\"keys\":{keys},\"rows_per_batch\":{},\
         \"tuples_per_s\":{tuples:.0},\"batches_per_s\":{batches:.1},\"ms_per_batch\":{:.1},\"us_per_key\":{:.2},\
         \"rate\":{rate:.0},\"commit_p50_us\":{p50},\"commit_p99_us\":{p99},\"commit_max_us\":{most}}}",
        feeder::ROWS,
        1e3 / batches,
        1e6 / batches / f64::from(keys),
    );
}

#[tokio::main]
async fn main() {
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    for keys in [100, 1_000, 10_000] {
        if is_asked("memory") {
            let store = stratus_state::open("memory", "").await.unwrap();
            measure("memory", keys, store, |_| MemoryMaps::<i64>::new()).await;
        }
        if is_asked("redb") {
            let folder = tempfile::tempdir().unwrap();
            let maps = RedbMaps::open(folder.path().join("words.redb")).await.unwrap();
            let ledgers = folder.path().join("ledgers.redb");
            let store = stratus_state::open("redb", ledgers.to_str().unwrap()).await.unwrap();
            measure("redb", keys, store, |run| maps.opaque::<i64>(&format!("words-{run}"))).await;
        }
        if is_asked("redis") {
            let Some(redis) = Redis::start(&["--appendfsync", "everysec"]).unwrap() else { continue };
            let maps = RedisMaps::open(redis.url()).await.unwrap();
            let store = stratus_state::open("redis", redis.url()).await.unwrap();
            measure("redis", keys, store, |run| maps.opaque::<i64>(&format!("words-{run}"))).await;
        }
    }
}
