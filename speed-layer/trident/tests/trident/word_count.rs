//! The word count of Storm's TridentIntegrationTest, and what must not disturb it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use arrow::datatypes::DataType;
use stratus_topology::{TaskError, fields};
use stratus_trident::{
    Count, FeederBatchSpout, Function, MemoryMaps, TridentCollector, TridentTopology, TridentTuple,
};

use crate::support::{batch, run, text};

#[derive(Clone)]
pub(crate) struct Split;

impl Function for Split {
    fn execute(&mut self, tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
        tuple.get::<&str>(0)?.split_whitespace().try_for_each(|word| out.emit((word,)))
    }
}

fn counts(maps: &MemoryMaps<i64>) -> BTreeMap<String, i64> {
    maps.values()
        .into_iter()
        .map(|(key, count)| (key.trim_matches(['[', ']', '"']).to_owned(), count))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_over_batches() {
    let (spout, maps) = (FeederBatchSpout::new(text("sentence")), MemoryMaps::<i64>::new());
    let topology = TridentTopology::new();
    topology
        .new_stream("sentences", spout.clone())
        .parallelism_hint(2)
        .shuffle()
        .each(&["sentence"], Split, fields([("word", DataType::Utf8)]))
        .parallelism_hint(3)
        .group_by(&["word"])
        .persistent_aggregate(maps.clone(), &[], Count, "count");
    let test = async {
        spout.feed_and_wait(batch("sentence", &["hello the man said", "the"])).await;
        assert_eq!(counts(&maps)["the"], 2);
        assert_eq!(counts(&maps)["hello"], 1);
        // Batches without tuples stop nothing.
        for _ in 0..20 {
            spout.feed_and_wait(batch("sentence", &[])).await;
        }
        spout.feed_and_wait(batch("sentence", &["the man on the moon", "where are you"])).await;
        assert_eq!(counts(&maps)["the"], 4);
        assert_eq!(counts(&maps)["man"], 2);
    };
    run(&topology, test).await;
    let total: i64 = ["man", "where", "you", "the"].iter().map(|word| counts(&maps)[*word]).sum();
    assert_eq!(total, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_tried_again_and_counts_once() {
    let (spout, maps) = (FeederBatchSpout::new(text("sentence")), MemoryMaps::<i64>::new());
    let topology = TridentTopology::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let unreliable = move |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
        match seen.fetch_add(1, SeqCst) % 13 {
            5 => return Err("this does not always work".into()),
            9 => panic!("this goes wrong sometimes"),
            _ => {}
        }
        tuple.get::<&str>(0)?.split_whitespace().try_for_each(|word| out.emit((word,)))
    };
    topology
        .new_stream("sentences", spout.clone())
        .parallelism_hint(2)
        .shuffle()
        .each(&["sentence"], unreliable, fields([("word", DataType::Utf8)]))
        .parallelism_hint(2)
        .group_by(&["word"])
        .persistent_aggregate(maps.clone(), &[], Count, "count");
    let test = async {
        for round in 0..30 {
            let txid = spout.feed(batch("sentence", &["a b", "b c", "a b c d"]));
            if round % 3 == 0 {
                spout.wait(txid).await;
            }
        }
        spout.wait(30).await;
    };
    let ((), metrics) = run(&topology, test).await;
    let expected = [("a", 60), ("b", 90), ("c", 60), ("d", 30)].map(|(word, count)| (word.to_owned(), count));
    assert_eq!(counts(&maps), BTreeMap::from(expected));
    let panics: u64 = metrics.components.values().map(|component| component.panics).sum();
    assert!(panics > 0, "{metrics:?}");
}
