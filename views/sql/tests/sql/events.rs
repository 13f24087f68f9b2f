//! Events to run views over, and the ways that an answer can be come by.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionContext;
use stratus_seam::schema::{Column, ColumnType, arrow_schema, event_schema};
use stratus_sql::{Relations, View, session};

/// The columns of the source `events`, one of every scalar type.
pub(crate) fn columns() -> Vec<Column> {
    let column = |name: &str, kind| Column::new(name, kind);
    vec![
        column("k", ColumnType::Text),
        column("b", ColumnType::Boolean),
        column("s", ColumnType::SmallInt),
        column("i", ColumnType::Int),
        column("l", ColumnType::BigInt),
        column("r", ColumnType::Real),
        column("d", ColumnType::Double),
        column("n", ColumnType::Numeric(10, 2)),
        column("t", ColumnType::Text),
        column("y", ColumnType::Bytea),
        column("dt", ColumnType::Date),
        column("ts", ColumnType::Timestamp),
        column("tz", ColumnType::TimestampTz),
    ]
}

/// The columns of the dimension table `dims`.
pub(crate) fn dimension_columns() -> Vec<Column> {
    vec![
        Column::new("k", ColumnType::Text),
        Column::new("label", ColumnType::Text),
        Column::new("w", ColumnType::Int),
    ]
}

pub(crate) fn relations() -> Relations {
    Relations::new().with_source("events", columns()).with_dimension("dims", dimension_columns(), "sha256:1")
}

pub(crate) async fn compile(sql: &str) -> View {
    match View::compile("v", sql, &relations()).await {
        Ok(view) => view,
        Err(error) => panic!("{sql}: {error:?}"),
    }
}

/// Events from a SELECT that names some of the columns; the others are NULL. `_offset` counts from `first`.
pub(crate) async fn events(select: &str, first: i64) -> RecordBatch {
    let context = session::session_context();
    let batches = context.sql(select).await.unwrap().collect().await.unwrap();
    let schema = event_schema(&columns());
    let batch = datafusion::arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let rows = batch.num_rows();
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| match (field.name().as_str(), batch.column_by_name(field.name())) {
            (_, Some(column)) => cast(column, field.data_type()).unwrap(),
            ("_log", _) => ScalarValue::from("log").to_array_of_size(rows).unwrap(),
            ("_partition", _) => ScalarValue::Int32(Some(0)).to_array_of_size(rows).unwrap(),
            ("_offset", _) => Arc::new(datafusion::arrow::array::Int64Array::from_iter_values(
                first..first + i64::try_from(rows).unwrap(),
            )),
            _ => datafusion::arrow::array::new_null_array(field.data_type(), rows),
        })
        .collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// Many events with every kind of awkward value, from the numbers `from` to `to`.
pub(crate) async fn awkward(from: i64, to: i64) -> RecordBatch {
    let select = format!(
        "select case v % 6 when 0 then null when 1 then '' else 'k' || (v % 6) end as k,
                case when v % 11 = 0 then null else v % 3 = 0 end as b,
                nullif(v % 300, 7) as s, nullif(v % 70000 - 35000, 5) as i,
                nullif(v * 9007199254740993, 9007199254740993 * 4) as l,
                case when v % 13 = 0 then null when v % 17 = 0 then 'NaN' when v % 19 = 0 then '-0' else v * 0.37 end as r,
                case when v % 13 = 0 then null when v % 97 = 0 then 'NaN' when v % 19 = 0 then '-0.0' else v * 0.37 - 400 end as d,
                nullif(v % 100000, 3) / 7.0 as n,
                case when v % 10 = 0 then null else 't' || (v % 2000) end as t,
                case when v % 10 = 0 then null else arrow_cast('y' || (v % 900), 'Binary') end as y,
                date '2026-01-01' + cast(v % 400 as int) as dt,
                timestamp '2026-01-01 00:00:00' + cast(v || ' seconds' as interval) as ts,
                timestamp '2026-01-01 00:00:00' + cast((v % 5000) || ' minutes' as interval) as tz
         from (select value as v from generate_series({from}, {to}))"
    );
    // Text, number and null branches: one type per column first.
    let select = select
        .replace(
            "'NaN' when v % 19 = 0 then '-0' else",
            "cast('NaN' as real) when v % 19 = 0 then cast('-0.0' as real) else",
        )
        .replace(
            "'NaN' when v % 19 = 0 then '-0.0' else",
            "cast('NaN' as double) when v % 19 = 0 then cast('-0.0' as double) else",
        )
        .replace("date '2026-01-01' + cast(v % 400 as int)", "cast(cast(v % 400 + 20000 as int) as date)")
        .replace(
            "timestamp '2026-01-01 00:00:00' + cast(v || ' seconds' as interval)",
            "to_timestamp_micros(v * 1000000)",
        )
        .replace(
            "timestamp '2026-01-01 00:00:00' + cast((v % 5000) || ' minutes' as interval)",
            "to_timestamp_micros((v % 5000) * 60000000)",
        );
    events(&select, from).await
}

