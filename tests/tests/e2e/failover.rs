//! The store fails over to a replica that is behind: it goes back as a whole, and nobody is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use stratus_servers::redis::Redis;
use stratus_tests::checker::{self, Watcher};
use stratus_tests::events::Clicks;
use tokio_postgres::Client;

use crate::platform::{Platform, send};

const PARTITIONS: u64 = 4;
/// How far an answer may lag: a store that is away, and then replays or begins anew.
const LAG: Duration = Duration::from_secs(30);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replica of the store, with all that the store has.
fn replica(platform: &Platform) -> Result<Redis> {
    let replica = platform.redis.replica()?;
    replica.until_caught_up(&platform.redis)?;
    Ok(replica)
}

/// The primary is gone for a moment, then the replica answers at its address.
async fn fail_over(platform: &mut Platform, replica: Redis) -> Result<()> {
    platform.redis.kill()?;
    pause(500).await;
    let primary = std::mem::replace(&mut platform.redis, replica);
    platform.redis.take_the_place_of(primary)
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        pause(20).await;
    }
}

/// The generation of the speed state, as soon as it can be asked for and is not `old`.
async fn generation(client: &Client, old: Option<&str>) -> String {
    let began = Instant::now();
    loop {
        let query = "SELECT DISTINCT generation FROM stratus.lag WHERE layer = 'speed'";
        let asked = client.query_one(query, &[]).await.map(|row| row.get::<_, String>(0));
        if let Ok(generation) = &asked
            && old != Some(generation.as_str())
        {
            return generation.clone();
        }
        assert!(began.elapsed() < PATIENCE, "no generation other than {old:?} in time: {asked:?}");
        pause(50).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_takes_over() {
    let _turn = stratus_tests::turn().await;
    let Some(mut platform) = Platform::start(PARTITIONS).await.unwrap() else { return };
    let client = platform.connect().await.unwrap();
    let clicks = Clicks::without_files(10, 1);
    let good = clicks.good;
    let watcher = Watcher::start(platform.address.subscribe(), good, LAG);
    let total = || watcher.total.load(Ordering::SeqCst);
    let producers = platform.producers(PARTITIONS).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sending = send(producers, clicks, move |_| !stopped.load(Ordering::SeqCst), 3_000);
    pause(2_000).await;
    platform.recompute().await.unwrap();

    // It lacks batches that were committed and shown, and nothing else: they are replayed.
    let behind = replica(&platform).unwrap();
    behind.promote().unwrap();
    let (first, at) = (generation(&client, None).await, total());
    pause(2_000).await;
    until("answers move on beyond what the replica has", || total() > at).await;
    fail_over(&mut platform, behind).await.unwrap();
    let at = total();
    until("answers move on after the failover", || total() > at).await;
    assert_eq!(generation(&client, None).await, first, "a store that went back as a whole is replayed");

    // It lacks the cut that a published version rests on.
    let behind = replica(&platform).unwrap();
    behind.promote().unwrap();
    platform.recompute().await.unwrap();
    pause(1_000).await;
    fail_over(&mut platform, behind).await.unwrap();
    // A generation without the cut of a version cannot go on.
    generation(&client, Some(&first)).await;

    // It stood still when the primary died, and runs are under way; what it has is somewhere in a stream.
    let behind = replica(&platform).unwrap();
    behind.pause().unwrap();
    pause(500).await;
    platform.refresh().await;
    pause(300).await;
    platform.redis.kill().unwrap();
    behind.resume().unwrap();
    behind.promote().unwrap();
    fail_over(&mut platform, behind).await.unwrap();
    pause(2_000).await;

    stop.store(true, Ordering::SeqCst);
    let (_, clicks) = sending.await.unwrap().unwrap();
    let good = good.load(Ordering::SeqCst);
    let took = checker::until_total(&client, good, Duration::from_secs(60)).await.unwrap();
    let answers = watcher.stop().await.unwrap();
    checker::exact(&client, &clicks).await.unwrap();
    platform.recompute().await.unwrap();
    checker::exact(&client, &clicks).await.unwrap();
    let rows = client.query("SELECT generation FROM stratus.versions", &[]).await.unwrap();
    let generations: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    println!(
        "{good} events, {answers} answers watched, versions of {} generations; exact {took:?} after the last event",
        generations.len()
    );
    platform.stop().await.unwrap();
}
