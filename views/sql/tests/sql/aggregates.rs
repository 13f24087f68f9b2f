//! For every admitted aggregate: states, through a file, merged, equal the aggregate over everything.

use datafusion::arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use proptest::prelude::*;
use stratus_sql::{Class, Descriptor, MergeStates, View, session};

use crate::events::*;

const EXACT: &[&str] = &[
    "count(*)",
    "count(i)",
    "count(*) FILTER (WHERE i > 0)",
    "count(1)",
    "sum(s)",
    "sum(i)",
    "sum(l)",
    "sum(n)",
    "sum(i) FILTER (WHERE b)",
    "avg(s)",
    "avg(i)",
    "avg(l)",
    "avg(n)",
    "min(b)",
    "max(b)",
    "min(s)",
    "max(i)",
    "min(l)",
    "max(r)",
    "min(r)",
    "min(d)",
    "max(d)",
    "min(n)",
    "max(n)",
    "min(t)",
    "max(t)",
    "min(y)",
    "max(y)",
    "min(dt)",
    "max(dt)",
    "min(ts)",
    "max(tz)",
    "bool_and(b)",
    "bool_or(b)",
    "bit_and(s)",
    "bit_or(i)",
    "bit_xor(l)",
    "approx_distinct(b)",
    "approx_distinct(s)",
    "approx_distinct(i)",
    "approx_distinct(l)",
    "approx_distinct(n)",
    "approx_distinct(t)",
    "approx_distinct(y)",
    "approx_distinct(dt)",
    "approx_distinct(ts)",
    "approx_distinct(tz)",
    "approx_distinct(t) FILTER (WHERE i > 30000)",
    "approx_distinct(substr(t, 2))",
];

const BOUNDED: &[&str] = &[
    "sum(d) FILTER (WHERE d < 1e9)",
    "avg(d) FILTER (WHERE d < 1e9)",
    "avg(r) FILTER (WHERE r < 1e9)",
    "stddev(i)",
    "stddev_pop(i)",
    "stddev_samp(i)",
    "var(i)",
    "var_pop(s)",
    "var_samp(s)",
    "covar_samp(s, i)",
    "covar_pop(s, i)",
    "corr(s, i)",
];

/// Percentiles, compared by rank.
const PERCENTILES: &[&str] = &[
    "approx_percentile_cont(i, 0.5)",
    "approx_percentile_cont(i, 0.9, 200)",
    "approx_percentile_cont(0.25) WITHIN GROUP (ORDER BY i)",
    "approx_percentile_cont(0.25) WITHIN GROUP (ORDER BY i DESC)",
];

fn query(aggregate: &str, grouped: bool) -> String {
    if grouped {
        format!("SELECT k, {aggregate} AS a FROM events GROUP BY k")
    } else {
        format!("SELECT {aggregate} AS a FROM events")
    }
}

/// States as they come back from a plain Parquet file, read by a session that loves view types.
async fn through_a_file(view: &View, states: &[RecordBatch]) -> Vec<RecordBatch> {
    let schema = view.descriptor().state_schema();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states.parquet");
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), schema, None).unwrap();
    for batch in states {
        writer.write(&view.descriptor().conform(batch).unwrap()).unwrap();
    }
    writer.close().unwrap();
    let context = SessionContext::new();
    let frame = context.read_parquet(path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    // The descriptor too has been away.
    let json = serde_json::to_string(view.descriptor()).unwrap();
    let descriptor: Descriptor = serde_json::from_str(&json).unwrap();
    assert_eq!(&descriptor, view.descriptor());
    let read = frame.collect().await.unwrap();
    read.iter().map(|batch| descriptor.conform(batch).unwrap()).collect()
}

fn class_of(view: &View) -> Class {
    view.aggregates()[0].class
}

fn close(left: &ScalarValue, right: &ScalarValue, tolerance: f64) -> bool {
    match (left, right) {
        (ScalarValue::Float64(Some(left)), ScalarValue::Float64(Some(right))) => {
            (left.is_nan() && right.is_nan())
                || (left - right).abs() <= tolerance * left.abs().max(right.abs()).max(1.0)
        }
        _ => left == right,
    }
}

