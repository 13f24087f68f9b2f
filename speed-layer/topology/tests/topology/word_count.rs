//! The first topology of every Storm book.

use std::{collections::BTreeMap, time::Duration};

use arrow::{
    array::AsArray,
    datatypes::{DataType, Int64Type},
};
use stratus_topology::{
    BasicBolt, BasicOutputCollector, DEFAULT_STREAM, OutputFieldsDeclarer, PerTuple, TaskError,
    TopologyBuilder, Tuple, fields,
    testing::{FixedSpout, complete_topology},
};

struct Split;

impl BasicBolt for Split {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(fields([("word", DataType::Utf8)]));
    }

    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        for word in tuple.get::<&str>(0)?.split(' ') {
            out.emit((word,))?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Count(BTreeMap<String, i64>);

impl BasicBolt for Count {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(fields([("word", DataType::Utf8), ("count", DataType::Int64)]));
    }

    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        let word: &str = tuple.get_by_name("word")?;
        let count = self.0.entry(word.to_owned()).or_default();
        *count += 1;
        out.emit((word, *count))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted() {
    let mut lines = FixedSpout::new(fields([("line", DataType::Utf8)]));
    for _ in 0..250 {
        for line in ["the cow jumped over the moon", "an apple a day", "the end"] {
            lines = lines.row((line,)).unwrap();
        }
    }
    let mut builder = TopologyBuilder::new();
    builder.set_spout("lines", || FixedSpout::new(fields([("line", DataType::Utf8)])), 1);
    builder.set_bolt("split", || PerTuple::new(Split), 3).shuffle_grouping("lines");
    builder.set_bolt("count", || PerTuple::new(Count::default()), 4).fields_grouping("split", &["word"]);
    let topology = builder.build().unwrap();
    let spouts = [("lines", lines.clone())];
    let done = complete_topology(topology, &spouts, Duration::from_secs(20)).await.unwrap();
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for batch in done.batches("count", DEFAULT_STREAM) {
        let (words, numbers) =
            (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
        for (word, number) in words.iter().zip(numbers) {
            let last = counts.insert(word.unwrap().to_owned(), number.unwrap()).unwrap_or(0);
            assert_eq!(number.unwrap(), last + 1, "of one word");
        }
    }
    assert_eq!(counts["the"], 750);
    assert_eq!(counts["cow"], 250);
    assert_eq!(counts.len(), 10);
    assert_eq!(lines.failures(), []);
    let metrics = &done.metrics.components;
    assert_eq!(metrics["lines"].outputs[DEFAULT_STREAM].acked, 750);
    assert_eq!(metrics["split"].outputs[DEFAULT_STREAM].emitted, 3_000);
}
