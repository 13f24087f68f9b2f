//! From an event to its commit: lines of a log are split and counted, and the ledger says so. The ledger is in a store
//! of the same kind as the counts.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use stratus_seam::{
    ids::SourceId,
    log::Chunk,
    store::{LedgerStore, StateStore},
};
use stratus_topology::{LocalCluster, TaskError, fields};
use stratus_trident::{
    Count, LogSpout, MapState, Pace, StateFactory, Translator, TridentCollector, TridentTopology,
    TridentTuple,
};

use crate::{EVERY, memory_log::MemoryLog, quantiles};

/// Words of a line.
const WORDS: usize = 10;

/// Each record as a line.
#[derive(Clone)]
struct Lines;

impl Translator for Lines {
    fn schema(&self) -> SchemaRef {
        fields([("line", DataType::Utf8)])
    }

    fn translate(&mut self, records: &Chunk) -> Result<RecordBatch, TaskError> {
        let lines = (0..records.records.len()).map(|index| std::str::from_utf8(records.payload(index)));
        let lines: StringArray = lines.map(|line| line.map(Some)).collect::<Result<_, _>>()?;
        let lines: ArrayRef = Arc::new(lines);
        Ok(RecordBatch::try_new(self.schema(), vec![lines])?)
    }
}

fn split(tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
    tuple.get::<&str>(0)?.split(' ').try_for_each(|word| out.emit((word,)))
}

/// Lines of words, of which so many are different.
fn lines(random: &mut StdRng, words: usize, keys: u32) -> Vec<Arc<str>> {
    let line = |_| {
        let words: Vec<String> =
            (0..WORDS).map(|_| format!("word-{}", random.random_range(0..keys))).collect();
        Arc::from(words.join(" "))
    };
    (0..words.div_ceil(WORDS)).map(line).collect()
}

async fn start<F: StateFactory>(log: &MemoryLog, states: F, store: &dyn StateStore) -> LocalCluster
where
    F::State: MapState<i64>,
{
    let ledger: Arc<dyn LedgerStore> = store.source(SourceId::new()).await.unwrap().ledger;
    let spout = LogSpout::transactional(Arc::new(log.clone()), ledger, Lines);
    let topology = TridentTopology::new().pace(Pace { max_pending: 3, interval: Duration::ZERO });
    let _counts = topology
        .new_stream("lines", spout)
        .each(&["line"], split, fields([("word", DataType::Utf8)]))
        .group_by(&["word"])
        .persistent_aggregate(states, &[], Count, "count")
        .parallelism_hint(2);
    let cluster = LocalCluster::new();
    cluster.submit("lines", topology.build().unwrap().topology).unwrap();
    cluster
}

/// Words a second, where so many wait in the log when the topology begins.
pub(crate) async fn throughput<F: StateFactory>(
    states: F,
    store: &dyn StateStore,
    keys: u32,
    backlog: usize,
) -> f64
where
    F::State: MapState<i64>,
{
    let log = MemoryLog::new();
    let lines = lines(&mut StdRng::seed_from_u64(7), backlog.min(200_000), keys);
    let mut end = 0;
    while (end as usize) * WORDS < backlog {
        end = log.append(&lines);
    }
    let began = Instant::now();
    let cluster = start(&log, states, store).await;
    log.committed(end).await;
    let seconds = began.elapsed().as_secs_f64();
    cluster.kill("lines", Duration::from_secs(5)).await.unwrap();
    (end as usize * WORDS) as f64 / seconds
}

/// Microseconds from when lines were due in the log to when the ledger says that they are counted: the median, the 99th
/// percentile and the most, at a rate of words a second.
pub(crate) async fn latency<F: StateFactory>(
    states: F,
    store: &dyn StateStore,
    keys: u32,
    rate: f64,
    time: Duration,
) -> [u64; 3]
where
    F::State: MapState<i64>,
{
    let (log, mut random) = (MemoryLog::new(), StdRng::seed_from_u64(8));
    let words = (rate * EVERY.as_secs_f64()) as usize;
    let appends: Vec<Vec<Arc<str>>> = (0..50).map(|_| lines(&mut random, words, keys)).collect();
    let cluster = start(&log, states, store).await;
    log.committed(log.append(&appends[0])).await;
    let took = Arc::new(Mutex::new(Vec::new()));
    let (began, mut waiting) = (Instant::now(), tokio::task::JoinSet::new());
    for n in 0..(time.as_secs_f64() / EVERY.as_secs_f64()) as u32 {
        let due = began + EVERY * n;
        tokio::time::sleep_until(due.into()).await;
        let end = log.append(&appends[n as usize % appends.len()]);
        let (log, took) = (log.clone(), Arc::clone(&took));
        waiting.spawn(async move {
            log.committed(end).await;
            took.lock().unwrap().push(due.elapsed().as_micros() as u64);
        });
    }
    while waiting.join_next().await.is_some() {}
    cluster.kill("lines", Duration::from_secs(5)).await.unwrap();
    let took = took.lock().unwrap().clone();
    quantiles(took)
}
