//! Rolling top words, after Storm's RollingTopWords: the most frequent words of the last seconds, again and again.
//!
//! ```text
//! cargo run -p stratus-topology --example rolling_top_words
//! cargo run -p stratus-topology --example rolling_top_words -- --dot
//! ```
//!
//! `counter` counts words over a sliding window of nine seconds and emits its counts every three, on a **tick tuple**.
//! `intermediate` ranks what each of its tasks sees, and `total` merges those rankings: a global grouping brings them
//! all to its one task. Nothing here needs to be told of acks, but everything acks: a word is done when it is counted.

use std::time::Duration;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use stratus_topology::{
    BasicBolt, BasicOutputCollector, ComponentConfig, DEFAULT_STREAM, LocalCluster, Next,
    OutputFieldsDeclarer, PerTuple, Rankings, SlidingWindowCounter, Spout, SpoutOutputCollector, TaskError,
    TopologyBuilder, Tuple, fields,
};

const WORDS: [&str; 6] = ["nathan", "mike", "jackson", "golda", "bertels", "storm"];

/// Emits random words, some more often than others.
struct RandomWords(fastrand::Rng);

#[async_trait]
impl Spout for RandomWords {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(fields([("word", DataType::Utf8)]));
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        for id in 0..20 {
            let word = WORDS[self.0.usize(..WORDS.len()).min(self.0.usize(..WORDS.len()))];
            out.emit_tuple(DEFAULT_STREAM, (word,), Some(id)).await?;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(Next::Emitted)
    }
}

/// Asks for a tick every so often.
fn ticking(seconds: u64) -> ComponentConfig {
    ComponentConfig { tick: Some(Duration::from_secs(seconds)), ..ComponentConfig::default() }
}

fn counted() -> arrow::datatypes::SchemaRef {
    fields([("word", DataType::Utf8), ("count", DataType::UInt64)])
}

/// Counts words over a sliding window.
struct RollingCount(SlidingWindowCounter<String>);

impl BasicBolt for RollingCount {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(counted());
    }

    fn configuration(&self) -> ComponentConfig {
        ticking(3)
    }

    fn execute(&mut self, tuple: Tuple<'_>, _out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        self.0.increment(tuple.get(0)?);
        Ok(())
    }

    fn tick(&mut self, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        self.0.counts_then_advance().iter().try_for_each(|(word, count)| out.emit((word, *count)))
    }
}

/// Ranks words by their counts; passes the ranking on, or prints it.
struct Rank {
    rankings: Rankings<String>,
    every: u64,
    is_last: bool,
}

impl BasicBolt for Rank {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(counted());
    }

    fn configuration(&self) -> ComponentConfig {
        ticking(self.every)
    }

    fn execute(&mut self, tuple: Tuple<'_>, _out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        self.rankings.update(tuple.get(0)?, tuple.get(1)?);
        self.rankings.prune_zeros();
        Ok(())
    }

    fn tick(&mut self, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        if self.is_last {
            println!("{:?}", self.rankings.ranked());
            return Ok(());
        }
        self.rankings.ranked().iter().try_for_each(|(word, count)| out.emit((word, *count)))
    }
}

#[tokio::main]
async fn main() -> Result<(), TaskError> {
    let rank = |every, is_last| move || PerTuple::new(Rank { rankings: Rankings::new(5), every, is_last });
    let mut builder = TopologyBuilder::new();
    builder.set_spout("words", || RandomWords(fastrand::Rng::new()), 2);
    let counter = || PerTuple::new(RollingCount(SlidingWindowCounter::new(3)));
    builder.set_bolt("counter", counter, 4).fields_grouping("words", &["word"]);
    builder.set_bolt("intermediate", rank(2, false), 2).fields_grouping("counter", &["word"]);
    builder.set_bolt("total", rank(2, true), 1).global_grouping("intermediate");
    let topology = builder.build()?;
    if std::env::args().any(|argument| argument == "--dot") {
        print!("{}", topology.to_dot());
        return Ok(());
    }
    let cluster = LocalCluster::new();
    cluster.submit("rolling-top-words", topology)?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    print!(
        "{}",
        cluster
            .prometheus()
            .lines()
            .filter(|line| line.contains("executed_total{"))
            .fold(String::new(), |text, line| text + line + "\n",)
    );
    cluster.kill("rolling-top-words", Duration::from_secs(5)).await?;
    Ok(())
}
