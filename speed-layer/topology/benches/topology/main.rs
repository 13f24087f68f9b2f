//! What a hop costs: const-spout -> null-bolt, const-spout -> id-bolt -> null-bolt, and word count, acked and not, beside
//! the same work on the same batches in one plain function without queues and acks.
//!
//! ```text
//! cargo build --release -p stratus-topology --benches
//! taskset -c 0 <the bench> --bench            # one core: the goals are for one
//! TOPOLOGY_SECONDS=5 <the bench> --bench words
//! ```
//!
//! `text` is word count over the lines of a novel. Then the latencies at a tenth of the peak of one executor, acked, in
//! microseconds from the moment at which each tuple was due.
//!
//! Prints one JSON line per case. `ratio` is the topology's time over the plain function's; `allocations` are per batch
//! of 4,096 rows and hop.

#![allow(clippy::unwrap_used, missing_docs, unsafe_code)]

mod latency;
mod text;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::HashMap,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray, StringBuilder, UInt32Array},
    compute::take_record_batch,
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use stratus_topology::{
    Anchors, Bolt, DEFAULT_STREAM, Grouping, LocalCluster, MessageIds, Next, OutputCollector,
    OutputFieldsDeclarer, Spout, SpoutOutputCollector, TaskError, Topology, TopologyBuilder, TopologyConfig,
    Tuples, fields, hash_rows,
};

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROWS: usize = 4_096;

fn payload() -> SchemaRef {
    fields([("payload", DataType::Utf8)])
}

/// A batch of 100-byte payloads.
fn payloads() -> RecordBatch {
    let text = "x".repeat(100);
    RecordBatch::try_new(payload(), vec![Arc::new(StringArray::from(vec![text.as_str(); ROWS]))]).unwrap()
}

/// Lines of ten words each, of which some are far more frequent than others.
fn lines() -> RecordBatch {
    let mut random = fastrand::Rng::with_seed(7);
    let lines = (0..ROWS).map(|_| {
        let words = (0..10).map(|_| {
            let rank = (1.0 / (1.0 - random.f64()).powf(1.1)) as u64;
            format!("word{}", rank % 20_000)
        });
        words.collect::<Vec<_>>().join(" ")
    });
    let lines: Vec<String> = lines.collect();
    RecordBatch::try_new(payload(), vec![Arc::new(StringArray::from(lines))]).unwrap()
}

/// Emits one batch again and again.
#[derive(Clone)]
struct ConstSpout {
    rows: RecordBatch,
    acked: bool,
    done: Arc<AtomicU64>,
}

#[async_trait]
impl Spout for ConstSpout {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(payload());
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        let ids = if self.acked { MessageIds::From(0) } else { MessageIds::None };
        out.emit(DEFAULT_STREAM, self.rows.clone(), ids).await?;
        Ok(Next::Emitted)
    }

    async fn acked(&mut self, ids: &[u64]) {
        self.done.fetch_add(ids.len() as u64, Relaxed);
    }
}

/// Takes tuples and does nothing with them.
#[derive(Clone)]
struct NullBolt(Arc<AtomicU64>);

#[async_trait]
impl Bolt for NullBolt {
    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        self.0.fetch_add(input.len() as u64, Relaxed);
        out.ack(&input);
        Ok(())
    }
}

/// Emits what it takes.
struct IdBolt;

#[async_trait]
impl Bolt for IdBolt {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(payload());
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Same(&input)).await?;
        out.ack(&input);
        Ok(())
    }
}

/// The words of lines, and the line that each is from.
fn split(rows: &RecordBatch) -> (RecordBatch, Vec<u32>) {
    let lines = rows.column(0).as_string::<i32>();
    let (mut words, mut from) =
        (StringBuilder::with_capacity(ROWS * 10, ROWS * 80), Vec::with_capacity(ROWS * 10));
    for row in 0..lines.len() {
        for word in lines.value(row).split(' ') {
            words.append_value(word);
            from.push(row as u32);
        }
    }
    (RecordBatch::try_new(payload(), vec![Arc::new(words.finish())]).unwrap(), from)
}

fn count(counts: &mut HashMap<String, u64>, rows: &RecordBatch) {
    let words = rows.column(0).as_string::<i32>();
    for row in 0..words.len() {
        match counts.get_mut(words.value(row)) {
            Some(count) => *count += 1,
            None => {
                counts.insert(words.value(row).to_owned(), 1);
            }
        }
    }
}

struct SplitBolt;

#[async_trait]
impl Bolt for SplitBolt {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(payload());
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        let (words, from) = split(input.rows());
        out.emit(DEFAULT_STREAM, words, Anchors::Rows(&input, &from)).await?;
        out.ack(&input);
        Ok(())
    }
}

struct CountBolt(HashMap<String, u64>, Arc<AtomicU64>);

#[async_trait]
impl Bolt for CountBolt {
    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        count(&mut self.0, input.rows());
        self.1.fetch_add(input.len() as u64, Relaxed);
        out.ack(&input);
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Null,
    Id,
    Words,
    Text,
}

impl Shape {
    fn hops(self) -> u64 {
        if self == Self::Null { 1 } else { 2 }
    }
}

fn rows(shape: Shape) -> RecordBatch {
    match shape {
        Shape::Null | Shape::Id => payloads(),
        Shape::Words => lines(),
        Shape::Text => text::lines(),
    }
}

fn topology(shape: Shape, acked: bool, executors: usize, done: &Arc<AtomicU64>) -> Topology {
    let spout = ConstSpout { rows: rows(shape), acked, done: Arc::default() };
    topology_of(shape, acked, executors, done, move || spout.clone())
}

