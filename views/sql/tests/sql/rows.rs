//! Rows that fail, and keys that are equal.

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::FieldRef;
use stratus_seam::encoding::{decode_rows, encode_rows};
use stratus_sql::{MicroBatchPlan, View};

use crate::events::*;

/// The answer and the failed rows, by the batch layer's plan and by the speed layer's, which must agree.
async fn both(sql: &str, select: &str) -> (Vec<String>, u64) {
    let view = compile(sql).await;
    let batch = events(select, 0).await;
    let (batch_states, batch_failed) = states(&view, vec![batch.clone()]).await;
    let mut plan = MicroBatchPlan::new(&view, &dimensions().await).await.unwrap();
    let (speed_states, speed_failed) = plan.run(vec![batch]).await.unwrap();
    assert_eq!(batch_failed, speed_failed, "{sql}");
    let answer = text(&merged(&view, vec![batch_states]).await);
    assert_eq!(answer, text(&merged(&view, vec![speed_states]).await), "{sql}");
    (answer, batch_failed)
}

const SEVEN: &str = "select value as i, value as l, 'k' as k from generate_series(1, 100)";

#[tokio::test]
async fn a_row_that_fails_is_left_out_and_counted() {
    let (answer, failed) = both("SELECT count(*) AS c, sum(1000 / (i - 7)) AS s FROM events", SEVEN).await;
    assert_eq!(failed, 1);
    assert!(answer[0].starts_with("99|"), "{answer:?}");
    // In a key, in WHERE, in FILTER.
    let (answer, failed) =
        both("SELECT 1000 / (i - 7) AS g, count(*) AS c FROM events GROUP BY 1", SEVEN).await;
    assert_eq!((failed, answer.iter().map(|line| count(line, 1)).sum::<i64>()), (1, 99));
    let (answer, failed) =
        both("SELECT count(*) AS c FROM events WHERE 1000 / (i - 7) > -100000", SEVEN).await;
    assert_eq!((failed, answer), (1, vec!["99".to_owned()]));
    let (answer, failed) =
        both("SELECT count(*) FILTER (WHERE 1000 / (i - 7) > 0) AS c FROM events", SEVEN).await;
    assert_eq!((failed, answer), (1, vec!["93".to_owned()]));
}

