//! What operations make of batches.

use arrow::datatypes::DataType;
use stratus_topology::fields;
use stratus_trident::{
    ChainedAggregator, Combined, Count, FeederBatchSpout, JoinKind, Max, Stream, Sum, TridentCollector,
    TridentError, TridentTopology, TridentTuple,
};

use crate::{
    pairs::{SOME, Seen, of_pairs, pair_batch, pairs},
    support::{batch, run, text},
    word_count::Split,
};

#[tokio::test]
async fn a_batch_without_tuples_counts_zero_once() {
    let counted = |stream: Stream| stream.shuffle().combine(&[], Count, "count").parallelism_hint(3);
    assert_eq!(of_pairs(&[&[]], counted).await, ["0"]);
    assert_eq!(of_pairs(&[SOME], counted).await, ["5"]);
    let hundred: Vec<&[(&str, i64)]> = vec![&SOME[..1]; 100];
    assert_eq!(of_pairs(&hundred, counted).await, vec!["1"; 100]);
}

#[tokio::test]
async fn groups_are_aggregated_by_themselves() {
    let summed =
        |stream: Stream| stream.group_by(&["key"]).combine(&["number"], Sum, "sum").parallelism_hint(3);
    assert_eq!(of_pairs(&[SOME, &SOME[..2]], summed).await, ["a,3", "a,8", "b,1", "b,10", "c,2"]);
    let chained = |stream: Stream| {
        let chain = ChainedAggregator::new()
            .aggregate(&["number"], Combined(Sum), fields([("sum", DataType::Int64)]))
            .aggregate(&["number"], Combined(Max), fields([("max", DataType::Int64)]))
            .aggregate(&[], Combined(Count), fields([("count", DataType::Int64)]));
        stream.group_by(&["key"]).chained_aggregate(chain)
    };
    assert_eq!(of_pairs(&[SOME], chained).await, ["a,8,5,2", "b,10,9,2", "c,2,2,1"]);
}

#[tokio::test]
async fn tuples_are_filtered_mapped_and_projected() {
    let operated = |stream: Stream| {
        stream
            .filter(&["number"], |tuple: TridentTuple<'_>| Ok(tuple.get::<i64>(0)? > 2))
            .each(
                &["number"],
                |tuple: TridentTuple<'_>, out: &mut TridentCollector| out.emit((tuple.get::<i64>(0)? * 10,)),
                fields([("tenfold", DataType::Int64)]),
            )
            .project(&["tenfold", "key"])
    };
    assert_eq!(of_pairs(&[SOME], operated).await, ["30,a", "50,a", "90,b"]);
    let replaced = |stream: Stream| {
        let function = |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
            (0..tuple.get_by_name::<i64>("number")?).try_for_each(|_| out.emit((tuple.get::<&str>(0)?,)))
        };
        stream.flat_map(function, text("key"))
    };
    assert_eq!(of_pairs(&[&SOME[..2]], replaced).await, ["a", "a", "a", "b"]);
}

#[tokio::test]
async fn the_best_of_a_batch_are_found() {
    assert_eq!(of_pairs(&[SOME], |stream| stream.global().top_n(2, "number")).await, ["a,5", "b,9"]);
    assert_eq!(of_pairs(&[SOME], |stream| stream.global().min_by("number")).await, ["b,1"]);
    assert_eq!(of_pairs(&[SOME], |stream| stream.global().max_by("number")).await, ["b,9"]);
    assert_eq!(of_pairs(&[SOME], |stream| stream.global().first_n(2)).await, ["a,3", "b,1"]);
}

#[tokio::test]
async fn streams_split_and_merge() {
    let split = |stream: Stream| {
        let odd = stream.filter(&["number"], |tuple: TridentTuple<'_>| Ok(tuple.get::<i64>(0)? % 2 == 1));
        let even = stream.filter(&["number"], |tuple: TridentTuple<'_>| Ok(tuple.get::<i64>(0)? % 2 == 0));
        odd.shuffle().merge(&[&even]).partition_by(&["key"]).shuffle().parallelism_hint(2)
    };
    assert_eq!(of_pairs(&[SOME], split).await, ["a,3", "a,5", "b,1", "b,9", "c,2"]);
    let everywhere = |stream: Stream| stream.broadcast().project(&["key"]).parallelism_hint(3);
    assert_eq!(of_pairs(&[&SOME[..1]], everywhere).await, ["a", "a", "a"]);
}

#[tokio::test]
async fn streams_are_joined_batch_by_batch() {
    let joined = |kind: JoinKind| {
        move |stream: Stream| {
            let large = stream.filter(&["number"], |tuple: TridentTuple<'_>| Ok(tuple.get::<i64>(0)? > 2));
            let words = stream
                .each(&["key"], Split, text("word"))
                .filter(&["word"], |tuple: TridentTuple<'_>| Ok(tuple.get::<&str>(0)? != "a"))
                .project(&["word"]);
            large.join(&["key"], &words, &["word"], kind).parallelism_hint(2)
        }
    };
    assert_eq!(of_pairs(&[SOME], joined(JoinKind::Inner)).await, ["b,9", "b,9"]);
    assert_eq!(of_pairs(&[SOME], joined(JoinKind::Left)).await, ["a,3", "a,5", "b,9", "b,9"]);
    assert_eq!(of_pairs(&[SOME], joined(JoinKind::Full)).await, ["a,3", "a,5", "b,9", "b,9", "c,"]);
}

#[tokio::test]
async fn new_values_and_queries_see_the_state() {
    let (spout, seen, topology) = (FeederBatchSpout::new(pairs()), Seen::default(), TridentTopology::new());
    let maps = stratus_trident::MemoryMaps::<i64>::new();
    let grouped = topology.new_stream("pairs", spout.clone()).group_by(&["key"]);
    let state = grouped.persistent_aggregate(maps, &["number"], Sum, "sum").parallelism_hint(3);
    seen.watch(&state.new_values_stream().unwrap());
    let asking = FeederBatchSpout::new(text("question"));
    let answers = Seen::default();
    let asked = topology.new_stream("questions", asking.clone()).group_by(&["question"]);
    answers.watch(&asked.state_query::<i64, _>(&state, "sum"));
    let test = async {
        spout.feed_and_wait(pair_batch(SOME)).await;
        spout.feed_and_wait(pair_batch(&SOME[..1])).await;
        asking.feed_and_wait(batch("question", &["a", "nobody"])).await;
    };
    run(&topology, test).await;
    assert_eq!(seen.take(), ["a,11", "a,8", "b,10", "c,2"]);
    assert_eq!(answers.take(), ["a,11", "nobody,"]);
}

#[test]
fn an_unknown_field_is_named() {
    let topology = TridentTopology::new();
    let stream = topology.new_stream("pairs", FeederBatchSpout::new(pairs()));
    stream.group_by(&["color"]).combine(&["number"], Sum, "sum");
    let error = topology.build().unwrap_err();
    assert_eq!(error.to_string(), "group_by asks for field `color`, but its stream has key, number");
    let topology = TridentTopology::new();
    let stream = topology.new_stream("pairs", FeederBatchSpout::new(pairs()));
    stream.each(&["key"], Split, fields([("number", DataType::Utf8)]));
    assert!(matches!(topology.build(), Err(TridentError::Duplicate { .. })));
}