fn topology_of<S: Spout>(
    shape: Shape,
    acked: bool,
    executors: usize,
    done: &Arc<AtomicU64>,
    spout: impl Fn() -> S + Send + Sync + 'static,
) -> Topology {
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig { ackers: usize::from(acked), ..TopologyConfig::default() });
    builder.set_spout("spout", spout, 1);
    let done = Arc::clone(done);
    let null = NullBolt(Arc::clone(&done));
    match shape {
        Shape::Null => {
            builder.set_bolt("null", move || null.clone(), executors).local_or_shuffle_grouping("spout");
        }
        Shape::Id => {
            builder.set_bolt("id", || IdBolt, executors).local_or_shuffle_grouping("spout");
            builder.set_bolt("null", move || null.clone(), executors).local_or_shuffle_grouping("id");
        }
        Shape::Words | Shape::Text => {
            builder.set_bolt("split", || SplitBolt, executors).shuffle_grouping("spout");
            let counter = move || CountBolt(HashMap::new(), Arc::clone(&done));
            builder.set_bolt("count", counter, executors).input("split", Grouping::fields(&["payload"]));
        }
    }
    builder.build().unwrap()
}

/// Tuples a second at the end of the topology, and allocations for each of them.
fn measured(shape: Shape, acked: bool, executors: usize, time: Duration) -> (f64, f64) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(executors).enable_all().build().unwrap();
    runtime.block_on(async {
        let done = Arc::new(AtomicU64::new(0));
        let cluster = LocalCluster::new();
        cluster.submit("bench", topology(shape, acked, executors, &done)).unwrap();
        tokio::time::sleep(time / 4).await;
        let (began, from, allocated) = (Instant::now(), done.load(Relaxed), ALLOCATIONS.load(Relaxed));
        tokio::time::sleep(time).await;
        let (seconds, tuples) = (began.elapsed().as_secs_f64(), done.load(Relaxed) - from);
        let allocations = ALLOCATIONS.load(Relaxed) - allocated;
        cluster.kill("bench", Duration::ZERO).await.unwrap();
        (tuples as f64 / seconds, allocations as f64 / tuples as f64)
    })
}

/// Tuples a second of the same work in one function: what it splits, hashes and copies for its executors.
fn plain(shape: Shape, executors: usize, time: Duration) -> f64 {
    let rows = rows(shape);
    let (mut counts, mut hashes) = (vec![HashMap::new(); executors], Vec::new());
    let (began, mut tuples) = (Instant::now(), 0_u64);
    while began.elapsed() < time {
        match shape {
            Shape::Null => tuples += black_box(rows.clone()).num_rows() as u64,
            Shape::Id => tuples += black_box(black_box(rows.clone()).clone()).num_rows() as u64,
            Shape::Words | Shape::Text => {
                let (words, from) = split(&rows);
                black_box(from);
                hash_rows(words.columns(), &mut hashes).unwrap();
                let mut parts: Vec<Vec<u32>> =
                    vec![Vec::with_capacity(hashes.len() / executors + 64); executors];
                for (row, hash) in hashes.iter().enumerate() {
                    parts[((u128::from(*hash) * executors as u128) >> 64) as usize].push(row as u32);
                }
                for (part, counts) in parts.into_iter().zip(&mut counts) {
                    let mine = take_record_batch(&words, &UInt32Array::from(part)).unwrap();
                    count(counts, &mine);
                }
                tuples += words.num_rows() as u64;
            }
        }
    }
    tuples as f64 / began.elapsed().as_secs_f64()
}

fn main() {
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let seconds =
        std::env::var("TOPOLOGY_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    let shapes = [("null", Shape::Null), ("id", Shape::Id), ("words", Shape::Words), ("text", Shape::Text)];
    for (name, shape) in shapes {
        if !asked.is_empty() && !asked.iter().any(|asked| asked == name) {
            continue;
        }
        for (acked, executors) in [(false, 1), (true, 1), (true, 2), (true, 4)] {
            let bare = plain(shape, executors, time / 2);
            let (rate, allocations) = measured(shape, acked, executors, time);
            let allocations = allocations * ROWS as f64 / shape.hops() as f64;
            println!(
                "{{\"case\":\"{name}\",\"acked\":{acked},\"executors\":{executors},\"tuples_per_s\":{rate:.0},\
                 \"plain_per_s\":{bare:.0},\"ratio\":{:.2},\"ns_per_tuple\":{:.1},\"allocations\":{allocations:.1}}}",
                bare / rate,
                1e9 / rate,
            );
        }
        let (peak, _) = measured(shape, true, 1, time);
        // Word count counts words at its end, and its spout emits lines.
        let rows = rows(shape);
        let of_each = if shape.hops() == 2 && shape != Shape::Id { split(&rows).1.len() } else { ROWS };
        // A batch each millisecond, of no more than its rows.
        let rate = (peak / 10.0 * ROWS as f64 / of_each as f64).min(ROWS as f64 * 1_000.0);
        let latencies = latency::measured(shape, rate, time);
        println!(
            "{{\"case\":\"{name}\",\"spout_tuples_per_s\":{rate:.0},\"latency_p50_us\":{},\"latency_p99_us\":{},\
             \"latency_max_us\":{},\"tuples\":{}}}",
            latencies.value_at_quantile(0.5),
            latencies.value_at_quantile(0.99),
            latencies.max(),
            latencies.len(),
        );
    }
}
