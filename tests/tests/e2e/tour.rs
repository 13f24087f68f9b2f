//! The newcomer's five minutes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stratus_tests::http;
use stratus_tests::process::Stratus;
use tokio_postgres::Client;

const SOURCE: &str =
    "CREATE TABLE clicks (user_id TEXT, page TEXT, ms INT, at TIMESTAMPTZ) WITH (partitions = 2)";
/// How long an event may take to be seen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const VIEW: &str = "CREATE MATERIALIZED VIEW page_views AS
  SELECT page, date_bin(INTERVAL '1 minute', at) AS minute, count(*) AS views,
         approx_distinct(user_id) AS visitors, avg(ms) AS avg_ms
  FROM clicks GROUP BY 1, 2 HAVING count(*) > 0";
const EVENTS: &str = r#"{"user_id":"u1","page":"/","ms":120,"at":"2026-01-01T00:00:01Z"}
{"user_id":"u2","page":"/","ms":80,"at":"2026-01-01T00:00:02Z"}
{"user_id":"u1","page":"/about","ms":50,"at":1767225603000}
"#;

async fn views(client: &Client, relation: &str) -> Vec<(String, i64, i64, f64)> {
    let query = format!("SELECT page, views, visitors::bigint, avg_ms FROM {relation} ORDER BY page");
    let rows = client.query(&query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

async fn explain(client: &Client, query: &str) -> String {
    let rows = client.query(&format!("EXPLAIN {query}"), &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(1)).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn five_minutes() {
    let _turn = stratus_tests::turn().await;
    let folder = tempfile::tempdir().unwrap();
    let none = BTreeMap::new();
    let process = Stratus::up(folder.path(), &none).await.unwrap();
    let client = process.connect().await.unwrap();
    client.batch_execute(SOURCE).await.unwrap();
    client.batch_execute(VIEW).await.unwrap();
    assert_eq!(views(&client, "page_views").await, []);

    let reply = http::append(&process.http, "clicks", EVENTS.as_bytes()).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    let answer: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!((answer["accepted"].as_u64(), answer["dead_letters"].as_u64()), (Some(3), Some(0)));

    let want = vec![("/".to_owned(), 2, 2, 100.0), ("/about".to_owned(), 1, 1, 50.0)];
    let began = Instant::now();
    loop {
        let found = views(&client, "page_views").await;
        if found == want {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(views(&client, "page_views_speed").await, want);
    assert_eq!(views(&client, "page_views_batch").await, []);

    client.batch_execute("REFRESH MATERIALIZED VIEW page_views").await.unwrap();
    assert_eq!(views(&client, "page_views").await, want);
    assert_eq!(views(&client, "page_views_batch").await, want);
    assert_eq!(views(&client, "page_views_speed").await, []);

    let plan = explain(&client, "SELECT * FROM page_views WHERE page = '/'").await;
    for part in ["page_views_batch_states", "page_views_speed_states", "Union"] {
        assert!(plan.contains(part), "{plan}");
    }

    let broken = http::append(&process.http, "clicks", b"{\"page\": \n").await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&broken.body).unwrap();
    assert_eq!(answer["dead_letters"].as_u64(), Some(1), "{}", broken.body);
    let began = Instant::now();
    let letters = loop {
        let query = "SELECT _partition, _offset, reason, raw FROM clicks_dead_letters";
        let letters = client.query(query, &[]).await.unwrap();
        if !letters.is_empty() {
            break letters;
        }
        assert!(began.elapsed() < PATIENCE, "there is no dead letter");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(letters.len(), 1);
    assert!(!letters[0].get::<_, String>(2).is_empty());
    assert_eq!(letters[0].get::<_, Vec<u8>>(3), b"{\"page\": ");

    process.kill().await.unwrap();
    let process = Stratus::up(folder.path(), &none).await.unwrap();
    let client = process.connect().await.unwrap();
    assert_eq!(views(&client, "page_views").await, want);
    let version = client.query_one("SELECT version, cut FROM stratus.answer", &[]).await.unwrap();
    assert_eq!(version.get::<_, i32>(0), 2);

    let metrics = http::get(&process.http, "/metrics").await.unwrap();
    assert!(metrics.body.contains("stratus_"), "{}", metrics.body);
    assert_eq!(http::get(&process.http, "/livez").await.unwrap().status, 200);
    assert_eq!(http::get(&process.http, "/readyz").await.unwrap().status, 200);

    let second = Stratus::up(folder.path(), &none).await.unwrap_err();
    assert!(second.to_string().contains("in use by another process"), "{second:#}");
    let (status, _) = process.terminate().await.unwrap();
    assert_eq!(status.code(), Some(0));
}

/// The SQLSTATE, position and hint of what is refused; nothing is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why_and_where() {
    let _turn = stratus_tests::turn().await;
    let folder = tempfile::tempdir().unwrap();
    let process = Stratus::up(folder.path(), &BTreeMap::new()).await.unwrap();
    let client = process.connect().await.unwrap();
    client.batch_execute(SOURCE).await.unwrap();
    for (statement, code, at) in [
        (
            "CREATE MATERIALIZED VIEW v AS SELECT page, median(ms) FROM clicks GROUP BY 1",
            "0A000",
            Some("median"),
        ),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT page, count(DISTINCT ms) FROM clicks GROUP BY 1",
            "0A000",
            None,
        ),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT page, count(*) FROM clicks WHERE at < now() GROUP BY 1",
            "0A000",
            Some("now"),
        ),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT nothing, count(*) FROM clicks GROUP BY 1",
            "42703",
            Some("nothing"),
        ),
        ("CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM nowhere", "42P01", Some("nowhere")),
        ("CREATE TABLE clicks (a INT)", "42P07", None),
        ("SELECT * FROM nowhere", "42P01", None),
        ("SELEC 1", "42601", None),
        ("DROP MATERIALIZED VIEW nowhere", "42P01", None),
        ("INSERT INTO clicks (page) VALUES ('/')", "0A000", None),
        ("COPY clicks TO '/tmp/stolen.csv'", "0A000", None),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "42501", None),
    ] {
        let error = client.batch_execute(statement).await.unwrap_err();
        let refused = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}"));
        assert_eq!(refused.code().code(), code, "{statement}: {refused:?}");
        if let Some(word) = at {
            let position = statement.find(word).unwrap() as u32 + 1;
            assert_eq!(
                refused.position(),
                Some(&tokio_postgres::error::ErrorPosition::Original(position)),
                "{statement}"
            );
        }
    }
    let views = client.query("SELECT * FROM stratus.views", &[]).await.unwrap();
    assert!(views.is_empty());
    process.terminate().await.unwrap();
}
