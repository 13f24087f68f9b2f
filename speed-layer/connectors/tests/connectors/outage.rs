//! The broker is killed while a topology reads from it.

use std::{collections::BTreeSet, time::Duration};

use stratus_connectors::kafka::KafkaSpoutConfig;

use crate::broker::{Topic, eventually_within, numbers};
use crate::judge::{Run, Sentence};

const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_costs_no_record_and_no_commit() {
    let Some(mut topic) = Topic::alone(2) else { return };
    topic.send(0, &numbers(0..1_000));
    topic.send(1, &numbers(1_000..2_000));
    // So few that neither partition is read to its end before commits of the first half are through.
    let config = KafkaSpoutConfig { max_uncommitted_offsets: 100, batch_rows: 50, ..topic.config() };
    let run = Run::start("outage", config, 2, |seen| match seen.offset % 7 == 3 && seen.before == 0 {
        true => Sentence::Fail,
        false => Sentence::Ack,
    });
    eventually_within(PATIENCE, "it is at work", || run.seen().len() >= 300).await;
    topic.own_kafka().kill().unwrap();
    // For so long that whatever does not wait for the broker fails. There is a commit under way.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(run.seen().len() < 2_000, "it was killed too late");
    topic.own_kafka().restart().unwrap();
    topic.send(0, &numbers(2_000..2_100));
    for (partition, end) in [(0, 1_100), (1, 1_000)] {
        eventually_within(PATIENCE, "all are committed", || topic.committed_offset(partition) == Some(end))
            .await;
    }
    let seen: BTreeSet<String> = run.values().into_iter().collect();
    assert!(numbers(0..2_100).iter().all(|number| seen.contains(number)));
    let again = (0..1_100).chain(0..1_000).filter(|offset| offset % 7 == 3).count() as u64;
    assert!(run.stats.retried() >= again, "{} of {again}", run.stats.retried());
    assert_eq!(run.stats.vanished(), 0);
    run.kill().await;
}
