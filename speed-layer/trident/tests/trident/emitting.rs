//! What operations emit, tuple by tuple and as whole columns.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::DataType;
use stratus_topology::{TaskError, fields};
use stratus_trident::{Aggregator, TransactionAttempt, TridentCollector, TridentTuple};

use crate::{
    pairs::{SOME, of_pairs},
    support::text,
};

fn numbers(numbers: &[i64]) -> Vec<arrow::array::ArrayRef> {
    vec![Arc::new(Int64Array::from(numbers.to_vec()))]
}

/// Emits whole columns before, between and behind tuples.
fn mixed(tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
    let number: i64 = tuple.get(0)?;
    out.emit_rows(numbers(&[number, number * 10]))?;
    out.emit((number * 100,))?;
    out.emit((number * 200,))?;
    out.emit_rows(numbers(&[]))?;
    out.emit_rows(numbers(&[number * 1000]))?;
    out.emit((number * 2000,))
}

#[tokio::test]
async fn whole_columns_come_behind_the_tuple_that_they_were_emitted_for() {
    let whole = |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
        let number: i64 = tuple.get(0)?;
        out.emit_rows(numbers(&[number, -number]))
    };
    let schema = || fields([("made", DataType::Int64)]);
    let one = of_pairs(&[&SOME[..1]], |stream| stream.each(&["number"], whole, schema())).await;
    assert_eq!(one, ["a,3,-3", "a,3,3"], "of a fragment of one row, too");
    let three = of_pairs(&[&SOME[..3]], |stream| stream.each(&["number"], whole, schema())).await;
    assert_eq!(three, ["a,3,-3", "a,3,3", "a,5,-5", "a,5,5", "b,1,-1", "b,1,1"]);
}

#[tokio::test]
async fn tuples_and_whole_columns_are_emitted_in_any_order() {
    let schema = || fields([("made", DataType::Int64)]);
    let each = |stream: stratus_trident::Stream| stream.each(&["number"], mixed, schema());
    let expected = |key: &str, number: i64| {
        [1, 10, 100, 200, 1000, 2000].map(|factor| format!("{key},{number},{}", number * factor))
    };
    let mut both = [expected("a", 3), expected("b", 1)].concat();
    both.sort();
    assert_eq!(of_pairs(&[&SOME[..2]], each).await, both);
    let map = |stream: stratus_trident::Stream| stream.project(&["number"]).map(mixed, schema());
    assert_eq!(of_pairs(&[&SOME[1..2]], map).await, ["1", "10", "100", "1000", "200", "2000"]);
}

#[tokio::test]
async fn what_does_not_fit_the_declared_fields_is_an_error_of_the_operation() {
    let words = |_: TridentTuple<'_>, out: &mut TridentCollector| {
        assert!(out.emit_rows(vec![Arc::new(StringArray::from(vec!["one"]))]).is_err());
        assert!(out.emit(("one",)).is_err());
        out.emit((1,))
    };
    let each = |stream: stratus_trident::Stream| stream.each(&[], words, fields([("made", DataType::Int64)]));
    assert_eq!(of_pairs(&[&SOME[..1]], each).await, ["a,3,1"]);
}

/// Emits each key as it comes, and all of them in the end.
#[derive(Clone)]
struct Echo;

impl Aggregator for Echo {
    type State = Vec<String>;

    fn init(&mut self, _batch: TransactionAttempt) -> Vec<String> {
        Vec::new()
    }

    fn aggregate(
        &mut self,
        state: &mut Vec<String>,
        tuple: TridentTuple<'_>,
        out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        state.push(tuple.get(0)?);
        out.emit((tuple.get::<&str>(0)?,))
    }

    fn complete(&mut self, state: Vec<String>, out: &mut TridentCollector) -> Result<(), TaskError> {
        out.emit_rows(vec![Arc::new(StringArray::from(vec![state.join("+")]))])
    }
}

#[tokio::test]
async fn an_aggregation_emits_at_any_time() {
    let echoed = |stream: stratus_trident::Stream| stream.aggregate(&["key"], Echo, text("echo"));
    assert_eq!(of_pairs(&[&SOME[..3]], echoed).await, ["a", "a", "a+b+a", "b"]);
    assert_eq!(of_pairs(&[&[]], echoed).await, [""], "a batch of nothing is aggregated once");
    let grouped = |stream: stratus_trident::Stream| {
        stream.group_by(&["key"]).aggregate(&["key"], Echo, text("echo")).parallelism_hint(3)
    };
    assert_eq!(of_pairs(&[&SOME[..3]], grouped).await, ["a,a", "a,a", "a,a+a", "b,b", "b,b"]);
    assert_eq!(of_pairs(&[&[]], grouped).await, Vec::<String>::new());
}
