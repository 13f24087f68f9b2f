//! The views of a source as a topology: they come and go beside one another, and operators can look at it.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use stratus_tests::checker::{self, Watcher};
use stratus_tests::events::{Clicks, SOURCE, TOTALS, VIEW};
use stratus_tests::process::{Stratus, binary};
use tokio::sync::watch;
use tokio_postgres::Client;

const PATIENCE: Duration = Duration::from_secs(30);

async fn generations(client: &Client) -> Vec<String> {
    let query = "SELECT DISTINCT generation FROM stratus.lag WHERE layer = 'speed'";
    client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn topology(process: &Stratus, arguments: &[&str]) -> Output {
    let url = format!("postgres://stratus@{}/stratus", process.pg);
    let mut command = tokio::process::Command::new(binary().unwrap());
    command.arg("topology").args(arguments).args(["--url", &url]).output().await.unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn views_come_and_go_and_the_others_go_on() {
    let _turn = stratus_tests::turn().await;
    let folder = tempfile::tempdir().unwrap();
    let process = Stratus::up(folder.path(), &BTreeMap::new()).await.unwrap();
    let client = process.connect().await.unwrap();
    client.batch_execute(SOURCE).await.unwrap();
    let mut clicks = Clicks::new(&folder.path().join("data/logs/clicks"), 7, 1).unwrap();
    client.batch_execute(VIEW).await.unwrap();
    client.batch_execute(TOTALS).await.unwrap();
    let (_address, seen) = watch::channel(process.pg.clone());
    let watcher = Watcher::start(seen, clicks.good, Duration::from_secs(5));
    clicks.append(500).unwrap();
    checker::until_total(&client, clicks.good.load(std::sync::atomic::Ordering::SeqCst), PATIENCE)
        .await
        .unwrap();
    let before = generations(&client).await;
    // A view without aggregates, and keys and states of a type that no column has.
    client
        .batch_execute("CREATE MATERIALIZED VIEW seen AS SELECT page FROM clicks GROUP BY page")
        .await
        .unwrap();
    let times = "CREATE MATERIALIZED VIEW times AS
        SELECT date_trunc('minute', at)::time AS minute, count(*) AS n, max(at::time) AS last FROM clicks GROUP BY 1";
    client.batch_execute(times).await.unwrap();

    for round in 0..12 {
        clicks.append(400).unwrap();
        let create = format!(
            "CREATE MATERIALIZED VIEW extra_{round} AS SELECT page, count(*) AS n FROM clicks GROUP BY page"
        );
        client.batch_execute(&create).await.unwrap();
        clicks.append(400).unwrap();
        if round >= 2 {
            client.batch_execute(&format!("DROP MATERIALIZED VIEW extra_{}", round - 2)).await.unwrap();
        }
    }
    let good = clicks.good.load(std::sync::atomic::Ordering::SeqCst);
    checker::until_total(&client, good, PATIENCE).await.unwrap();
    watcher.stop().await.unwrap();
    checker::exact(&client, &clicks).await.unwrap();
    for view in ["extra_10", "extra_11"] {
        let row = client.query_one(&format!("SELECT sum(n)::bigint FROM {view}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0) as u64, good, "{view}");
    }
    assert_eq!(generations(&client).await, before, "nothing was begun anew");

    let query = "SELECT (SELECT count(*) FROM seen), (SELECT count(DISTINCT page) FROM page_views),
        (SELECT sum(n)::bigint FROM times)";
    let row = client.query_one(query, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1));
    assert_eq!(row.get::<_, i64>(2) as u64, good);

    let row = client
        .query_one("SELECT status, failed, panics, errors FROM stratus.topologies WHERE name = 'clicks'", &[])
        .await
        .unwrap();
    let found: (&str, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(found, ("active", 0, 0, 0), "no batch failed");

    let list = topology(&process, &["list"]).await;
    assert!(list.status.success() && text(&list.stdout).contains("clicks"), "{list:?}");
    let described = text(&topology(&process, &["describe", "clicks"]).await.stdout);
    for part in ["Components", "Streams", "$mastercoord", "spout", "bolt"] {
        assert!(described.contains(part), "no {part} in {described}");
    }
    let drawn = text(&topology(&process, &["describe", "clicks", "--dot"]).await.stdout);
    assert!(drawn.starts_with("digraph"), "{drawn}");
    let unknown = topology(&process, &["describe", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("no topology \"nobody\""), "{unknown:?}");

    for view in ["extra_10", "extra_11", "seen", "times", "totals", "page_views"] {
        client.batch_execute(&format!("DROP MATERIALIZED VIEW {view}")).await.unwrap();
    }
    client.batch_execute("DROP TABLE clicks").await.unwrap();
    for _ in 0..100 {
        if !text(&topology(&process, &["list"]).await.stdout).contains("clicks") {
            let (status, log) = process.terminate().await.unwrap();
            assert!(status.success(), "{log}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the topology of a dropped source runs on");
}
