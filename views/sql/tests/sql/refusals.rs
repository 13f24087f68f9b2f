//! What is refused, with its reason and where it stands.

use stratus_seam::schema::{Column, ColumnType};
use stratus_sql::{SqlError, View};

use crate::events::*;

async fn refused(sql: &str) -> SqlError {
    match View::compile("v", sql, &relations()).await {
        Err(error) => error,
        Ok(_) => panic!("{sql} was not refused"),
    }
}

/// The SQLSTATE, and the text from the error's position on.
async fn pointed(sql: &str) -> (&'static str, String) {
    let error = refused(sql).await;
    let Some(position) = error.position else { panic!("{sql}: no position in {error:?}") };
    (error.sqlstate, sql.chars().skip(position - 1).collect())
}

#[tokio::test]
async fn every_refusal_points_at_its_word() {
    for (sql, state, at) in [
        ("SELECT k, median(i) FROM events GROUP BY 1", "0A000", "median(i)"),
        ("SELECT k,\n  count(DISTINCT t) AS é FROM events GROUP BY 1", "0A000", "count(DISTINCT"),
        ("SELECT k, array_agg(i) FROM events GROUP BY 1", "0A000", "array_agg"),
        ("SELECT k, string_agg(t, ',') FROM events GROUP BY 1", "0A000", "string_agg"),
        ("SELECT k, first_value(i) FROM events GROUP BY 1", "0A000", "first_value"),
        ("SELECT k, last_value(i ORDER BY l) FROM events GROUP BY 1", "0A000", "last_value"),
        ("SELECT k, regr_slope(i, s) FROM events GROUP BY 1", "0A000", "regr_slope"),
        ("SELECT k, approx_median(i) FROM events GROUP BY 1", "0A000", "approx_median"),
        ("SELECT k, count(*) FROM events WHERE tz > now() GROUP BY 1", "0A000", "now()"),
        ("SELECT k, sum(random()) FROM events GROUP BY 1", "0A000", "random()"),
        ("SELECT current_date, count(*) FROM events GROUP BY 1", "0A000", "current_date"),
        ("SELECT k, count(*) OVER () FROM events", "0A000", "count(*) OVER"),
        ("SELECT k, row_number() OVER () FROM events", "0A000", "row_number"),
        ("SELECT k, count(*) FROM events GROUP BY ROLLUP (k)", "0A000", "k)"),
        (
            "SELECT k, approx_distinct(i), approx_distinct(d) FROM events GROUP BY 1",
            "0A000",
            "approx_distinct(d)",
        ),
        ("SELECT nope, count(*) FROM events GROUP BY 1", "42703", "nope"),
        ("SELECT k, sum(e.nope) FROM events e GROUP BY 1", "42703", "e.nope"),
        ("SELECT k, count(*) FROM nope GROUP BY 1", "42P01", "nope"),
        ("SELECT k, nope(i) FROM events GROUP BY 1", "42883", "nope(i)"),
        ("SELECT k, count(*) FORM events", "42601", "events"),
        ("SELECT k count(*) FROM events", "42601", "("),
        ("SELECT k, count(*) AS k FROM events GROUP BY 1", "42701", "k FROM"),
        ("SELECT k, count(*) FROM events GROUP BY 1 ORDER BY 1", "0A000", "1"),
        ("SELECT k, count(*) FROM events GROUP BY 1 LIMIT 5", "0A000", "5"),
        ("SELECT * FROM events", "0A000", "* FROM"),
        ("SELECT DISTINCT k FROM events", "0A000", "SELECT"),
        ("SELECT k, count(*) FROM events WHERE i IN (SELECT w FROM dims) GROUP BY 1", "0A000", "SELECT w"),
        ("SELECT k, count(*) FROM (SELECT k FROM events) e GROUP BY 1", "0A000", "SELECT k FROM events)"),
        ("WITH x AS (SELECT 1) SELECT k, count(*) FROM events GROUP BY 1", "0A000", "WITH"),
        ("SELECT k, count(*) FROM dims GROUP BY 1", "0A000", "dims"),
        ("SELECT events.k, count(*) FROM events RIGHT JOIN dims USING (k) GROUP BY 1", "0A000", "dims"),
        ("SELECT dims.k, count(*) FROM dims LEFT JOIN events USING (k) GROUP BY 1", "0A000", "events USING"),
        ("SELECT dims.k, count(*) FROM events NATURAL JOIN dims GROUP BY 1", "0A000", "dims"),
        ("SELECT dims.k, count(*) FROM events, dims GROUP BY 1", "0A000", "dims"),
        ("SELECT k, count($1) FROM events GROUP BY 1", "42P02", "$1"),
        ("SELECT k, i, count(*) FROM events GROUP BY k", "42803", "i,"),
    ] {
        let (found, rest) = pointed(sql).await;
        assert_eq!(found, state, "{sql}: {rest}");
        assert!(rest.starts_with(at), "{sql}: points at {rest:?}");
    }
}

