//! What aggregations come to.

use std::sync::Arc;

use arrow::{
    array::{Float64Array, Int64Array, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use stratus_topology::{TaskError, fields};
use stratus_trident::{
    ChainedAggregator, Combined, CombinerAggregator, Count, FeederBatchSpout, JoinKind, Max, MemoryMaps, Min,
    MultiReducer, ReducerAggregator, Stream, Sum, TridentTopology, TridentTuple,
};

use crate::{
    pairs::{SOME, Seen, of_batches, of_pairs, pair_batch, pairs},
    support::run,
};

/// The product of the numbers.
#[derive(Clone)]
struct Product;

impl ReducerAggregator for Product {
    type Value = i64;

    fn init(&self) -> i64 {
        1
    }

    fn reduce(&self, current: i64, tuple: TridentTuple<'_>) -> Result<i64, TaskError> {
        Ok(current * tuple.get::<i64>(0)?)
    }
}

#[tokio::test]
async fn a_batch_is_reduced_to_one_value() {
    let reduced = |stream: Stream| {
        stream.parallelism_hint(2).shuffle().reduce(&["number"], Product, "product").parallelism_hint(3)
    };
    assert_eq!(of_pairs(&[SOME, &SOME[..2], &[]], reduced).await, ["1", "270", "3"]);
    let grouped = |stream: Stream| {
        stream.group_by(&["key"]).reduce(&["number"], Product, "product").parallelism_hint(3)
    };
    assert_eq!(of_pairs(&[SOME, &[]], grouped).await, ["a,15", "b,9", "c,2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_reduced_over_all_batches() {
    let (spout, maps, seen) = (FeederBatchSpout::new(pairs()), MemoryMaps::<i64>::new(), Seen::default());
    let topology = TridentTopology::new();
    let state = topology
        .new_stream("pairs", spout.clone())
        .parallelism_hint(2)
        .group_by(&["key"])
        .persistent_reduce(maps.clone(), &["number"], Product, "product")
        .parallelism_hint(3);
    seen.watch(&state.new_values_stream().unwrap());
    let test = async {
        spout.feed_and_wait(pair_batch(SOME)).await;
        assert_eq!(seen.take(), ["a,15", "b,9", "c,2"]);
        spout.feed_and_wait(pair_batch(&[])).await;
        spout.feed_and_wait(pair_batch(&SOME[2..4])).await;
        assert_eq!(seen.take(), ["a,75", "c,4"]);
    };
    run(&topology, test).await;
    assert_eq!(Vec::from_iter(maps.values().into_values()), [75, 9, 4]);
}

#[tokio::test]
async fn partitions_are_aggregated_by_themselves() {
    let summed = |stream: Stream| {
        let sum = fields([("sum", DataType::Int64)]);
        stream.parallelism_hint(2).partition_aggregate(&["number"], Combined(Sum), sum)
    };
    // The spout's tasks emit two and three of five tuples.
    assert_eq!(of_pairs(&[SOME], summed).await, ["16", "4"]);
    assert_eq!(of_pairs(&[&[]], summed).await, ["0", "0"], "each partition of a batch of nothing");
    let whole = |stream: Stream| {
        summed(stream).aggregate(&["sum"], Combined(Sum), fields([("all", DataType::Int64)]))
    };
    assert_eq!(of_pairs(&[SOME, &[]], whole).await, ["0", "20"]);
    let best = |stream: Stream| stream.parallelism_hint(2).top_n(1, "number");
    assert_eq!(of_pairs(&[SOME], best).await, ["a,3", "b,9"]);
}

#[tokio::test]
async fn the_least_and_the_greatest_are_found_over_partitions() {
    let least = |stream: Stream| stream.parallelism_hint(2).combine(&["number"], Min, "least");
    assert_eq!(of_pairs(&[SOME, &SOME[..1], &[]], least).await, ["", "1", "3"]);
    let greatest = |stream: Stream| stream.parallelism_hint(2).combine(&["number"], Max, "greatest");
    assert_eq!(of_pairs(&[SOME, &SOME[..1], &[]], greatest).await, ["", "3", "9"]);
    let grouped = |stream: Stream| {
        stream.parallelism_hint(2).group_by(&["key"]).combine(&["number"], Min, "least").parallelism_hint(2)
    };
    assert_eq!(of_pairs(&[SOME], grouped).await, ["a,3", "b,1", "c,2"]);
}

fn measures() -> SchemaRef {
    fields([("measure", DataType::Float64), ("number", DataType::Int64)])
}

fn measured(measures_given: &[Option<f64>]) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(0..measures_given.len() as i64);
    let floats = Float64Array::from(measures_given.to_vec());
    RecordBatch::try_new(measures(), vec![Arc::new(floats), Arc::new(numbers)]).unwrap()
}

#[tokio::test]
async fn floats_are_summed_and_compared() {
    let batch = measured(&[Some(0.5), None, Some(-2.25), Some(4.0)]);
    let chained = |stream: Stream| {
        let float = |name| fields([(name, DataType::Float64)]);
        let chain = ChainedAggregator::new()
            .aggregate(&["measure"], Combined(Sum::<f64>::new()), float("sum"))
            .aggregate(&["measure"], Combined(Min::<f64>::new()), float("least"))
            .aggregate(&["measure"], Combined(Max::<f64>::new()), float("greatest"));
        stream.chained_aggregate(chain)
    };
    assert_eq!(of_batches(&[batch], chained).await, ["2.25,-2.25,4.0"]);
    let combined = |stream: Stream| {
        stream.parallelism_hint(2).combine(&["measure"], Sum::<f64>::new(), "sum").parallelism_hint(2)
    };
    let batches = [measured(&[Some(0.5), Some(0.25), Some(1.0)]), measured(&[])];
    assert_eq!(of_batches(&batches, combined).await, ["0.0", "1.75"]);
}

#[test]
fn numbers_have_one_order_and_one_limit() {
    let (min, max) = (Min::<f64>::new(), Max::<f64>::new());
    for (one, other) in [(f64::NAN, 1.0), (1.0, f64::NAN), (1.0, f64::INFINITY), (f64::INFINITY, 1.0)] {
        assert_eq!(min.combine(Some(one), Some(other)).unwrap(), Some(1.0));
        assert_ne!(max.combine(Some(one), Some(other)).unwrap(), Some(1.0));
    }
    assert_eq!(min.combine(None, Some(1.0)).unwrap(), Some(1.0));
    assert_eq!(max.combine(Some(1.0), None).unwrap(), Some(1.0));
    assert_eq!(Sum.combine(i64::MAX, -1).unwrap(), i64::MAX - 1);
    let error = Sum.combine(i64::MAX, 1).unwrap_err().to_string();
    assert_eq!(error, "the sum of 9223372036854775807 and 1 does not fit into i64");
}

/// Another NaN than the usual one.
const OTHER_NAN: f64 = f64::from_bits(0xFFF8_0000_0000_0001);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floats_that_are_equal_as_keys_are_one_group() {
    let batch = || measured(&[Some(f64::NAN), Some(OTHER_NAN), Some(0.0), Some(-0.0), None, Some(1.5)]);
    let grouped =
        |stream: Stream| stream.group_by(&["measure"]).combine(&[], Count, "count").parallelism_hint(2);
    assert_eq!(of_batches(&[batch()], grouped).await, [",1", "0.0,2", "1.5,1", "NaN,2"]);
    let keys = ["[\"NaN\"]", "[0.0]", "[1.5]", "[null]"].map(str::to_owned);
    for reduced in [false, true] {
        let (spout, maps) = (FeederBatchSpout::new(measures()), MemoryMaps::<i64>::new());
        let topology = TridentTopology::new();
        // The greater number comes second in its group.
        let groups = topology.new_stream("measures", spout.clone()).group_by(&["measure"]);
        let state = if reduced {
            groups.persistent_reduce(maps.clone(), &["number"], Counting, "count")
        } else {
            groups.persistent_aggregate(maps.clone(), &["number"], Count, "count")
        };
        let _state = state.parallelism_hint(2);
        let test = async {
            spout.feed_and_wait(batch()).await;
            spout.feed_and_wait(batch()).await;
        };
        run(&topology, test).await;
        let counts = maps.values();
        assert_eq!(Vec::from_iter(counts.keys().cloned()), keys, "reduced: {reduced}");
        assert_eq!(Vec::from_iter(counts.into_values()), [4, 4, 2, 2], "reduced: {reduced}");
    }
}

/// How many there are, one by one.
#[derive(Clone)]
struct Counting;

impl ReducerAggregator for Counting {
    type Value = i64;

    fn init(&self) -> i64 {
        0
    }

    fn reduce(&self, current: i64, _tuple: TridentTuple<'_>) -> Result<i64, TaskError> {
        Ok(current + 1)
    }
}

#[tokio::test]
async fn floats_that_are_equal_as_keys_are_joined() {
    let joined = |stream: Stream| {
        let even = stream.filter(&["number"], |tuple: TridentTuple<'_>| Ok(tuple.get::<i64>(0)? % 2 == 0));
        let odd = stream.filter(&["number"], |tuple: TridentTuple<'_>| Ok(tuple.get::<i64>(0)? % 2 == 1));
        let odd = odd.each(
            &["number"],
            |tuple: TridentTuple<'_>, out: &mut stratus_trident::TridentCollector| {
                out.emit((tuple.get::<i64>(0)?,))
            },
            fields([("other", DataType::Int64)]),
        );
        let odd = odd.project(&["measure", "other"]);
        even.join(&["measure"], &odd, &["measure"], JoinKind::Inner).parallelism_hint(2)
    };
    let batch = measured(&[Some(f64::NAN), Some(OTHER_NAN), Some(0.0), Some(-0.0), None, None]);
    assert_eq!(of_batches(&[batch], joined).await, ["0.0,2,3", "NaN,0,1"]);
}

/// How many rows each stream has.
#[derive(Clone)]
struct Lengths;

impl MultiReducer for Lengths {
    fn reduce(&mut self, inputs: &[RecordBatch]) -> Result<RecordBatch, TaskError> {
        let length = |at: usize| Arc::new(Int64Array::from(vec![inputs[at].num_rows() as i64]));
        Ok(RecordBatch::try_new(lengths(), vec![length(0), length(1)])?)
    }
}

fn lengths() -> SchemaRef {
    fields([("left", DataType::Int64), ("right", DataType::Int64)])
}

#[tokio::test]
async fn a_reducer_of_several_streams_sees_each_partition_of_each() {
    let large =
        |stream: &Stream| stream.filter(&["number"], |tuple: TridentTuple<'_>| Ok(tuple.get::<i64>(0)? > 2));
    let one = |stream: Stream| stream.global().multi_reduce(&[&large(&stream).global()], Lengths, lengths());
    assert_eq!(of_pairs(&[SOME, &[]], one).await, ["0,0", "5,3"]);
    let two = |stream: Stream| {
        let (left, right) = (stream.broadcast(), large(&stream).broadcast());
        left.multi_reduce(&[&right], Lengths, lengths()).parallelism_hint(2)
    };
    assert_eq!(of_pairs(&[SOME], two).await, ["5,3", "5,3"]);
}
