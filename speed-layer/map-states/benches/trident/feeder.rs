//! What a state costs by itself: batches of single words are fed by hand, with so many different ones in each, and no
//! ledger is written. Each key of a batch is read and written once, so the cost goes with the keys and not with the
//! tuples.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::DataType,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use stratus_topology::{LocalCluster, fields};
use stratus_trident::{Count, FeederBatchSpout, MapState, Pace, StateFactory, TridentTopology};

use crate::{EVERY, quantiles};

/// Tuples of a batch, where as much as possible is to be done.
pub(crate) const ROWS: usize = 50_000;

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
pub(crate) async fn throughput<F: StateFactory>(states: F, keys: u32, time: Duration) -> (f64, f64)
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
pub(crate) async fn latency<F: StateFactory>(states: F, keys: u32, rate: f64, time: Duration) -> [u64; 3]
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
    let took = took.lock().unwrap().clone();
    quantiles(took)
}