#[tokio::test]
async fn other_refusals_have_their_reasons() {
    for (sql, state, reason) in [
        (
            "SELECT dims.k, count(*) FROM events JOIN dims ON events.i > dims.w GROUP BY 1",
            "0A000",
            "equal columns",
        ),
        (
            "SELECT dims.k, count(*) FROM events JOIN dims ON events.i + 1 = dims.w GROUP BY 1",
            "0A000",
            "one type",
        ),
        ("SELECT dims.k, count(*) FROM events JOIN dims ON events.d = dims.w GROUP BY 1", "0A000", "join by"),
        ("SELECT k, sum(t) FROM events GROUP BY 1", "42883", "numbers"),
        ("SELECT k, count(1 / 0) FROM events GROUP BY 1", "22012", "every event"),
        ("SELECT k, sum(cast('x' as int)) FROM events GROUP BY 1", "22P02", "every event"),
        ("SELECT k, approx_percentile_cont(i, d) FROM events GROUP BY 1", "0A000", "constants"),
        ("SELECT k, count(*) FROM events GROUP BY 1; SELECT 1", "42601", "one query"),
        ("DELETE FROM events", "42601", "SELECT"),
        ("SELECT i FROM events", "0A000", "aggregates"),
        ("SELECT make_array(k), count(*) FROM events GROUP BY 1", "0A000", "group key"),
        ("SELECT k, count(*) FROM events GROUP BY k UNION SELECT k, 1 FROM dims", "0A000", "UNION"),
        ("SELECT k, count(*) FROM events GROUP BY ALL", "0A000", "GROUP BY ALL"),
        ("SELECT _log, count(*) FROM events GROUP BY 1", "42703", "_log"),
    ] {
        let error = refused(sql).await;
        assert_eq!(error.sqlstate, state, "{sql}: {error:?}");
        assert!(error.message.contains(reason), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn the_tours_views_compile() {
    let columns = vec![
        Column::new("user_id", ColumnType::Text),
        Column::new("page", ColumnType::Text),
        Column::new("ms", ColumnType::Int),
        Column::new("at", ColumnType::TimestampTz),
    ];
    let relations = stratus_sql::Relations::new().with_source("clicks", columns);
    let sql = "SELECT page, date_bin(INTERVAL '1 minute', at) AS minute, count(*) AS views,
                   approx_distinct(user_id) AS visitors, avg(ms) AS avg_ms
            FROM clicks GROUP BY 1, 2 HAVING count(*) > 0";
    let view = View::compile("page_views", sql, &relations).await.unwrap();
    let keys: Vec<&str> = view.keys().iter().map(|key| key.name.as_str()).collect();
    assert_eq!(keys, ["page", "minute"]);
    let calls: Vec<&str> = view.aggregates().iter().map(|aggregate| aggregate.sql.as_str()).collect();
    assert_eq!(calls, ["count(*)", "approx_distinct(user_id)", "avg(ms)"]);
    let output = view.output_schema();
    let columns: Vec<String> =
        output.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    assert_eq!(
        columns,
        ["page Utf8", "minute Timestamp(µs, \"UTC\")", "views Int64", "visitors Int64", "avg_ms Float64"]
    );
    let error = View::compile("v", "\n  SELECT page, median(ms) FROM clicks GROUP BY 1", &relations)
        .await
        .unwrap_err();
    assert_eq!(error.message, "median keeps every value it sees, so its state has no bound");
    assert_eq!(error.position, Some(17));
    assert!(error.hint.unwrap().starts_with("approx_percentile_cont(ms, 0.5) is within 1 % of rank."));
}

#[tokio::test]
async fn a_fingerprint_covers_what_a_state_depends_on() {
    let print = async |sql: &str, relations: &stratus_sql::Relations| {
        View::compile("v", sql, relations).await.unwrap().fingerprint().to_owned()
    };
    let sql = "SELECT label, approx_distinct(t) AS a FROM events JOIN dims USING (k) GROUP BY label";
    let base = print(sql, &relations()).await;
    assert_eq!(base.len(), 64);
    let spaced = sql.replace(' ', "\n  ").to_lowercase().replace("select", "Select");
    assert_eq!(print(&spaced, &relations()).await, base);
    let other_content = relations().with_dimension("dims", dimension_columns(), "sha256:2");
    let mut other_type = columns();
    other_type[8].kind = ColumnType::Bytea;
    let other_type = relations().with_source("events", other_type);
    let others = [
        print(&sql.replace("approx_distinct(t)", "approx_distinct(y)"), &relations()).await,
        print(&sql.replace("USING (k)", "USING (k) WHERE i > 1"), &relations()).await,
        print(sql, &other_content).await,
        print(sql, &other_type).await,
    ];
    assert!(others.iter().all(|other| *other != base));
}
