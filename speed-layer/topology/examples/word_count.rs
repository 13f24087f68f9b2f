//! Counts words: the first topology of every Storm book.
//!
//! ```text
//! cargo run -p stratus-topology --example word_count < README.md
//! cargo run -p stratus-topology --example word_count -- --dot | dot -Tsvg > word_count.svg
//! ```
//!
//! A spout emits lines, `split` makes words of them, and `count` counts each word. The fields grouping sends equal words
//! to the same task, so that each word has one count. What `split` emits is anchored to its line, so the spout is told
//! of a line when all of its words are counted.

use std::{
    collections::HashMap,
    io::BufRead,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::DataType,
};
use stratus_topology::{
    BasicBolt, BasicOutputCollector, LocalCluster, OutputFieldsDeclarer, PerTuple, TaskError, Topology,
    TopologyBuilder, Tuple, fields, testing::FixedSpout,
};

/// Makes words of lines.
struct Split;

impl BasicBolt for Split {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(fields([("word", DataType::Utf8)]));
    }

    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        for word in tuple.get::<&str>(0)?.split_whitespace() {
            out.emit((word,))?;
        }
        Ok(())
    }
}

/// Counts words. Each task has its own; they are put together when they end.
struct Count {
    counts: HashMap<String, u64>,
    all: Counts,
}

type Counts = Arc<Mutex<Vec<(u64, String)>>>;

impl BasicBolt for Count {
    fn execute(&mut self, tuple: Tuple<'_>, _out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        *self.counts.entry(tuple.get(0)?).or_default() += 1;
        Ok(())
    }

    fn cleanup(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(self.counts.drain().map(|(word, count)| (count, word)));
    }
}

/// The topology, and where it leaves its counts.
fn topology(lines: &FixedSpout) -> Result<(Topology, Counts), TaskError> {
    let all = Counts::default();
    let (spout, counts) = (lines.clone(), Arc::clone(&all));
    let mut builder = TopologyBuilder::new();
    builder.set_spout("lines", move || spout.clone(), 1);
    builder.set_bolt("split", || PerTuple::new(Split), 2).shuffle_grouping("lines");
    let count = move || PerTuple::new(Count { counts: HashMap::new(), all: Arc::clone(&counts) });
    builder.set_bolt("count", count, 2).fields_grouping("split", &["word"]);
    Ok((builder.build()?, all))
}

/// How often each word occurs in the lines, the most frequent first.
pub(crate) async fn word_counts(lines: &FixedSpout) -> Result<Vec<(u64, String)>, TaskError> {
    let (topology, all) = topology(lines)?;
    let cluster = LocalCluster::new();
    cluster.submit("word-count", topology)?;
    while !lines.is_done() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.kill("word-count", Duration::from_secs(10)).await?;
    let mut all = std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    Ok(all)
}

#[tokio::main]
async fn main() -> Result<(), TaskError> {
    let mut lines = FixedSpout::new(fields([("line", DataType::Utf8)]));
    if std::env::args().any(|argument| argument == "--dot") {
        print!("{}", topology(&lines)?.0.to_dot());
        return Ok(());
    }
    let read: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    let column: ArrayRef = Arc::new(StringArray::from(read));
    lines = lines.rows(RecordBatch::try_new(fields([("line", DataType::Utf8)]), vec![column])?);
    let counts = word_counts(&lines).await?;
    counts.iter().take(20).for_each(|(count, word)| println!("{count:>8}  {word}"));
    Ok(())
}
