//! Storm's `TopologyIntegrationTest.testBasicTopology`, by value.

use std::{collections::HashMap, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use stratus_topology::{
    BasicBolt, BasicOutputCollector, DEFAULT_STREAM, OutputFieldsDeclarer, PerTuple, TaskError,
    TopologyBuilder, Tuple, fields,
    testing::{FixedSpout, complete_topology},
};

/// Storm's `TestWordCounter`.
#[derive(Default)]
struct WordCounter(HashMap<String, i64>);

impl BasicBolt for WordCounter {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(fields([("word", DataType::Utf8), ("count", DataType::Int64)]));
    }

    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        let word: &str = tuple.get(0)?;
        let count = self.0.entry(word.to_owned()).or_default();
        *count += 1;
        out.emit((word, *count))
    }
}

/// Storm's `TestGlobalCount`, and `TestAggregatesCounter`: how many tuples came.
#[derive(Default)]
struct GlobalCount(i64);

impl BasicBolt for GlobalCount {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(fields([("global-count", DataType::Int64)]));
    }

    fn execute(&mut self, _: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        self.0 += 1;
        out.emit((self.0,))
    }
}

fn words(batches: &[RecordBatch]) -> Vec<String> {
    let words = batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten());
    words.map(str::to_owned).collect()
}

fn counts(batches: &[RecordBatch], column: usize) -> Vec<i64> {
    let counts = batches.iter().map(|batch| batch.column(column).as_primitive::<Int64Type>().values());
    counts.flatten().copied().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nathan_bob_joey_nathan() {
    let schema = || fields([("word", DataType::Utf8)]);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("1", move || FixedSpout::new(schema()), 3);
    builder.set_bolt("2", || PerTuple::new(WordCounter::default()), 4).fields_grouping("1", &["word"]);
    builder.set_bolt("3", || PerTuple::new(GlobalCount::default()), 1).global_grouping("1");
    builder.set_bolt("4", || PerTuple::new(GlobalCount::default()), 1).global_grouping("2");
    let mut spout = FixedSpout::new(schema());
    for word in ["nathan", "bob", "joey", "nathan"] {
        spout = spout.row((word,)).unwrap();
    }
    let topology = builder.build().unwrap();
    let done = complete_topology(topology, &[("1", spout)], Duration::from_secs(20)).await.unwrap();
    let mut emitted = words(done.batches("1", DEFAULT_STREAM));
    emitted.sort_unstable();
    assert_eq!(emitted, ["bob", "joey", "nathan", "nathan"]);
    let counted = done.batches("2", DEFAULT_STREAM);
    let mut counted: Vec<(String, i64)> = words(counted).into_iter().zip(counts(counted, 1)).collect();
    counted.sort_unstable();
    let expected = [("bob", 1), ("joey", 1), ("nathan", 1), ("nathan", 2)];
    assert_eq!(counted, expected.map(|(word, count)| (word.to_owned(), count)));
    assert_eq!(counts(done.batches("3", DEFAULT_STREAM), 0), [1, 2, 3, 4]);
    assert_eq!(counts(done.batches("4", DEFAULT_STREAM), 0), [1, 2, 3, 4]);
}
