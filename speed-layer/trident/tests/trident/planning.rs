//! What operations become: which of them run together, in how many tasks.

use std::collections::BTreeMap;

use arrow::{array::RecordBatch, datatypes::DataType};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError, fields};
use stratus_trident::{
    Combined, Count, FeederBatchSpout, MapState, MemoryMaps, StateFactory, StateKind, StateUpdater, Stream,
    Sum, TridentCollector, TridentTopology, TridentTuple,
};

use crate::{
    pairs::{SOME, Seen, pair_batch, pairs},
    support::{run, text},
    word_count::Split,
};

/// The components with how many tasks each has, without the coordinators.
fn components(topology: &TridentTopology) -> Vec<(String, usize)> {
    let plan = topology.build().unwrap();
    let all = plan.topology.components().iter();
    let bolts = all.filter(|(id, _)| !id.starts_with('$'));
    bolts.map(|(id, component)| (id.clone(), component.tasks().len())).collect()
}

/// The components that some operations become.
fn planned(operations: impl Fn(Stream)) -> Vec<(String, usize)> {
    let topology = TridentTopology::new();
    operations(topology.new_stream("pairs", FeederBatchSpout::new(pairs())));
    components(&topology)
}

fn named<const N: usize>(components: [(&str, usize); N]) -> Vec<(String, usize)> {
    components.map(|(id, tasks)| (id.to_owned(), tasks)).into_iter().collect()
}

fn odd(tuple: TridentTuple<'_>) -> Result<bool, TaskError> {
    Ok(tuple.get::<i64>(0)? % 2 == 1)
}

#[test]
fn everything_between_two_repartitionings_is_one_bolt() {
    let all = planned(|stream| {
        stream
            .filter(&["number"], odd)
            .peek(|_| ())
            .each(&["key"], Split, text("word"))
            .project(&["word", "number"])
            .top_n(3, "number")
            .partition_aggregate(&["number"], Combined(Sum), fields([("sum", DataType::Int64)]));
    });
    assert_eq!(all, named([("spout-pairs", 1)]), "behind a spout, in its own bolt");
    let counted = planned(|stream| {
        stream
            .shuffle()
            .each(&["key"], Split, text("word"))
            .filter(&["number"], odd)
            .group_by(&["word"])
            .persistent_aggregate(MemoryMaps::<i64>::new(), &[], Count, "count");
    });
    let expected =
        named([("b-1-each-filter-aggregate", 1), ("b-2-aggregate-persist", 1), ("spout-pairs", 1)]);
    assert_eq!(
        counted, expected,
        "partitions are combined where they are, and written where they are put together"
    );
}

