//! Several tasks, and partitions that are added: what rebalances are to Storm's older spouts.

use std::collections::{BTreeMap, BTreeSet};

use stratus_connectors::kafka::{FirstPollOffsetStrategy, KafkaSpoutConfig};

use crate::broker::{Topic, eventually, numbers};
use crate::judge::{Run, Sentence, a_while};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_tasks_cover_all_partitions_exactly_once_also_new_ones() {
    let Some(topic) = Topic::new(5) else { return };
    for partition in 0..5 {
        topic.send(partition, &numbers(0..20));
    }
    // New partitions are read from their beginning also with the strategy that skips what is there.
    let first_poll = FirstPollOffsetStrategy::UncommittedLatest;
    (0..5).for_each(|partition| topic.commit(partition, 0));
    let config = KafkaSpoutConfig { first_poll, ..topic.config() };
    let run = Run::start("tasks", config, 3, |_| Sentence::Ack);
    run.until_seen(100).await;
    topic.kafka().add_partitions(&topic.name, 8).unwrap();
    for partition in 5..8 {
        topic.send(partition, &numbers(0..20));
    }
    run.until_seen(160).await;
    a_while().await;
    let mut tasks: BTreeMap<i32, BTreeSet<_>> = BTreeMap::new();
    let mut offsets: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for seen in run.seen() {
        tasks.entry(seen.partition % 3).or_default().insert(seen.task);
        offsets.entry(seen.partition).or_default().push(seen.offset);
    }
    assert!(tasks.values().all(|tasks| tasks.len() == 1), "{tasks:?}");
    assert_eq!(tasks.values().flatten().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(offsets.len(), 8);
    assert!(offsets.values().all(|offsets| *offsets == (0..20).collect::<Vec<_>>()), "{offsets:?}");
    for partition in 0..8 {
        eventually("all are committed", || topic.committed_offset(partition) == Some(20)).await;
    }
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_without_partitions_waits_for_some() {
    let Some(topic) = Topic::new(1) else { return };
    let run = Run::start("many", topic.config(), 2, |_| Sentence::Ack);
    topic.send(0, &["a"]);
    run.until_seen(1).await;
    topic.kafka().add_partitions(&topic.name, 2).unwrap();
    topic.send(1, &["b"]);
    run.until_seen(2).await;
    let seen = run.seen();
    assert_ne!(seen[0].task, seen[1].task);
    run.kill().await;
}
