use stratus_seam::schema::ColumnType;

use super::*;

fn one(sql: &str) -> Statement {
    let mut parsed = parse(sql).unwrap();
    assert_eq!(parsed.len(), 1);
    parsed.remove(0).statement
}

fn refused(sql: &str) -> SqlError {
    parse(sql).unwrap_err()
}

/// The text at an error's position, to read a test without counting.
fn pointed(sql: &str) -> (SqlError, String) {
    let error = refused(sql);
    let at = error.position.unwrap();
    (error, sql.chars().skip(at - 1).collect())
}

#[test]
fn the_examples_of_the_design_parse() {
    let sql = "CREATE TABLE ad_events (user_id TEXT, ad_id TEXT, event_type TEXT, event_time TIMESTAMPTZ)
  WITH (connector = 'kafka', topic = 'ad-events', format = 'json');       -- or 'directory'
CREATE TABLE ads (ad_id TEXT, campaign_id TEXT) WITH (connector = 'file', path = 'ads.csv');
CREATE MATERIALIZED VIEW campaign_views WITH (refresh = '0 * * * *') AS
  SELECT campaign_id, count(*) AS views FROM ad_events JOIN ads USING (ad_id) GROUP BY 1;
REFRESH MATERIALIZED VIEW campaign_views;
DROP MATERIALIZED VIEW IF EXISTS campaign_views; DROP TABLE ads; SELECT 1";
    let parsed = parse(sql).unwrap();
    assert_eq!(parsed.len(), 7);
    let Statement::CreateSource(source) = &parsed[0].statement else { panic!("{parsed:?}") };
    assert_eq!(source.name, "ad_events");
    assert_eq!(source.columns[3], Column::new("event_time", ColumnType::TimestampTz));
    assert_eq!(source.options["topic"], "ad-events");
    assert!(matches!(&parsed[1].statement, Statement::CreateDimension(d) if d.options["path"] == "ads.csv"));
    let Statement::CreateView(view) = &parsed[2].statement else { panic!("{parsed:?}") };
    assert_eq!(view.options["refresh"], "0 * * * *");
    assert!(sql[view.option_positions["refresh"] - 1..].starts_with("'0 * * * *'"));
    assert!(view.query_sql.starts_with("SELECT campaign_id") && view.query_sql.ends_with("GROUP BY 1"));
    assert_eq!(slice(sql, view.query_position, view.query_position + 6), "SELECT");
    assert_eq!(parsed[3].statement, Statement::Refresh { view: "campaign_views".into() });
    assert!(matches!(
        &parsed[4].statement,
        Statement::Drop(Drop { if_exists: true, kind: DropKind::MaterializedView, .. })
    ));
    assert!(matches!(
        &parsed[5].statement,
        Statement::Drop(Drop { if_exists: false, kind: DropKind::Table, .. })
    ));
    assert_eq!(parsed[6].statement, Statement::Other);
    assert_eq!((parsed[6].text.as_str(), parsed[6].offset), ("SELECT 1", sql.len() - 8));
}

#[test]
fn semicolons_within_strings_dollars_and_comments_separate_nothing() {
    let sql = "select ';', $$;$$, $a$ ; $a$, \";\" /* ; */ -- ;\n; ; select 2;";
    let texts: Vec<String> = parse(sql).unwrap().into_iter().map(|parsed| parsed.text).collect();
    assert_eq!(texts, ["select ';', $$;$$, $a$ ; $a$, \";\"", "select 2"]);
}