fn count(line: &str, column: usize) -> i64 {
    line.split('|').nth(column).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_rejected_row_is_not_evaluated() {
    let (answer, failed) =
        both("SELECT count(*) AS c, sum(1000 / (i - 7)) AS s FROM events WHERE i <> 7", SEVEN).await;
    assert_eq!(failed, 0);
    assert!(answer[0].starts_with("99|"));
    // Also where the condition itself is evaluated in the stage.
    let (_, failed) = both("SELECT sum(1000 / (i - 7)) AS s FROM events WHERE abs(i - 7) > 0", SEVEN).await;
    assert_eq!(failed, 0);
    let (answer, failed) =
        both("SELECT count(*) AS c FROM events WHERE i <> 7 AND 1000 / (i - 7) < 100000", SEVEN).await;
    assert_eq!((failed, answer), (0, vec!["99".to_owned()]));
    let (answer, failed) =
        both("SELECT count(*) AS c FROM events WHERE i = 7 OR 1000 / (i - 7) < 100000", SEVEN).await;
    assert_eq!((failed, answer), (0, vec!["100".to_owned()]));
}

#[tokio::test]
async fn an_argument_is_evaluated_where_its_filter_holds() {
    let sql = "SELECT count(*) AS c, sum(1000 / (i - 7)) FILTER (WHERE i > 7) AS s FROM events";
    let (answer, failed) = both(sql, SEVEN).await;
    assert_eq!(failed, 0);
    assert!(answer[0].starts_with("100|"));
    let (_, failed) =
        both("SELECT sum(CASE WHEN i = 7 THEN 0 ELSE 1000 / (i - 7) END) AS s FROM events", SEVEN).await;
    assert_eq!(failed, 0);
}

#[tokio::test]
async fn arithmetic_fails_where_it_would_wrap() {
    let extreme = "select 9223372036854775807 as l, 2147483647 as i union all
                   select -9223372036854775807 - 1, -2147483647 - 1 union all select 1, 1";
    for (expression, failures) in [
        ("l + 1", 1),
        ("l - 1", 1),
        ("l * 2", 2),
        ("-l", 1),
        ("abs(l)", 1),
        ("l / -1", 1),
        ("i + cast(1 as int)", 1),
        ("cast(l as int)", 2),
        ("cast(i as smallint)", 2),
        ("-i", 1),
        ("cast(l as numeric(10, 2))", 2),
        ("cast(9999999999999999999999999999 as numeric(38, 0)) * l * 100", 2),
    ] {
        let (answer, failed) = both(&format!("SELECT count({expression}) AS c FROM events"), extreme).await;
        assert_eq!(
            (failed, count(&answer[0], 0)),
            (failures, 3 - i64::try_from(failures).unwrap()),
            "{expression}"
        );
    }
}

#[tokio::test]
async fn a_bad_text_fails_its_row_alone() {
    let texts = "select case when value % 1000 = 0 then 'x' else cast(value as text) end as t from generate_series(1, 20000)";
    let (answer, failed) = both("SELECT count(*) AS c, max(cast(t as int)) AS m FROM events", texts).await;
    assert_eq!((failed, answer), (20, vec!["19980|19999".to_owned()]));
}

#[tokio::test]
async fn keys_that_are_equal_are_one_group() {
    let floats = "select cast(column1 as double) as d, cast(column1 as real) as r from (values ('0.0'), ('-0.0'), ('NaN'), ('-NaN'), (null), (null), ('1'))";
    for key in ["d", "r"] {
        let (answer, _) =
            both(&format!("SELECT {key}, count(*) AS c FROM events GROUP BY {key}"), floats).await;
        assert_eq!(answer, ["0|2", "1|1", "NULL|2", "NaN|2"], "{key}");
    }
    let texts = "select column1 as t from (values (''), (null), (''), (null), (' '))";
    let (answer, _) = both("SELECT t, count(*) AS c FROM events GROUP BY t", texts).await;
    assert_eq!(answer, [" |1", "NULL|2", "|2"]);
}

#[tokio::test]
async fn functions_that_only_the_optimizer_knows_run_here_too() {
    let texts = "select column1 as t, column2 as i from (values ('a', 1), (null, 2), ('b', null))";
    let sql = "SELECT coalesce(t, 'none') AS g, sum(nvl(i, 100)) AS s, max(nvl2(t, 1, 0)) AS n FROM events GROUP BY 1";
    assert_eq!(both(sql, texts).await.0, ["a|1|1", "b|100|1", "none|2|0"]);
}

#[tokio::test]
async fn joins_filters_and_expressions_above() {
    let sql = "SELECT label, upper(label) AS loud, count(*) AS c, sum(w) * 10 + count(*) AS x, sum(i) AS s
               FROM events JOIN dims USING (k) WHERE b AND w > 1 GROUP BY label HAVING count(*) > 1";
    let select = "select 'k' || (value % 6) as k, value as i, value % 2 = 0 as b from generate_series(1, 60)";
    // k2 and k4 have even values alone, k3 odd ones.
    assert_eq!(both(sql, select).await.0, ["NULL|NULL|10|410|310", "two|TWO|10|210|290"]);
    let sql = "SELECT d.label, count(*) AS c, count(d.w) AS w FROM events e LEFT JOIN dims d ON e.k = d.k GROUP BY 1";
    assert_eq!(both(sql, select).await.0, ["NULL|40|10", "three|10|10", "two|10|10"]);
    let sql = "SELECT label, count(*) AS c FROM dims JOIN events ON dims.k = events.k WHERE label IS NOT NULL GROUP BY 1";
    assert_eq!(both(sql, select).await.0, ["three|10", "two|10"]);
}

#[tokio::test]
async fn a_group_without_aggregates_and_a_place_in_the_log() {
    assert_eq!(both("SELECT k FROM events GROUP BY k", SEVEN).await.0, ["k"]);
    let sql = "SELECT max(_offset) AS o, min(_partition) AS p, count(_timestamp) AS t FROM events";
    assert_eq!(both(sql, SEVEN).await.0, ["99|0|0"]);
}

#[tokio::test]
async fn having_may_drop_the_only_row() {
    let sql = "SELECT count(*) AS c FROM events HAVING count(*) > 1000";
    assert!(both(sql, SEVEN).await.0.is_empty());
}

/// States as a shard holds them: as text, and back.
fn through_text(view: &View, states: &RecordBatch) -> RecordBatch {
    let schema = view.descriptor().state_schema();
    let (key_fields, state_fields) = schema.fields().split_at(view.descriptor().keys.len());
    let (keys, values) = states.columns().split_at(key_fields.len());
    let text = |columns: &[ArrayRef]| encode_rows(columns, states.num_rows()).unwrap();
    let read = |rows: Vec<String>, fields: &[FieldRef]| {
        decode_rows(rows.iter().map(String::as_str), fields).unwrap()
    };
    let columns = [read(text(keys), key_fields), read(text(values), state_fields)].concat();
    let read = RecordBatch::try_new(schema, columns).unwrap();
    assert_eq!(read.num_rows(), states.num_rows());
    read
}

/// What a view says is what the same query says to DataFusion over the same events.
#[tokio::test]
async fn every_shape_of_query_answers_as_the_query_itself() {
    for sql in [
        "SELECT k AS a, k AS b, count(*) AS c FROM events GROUP BY k, 1",
        "SELECT count(*) AS c FROM events GROUP BY k",
        "SELECT 'a' AS a, count(*) AS c FROM events GROUP BY 1",
        "SELECT i % 7 AS m, sum(s) AS total FROM events GROUP BY m HAVING total > 10",
        "SELECT i % 7 + 1 AS m, max(t) || '!' AS t FROM events GROUP BY i % 7 + 1",
        "SELECT k, i % 3, count(*), sum(i + 1) FILTER (WHERE b AND i > 5) FROM events GROUP BY k, i % 3",
        "SELECT date_trunc('hour', ts) AS h, count(*) AS c, max(tz) AS m FROM events GROUP BY 1",
        "SELECT date_bin(INTERVAL '10 minutes', tz) AS h, extract(dow from ts) AS d, count(*) AS c FROM events GROUP BY 1, 2",
        "SELECT dt, count(*) AS c FROM events WHERE dt >= '2025-01-01' AND tz < '2026-06-01' GROUP BY dt",
        "SELECT k, count(*) AS c FROM events WHERE t LIKE 't1%' OR y IS NULL GROUP BY k HAVING count(*) > 2 AND k <> 'k2'",
        "SELECT length(t) AS l, upper(substr(t, 1, 2)) AS u, count(*) AS c FROM events GROUP BY 1, 2",
        "SELECT label, count(*) AS c FROM events JOIN dims USING (k) WHERE label = 'two' AND events.k = 'k2' GROUP BY label",
        "SELECT d.k, count(*) AS c FROM events e LEFT JOIN dims d ON e.k = d.k WHERE d.k IS NULL GROUP BY 1",
        "SELECT d.label, e.k, count(*) AS c FROM events AS e LEFT JOIN dims AS d ON d.k = e.k AND d.w = e.s GROUP BY 1, 2",
        "SELECT d.w, avg(e.s) AS a FROM dims d JOIN events e ON d.w = e.s GROUP BY d.w",
        "SELECT count(*) AS c FROM events WHERE false",
        "SELECT k, count(*) AS c FROM events WHERE false GROUP BY k",
        "SELECT k FROM events GROUP BY k",
        "SELECT ts::time AS at, count(*) AS c FROM events GROUP BY 1",
        "SELECT k, max(ts::time) AS last, min(ts::time) AS first FROM events GROUP BY 1",
        "SELECT k, sum(i::numeric(60, 2)) AS s, avg(i::numeric(60, 2)) AS a FROM events GROUP BY 1",
        "SELECT count(*) + 1 AS c, sum(i) IS NULL AS n FROM events WHERE i > 1000000",
        "SELECT CASE WHEN i > 0 THEN 'up' ELSE 'down' END AS g, bool_or(b) AND true AS o FROM events GROUP BY 1",
    ] {
        let view = compile(sql).await;
        let everything = awkward(1, 900).await;
        let parts = cut(&everything, &[1, 300, 301]);
        let mut plan = MicroBatchPlan::new(&view, &dimensions().await).await.unwrap();
        let mut all = Vec::new();
        for part in parts {
            let (states, failed) = plan.run(vec![part]).await.unwrap();
            assert_eq!(failed, 0, "{sql}");
            all.push(states.iter().map(|states| through_text(&view, states)).collect());
        }
        let answer = merged(&view, all).await;
        assert_eq!(rows(&answer), rows(&plain(&view, sql, vec![everything.clone()]).await), "{sql}");
        assert_eq!(rows(&answer), rows(&recomputed(&view, vec![everything]).await), "{sql}");
        for batch in &answer {
            assert_eq!(batch.schema().fields().len(), view.output_schema().fields().len());
            for (found, told) in batch.schema().fields().iter().zip(view.output_schema().fields()) {
                assert_eq!((found.name(), found.data_type()), (told.name(), told.data_type()), "{sql}");
            }
        }
    }
}

#[tokio::test]
async fn a_session_cannot_change_what_a_view_means() {
    let sql = "SELECT date_trunc('day', tz) AS d, to_timestamp_seconds(l % 1000) AS s, cast('2026-01-01 00:00:00' as timestamptz) AS c,
                      count(*) AS n FROM events WHERE tz > cast('1970-01-01 10:00:00' as timestamptz) GROUP BY 1, 2, 3";
    let view = compile(sql).await;
    let everything = awkward(1, 3000).await;
    let expected = rows(&recomputed(&view, vec![everything.clone()]).await);
    assert!(expected.len() > 1);
    let mut config = stratus_sql::session::session_config();
    config.options_mut().execution.time_zone = Some("+09:00".to_owned());
    let context = stratus_sql::session::session_context_with(config, Default::default());
    let states =
        run(&context, view.states_plan(table(vec![everything]), &dimensions().await).unwrap().plan).await;
    let scanned = scan(view.descriptor().state_schema(), "states", states);
    assert_eq!(rows(&run(&context, view.merged_plan(scanned).unwrap()).await), expected);
}

#[tokio::test]
async fn sums_do_not_wrap_and_floats_have_an_order() {
    let extreme = "select 9223372036854775807 as l, 2147483647 as i, cast('NaN' as double) as d, cast('-0.0' as real) as r
                   union all select 9223372036854775807, 2147483647, 1.0, 0.0 union all select null, null, null, null";
    let sql =
        "SELECT sum(l) AS sl, sum(i) AS si, max(d) AS hi, min(d) AS lo, max(r) AS z, min(r) AS y FROM events";
    let (answer, failed) = both(sql, extreme).await;
    assert_eq!((answer, failed), (vec!["18446744073709551614|4294967294|NaN|1|0|0".to_owned()], 0));
    let view = compile(sql).await;
    let types: Vec<String> =
        view.output_schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types[..2], ["Decimal128(38, 0)", "Int64"]);
    let (answer, _) =
        both("SELECT avg(l) AS a, sum(l) / 2 AS half FROM events HAVING sum(l) > 1", extreme).await;
    assert!(
        answer[0].starts_with("9223372036854775807") || answer[0].starts_with("9223372036854776000|"),
        "{answer:?}"
    );
}