#[test]
fn branches_of_a_stream_run_together_and_meet_behind_a_hop() {
    let split = planned(|stream| {
        let stream = stream.shuffle().project(&["key"]);
        let one = stream.filter(&[], |_: TridentTuple<'_>| Ok(true));
        let two = stream.peek(|_| ());
        one.merge(&[&two]).project(&["key"]);
    });
    let expected = named([("b-1-project-filter-peek", 1), ("b-2-merge-project", 1), ("spout-pairs", 1)]);
    assert_eq!(split, expected);
    let grouped = planned(|stream| {
        stream.group_by(&["key"]).aggregate(&[], Combined(Count), fields([("count", DataType::Int64)]));
        stream.group_by(&["number"]).aggregate(&[], Combined(Count), fields([("count", DataType::Int64)]));
    });
    let expected = named([("b-1-aggregate", 1), ("b-2-aggregate", 1), ("spout-pairs", 1)]);
    assert_eq!(grouped, expected);
}

#[test]
fn names_and_groupings_can_be_seen_in_the_drawing() {
    let topology = TridentTopology::new();
    let stream = topology.new_stream("pairs", FeederBatchSpout::new(pairs())).parallelism_hint(2);
    let _ = stream.partition_by(&["key"]).peek(|_| ()).name("look").parallelism_hint(3);
    let dot = topology.build().unwrap().topology.to_dot();
    assert!(dot.contains("\"b-1-look\" [shape=box, label=\"b-1-look\\n3\"]"), "{dot}");
    assert!(dot.contains("\"spout-pairs\" -> \"b-1-look\""), "{dot}");
}

#[test]
fn a_hint_is_for_everything_up_to_the_next_repartitioning() {
    let before = planned(|stream| {
        let _ =
            stream.parallelism_hint(2).peek(|_| ()).shuffle().peek(|_| ()).parallelism_hint(4).peek(|_| ());
    });
    assert_eq!(before, named([("b-1-peek-peek", 4), ("spout-pairs", 2)]));
    let greatest = planned(|stream| {
        let _ = stream
            .shuffle()
            .parallelism_hint(2)
            .peek(|_| ())
            .parallelism_hint(5)
            .peek(|_| ())
            .parallelism_hint(3);
    });
    assert_eq!(greatest, named([("b-1-peek-peek", 5), ("spout-pairs", 1)]));
}

#[test]
fn a_hint_directly_behind_a_repartitioning_is_for_those_who_take_the_tuples() {
    let behind = planned(|stream| {
        let shuffled = stream.shuffle().parallelism_hint(3);
        shuffled.peek(|_| ());
        shuffled.filter(&["number"], odd);
    });
    assert_eq!(behind, named([("b-1-peek", 3), ("b-2-filter", 3), ("spout-pairs", 1)]));
    // Between two repartitionings something runs, too.
    let twice = planned(|stream| {
        let first = stream.partition_by(&["key"]).parallelism_hint(2);
        first.shuffle().parallelism_hint(3).peek(|_| ());
    });
    assert_eq!(twice, named([("b-1-pass", 2), ("b-2-peek", 3), ("spout-pairs", 1)]));
    let combined = planned(|stream| {
        let _ = stream.shuffle().parallelism_hint(2).combine(&["number"], Sum, "sum").parallelism_hint(3);
    });
    assert_eq!(combined, named([("b-1-aggregate", 2), ("b-2-aggregate", 3), ("spout-pairs", 1)]));
}

/// A map whose number of partitions is fixed.
#[derive(Clone)]
struct Fixed(MemoryMaps<i64>, usize);

#[async_trait]
impl StateFactory for Fixed {
    type State = <MemoryMaps<i64> as StateFactory>::State;

    fn kind(&self) -> StateKind {
        StateKind::Opaque
    }

    fn partitions(&self) -> Option<usize> {
        Some(self.1)
    }

    async fn make(
        &self,
        context: &TaskContext,
        partition: usize,
        count: usize,
    ) -> Result<Self::State, TaskError> {
        if count != self.1 {
            return Err(format!("{count} partitions").into());
        }
        self.0.make(context, partition, count).await
    }
}

/// Writes nothing.
#[derive(Clone)]
struct Nothing;

#[async_trait]
impl<S: MapState<i64>> StateUpdater<S> for Nothing {
    async fn update_state(
        &mut self,
        _state: &mut S,
        _rows: &RecordBatch,
        _out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        Ok(())
    }
}

fn fixed(partitions: usize) -> Fixed {
    Fixed(MemoryMaps::new(), partitions)
}

#[test]
fn states_with_other_numbers_of_partitions_cannot_share_a_bolt() {
    let topology = TridentTopology::new();
    let stream = topology.new_stream("pairs", FeederBatchSpout::new(pairs())).shuffle().peek(|_| ());
    stream.partition_persist(fixed(2), &[], Nothing, fields([]));
    stream.partition_persist(fixed(3), &[], Nothing, fields([]));
    let error = topology.build().unwrap_err().to_string();
    assert!(error.starts_with("persist: its state has 3 partitions"), "{error}");
    assert_eq!(topology.build().unwrap_err().to_string(), error, "again");
    let apart = planned(|stream| {
        let stream = stream.peek(|_| ());
        let _ = stream.shuffle().partition_persist(fixed(2), &[], Nothing, fields([])).parallelism_hint(7);
        stream.shuffle().partition_persist(fixed(3), &[], Nothing, fields([]));
        let _ = stream
            .shuffle()
            .partition_persist(MemoryMaps::<i64>::new(), &[], Nothing, fields([]))
            .parallelism_hint(7);
    });
    let tasks: BTreeMap<String, usize> = apart.into_iter().collect();
    assert_eq!(Vec::from_iter(tasks.into_values()), [2, 3, 7, 1]);
}

#[test]
fn who_queries_a_state_has_as_many_tasks_as_those_who_write_it() {
    let topology = TridentTopology::new();
    let grouped = topology.new_stream("pairs", FeederBatchSpout::new(pairs())).group_by(&["key"]);
    let three = grouped.persistent_aggregate(MemoryMaps::<i64>::new(), &[], Count, "n").parallelism_hint(3);
    let two = topology.new_static_state(fixed(2));
    let asked = topology.new_stream("asked", FeederBatchSpout::new(text("word"))).group_by(&["word"]);
    let _ = asked.state_query::<i64, _>(&three, "n").parallelism_hint(5);
    let all = components(&topology);
    assert!(all.contains(&("b-3-query".to_owned(), 3)), "{all:?}");
    let both = topology.new_stream("both", FeederBatchSpout::new(text("word"))).group_by(&["word"]);
    both.state_query::<i64, _>(&three, "n").state_query(
        &two,
        &["word"],
        stratus_trident::SnapshotGet::<i64>::new("m"),
    );
    let error = topology.build().unwrap_err().to_string();
    assert!(error.starts_with("query: its state has 2 partitions"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_only_queried_is_read_by_as_many_tasks_as_are_asked_for() {
    let (spout, maps) = (FeederBatchSpout::new(pairs()), MemoryMaps::<i64>::new());
    let writing = TridentTopology::new();
    let grouped = writing.new_stream("pairs", spout.clone()).group_by(&["key"]);
    let _state = grouped.persistent_aggregate(maps.clone(), &["number"], Sum, "sum").parallelism_hint(2);
    run(&writing, spout.feed_and_wait(pair_batch(SOME))).await;

    let (asking, answers, reading) =
        (FeederBatchSpout::new(text("word")), Seen::default(), TridentTopology::new());
    let state = reading.new_static_state(maps);
    let asked = reading.new_stream("asked", asking.clone());
    answers.watch(&asked.group_by(&["word"]).state_query::<i64, _>(&state, "sum").parallelism_hint(3));
    answers.watch(
        &asked.shuffle().each(&[], one, fields([("one", DataType::Int64)])).parallelism_hint(2).state_query(
            &state,
            &[],
            stratus_trident::SnapshotGet::<i64>::new("all"),
        ),
    );
    let tasks: BTreeMap<String, usize> = components(&reading).into_iter().collect();
    assert_eq!((tasks["b-1-query-map"], tasks["b-2-each-query-map"]), (3, 2));
    let asked = crate::support::batch("word", &["a", "b", "c", "nobody"]);
    run(&reading, asking.feed_and_wait(asked)).await;
    assert_eq!(answers.take(), ["a,1,", "a,8", "b,1,", "b,10", "c,1,", "c,2", "nobody,", "nobody,1,"]);
}

fn one(_tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
    out.emit((1,))
}
