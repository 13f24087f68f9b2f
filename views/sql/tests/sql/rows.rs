//! Rows that fail, and keys that are equal.

use stratus_sql::MicroBatchPlan;

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
    assert_eq!(both(sql, select).await.0, ["NULL|NULL|10|410|320", "two|TWO|10|210|290"]);
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