pub(crate) fn table(batches: Vec<RecordBatch>) -> Arc<dyn TableProvider> {
    Arc::new(MemTable::try_new(event_schema(&columns()), vec![batches]).unwrap())
}

pub(crate) async fn dimensions() -> HashMap<String, Arc<dyn TableProvider>> {
    let context = session::session_context();
    let select = "select column1 as k, column2 as label, cast(column3 as int) as w
                  from (values ('k2', 'two', 2), ('k3', 'three', 3), ('k4', null, 4), (null, 'none', 0))";
    let batches = context.sql(select).await.unwrap().collect().await.unwrap();
    let schema = arrow_schema(&dimension_columns());
    let batches =
        batches.iter().map(|batch| stratus_sql::canonical::conform(batch, &schema).unwrap()).collect();
    let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(schema, vec![batches]).unwrap());
    HashMap::from([("dims".to_owned(), table)])
}

/// The batch layer's way: states of these events, and how many rows failed.
pub(crate) async fn states(view: &View, batches: Vec<RecordBatch>) -> (Vec<RecordBatch>, u64) {
    let context = session::session_context();
    let plan = view.states_plan(table(batches), &dimensions().await).unwrap();
    let states = run(&context, plan.plan).await;
    (states, plan.failed.count())
}

pub(crate) async fn run(context: &SessionContext, plan: LogicalPlan) -> Vec<RecordBatch> {
    context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
}

pub(crate) fn scan(schema: SchemaRef, name: &str, batches: Vec<RecordBatch>) -> LogicalPlan {
    let table = MemTable::try_new(schema, vec![batches]).unwrap();
    LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None).unwrap().build().unwrap()
}

pub(crate) fn union(left: LogicalPlan, right: LogicalPlan) -> LogicalPlan {
    LogicalPlanBuilder::from(left).union(right).unwrap().build().unwrap()
}

/// The serving layer's way: the answer over states.
pub(crate) async fn merged(view: &View, parts: Vec<Vec<RecordBatch>>) -> Vec<RecordBatch> {
    let schema = view.descriptor().state_schema();
    let scans =
        parts.into_iter().enumerate().map(|(i, part)| scan(schema.clone(), &format!("part{i}"), part));
    let states = scans.reduce(union).unwrap();
    run(&session::session_context(), view.merged_plan(states).unwrap()).await
}

/// A full recompute.
pub(crate) async fn recomputed(view: &View, batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    let (states, _) = states(view, batches).await;
    merged(view, vec![states]).await
}

/// DataFusion's own answer to the view's query over these events, in the view's types.
pub(crate) async fn plain(view: &View, sql: &str, batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    let context = session::session_context();
    context.register_table("events", table(batches)).unwrap();
    for (name, provider) in dimensions().await {
        context.register_table(name, provider).unwrap();
    }
    let answer = match context.sql(sql).await.unwrap().collect().await {
        Ok(answer) => answer,
        Err(error) => panic!("{sql}: {error}"),
    };
    let schema = view.output_schema();
    answer
        .into_iter()
        .map(|batch| {
            let columns: Vec<ArrayRef> = batch
                .columns()
                .iter()
                .zip(schema.fields())
                .map(|(column, field)| cast(column, field.data_type()).unwrap())
                .collect();
            RecordBatch::try_new(nullable(&schema), columns).unwrap()
        })
        .collect()
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(datafusion::arrow::datatypes::Schema::new(fields))
}

/// All rows, sorted: two answers are equal when these are.
pub(crate) fn rows(batches: &[RecordBatch]) -> Vec<Vec<ScalarValue>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values =
                batch.columns().iter().map(|column| ScalarValue::try_from_array(column, row).unwrap());
            rows.push(values.collect::<Vec<_>>());
        }
    }
    rows.sort_by_key(|row| format!("{row:?}"));
    rows
}

/// All rows as text, for expectations written by hand.
pub(crate) fn text(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines: Vec<String> = rows(batches)
        .iter()
        .map(|row| {
            let values: Vec<String> = row
                .iter()
                .map(|value| if value.is_null() { "NULL".into() } else { value.to_string() })
                .collect();
            values.join("|")
        })
        .collect();
    lines.sort();
    lines
}

/// The rows of a batch cut into parts at these places.
pub(crate) fn cut(batch: &RecordBatch, places: &[usize]) -> Vec<RecordBatch> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (batch.num_rows() + 1)).collect();
    places.extend([0, batch.num_rows()]);
    places.sort_unstable();
    places.windows(2).map(|pair| batch.slice(pair[0], pair[1] - pair[0])).collect()
}
