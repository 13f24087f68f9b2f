//! What cannot run is refused when the topology is built, with the field and what is wrong with it.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UnionFields, UnionMode};
use stratus_topology::fields;
use stratus_trident::{
    Combined, Count, DrpcServer, FeederBatchSpout, JoinKind, Max, MemoryMaps, Min, MultiReducer,
    ReducerAggregator, SnapshotGet, Stream, Sum, TridentError, TridentTopology, TridentTuple,
};

use crate::{pairs::pairs, support::text, word_count::Split};

/// Why operations on a stream of these fields cannot be built.
fn refused(schema: SchemaRef, operations: impl Fn(&TridentTopology, &Stream)) -> TridentError {
    let topology = TridentTopology::new();
    operations(&topology, &topology.new_stream("pairs", FeederBatchSpout::new(schema)));
    let error = topology.build().unwrap_err();
    // What is wrong stays wrong.
    assert_eq!(topology.build().unwrap_err().to_string(), error.to_string());
    error
}

/// Storm's testStreamProjectionValidation.
#[test]
fn an_unknown_field_is_named_by_every_operation() {
    type Operation = fn(&TridentTopology, &Stream);
    let operations: Vec<(&str, Operation)> = vec![
        ("each", |_, stream| drop(stream.each(&["color"], Split, text("word")))),
        ("filter", |_, stream| drop(stream.filter(&["color"], |_: TridentTuple<'_>| Ok(true)))),
        ("project", |_, stream| drop(stream.project(&["key", "color"]))),
        ("partition_by", |_, stream| drop(stream.partition_by(&["color"]))),
        ("group_by", |_, stream| drop(stream.group_by(&["color"]))),
        ("aggregate", |_, stream| {
            drop(stream.partition_aggregate(&["color"], Combined(Count), fields([("n", DataType::Int64)])));
        }),
        ("aggregate", |_, stream| {
            drop(stream.aggregate(&["color"], Combined(Count), fields([("n", DataType::Int64)])));
        }),
        ("aggregate", |_, stream| drop(stream.combine(&["color"], Count, "n"))),
        ("aggregate", |_, stream| drop(stream.group_by(&["key"]).combine(&["color"], Count, "n"))),
        ("aggregate", |_, stream| {
            let grouped = stream.group_by(&["key"]);
            drop(grouped.persistent_aggregate(MemoryMaps::<i64>::new(), &["color"], Count, "n"));
        }),
        ("aggregate", |_, stream| {
            drop(stream.persistent_aggregate(MemoryMaps::<i64>::new(), &["color"], Count, "n"));
        }),
        ("reduce", |_, stream| {
            drop(stream.persistent_reduce(MemoryMaps::<i64>::new(), &["color"], First, "first"));
        }),
        ("state_query", |topology, stream| {
            let state = topology.new_static_state(MemoryMaps::<i64>::new());
            drop(stream.state_query(&state, &["color"], SnapshotGet::<i64>::new("n")));
        }),
        ("best", |_, stream| drop(stream.top_n(1, "color"))),
        ("join", |_, stream| drop(stream.join(&["key"], stream, &["color"], JoinKind::Inner))),
    ];
    for (name, operation) in operations {
        let error = refused(pairs(), operation).to_string();
        assert_eq!(error, format!("{name} asks for field `color`, but its stream has key, number"));
    }
    let none = refused(fields([]), |_, stream| drop(stream.project(&["color"]))).to_string();
    assert_eq!(none, "project asks for field `color`, but its stream has ");
}

/// The first number.
#[derive(Clone)]
struct First;

impl ReducerAggregator for First {
    type Value = i64;

    fn accepts(&self, input: &Schema) -> Result<(), String> {
        match input.field(0).data_type() {
            DataType::Int64 => Ok(()),
            other => Err(format!("field `{}` is of type {other}", input.field(0).name())),
        }
    }

    fn init(&self) -> i64 {
        0
    }

    fn reduce(&self, _current: i64, tuple: TridentTuple<'_>) -> Result<i64, stratus_topology::TaskError> {
        tuple.get(0)
    }
}

#[test]
fn fields_that_cannot_be_aggregated_are_named_with_their_types() {
    let of_text = |operation: fn(&TridentTopology, &Stream)| refused(pairs(), operation).to_string();
    assert_eq!(
        of_text(|_, stream| drop(stream.combine(&["key"], Sum, "sum"))),
        "aggregate: field `key` is of type Utf8, and Sum::<i64> works on whole numbers"
    );
    assert_eq!(
        of_text(|_, stream| drop(stream.combine(&["number"], Sum::<f64>::new(), "sum"))),
        "aggregate: field `number` is of type Int64, and Sum::<f64> works on floats; `Sum::<i64>::new()` works on \
         whole numbers"
    );
    assert_eq!(
        of_text(|_, stream| drop(stream.group_by(&["key"]).combine(&["key"], Max, "max"))),
        "aggregate: field `key` is of type Utf8, and Max::<i64> works on whole numbers"
    );
    assert_eq!(
        of_text(|_, stream| drop(stream.combine(&[], Min, "min"))),
        "aggregate: Min needs the field that it works on"
    );
    let reduced = of_text(|_, stream| {
        drop(stream.persistent_reduce(MemoryMaps::<i64>::new(), &["key"], First, "first"));
    });
    assert_eq!(reduced, "reduce: field `key` is of type Utf8");
    let grouped = of_text(|_, stream| {
        let grouped = stream.group_by(&["key"]);
        drop(grouped.persistent_reduce(MemoryMaps::<i64>::new(), &["key"], First, "first"));
    });
    assert_eq!(grouped, "reduce: field `key` is of type Utf8");
    let floats = fields([("price", DataType::Float64)]);
    assert_eq!(
        refused(floats, |_, stream| drop(stream.combine(&["price"], Sum, "sum"))).to_string(),
        "aggregate: field `price` is of type Float64, and Sum::<i64> works on whole numbers; `Sum::<f64>::new()` works \
         on floats"
    );
    // Times are compared and not added.
    let times = || fields([("day", DataType::Date32)]);
    refused(times(), |_, stream| drop(stream.combine(&["day"], Sum, "sum")));
    let topology = TridentTopology::new();
    let stream = topology.new_stream("times", FeederBatchSpout::new(times()));
    stream.combine(&["day"], Max, "latest");
    topology.build().unwrap();
}

#[test]
fn keys_that_cannot_be_written_are_named_with_their_types() {
    let large = || fields([("key", DataType::LargeUtf8), ("number", DataType::Int64)]);
    let why = "field `key` is of type LargeUtf8: values of type LargeUtf8 cannot be kept as a key or state";
    let kept = |operation: fn(&TridentTopology, &Stream)| refused(large(), operation).to_string();
    let aggregated = kept(|_, stream| {
        drop(stream.group_by(&["key"]).persistent_aggregate(MemoryMaps::<i64>::new(), &[], Count, "n"));
    });
    assert_eq!(aggregated, format!("group_by: {why}"));
    let reduced = kept(|_, stream| {
        let grouped = stream.group_by(&["key"]);
        drop(grouped.persistent_reduce(MemoryMaps::<i64>::new(), &["number"], First, "first"));
    });
    assert_eq!(reduced, format!("group_by: {why}"));
    let queried = kept(|topology, stream| {
        let state = topology.new_static_state(MemoryMaps::<i64>::new());
        drop(stream.group_by(&["key"]).state_query::<i64, _>(&state, "n"));
    });
    assert_eq!(queried, format!("group_by: {why}"));
    let answered = kept(|_, stream| stream.returns("f", &DrpcServer::default()));
    assert_eq!(answered, format!("returns: {why}"));
    // Within a batch they can be told apart.
    let topology = TridentTopology::new();
    let stream = topology.new_stream("pairs", FeederBatchSpout::new(large()));
    stream.group_by(&["key"]).combine(&["number"], Sum, "sum");
    topology.build().unwrap();
    let either = UnionFields::try_new([0], [Field::new("number", DataType::Int64, true)]).unwrap();
    let either = || fields([("either", DataType::Union(either.clone(), UnionMode::Sparse))]);
    for (operation, name) in [
        ((|_, stream| drop(stream.group_by(&["either"]))) as fn(&TridentTopology, &Stream), "group_by"),
        (|_, stream| drop(stream.partition_by(&["either"])), "partition_by"),
        (|_, stream| drop(stream.join(&["either"], stream, &["either"], JoinKind::Inner)), "join"),
    ] {
        let error = refused(either(), operation).to_string();
        assert!(error.starts_with(&format!("{name}: field `either` is of type Union")), "{error}");
    }
}

/// Nothing of anything.
#[derive(Clone)]
struct Nothing;

impl MultiReducer for Nothing {
    fn reduce(
        &mut self,
        inputs: &[arrow::array::RecordBatch],
    ) -> Result<arrow::array::RecordBatch, stratus_topology::TaskError> {
        Ok(inputs[0].clone())
    }
}

#[test]
fn streams_and_states_of_two_topologies_are_not_put_together() {
    let elsewhere = TridentTopology::new();
    // More operations than the other topology has.
    let other = elsewhere.new_stream("others", FeederBatchSpout::new(pairs())).peek(|_| ()).peek(|_| ());
    let state = other.group_by(&["key"]).persistent_aggregate(MemoryMaps::<i64>::new(), &[], Count, "n");
    let together = |operation: &dyn Fn(&Stream)| refused(pairs(), |_, stream| operation(stream)).to_string();
    let why = "the streams are of different topologies";
    assert_eq!(together(&|stream| drop(stream.merge(&[&other]))), format!("merge: {why}"));
    assert_eq!(
        together(&|stream| drop(stream.multi_reduce(&[&other], Nothing, pairs()))),
        format!("multi_reduce: {why}")
    );
    let joined = |stream: &Stream| {
        let other = other.each(&["key"], Split, text("word")).project(&["key", "word"]);
        drop(stream.join(&["key"], &other, &["key"], JoinKind::Inner));
    };
    assert_eq!(together(&joined), format!("join: {why}"));
    let asked = |stream: &Stream| drop(stream.group_by(&["key"]).state_query::<i64, _>(&state, "n"));
    assert_eq!(together(&asked), "state_query: the state is of another topology");
    elsewhere.build().unwrap();
}
