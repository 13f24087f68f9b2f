//! A process that is gone from one moment to the next: nothing is closed, nothing is settled.

use std::{collections::BTreeSet, time::Duration};

use stratus_connectors::kafka::KafkaSpoutConfig;

use crate::broker::{Topic, eventually, numbers};
use crate::judge::{Run, Sentence};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_acked_is_emitted_again_after_a_crash() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..100));
    let is_open = |offset: i64| offset >= 20 && offset % 7 == 0;
    let (run, process) = Run::start_apart("crash", topic.config(), 1, move |seen| match seen.offset {
        offset if is_open(offset) => Sentence::Hold,
        _ => Sentence::Ack,
    });
    run.until_seen(100).await;
    eventually("the prefix is committed", || topic.committed_offset(0) == Some(21)).await;
    process.crash(run);
    topic.send(0, &numbers(100..120));
    assert_eq!(topic.committed_offset(0), Some(21));
    let run = Run::start("crash", topic.config(), 1, |_| Sentence::Ack);
    eventually("all are committed", || topic.committed_offset(0) == Some(120)).await;
    let again: BTreeSet<i64> = run.offsets().into_iter().collect();
    assert!((20..120).filter(|offset| is_open(*offset)).all(|offset| again.contains(&offset)), "{again:?}");
    assert_eq!(
        run.offsets(),
        (21..120).collect::<Vec<_>>(),
        "what was acked behind an open one comes again, too"
    );
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_and_not_committed_is_emitted_again_after_a_crash() {
    let Some(topic) = Topic::new(2) else { return };
    topic.send(0, &numbers(0..30));
    topic.send(1, &numbers(30..60));
    let config = || KafkaSpoutConfig { commit_interval: Duration::from_secs(3_600), ..topic.config() };
    let (run, process) = Run::start_apart("uncommitted", config(), 2, |_| Sentence::Ack);
    run.until_seen(60).await;
    eventually("all are acked", || run.cluster.is_idle("uncommitted").unwrap()).await;
    process.crash(run);
    let run = Run::start("uncommitted", config(), 2, |_| Sentence::Ack);
    run.until_seen(60).await;
    assert_eq!(run.values().into_iter().collect::<BTreeSet<_>>().len(), 60);
    eventually("all are acked again", || run.cluster.is_idle("uncommitted").unwrap()).await;
    run.kill().await;
    for partition in 0..2 {
        assert_eq!(topic.committed_offset(partition), Some(30));
    }
}
