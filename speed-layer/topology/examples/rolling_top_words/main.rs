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

mod bolts;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::datatypes::DataType;
use async_trait::async_trait;
use stratus_topology::{
    DEFAULT_STREAM, LocalCluster, Next, OutputFieldsDeclarer, Spout, SpoutOutputCollector, TaskError, fields,
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

#[tokio::main]
async fn main() -> Result<(), TaskError> {
    let print = Arc::new(Mutex::new(|line: &str| println!("{line}")));
    let topology = bolts::topology(|| RandomWords(fastrand::Rng::new()), 5, print)?;
    if std::env::args().any(|argument| argument == "--dot") {
        print!("{}", topology.to_dot());
        return Ok(());
    }
    let cluster = LocalCluster::new();
    cluster.submit("rolling-top-words", topology)?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let text = cluster.prometheus();
    text.lines().filter(|line| line.contains("executed_total{")).for_each(|line| println!("{line}"));
    cluster.kill("rolling-top-words", Duration::from_secs(5)).await?;
    Ok(())
}
