//! States behind states, and batches whose rows cannot leave a task.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use arrow::{array::RecordBatch, datatypes::DataType};
use stratus_topology::{CustomGrouping, Grouping, TaskChoice, TaskError, TopologyConfig, fields};
use stratus_trident::{
    Count, FeederBatchSpout, MemoryMaps, Stream, TridentCollector, TridentTopology, TridentTuple,
};

use crate::{
    support::{batch, run, text},
    word_count::Split,
};

fn counts(maps: &MemoryMaps<i64>) -> BTreeMap<String, i64> {
    maps.values().into_iter().collect()
}

fn expected(counts: &[(&str, i64)]) -> BTreeMap<String, i64> {
    counts.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

/// Words by their new counts: how often a word was counted for the n-th time.
fn counted(words: &Stream, first: &MemoryMaps<i64>, second: &MemoryMaps<i64>) {
    let new_values = words
        .group_by(&["word"])
        .persistent_aggregate(first.clone(), &[], Count, "count")
        .parallelism_hint(2)
        .new_values_stream()
        .unwrap();
    let _written = new_values
        .group_by(&["count"])
        .persistent_aggregate(second.clone(), &[], Count, "times")
        .parallelism_hint(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_written_from_the_new_values_of_another() {
    let (spout, first, second) =
        (FeederBatchSpout::new(text("sentence")), MemoryMaps::<i64>::new(), MemoryMaps::<i64>::new());
    let topology = TridentTopology::new();
    let words = topology.new_stream("sentences", spout.clone()).shuffle().each(
        &["sentence"],
        Split,
        fields([("word", DataType::Utf8)]),
    );
    counted(&words, &first, &second);
    let test = async {
        for _ in 0..3 {
            spout.feed_and_wait(batch("sentence", &["a b", "a"])).await;
        }
        spout.feed_and_wait(batch("sentence", &[])).await;
    };
    run(&topology, test).await;
    assert_eq!(counts(&first), expected(&[("[\"a\"]", 6), ("[\"b\"]", 3)]));
    // a: 2, 4, 6; b: 1, 2, 3.
    assert_eq!(counts(&second), expected(&[("[1]", 1), ("[2]", 2), ("[3]", 1), ("[4]", 1), ("[6]", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_values_are_put_together_with_the_tuples_of_their_batch() {
    let (spout, first, second) =
        (FeederBatchSpout::new(text("word")), MemoryMaps::<i64>::new(), MemoryMaps::<i64>::new());
    let topology = TridentTopology::new();
    let words = topology.new_stream("words", spout.clone()).shuffle();
    let tried = Arc::new(AtomicUsize::new(0));
    let unreliable =
        move |tuple: TridentTuple<'_>, out: &mut TridentCollector| match tried.fetch_add(1, SeqCst) {
            2 => Err("this does not always work".into()),
            5 => panic!("this goes wrong sometimes"),
            _ => out.emit((tuple.get::<&str>(0)?,)),
        };
    let new_values = words
        .group_by(&["word"])
        .persistent_aggregate(first.clone(), &[], Count, "count")
        .new_values_stream();
    let both = new_values.unwrap().project(&["word"]).merge(&[&words.project(&["word"])]);
    // A bolt of its own between the two, which has early words and late ones and writes no state.
    let _written = both
        .map(unreliable, text("word"))
        .parallelism_hint(2)
        .group_by(&["word"])
        .persistent_aggregate(second.clone(), &[], Count, "count")
        .parallelism_hint(2);
    let test = async {
        for _ in 0..4 {
            spout.feed_and_wait(batch("word", &["a", "b", "a"])).await;
        }
    };
    run(&topology, test).await;
    assert_eq!(counts(&first), expected(&[("[\"a\"]", 8), ("[\"b\"]", 4)]));
    // Each batch has each word once more, as a new value.
    assert_eq!(counts(&second), expected(&[("[\"a\"]", 12), ("[\"b\"]", 8)]));
}

/// A grouping that cannot choose for a while.
struct Hesitant(Arc<AtomicBool>);

impl CustomGrouping for Hesitant {
    fn choose_tasks(&mut self, rows: &RecordBatch, choice: &mut TaskChoice) -> Result<(), TaskError> {
        if rows.num_rows() > 0 && self.0.swap(false, SeqCst) {
            return Err("not now".into());
        }
        (0..rows.num_rows()).for_each(|row| choice.send(row, 0));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_could_not_be_sent_fail_their_batch() {
    let (spout, maps) = (FeederBatchSpout::new(text("word")), MemoryMaps::<i64>::new());
    let topology = TridentTopology::new();
    let hesitates = Arc::new(AtomicBool::new(true));
    let chosen = Arc::clone(&hesitates);
    let words = topology
        .new_stream("words", spout.clone())
        .shuffle()
        .map(
            |tuple: TridentTuple<'_>, out: &mut TridentCollector| out.emit((tuple.get::<&str>(0)?,)),
            text("word"),
        )
        .partition(Grouping::custom(move || Hesitant(Arc::clone(&chosen))));
    let counted = |tuple: TridentTuple<'_>, out: &mut TridentCollector| out.emit((tuple.get::<&str>(0)?,));
    let _counts = words.map(counted, text("word")).group_by(&["word"]).persistent_aggregate(
        maps.clone(),
        &[],
        Count,
        "count",
    );
    let test = async { spout.feed_and_wait(batch("word", &["a", "b", "a"])).await };
    run(&topology, test).await;
    assert!(!hesitates.load(SeqCst));
    assert_eq!(counts(&maps), expected(&[("[\"a\"]", 2), ("[\"b\"]", 1)]));
}

#[test]
fn a_topology_without_ackers_is_refused() {
    let config = TopologyConfig { ackers: 0, ..TopologyConfig::default() };
    let topology = TridentTopology::new().config(config);
    let _words = topology.new_stream("words", FeederBatchSpout::new(text("word"))).shuffle();
    let refused = topology.build().unwrap_err().to_string();
    assert_eq!(refused, "the topology: it has no ackers, and without them nobody learns that a batch failed");
}

#[test]
fn a_batch_is_told_to_all_spouts_in_one_piece() {
    let config = TopologyConfig { batch_rows: 1, ..TopologyConfig::default() };
    let topology = TridentTopology::new().config(config);
    let words = |name: &str| topology.new_stream(name, FeederBatchSpout::new(text("word")));
    let _both = words("one").merge(&[&words("two")]);
    let refused = topology.build().unwrap_err().to_string();
    assert!(refused.contains("2 spouts") && refused.contains("1 batch_rows"), "{refused}");
}
