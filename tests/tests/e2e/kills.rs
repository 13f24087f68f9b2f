//! Random kill -9 under load, a deleted state file, and the proof that the comparison can fail.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stratus_tests::checker;

use crate::run::{LAG, LAG_AFTER_KILL, Run};

/// Twenty kills while commits are in flight; 200,000 events (or as `STRATUS_TEST_EVENTS` says), 1 % of them bad.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_lose_nothing_and_count_nothing_twice() {
    let _turn = stratus_tests::turn().await;
    let none = BTreeMap::new();
    let mut random = StdRng::seed_from_u64(20);
    let mut run = Run::start(1, &none, LAG_AFTER_KILL).await.unwrap();
    for round in 0..20 {
        run.send(stratus_tests::event_count() / 20, Duration::from_millis(random.random_range(300..1_500)))
            .await
            .unwrap();
        if round % 3 == 0 {
            run.refresh().await.unwrap();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        }
        run.kill().await.unwrap();
        run.up(&none).await.unwrap();
    }
    assert_eq!(run.kills, 20);
    let took = run.settle(Duration::from_secs(30)).await.unwrap();
    println!("exact {took:?} after the last of 20 kills");
}

/// The speed layer's state is not precious: without it the answers become exact again by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_state_file_is_rebuilt() {
    let _turn = stratus_tests::turn().await;
    let none = BTreeMap::new();
    let mut run = Run::start(2, &none, LAG_AFTER_KILL).await.unwrap();
    run.send(20_000, Duration::from_secs(2)).await.unwrap();
    run.refresh().await.unwrap();
    run.send(5_000, Duration::from_secs(1)).await.unwrap();
    run.kill().await.unwrap();
    std::fs::remove_file(run.state_file()).unwrap();
    run.send(1_000, Duration::from_millis(100)).await.unwrap();
    run.up(&none).await.unwrap();
    run.send(5_000, Duration::from_secs(1)).await.unwrap();
    let took = run.settle(Duration::from_secs(30)).await.unwrap();
    println!("exact {took:?} after the state file was deleted");
}

/// Without faults an answer is exact within two seconds of the last event, if the machine is not busy with other things
/// each time.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_event_is_counted_within_two_seconds() {
    let _turn = stratus_tests::turn().await;
    let mut run = Run::start(3, &BTreeMap::new(), LAG).await.unwrap();
    let client = run.process.as_ref().unwrap().connect().await.unwrap();
    let mut took = Vec::new();
    for _ in 0..5 {
        run.send(5_000, Duration::from_secs(1)).await.unwrap();
        let good = run.clicks.good.load(Ordering::SeqCst);
        took.push(checker::until_total(&client, good, LAG).await.unwrap());
    }
    assert!(took.iter().any(|took| *took <= Duration::from_secs(2)), "{took:?}");
    run.settle(LAG).await.unwrap();
    println!("exact {took:?} after the last event");
}

/// The negative control: one event that the generator counted and the log does not have is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_line_is_noticed() {
    let _turn = stratus_tests::turn().await;
    let mut run = Run::start(4, &BTreeMap::new(), LAG).await.unwrap();
    run.send(2_000, Duration::from_millis(500)).await.unwrap();
    let lost = run.clicks.truth.values_mut().next().unwrap();
    lost.views += 1;
    let good = run.clicks.good.load(Ordering::SeqCst);
    let client = run.process.as_ref().unwrap().connect().await.unwrap();
    checker::until_total(&client, good, Duration::from_secs(10)).await.unwrap();
    let difference = checker::exact(&client, &run.clicks).await.unwrap_err();
    assert!(difference.to_string().contains("views"), "{difference:#}");
    let short = checker::until_total(&client, good + 1, Duration::from_millis(500)).await;
    assert!(short.unwrap_err().to_string().contains("stands at"));
}
