//! Several tasks, and partitions that are added: what rebalances are to Storm's older spouts.

use std::collections::{BTreeMap, BTreeSet};

use stratus_connectors::kafka::{FirstPollOffsetStrategy, KafkaSpoutConfig};

use crate::broker::{Topic, eventually, numbers};
use crate::judge::{Run, Sentence, a_while};

fn latest(topic: &Topic) -> KafkaSpoutConfig {
    KafkaSpoutConfig { first_poll: FirstPollOffsetStrategy::Latest, ..topic.config() }
}

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

/// The strategy asks for the end, and what was emitted before is not acked: it must not be skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_before_the_first_commit_of_a_new_partition_loses_nothing() {
    let Some(topic) = Topic::new(1) else { return };
    let (run, process) = Run::start_apart("added", latest(&topic), 1, |_| Sentence::Hold);
    eventually("it has begun", || topic.committed_offset(0).is_some()).await;
    topic.kafka().add_partitions(&topic.name, 2).unwrap();
    topic.send(1, &numbers(0..10));
    run.until_seen(10).await;
    process.crash(run);
    let run = Run::start("added", latest(&topic), 1, |_| Sentence::Ack);
    run.until_seen(10).await;
    assert_eq!(run.values(), numbers(0..10));
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_to_an_empty_new_partition_while_the_topology_is_down_is_read() {
    let Some(topic) = Topic::new(1) else { return };
    let run = Run::start("empty", latest(&topic), 1, |_| Sentence::Ack);
    eventually("it has begun", || topic.committed_offset(0).is_some()).await;
    topic.kafka().add_partitions(&topic.name, 2).unwrap();
    eventually("the beginning is committed", || topic.committed_offset(1) == Some(0)).await;
    run.kill().await;
    topic.send(1, &numbers(0..5));
    let run = Run::start("empty", latest(&topic), 1, |_| Sentence::Ack);
    run.until_seen(5).await;
    assert_eq!(run.values(), numbers(0..5));
    run.kill().await;
}

/// Also by a task that had no partition before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_added_while_the_topology_is_down_is_read_from_its_first_record() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &["old"]);
    let run = Run::start("down", latest(&topic), 2, |_| Sentence::Ack);
    eventually("it has begun", || topic.committed_offset(0) == Some(1)).await;
    run.kill().await;
    topic.kafka().add_partitions(&topic.name, 3).unwrap();
    topic.send(1, &["a"]);
    topic.send(2, &["b"]);
    let run = Run::start("down", latest(&topic), 2, |_| Sentence::Ack);
    run.until_seen(2).await;
    a_while().await;
    assert_eq!(run.values().into_iter().collect::<BTreeSet<_>>(), ["a", "b"].map(str::to_owned).into());
    run.kill().await;
}