#[test]
fn every_type_is_known() {
    let sql = "create table t (a boolean, b int2, c integer not null, d int8, e real, f double precision, g float, \
               h numeric(10, 2), i decimal(5), j varchar, k bytea, l date, m timestamp, n timestamp(6) with time zone, \
               o timestamptz, p struct<x int, y struct<z text[]>>, q int[], r array<array<text>>, s text array, \
               \"T\" character varying null, at timestamp without time zone)";
    let Statement::CreateSource(source) = one(sql) else { panic!() };
    let spelled: Vec<String> = source.columns.iter().map(|column| column.kind.to_string()).collect();
    assert_eq!(
        spelled,
        [
            "BOOLEAN",
            "SMALLINT",
            "INT",
            "BIGINT",
            "REAL",
            "DOUBLE",
            "DOUBLE",
            "NUMERIC(10, 2)",
            "NUMERIC(5, 0)",
            "TEXT",
            "BYTEA",
            "DATE",
            "TIMESTAMP",
            "TIMESTAMPTZ",
            "TIMESTAMPTZ",
            "STRUCT<x INT, y STRUCT<z TEXT[]>>",
            "INT[]",
            "TEXT[][]",
            "TEXT[]",
            "TEXT",
            "TIMESTAMP",
        ]
    );
    assert!(source.columns[2].not_null && !source.columns[19].not_null);
    assert_eq!(source.columns[19].name, "T");
}

#[test]
fn what_is_not_known_is_refused_where_it_stands() {
    let (error, rest) = pointed("create table t (a int, b jsonb)");
    assert_eq!((error.sqlstate, rest.as_str()), ("42704", "jsonb)"));
    assert!(error.hint.unwrap().contains("TIMESTAMPTZ"));
    let (error, rest) = pointed("create table t (a int primary key)");
    assert_eq!((error.sqlstate, rest.as_str()), ("0A000", "primary key)"));
    assert!(pointed("create table t (a int, primary key (a))").1.starts_with("primary key"));
    assert!(pointed("create table t (a int, check (a > 0))").1.starts_with("check"));
    assert!(pointed("create table t (a int default 1)").1.starts_with("default"));
    assert!(pointed("create table t (a numeric)").1.starts_with("numeric"));
    assert!(pointed("create table t (a varchar(10))").1.starts_with("(10)"));
    assert!(pointed("create table t (a numeric(39, 2))").1.starts_with("numeric"));
    assert_eq!(refused("create table t (a int, a text)").sqlstate, "42701");
    assert_eq!(refused("create table t (a timestamp(9))").sqlstate, "0A000");
    assert_eq!(refused("create table t as select 1").sqlstate, "42601");
    assert_eq!(refused("create or replace table t (a int)").sqlstate, "0A000");
    assert_eq!(refused("drop table t cascade").sqlstate, "0A000");
    assert_eq!(refused("create materialized view v as").sqlstate, "42601");
    assert_eq!(refused("select 'open").sqlstate, "42601");
}

#[test]
fn reserved_names_are_refused() {
    for name in ["_t", "stratus_t", "t_batch", "t_speed", "t_dead_letters", "\"a b\"", "pg_t"] {
        let error = refused(&format!("create table {name} (a int)"));
        assert!(error.sqlstate == "42939" || error.sqlstate == "42602", "{name}: {error:?}");
        assert!(parse(&format!("create materialized view {name} as select 1")).is_err());
    }
    assert_eq!(refused("create table t (_offset int)").sqlstate, "42939");
    assert_eq!(refused("create table other.t (a int)").sqlstate, "3F000");
    assert!(matches!(one("create table public.t (a int)"), Statement::CreateSource(s) if s.name == "t"));
}

#[test]
fn options_are_words_numbers_and_strings() {
    let Statement::CreateView(view) = one(
        "create or replace materialized view V with (refresh = 'x', Retain.Versions = 3, fast = true) as select 1",
    ) else {
        panic!()
    };
    assert_eq!(view.name, "v");
    assert!(view.or_replace && !view.if_not_exists);
    assert_eq!(view.options["retain.versions"], "3");
    assert_eq!(view.options["fast"], "true");
    assert_eq!(refused("create table t (a int) with (x = 1, x = 2)").sqlstate, "42601");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(create |table |materialized view |a |with |as |\\(|\\)|,|=|'|\\$\\$|;|<|>>|int|numeric|\\[|é| ){0,20}") {
        let _ = parse(&text);
    }
}
