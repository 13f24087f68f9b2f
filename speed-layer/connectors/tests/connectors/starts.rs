//! Where reading begins: at the first deployment, and at a restart.

use chrono::DateTime;
use stratus_connectors::kafka::{FirstPollOffsetStrategy, KafkaSpoutConfig};

use crate::broker::{Topic, eventually, numbers};
use crate::judge::{Run, Sentence, a_while};

fn from(topic: &Topic, first_poll: FirstPollOffsetStrategy) -> KafkaSpoutConfig {
    KafkaSpoutConfig { first_poll, ..topic.config() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earliest_applies_at_the_first_deployment_only() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    topic.commit(0, 5);
    let earliest = || from(&topic, FirstPollOffsetStrategy::Earliest);
    let run = Run::start("first", earliest(), 1, |_| Sentence::Ack);
    run.until_seen(10).await;
    assert_eq!(run.values(), numbers(0..10), "what somebody else committed does not count");
    run.kill().await;
    topic.send(0, &numbers(10..13));
    let run = Run::start("first", earliest(), 1, |_| Sentence::Ack);
    run.until_seen(3).await;
    a_while().await;
    assert_eq!(run.values(), numbers(10..13));
    run.kill().await;
    let run = Run::start("second", earliest(), 1, |_| Sentence::Ack);
    run.until_seen(13).await;
    assert_eq!(run.values(), numbers(0..13));
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uncommitted_strategies_go_on_where_the_group_is() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    topic.commit(0, 5);
    for strategy in [FirstPollOffsetStrategy::UncommittedEarliest, FirstPollOffsetStrategy::UncommittedLatest]
    {
        let run = Run::start(&format!("{strategy:?}"), from(&topic, strategy), 1, |_| Sentence::Hold);
        run.until_seen(5).await;
        assert_eq!(run.values(), numbers(5..10));
        run.kill().await;
    }
}

/// A crash before the first commit of an ack must not lose what came in the meantime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_is_where_the_first_deployment_began() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    let latest = || from(&topic, FirstPollOffsetStrategy::Latest);
    let run = Run::start("latest", latest(), 1, |_| Sentence::Hold);
    eventually("the beginning is committed", || topic.committed_offset(0) == Some(10)).await;
    topic.send(0, &numbers(10..12));
    run.until_seen(2).await;
    run.kill().await;
    topic.send(0, &numbers(12..14));
    let run = Run::start("latest", latest(), 1, |_| Sentence::Ack);
    run.until_seen(4).await;
    assert_eq!(run.values(), numbers(10..14));
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_by_time_is_the_first_record_from_then_on() {
    let Some(topic) = Topic::new(2) else { return };
    let first = 1_767_225_600_000;
    topic.send_at(0, &numbers(0..5), Some(first));
    topic.send_at(1, &numbers(5..7), Some(first));
    let moment = DateTime::from_timestamp_millis(first + 1_500).unwrap();
    let run =
        Run::start("moment", from(&topic, FirstPollOffsetStrategy::Timestamp(moment)), 1, |_| Sentence::Ack);
    run.until_seen(3).await;
    // Nothing of the second partition is that new, other than what comes now.
    topic.send_at(1, &["new"], Some(first + 9_000));
    run.until_seen(4).await;
    assert_eq!(run.values(), ["2", "3", "4", "new"]);
    run.kill().await;
}
