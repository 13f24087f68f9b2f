//! Clients that we did not write: psql and psycopg.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use stratus_tests::process::Stratus;
use tokio::process::Command;

/// A client's output, or none if the client is not on this machine. With `CI=true` it must be.
async fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().await;
    let Ok(output) = output else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{program} is needed");
        eprintln!("warning: {program} is missing; its test is left out");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

async fn started(folder: &std::path::Path) -> Stratus {
    let process = Stratus::up(folder, &BTreeMap::new()).await.unwrap();
    let client = process.connect().await.unwrap();
    client.batch_execute("CREATE TABLE clicks (page TEXT, ms INT)").await.unwrap();
    client
        .batch_execute(
            "CREATE MATERIALIZED VIEW page_views AS SELECT page, count(*) AS views FROM clicks GROUP BY 1",
        )
        .await
        .unwrap();
    let log = folder.join("data/logs/clicks/0.jsonl");
    std::fs::write(log, "{\"page\":\"/\",\"ms\":1}\n{\"page\":\"/\",\"ms\":2}\n").unwrap();
    let began = Instant::now();
    while client.query("SELECT * FROM page_views", &[]).await.unwrap().len() != 1 {
        assert!(began.elapsed() < Duration::from_secs(60), "the events are not counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_is_at_home() {
    let _turn = stratus_tests::turn().await;
    let folder = tempfile::tempdir().unwrap();
    let process = started(folder.path()).await;
    let port = process.pg.rsplit(':').next().unwrap().to_owned();
    let psql = async |command: &str| {
        let arguments = [
            "-X",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "stratus",
            "stratus",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            command,
        ];
        output("psql", &arguments).await
    };
    let Some(rows) = psql("SELECT page, views FROM page_views").await else { return };
    assert!(rows.contains("/") && rows.contains("2") && rows.contains("(1 row)"), "{rows}");
    let tables = psql("\\d").await.unwrap();
    assert!(tables.contains("clicks") && tables.contains("page_views"), "{tables}");
    let columns = psql("\\d page_views").await.unwrap();
    assert!(columns.contains("views") && columns.contains("bigint"), "{columns}");
    let views = psql("SELECT name, status FROM stratus.views").await.unwrap();
    assert!(views.contains("ready"), "{views}");
    process.terminate().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_is_at_home() {
    let _turn = stratus_tests::turn().await;
    let folder = tempfile::tempdir().unwrap();
    let process = started(folder.path()).await;
    let port = process.pg.rsplit(':').next().unwrap().to_owned();
    let python = std::env::var("STRATUS_TEST_PYTHON").unwrap_or_else(|_| "stratus-test-python".into());
    let script = format!(
        r#"
import psycopg
with psycopg.connect("host=127.0.0.1 port={port} user=test dbname=stratus") as connection:
    with connection.cursor() as cursor:
        cursor.execute("SELECT page, views FROM page_views WHERE page = %s", ("/",))
        assert cursor.fetchall() == [("/", 2)], "a parameter"
        cursor.execute("SELECT views FROM page_views WHERE views > %s", (1,), prepare=True)
        assert cursor.fetchone() == (2,), "a prepared statement"
    with connection.cursor(binary=True) as cursor:
        cursor.execute("SELECT page, views FROM page_views")
        assert cursor.fetchall() == [("/", 2)], "binary"
    try:
        connection.execute("SELECT * FROM nowhere")
    except psycopg.errors.UndefinedTable:
        connection.rollback()
    else:
        raise AssertionError("a missing table")
    assert connection.execute("SELECT 1").fetchone() == (1,), "after the rollback"
print("done")
"#
    );
    if let Some(printed) = output(&python, &["-c", &script]).await {
        assert!(printed.contains("done"), "{printed}");
    }
    process.terminate().await.unwrap();
}
