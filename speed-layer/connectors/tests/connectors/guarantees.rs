//! As in Storm's KafkaSpoutMessagingGuaranteeTest.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use stratus_connectors::kafka::{KafkaSpoutConfig, ProcessingGuarantee};

use crate::broker::{Topic, eventually, numbers};
use crate::judge::{Run, Sentence, a_while};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_once_commits_before_it_emits() {
    let Some(topic) = Topic::new(1) else { return };
    let topic = Arc::new(topic);
    topic.send(0, &numbers(0..20));
    let config =
        KafkaSpoutConfig { guarantee: ProcessingGuarantee::AtMostOnce, batch_rows: 5, ..topic.config() };
    let (asked, early) = (topic.clone(), Arc::new(AtomicBool::new(false)));
    let too_early = early.clone();
    let run = Run::start("at-most-once", config, 1, move |seen| {
        if asked.committed_offset(0).is_none_or(|committed| committed <= seen.offset) {
            too_early.store(true, SeqCst);
        }
        Sentence::Fail
    });
    run.until_seen(20).await;
    a_while().await;
    assert_eq!(run.values(), numbers(0..20), "none is emitted again");
    assert!(!early.load(SeqCst));
    run.kill().await;
    // What a crash interrupts is not repeated.
    let config = KafkaSpoutConfig { guarantee: ProcessingGuarantee::AtMostOnce, ..topic.config() };
    let run = Run::start("at-most-once", config, 1, |_| Sentence::Ack);
    topic.send(0, &["next"]);
    run.until_seen(1).await;
    assert_eq!(run.values(), ["next"]);
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_once_can_be_slowed_down_by_pending_tuples() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..5));
    let config =
        KafkaSpoutConfig { guarantee: ProcessingGuarantee::AtMostOnce, track_tuples: true, ..topic.config() };
    let run = Run::start("tracked", config, 1, |_| Sentence::Hold);
    run.until_seen(5).await;
    assert!(!run.cluster.is_idle("tracked").unwrap());
    assert_eq!(topic.committed_offset(0), Some(5));
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_commits_only_what_is_acked() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    let release = Arc::new(AtomicBool::new(false));
    let released = release.clone();
    let run = Run::start("at-least-once", topic.config(), 1, move |seen| match seen.offset == 4 {
        true if !released.load(SeqCst) => Sentence::Hold,
        _ => Sentence::Ack,
    });
    run.until_seen(10).await;
    eventually("the prefix is committed", || topic.committed_offset(0) == Some(4)).await;
    a_while().await;
    assert_eq!(topic.committed_offset(0), Some(4));
    release.store(true, SeqCst);
    eventually("all are committed", || topic.committed_offset(0) == Some(10)).await;
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_guarantee_what_was_emitted_is_committed_now_and_then() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    let config = KafkaSpoutConfig { guarantee: ProcessingGuarantee::NoGuarantee, ..topic.config() };
    let run = Run::start("no-guarantee", config, 1, |_| Sentence::Fail);
    eventually("all are committed", || topic.committed_offset(0) == Some(10)).await;
    a_while().await;
    assert_eq!(run.values(), numbers(0..10));
    run.kill().await;
}
