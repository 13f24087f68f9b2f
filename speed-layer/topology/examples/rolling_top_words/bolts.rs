//! The bolts of rolling top words, and how they are put together.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::datatypes::{DataType, SchemaRef};
use stratus_topology::{
    BasicBolt, BasicOutputCollector, ComponentConfig, OutputFieldsDeclarer, PerTuple, Rankings,
    SlidingWindowCounter, Spout, TaskError, Topology, TopologyBuilder, Tuple, fields,
};

/// Asks for a tick every so often.
fn ticking(seconds: u64) -> ComponentConfig {
    ComponentConfig { tick: Some(std::time::Duration::from_secs(seconds)), ..ComponentConfig::default() }
}

fn counted() -> SchemaRef {
    fields([("word", DataType::Utf8), ("count", DataType::UInt64)])
}

/// Counts words over a sliding window of three slots, and tells the counts on a tick. A word that is no more is told once
/// more, with the count zero.
pub(crate) struct RollingCount(SlidingWindowCounter<String>);

impl RollingCount {
    pub(crate) fn new() -> Self {
        Self(SlidingWindowCounter::new(3))
    }
}

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

/// Ranks a part of the words, and tells its ranking on a tick: zeros, too, and a zero for what has left the ranking since
/// the tick before, or the total would keep for ever what it once heard.
pub(crate) struct IntermediateRank {
    rankings: Rankings<String>,
    told: BTreeSet<String>,
}

impl IntermediateRank {
    pub(crate) fn new(most: usize) -> Self {
        Self { rankings: Rankings::new(most), told: BTreeSet::new() }
    }
}

impl BasicBolt for IntermediateRank {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(counted());
    }

    fn configuration(&self) -> ComponentConfig {
        ticking(2)
    }

    fn execute(&mut self, tuple: Tuple<'_>, _out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        self.rankings.update(tuple.get(0)?, tuple.get(1)?);
        Ok(())
    }

    fn tick(&mut self, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        let mut gone = std::mem::take(&mut self.told);
        for (word, count) in self.rankings.ranked() {
            gone.remove(word);
            out.emit((word, *count))?;
        }
        gone.iter().try_for_each(|word| out.emit((word, 0_u64)))?;
        self.rankings.prune_zeros();
        self.told = self.rankings.ranked().iter().map(|(word, _)| word.clone()).collect();
        Ok(())
    }
}

/// Merges the rankings of all, without zeros, and tells the words and their counts on a tick, in one line.
pub(crate) struct TotalRank(Rankings<String>);

impl TotalRank {
    pub(crate) fn new(most: usize) -> Self {
        Self(Rankings::new(most))
    }
}

impl BasicBolt for TotalRank {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(fields([("ranking", DataType::Utf8)]));
    }

    fn configuration(&self) -> ComponentConfig {
        ticking(2)
    }

    fn execute(&mut self, tuple: Tuple<'_>, _out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        self.0.update(tuple.get(0)?, tuple.get(1)?);
        self.0.prune_zeros();
        Ok(())
    }

    fn tick(&mut self, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        let ranked: Vec<String> =
            self.0.ranked().iter().map(|(word, count)| format!("{word} {count}")).collect();
        out.emit((ranked.join(", "),))
    }
}

/// What is done with each line.
pub(crate) type Report = Arc<Mutex<dyn FnMut(&str) + Send>>;

struct Print(Report);

impl BasicBolt for Print {
    fn execute(&mut self, tuple: Tuple<'_>, _out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        let line = tuple.get(0)?;
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))(line);
        Ok(())
    }
}

/// Words from these spouts, counted by four, ranked by two, and in the end by one.
pub(crate) fn topology<S: Spout>(
    words: impl Fn() -> S + Send + Sync + 'static,
    most: usize,
    report: Report,
) -> Result<Topology, TaskError> {
    let mut builder = TopologyBuilder::new();
    builder.set_spout("words", words, 2);
    builder.set_bolt("counter", || PerTuple::new(RollingCount::new()), 4).fields_grouping("words", &["word"]);
    let intermediate = move || PerTuple::new(IntermediateRank::new(most));
    builder.set_bolt("intermediate", intermediate, 2).fields_grouping("counter", &["word"]);
    builder.set_bolt("total", move || PerTuple::new(TotalRank::new(most)), 1).global_grouping("intermediate");
    let print = move || PerTuple::new(Print(Arc::clone(&report)));
    builder.set_bolt("print", print, 1).global_grouping("total");
    Ok(builder.build()?)
}
