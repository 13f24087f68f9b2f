//! The examples do what they say, and rolling top words what Storm's does.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, UInt64Array},
    datatypes::{DataType, SchemaRef},
};

use self::rolling::{IntermediateRank, RollingCount, TotalRank};
use crate::kit::*;
use stratus_topology::{testing::FixedSpout, *};

#[path = "../../examples/rolling_top_words/bolts.rs"]
mod rolling;
#[allow(dead_code)]
#[path = "../../examples/word_count.rs"]
mod word_count;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn word_count_counts_words() {
    let mut lines = FixedSpout::new(fields([("line", DataType::Utf8)]));
    for line in ["the quick fox", "  the lazy  dog ", "", "the end"] {
        lines = lines.row((line,)).unwrap();
    }
    let counts = word_count::word_counts(&lines).await.unwrap();
    let expected = [(3, "the"), (1, "dog"), (1, "end"), (1, "fox"), (1, "lazy"), (1, "quick")];
    assert_eq!(counts, expected.map(|(count, word)| (count, word.to_owned())));
}

fn word() -> SchemaRef {
    fields([("word", DataType::Utf8)])
}

fn words(words: &[&str]) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from(words.to_vec()));
    RecordBatch::try_new(word(), vec![column]).unwrap()
}

fn counted(words: &[(&str, u64)]) -> RecordBatch {
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(words.iter().map(|(word, _)| *word)));
    let counts: ArrayRef = Arc::new(UInt64Array::from_iter_values(words.iter().map(|(_, count)| *count)));
    let schema = fields([("word", DataType::Utf8), ("count", DataType::UInt64)]);
    RecordBatch::try_new(schema, vec![names, counts]).unwrap()
}

/// What a bolt emits for some tuples alone, and then on each of three ticks. It asks for one every so many seconds.
async fn emitted<B: BasicBolt>(
    make: impl Fn() -> B + Send + Sync + 'static,
    rows: RecordBatch,
    tick: u64,
) -> [Vec<String>; 4] {
    let feeder = Feeder::of(rows.schema());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = Arc::clone(&seen);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("bolt", move || PerTuple::new(make()), 1).shuffle_grouping("spout");
    let see = move || {
        let seen = Arc::clone(&seeing);
        sink(move |input| {
            for row in 0..input.len() {
                let columns = input.rows().columns().iter();
                let texts =
                    columns.map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
                seen.lock().unwrap().push(texts.collect::<Vec<_>>().join(" "));
            }
        })
    };
    builder.set_bolt("see", see, 1).shuffle_grouping("bolt");
    let (cluster, hand) = run_by_hand(&builder);
    let ticks = || {
        let inputs = &cluster.metrics(NAME).unwrap().components["bolt"].inputs;
        inputs[&(SYSTEM_COMPONENT.to_owned(), TICK_STREAM.to_owned())].executed
    };
    let count = rows.num_rows();
    if count > 0 {
        feeder.feed_rows(rows, MessageIds::From(0));
    }
    until("acks", || feeder.told() == count).await;
    settled(&cluster).await;
    let mut all: [Vec<String>; 4] = Default::default();
    for (step, emitted) in all.iter_mut().enumerate() {
        if step > 0 {
            hand.advance(Duration::from_secs(tick) - Duration::from_millis(1));
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(ticks(), step as u64 - 1, "not yet");
            hand.advance(Duration::from_millis(1));
            until("a tick", || ticks() == step as u64).await;
            settled(&cluster).await;
        }
        *emitted = std::mem::take(&mut *seen.lock().unwrap());
        emitted.sort_unstable();
    }
    end(&cluster).await;
    all
}

fn nothing() -> Vec<String> {
    Vec::new()
}

/// Storm's `RollingCountBoltTest`: nothing for tuples, nothing on a tick before any, and then the counts.
#[tokio::test]
async fn a_rolling_count_emits_on_ticks_and_only_on_those() {
    assert_eq!(emitted(RollingCount::new, words(&[]), 3).await, [nothing(), nothing(), nothing(), nothing()]);
    let found = emitted(RollingCount::new, words(&["a", "b", "a"]), 3).await;
    let counts = || vec!["a 2".to_owned(), "b 1".to_owned()];
    assert_eq!(found, [nothing(), counts(), counts(), counts()]);
}

/// Storm's `IntermediateRankingsBoltTest`. Zeros are for the total to hear, once.
#[tokio::test]
async fn an_intermediate_ranking_emits_on_ticks_and_only_on_those() {
    let make = || IntermediateRank::new(2);
    let empty = counted(&[]);
    assert_eq!(emitted(make, empty, 2).await, [nothing(), nothing(), nothing(), nothing()]);
    let found = emitted(make, counted(&[("a", 3), ("b", 5), ("c", 4), ("b", 0)]), 2).await;
    let (first, later) = (vec!["b 0".to_owned(), "c 4".to_owned()], vec!["c 4".to_owned()]);
    assert_eq!(found, [nothing(), first, later.clone(), later]);
}

/// Storm's `TotalRankingsBoltTest`: it prunes zeros itself.
#[tokio::test]
async fn a_total_ranking_emits_on_ticks_and_only_on_those() {
    let make = || TotalRank::new(2);
    let line = |text: &str| vec![text.to_owned()];
    assert_eq!(emitted(make, counted(&[]), 2).await, [nothing(), line(""), line(""), line("")]);
    let rows = counted(&[("a", 3), ("b", 5), ("c", 4), ("b", 0), ("d", 1)]);
    let found = emitted(make, rows, 2).await;
    assert_eq!(found, [nothing(), line("c 4, d 1"), line("c 4, d 1"), line("c 4, d 1")]);
}

/// A word that nobody says any more is in the total for as long as the window knows it, and not for ever; whether its
/// count becomes zero in a ranking, or others displace it there first.
#[tokio::test]
async fn the_total_forgets_words_that_are_no_more() {
    for most in [5, 1] {
        let (feeder, lines) = (Feeder::of(word()), Arc::new(Mutex::new(vec![String::new()])));
        let saying = Arc::clone(&lines);
        let report = Arc::new(Mutex::new(move |line: &str| saying.lock().unwrap().push(line.to_owned())));
        let topology = rolling::topology(feeder.spout(), most, report).unwrap();
        let (clock, hand) = Clock::manual();
        let cluster = LocalCluster::with_clock(clock);
        cluster.submit(NAME, topology).unwrap();
        let said = |line: &str| lines.lock().unwrap().iter().any(|said| said == line);
        let last = || lines.lock().unwrap().last().cloned();
        feeder.feed_rows(words(&["nathan", "mike", "nathan", "nathan"]), MessageIds::From(0));
        until("acks", || feeder.told() == 4).await;
        settled(&cluster).await;
        let mut waited = 0;
        let expected = if most == 1 { "nathan 3" } else { "nathan 3, mike 1" };
        while !said(expected) {
            waited += 1;
            assert!(waited < 6, "{lines:?}");
            hand.advance(Duration::from_secs(3));
            settled(&cluster).await;
        }
        // Others go on being said.
        for round in 1..12 {
            feeder.feed_rows(words(&["golda", "storm"]), MessageIds::From(round * 10));
            until("acks", || feeder.told() as u64 == 4 + round * 2).await;
            hand.advance(Duration::from_secs(3));
            settled(&cluster).await;
        }
        let line = last().unwrap();
        assert!(!line.contains("nathan") && !line.contains("mike"), "{line}");
        assert!(line.contains("golda") || line.contains("storm"), "{line}");
        end(&cluster).await;
    }
}
