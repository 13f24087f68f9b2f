//! The platform as it is run in production: Kafka, Redis, one process per layer, producers that are other programs;
//! and each of them dies.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stratus_tests::checker::{self, Watcher};
use stratus_tests::events::Clicks;
use stratus_tests::process::Stratus;

use crate::platform::{Platform, send};

const PARTITIONS: u64 = 4;
/// How far an answer may lag: an event counts as sent when its producer begins to try, and a broker that was killed
/// takes its time to come back.
const LAG: Duration = Duration::from_secs(60);
#[tokio::test(flavor = "multi_thread")]
async fn every_layer_and_every_server_dies() {
    let _turn = stratus_tests::turn().await;
    let Some(mut platform) = Platform::start(PARTITIONS).await.unwrap() else { return };
    let clicks = Clicks::without_files(7, 1);
    let watcher = Watcher::start(platform.address.subscribe(), clicks.good, LAG);
    let producers = platform.producers(PARTITIONS).await.unwrap();
    let good = clicks.good;
    let count = stratus_tests::event_count();
    let sending = send(producers, clicks, move |sent| sent < count, 5_000);

    let pause = async |seconds: u64| tokio::time::sleep(Duration::from_secs(seconds)).await;
    pause(2).await;
    platform.refresh().await;
    platform.replace("speed").await.unwrap();
    pause(2).await;
    platform.replace("ingest").await.unwrap();
    platform.refresh().await;
    pause(1).await;
    platform.replace("batch").await.unwrap();
    pause(1).await;
    platform.replace("serve").await.unwrap();
    pause(1).await;
    platform.redis.kill().unwrap();
    pause(1).await;
    platform.redis.restart().unwrap();
    pause(3).await;
    platform.kafka.kill().unwrap();
    pause(2).await;
    platform.kafka.restart().unwrap();
    pause(3).await;
    platform.redis.flush().unwrap();
    pause(5).await;
    platform.refresh().await;
    pause(2).await;

    // A zombie: the speed layer stands still for longer than every time-out, another one takes over, and it wakes up.
    let zombie = platform.layers.remove("speed").unwrap();
    zombie.signal("STOP").await.unwrap();
    platform.start_layer("speed").await.unwrap();
    pause(15).await;
    zombie.signal("CONT").await.unwrap();
    pause(3).await;
    let before = good.load(Ordering::SeqCst);
    assert!(!watcher.failed(), "the watcher has found something: {:?}", watcher.stop().await);
    zombie.kill().await.unwrap();

    let (producers, clicks) = sending.await.unwrap().unwrap();
    let client = platform.connect().await.unwrap();
    let good = clicks.good.load(Ordering::SeqCst);
    let took = checker::until_total(&client, good, Duration::from_secs(60)).await.unwrap();
    let answers = watcher.stop().await.unwrap();
    checker::exact(&client, &clicks).await.unwrap();
    println!(
        "{good} events (and {} aborted ones), {} bad, {answers} answers watched, {before} before the zombie woke; \
         exact {took:?} after the last event",
        producers.aborted, clicks.bad
    );
    platform.stop().await.unwrap();
}

/// A second process of a layer, started by mistake, is refused or does no harm; so is one with a store that cannot
/// be shared.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_of_a_layer_does_no_harm() {
    let _turn = stratus_tests::turn().await;
    let Some(mut platform) = Platform::shared(PARTITIONS).await.unwrap() else { return };
    let client = platform.connect().await.unwrap();
    let clicks = Clicks::without_files(8, 1);
    let watcher = Watcher::start(platform.address.subscribe(), clicks.good, LAG);
    let producers = platform.producers(PARTITIONS).await.unwrap();
    let sending = send(producers, clicks, |sent| sent < 20_000, 2_000);
    let mut second = Vec::new();
    for layer in ["speed", "ingest", "batch", "serve"] {
        second.push(Stratus::start(layer, platform.folder.path(), &platform.environment).await.unwrap());
    }
    platform.refresh().await;
    let (_, clicks) = sending.await.unwrap().unwrap();
    let good = clicks.good.load(Ordering::SeqCst);
    let other = second.last().unwrap().connect().await.unwrap();
    for client in [&client, &other] {
        checker::until_total(client, good, Duration::from_secs(60)).await.unwrap();
        checker::exact(client, &clicks).await.unwrap();
    }
    watcher.stop().await.unwrap();
    // The first ones go; the second ones carry on alone.
    for layer in ["speed", "batch", "serve"] {
        platform.kill(layer).await.unwrap();
    }
    other.batch_execute("REFRESH MATERIALIZED VIEW page_views").await.unwrap();
    checker::exact(&other, &clicks).await.unwrap();

    let redb = BTreeMap::from([("STRATUS__STATE__KIND", "redb".to_owned())]);
    let folder = tempfile::tempdir().unwrap();
    let refused = Stratus::start("speed", folder.path(), &redb).await.unwrap_err().to_string();
    assert!(refused.contains("redb, a file that one process holds"), "{refused}");
}