async fn answers(
    aggregate: &str,
    grouped: bool,
    places: &[usize],
    reverse: bool,
) -> (View, Vec<RecordBatch>, Vec<RecordBatch>) {
    let sql = query(aggregate, grouped);
    let view = compile(&sql).await;
    let everything = awkward(1, 3000).await;
    let mut parts = cut(&everything, places);
    if reverse {
        parts.reverse();
    }
    let mut merge = MergeStates::new(&view).await.unwrap();
    let mut files = Vec::new();
    let mut shard = Vec::new();
    for (i, part) in parts.into_iter().enumerate() {
        let (states, failed) = states(&view, vec![part]).await;
        assert_eq!(failed, 0, "{aggregate}");
        if i % 2 == 0 {
            files.push(through_a_file(&view, &states).await);
        } else {
            shard.extend(states);
            shard = merge.run(shard).await.unwrap();
        }
    }
    files.push(shard);
    let split = merged(&view, files).await;
    let whole = plain(&view, &sql, vec![everything]).await;
    (view, split, whole)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// DataFusion's own answers differ from ours where it is wrong, by design: those are compared with a recompute.
fn ours(aggregate: &str) -> bool {
    ["min(r)", "max(r)", "min(d)", "max(d)", "sum(l)", "avg(l)"].contains(&aggregate)
}

#[test]
fn exact_aggregates_agree_bit_for_bit() {
    runtime().block_on(async {
        for aggregate in EXACT {
            for grouped in [true, false] {
                let (view, split, whole) =
                    answers(aggregate, grouped, &[100, 101, 101, 1500, 2999], grouped).await;
                assert_eq!(class_of(&view), Class::Exact, "{aggregate}");
                let recomputed = recomputed(&view, vec![awkward(1, 3000).await]).await;
                assert_eq!(rows(&split), rows(&recomputed), "{aggregate}, grouped: {grouped}");
                if !ours(aggregate) {
                    assert_eq!(rows(&split), rows(&whole), "{aggregate}, grouped: {grouped}");
                }
            }
        }
    });
}

#[test]
fn bounded_aggregates_agree_within_their_bound() {
    runtime().block_on(async {
        for aggregate in BOUNDED {
            for grouped in [true, false] {
                let (view, split, whole) = answers(aggregate, grouped, &[7, 900, 901, 2500], !grouped).await;
                assert_eq!(class_of(&view), Class::Bounded, "{aggregate}");
                let (split, whole) = (rows(&split), rows(&whole));
                assert_eq!(split.len(), whole.len(), "{aggregate}");
                for (left, right) in split.iter().zip(&whole) {
                    assert!(
                        left.iter().zip(right).all(|(l, r)| close(l, r, 1e-9)),
                        "{aggregate}: {left:?} {right:?}"
                    );
                }
            }
        }
    });
}

#[test]
fn percentiles_agree_within_a_hundredth_of_rank() {
    runtime().block_on(async {
        let values: Vec<f64> = {
            let batch = awkward(1, 3000).await;
            let mut values: Vec<f64> = rows(&[batch.project(&[3]).unwrap()])
                .iter()
                .filter_map(|row| match row[0] {
                    ScalarValue::Int32(Some(value)) => Some(f64::from(value)),
                    _ => None,
                })
                .collect();
            values.sort_by(f64::total_cmp);
            values
        };
        for (aggregate, rank) in PERCENTILES.iter().zip([0.5, 0.9, 0.25, 0.75]) {
            let (view, split, whole) = answers(aggregate, false, &[7, 900, 901, 2500], true).await;
            assert_eq!(class_of(&view), Class::Bounded);
            for answer in [split, whole] {
                let ScalarValue::Float64(Some(value)) = rows(&answer)[0][0] else { panic!("{answer:?}") };
                let below =
                    values.iter().filter(|other| **other < value).count() as f64 / values.len() as f64;
                assert!((below - rank).abs() < 0.01, "{aggregate}: {value} has rank {below}");
            }
        }
    });
}

#[test]
fn percentiles_bear_nan_and_nothing() {
    runtime().block_on(async {
        let view = compile("SELECT k, approx_percentile_cont(d, 0.5) AS p FROM events GROUP BY k").await;
        let everything = awkward(1, 500).await;
        let parts = cut(&everything, &[100, 200]);
        let mut files = Vec::new();
        for part in parts {
            let (states, _) = states(&view, vec![part]).await;
            files.push(through_a_file(&view, &states).await);
        }
        assert_eq!(merged(&view, files).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 6);
        let view = compile("SELECT approx_percentile_cont(d, 0.5) AS p FROM events").await;
        assert_eq!(text(&recomputed(&view, vec![]).await), ["NULL"]);
    });
}

#[test]
fn nothing_is_one_row_without_group_by_and_none_with() {
    runtime().block_on(async {
        for aggregate in EXACT.iter().chain(BOUNDED) {
            let sql = query(aggregate, false);
            let view = compile(&sql).await;
            let expected = rows(&plain(&view, &sql, vec![]).await);
            assert_eq!(expected.len(), 1);
            assert_eq!(rows(&merged(&view, vec![vec![]]).await), expected, "{aggregate} over no states");
            let answer = rows(&recomputed(&view, vec![]).await);
            assert_eq!(answer, expected, "{aggregate} over no events");
            let grouped = compile(&query(aggregate, true)).await;
            assert!(rows(&recomputed(&grouped, vec![]).await).is_empty());
        }
    });
}

#[test]
fn sketches_merge_sparse_with_dense() {
    runtime().block_on(async {
        for column in ["t", "l", "y", "tz"] {
            let sql = format!("SELECT count(*) AS c, approx_distinct({column}) AS a FROM events");
            let view = compile(&sql).await;
            let few = awkward(1, 100).await;
            let many = awkward(101, 2500).await;
            let mut plan = stratus_sql::MicroBatchPlan::new(&view, &dimensions().await).await.unwrap();
            let (sparse, _) = plan.run(vec![few.clone()]).await.unwrap();
            let (dense, _) = states(&view, vec![many.clone()]).await;
            let split = merged(&view, vec![sparse, dense]).await;
            let whole = plain(&view, &sql, vec![few, many]).await;
            assert_eq!(rows(&split), rows(&whole), "{column}");
        }
    });
}

#[test]
fn states_that_come_back_as_views_count_no_user_twice() {
    runtime().block_on(async {
        let sql = "SELECT approx_distinct(t) AS a FROM events";
        let view = compile(sql).await;
        let events = events("select 'user-' || (value % 500) as t from generate_series(1, 2000)", 0).await;
        let (first, _) = states(&view, vec![events.clone()]).await;
        let (second, _) = states(&view, vec![events]).await;
        let split = merged(&view, vec![through_a_file(&view, &first).await, second]).await;
        let ScalarValue::Int64(Some(users)) = rows(&split)[0][0] else { panic!("{split:?}") };
        assert!((490..510).contains(&users), "{users}");
    });
}

#[test]
fn an_incremental_run_is_a_full_one() {
    runtime().block_on(async {
        let view = compile("SELECT k, count(*) AS c, sum(l) AS s, approx_distinct(t) AS a, avg(i) AS m FROM events GROUP BY k").await;
        let (old, new) = (awkward(1, 1000).await, awkward(1001, 2000).await);
        let (parent, _) = states(&view, vec![old.clone()]).await;
        let plan = view.states_plan(table(vec![new.clone()]), &dimensions().await).unwrap();
        let both = union(scan(view.descriptor().state_schema(), "parent", parent), plan.plan);
        let states = run(&session::session_context(), view.merge_states_plan(both).unwrap()).await;
        let keys: usize = states.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(keys, 6);
        assert_eq!(rows(&merged(&view, vec![states]).await), rows(&recomputed(&view, vec![old, new]).await));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_split_in_any_order_is_the_whole(places in proptest::collection::vec(0usize..3000, 0..6), reverse: bool, pick in 0..EXACT.len()) {
        runtime().block_on(async {
            let aggregate = EXACT[pick];
            let (view, split, _) = answers(aggregate, true, &places, reverse).await;
            let recomputed = recomputed(&view, vec![awkward(1, 3000).await]).await;
            assert_eq!(rows(&split), rows(&recomputed), "{aggregate}");
        });
    }
}

/// The trap of two encodings: the same 500 users, hashed as `Utf8View` and as `Utf8`, must stay 500.
#[test]
fn a_provider_of_view_types_counts_no_user_twice() {
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::datasource::MemTable;
    use std::sync::Arc;

    runtime().block_on(async {
        let sql = "SELECT k, approx_distinct(t) AS a, approx_distinct(y) AS b, max(t) AS m FROM events GROUP BY k";
        let view = compile(sql).await;
        let events = events(
            "select 'k' as k, 'user-' || (value % 500) as t, arrow_cast('user-' || (value % 500), 'Binary') as y
             from generate_series(1, 2000)",
            0,
        )
        .await;
        let fields: Vec<Field> = events
            .schema()
            .fields()
            .iter()
            .map(|field| {
                let data_type = match field.data_type() {
                    DataType::Utf8 => DataType::Utf8View,
                    DataType::Binary => DataType::BinaryView,
                    other => other.clone(),
                };
                field.as_ref().clone().with_data_type(data_type)
            })
            .collect();
        let views = stratus_sql::canonical::conform(&events, &Arc::new(Schema::new(fields))).unwrap();
        assert_eq!(views.schema().field(0).data_type(), &DataType::Utf8View);
        let provider = MemTable::try_new(views.schema(), vec![vec![views.clone()]]).unwrap();
        let plan = view.states_plan(Arc::new(provider), &dimensions().await).unwrap().plan;
        let batch = run(&session::session_context(), plan).await;
        let mut plan = stratus_sql::MicroBatchPlan::new(&view, &dimensions().await).await.unwrap();
        let (speed, _) = plan.run(vec![events.clone()]).await.unwrap();
        let (speed_of_views, _) = plan.run(vec![views]).await.unwrap();
        assert_eq!(rows(&batch), rows(&speed));
        assert_eq!(rows(&speed_of_views), rows(&speed));
        let both = merged(&view, vec![batch, speed]).await;
        assert_eq!(rows(&both), rows(&recomputed(&view, vec![events]).await));
    });
}
