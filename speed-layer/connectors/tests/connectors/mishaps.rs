//! Offsets without records, and records that are gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use stratus_connectors::kafka::KafkaSpoutConfig;

use crate::broker::{Topic, eventually, numbers};
use crate::judge::{Run, Sentence, a_while};

/// Aborted transactions and the marks of all of them have offsets and are no records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_without_records_are_skipped_when_emitting_replaying_and_committing() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &["a"]);
    topic.transact("first", &["never", "ever"], false);
    topic.transact("second", &["b", "c"], true);
    topic.transact("third", &["nor this"], false);
    topic.send(0, &["d"]);
    topic.transact("last", &["gone"], false);
    // Offsets: a 0, aborted 1-3, b 4, c 5, mark 6, aborted 7-8, d 9, aborted 10-11.
    let run = Run::start("voids", topic.config(), 1, |seen| match seen.before {
        0 if ["a", "b", "d"].contains(&&*seen.value) => Sentence::Fail,
        _ => Sentence::Ack,
    });
    run.until_seen(7).await;
    assert_eq!(run.values(), ["a", "b", "c", "d", "a", "b", "d"]);
    assert_eq!(run.offsets(), [0, 4, 5, 9, 0, 4, 9]);
    eventually("the voids at the end are committed", || topic.committed_offset(0) == Some(12)).await;
    assert_eq!(run.stats.vanished(), 0);
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_retention_took_moves_to_what_is_left() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    topic.commit(0, 2);
    topic.kafka().delete_records(&topic.name, 0, 5).unwrap();
    let run = Run::start("retention", topic.config(), 1, |_| Sentence::Ack);
    run.until_seen(5).await;
    assert_eq!(run.values(), numbers(5..10));
    assert_eq!(run.stats.vanished(), 3);
    eventually("all are committed", || topic.committed_offset(0) == Some(10)).await;
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_behind_the_end_moves_to_the_first_record() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..3));
    topic.commit(0, 50);
    let run = Run::start("behind", topic.config(), 1, |_| Sentence::Ack);
    run.until_seen(3).await;
    assert_eq!(run.values(), numbers(0..3));
    run.kill().await;
}

/// The group must not keep the old place, which the partition may reach again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_moved_back_is_where_a_restart_begins() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..3));
    topic.commit(0, 50);
    let (run, process) = Run::start_apart("grows", topic.config(), 1, |_| Sentence::Hold);
    run.until_seen(3).await;
    process.crash(run);
    topic.send(0, &numbers(3..60));
    let run = Run::start("grows", topic.config(), 1, |_| Sentence::Ack);
    run.until_seen(60).await;
    assert_eq!(run.values(), numbers(0..60));
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_records_that_are_gone_count_as_done() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    let gone = Arc::new(AtomicBool::new(false));
    let are_gone = gone.clone();
    let run = Run::start("gone", topic.config(), 1, move |seen| {
        match (seen.before == 0 && seen.offset % 3 == 1, are_gone.load(SeqCst)) {
            (true, false) => Sentence::Hold,
            (true, true) => Sentence::Fail,
            _ => Sentence::Ack,
        }
    });
    run.until_seen(10).await;
    // 1 and 4 are gone, 7 is not.
    topic.kafka().delete_records(&topic.name, 0, 6).unwrap();
    gone.store(true, SeqCst);
    run.until_seen(11).await;
    assert_eq!(run.offsets()[10..], [7]);
    eventually("all are committed", || topic.committed_offset(0) == Some(10)).await;
    assert_eq!((run.stats.vanished(), run.stats.retried()), (2, 1));
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_is_read_from_its_beginning() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..5));
    let hold = Arc::new(AtomicBool::new(true));
    let holds = hold.clone();
    let run =
        Run::start("anew", topic.config(), 1, move |seen| match seen.offset == 0 && holds.load(SeqCst) {
            true => Sentence::Hold,
            false => Sentence::Ack,
        });
    run.until_seen(5).await;
    topic.kafka().delete_topic(&topic.name).unwrap();
    topic.kafka().create_topic(&topic.name, 2, &[]).unwrap();
    // The outcome of a record of the old topic says nothing about the new one.
    hold.store(false, SeqCst);
    topic.send(0, &numbers(5..15));
    topic.send(1, &numbers(15..17));
    eventually("all are seen", || numbers(5..17).iter().all(|number| run.values().contains(number))).await;
    eventually("all are committed", || topic.committed_offset(0) == Some(10)).await;
    eventually("all of the other are, too", || topic.committed_offset(1) == Some(2)).await;
    run.kill().await;
}

/// Until the new topic is noticed it is read on from the old place, and that is committed: it counts for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_is_read_from_its_beginning_whatever_was_committed_meanwhile() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..5));
    let config = KafkaSpoutConfig { refresh_interval: Duration::from_secs(3), ..topic.config() };
    let run = Run::start("meanwhile", config, 1, |_| Sentence::Ack);
    run.until_seen(5).await;
    // At rest it does not see that the topic is away, or shorter.
    run.deactivate();
    a_while().await;
    topic.kafka().delete_topic(&topic.name).unwrap();
    topic.kafka().create_topic(&topic.name, 1, &[]).unwrap();
    topic.send(0, &numbers(5..15));
    topic.commit_with(0, 7, "stratus topology meanwhile");
    run.activate();
    eventually("all are seen", || numbers(5..15).iter().all(|number| run.values().contains(number))).await;
    eventually("all are committed", || topic.committed_offset(0) == Some(10)).await;
    run.kill().await;
}
