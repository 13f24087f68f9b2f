//! The topologies that are measured, and what they are made of.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray, StringBuilder},
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use stratus_topology::{
    Anchors, BasicBolt, BasicOutputCollector, Bolt, DEFAULT_STREAM, Grouping, MessageIds, Next,
    OutputCollector, OutputFieldsDeclarer, PerTuple, Spout, SpoutOutputCollector, TaskError, Topology,
    TopologyBuilder, TopologyConfig, Tuple, Tuples, fields,
};

use crate::text;

/// Rows of a batch, but for the case of small ones.
pub(crate) const ROWS: usize = 4_096;
/// Rows of a small batch.
pub(crate) const FEW: usize = 64;

pub(crate) fn payload() -> SchemaRef {
    fields([("payload", DataType::Utf8)])
}

/// A batch of 100-byte payloads.
fn payloads(rows: usize) -> RecordBatch {
    let text = "x".repeat(100);
    RecordBatch::try_new(payload(), vec![Arc::new(StringArray::from(vec![text.as_str(); rows]))]).unwrap()
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

/// Emits the tuples of a batch one by one, again and again.
#[derive(Clone)]
struct TupleSpout(ConstSpout);

#[async_trait]
impl Spout for TupleSpout {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(payload());
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        let texts = self.0.rows.column(0).as_string::<i32>();
        for text in texts.iter().flatten() {
            out.emit_tuple(DEFAULT_STREAM, (text,), self.0.acked.then_some(0)).await?;
        }
        Ok(Next::Emitted)
    }

    async fn acked(&mut self, ids: &[u64]) {
        self.0.acked(ids).await;
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

/// The same tuple by tuple.
struct TupleBolt;

#[async_trait]
impl Bolt for TupleBolt {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(payload());
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        for tuple in input.iter() {
            out.emit_tuple(DEFAULT_STREAM, (tuple.get::<&str>(0)?,), &[tuple]).await?;
        }
        out.ack(&input);
        Ok(())
    }
}

/// And once more as a basic bolt.
struct Basic;

impl BasicBolt for Basic {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(payload());
    }

    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        out.emit((tuple.get::<&str>(0)?,))
    }
}

/// The words of lines, and the line that each is from.
pub(crate) fn split(rows: &RecordBatch) -> (RecordBatch, Vec<u32>) {
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

pub(crate) fn count(counts: &mut HashMap<String, u64>, rows: &RecordBatch) {
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
pub(crate) enum Shape {
    /// A spout and a bolt that does nothing.
    Null,
    /// One that passes batches on in between.
    Id,
    /// The same with batches of 64 rows.
    Small,
    /// One that passes tuples on, as a basic bolt.
    Basic,
    /// One that passes tuples on with `emit_tuple`, as the spout emits them.
    Tuples,
    /// Word count over lines of generated words.
    Words,
    /// Word count over prose.
    Text,
}

impl Shape {
    pub(crate) const ALL: [(&str, Self); 7] = [
        ("null", Self::Null),
        ("id", Self::Id),
        ("small", Self::Small),
        ("basic", Self::Basic),
        ("tuples", Self::Tuples),
        ("words", Self::Words),
        ("text", Self::Text),
    ];

    pub(crate) fn hops(self) -> u64 {
        if self == Self::Null { 1 } else { 2 }
    }

    /// Whether it counts words: its spout emits lines, and what arrives at its end are words.
    pub(crate) fn counts_words(self) -> bool {
        matches!(self, Self::Words | Self::Text)
    }

    /// The spout's batch.
    pub(crate) fn rows(self) -> RecordBatch {
        match self {
            Self::Null | Self::Id | Self::Basic | Self::Tuples => payloads(ROWS),
            Self::Small => payloads(FEW),
            Self::Words => lines(),
            Self::Text => text::lines(),
        }
    }

    /// The topology, which adds to `done` what arrives at its end.
    pub(crate) fn topology(self, acked: bool, executors: usize, done: &Arc<AtomicU64>) -> Topology {
        let spout = ConstSpout { rows: self.rows(), acked, done: Arc::default() };
        match self {
            Self::Tuples => self.topology_of(acked, executors, done, move || TupleSpout(spout.clone())),
            _ => self.topology_of(acked, executors, done, move || spout.clone()),
        }
    }

    /// The topology with this spout.
    pub(crate) fn topology_of<S: Spout>(
        self,
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
        let last = match self {
            Self::Null => "spout",
            Self::Id | Self::Small => {
                builder.set_bolt("id", || IdBolt, executors).local_or_shuffle_grouping("spout");
                "id"
            }
            Self::Basic => {
                builder.set_bolt("id", || PerTuple::new(Basic), executors).local_or_shuffle_grouping("spout");
                "id"
            }
            Self::Tuples => {
                builder.set_bolt("id", || TupleBolt, executors).local_or_shuffle_grouping("spout");
                "id"
            }
            Self::Words | Self::Text => {
                builder.set_bolt("split", || SplitBolt, executors).shuffle_grouping("spout");
                let counter = move || CountBolt(HashMap::new(), Arc::clone(&done));
                builder.set_bolt("count", counter, executors).input("split", Grouping::fields(&["payload"]));
                return builder.build().unwrap();
            }
        };
        builder.set_bolt("null", move || null.clone(), executors).local_or_shuffle_grouping(last);
        builder.build().unwrap()
    }
}
