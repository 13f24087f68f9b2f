//! As in Storm's KafkaSpoutSingleTopicTest and KafkaSpoutRetryLimitTest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use stratus_connectors::kafka::{
    KafkaSpout, KafkaSpoutConfig, Record, RecordTranslator, RetryPolicy, Translated,
};
use stratus_topology::{Bolt, LocalCluster, OutputCollector, TaskError, TopologyBuilder, Tuples, fields};

use crate::broker::{Topic, eventually, numbers};
use crate::judge::{Run, Sentence, a_while};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_in_order_and_are_committed_when_the_topology_ends() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..100));
    let config =
        KafkaSpoutConfig { commit_interval: Duration::from_secs(3_600), batch_rows: 7, ..topic.config() };
    let run = Run::start("in-order", config, 1, |_| Sentence::Ack);
    run.until_seen(100).await;
    assert_eq!(run.values(), numbers(0..100));
    assert_eq!(topic.committed_offset(0), Some(0), "where it began");
    eventually("all are acked", || run.cluster.is_idle("in-order").unwrap()).await;
    run.kill().await;
    assert_eq!(
        topic.committed(0),
        Some((100, "partitions at first: 1, stratus topology in-order".to_owned()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_committed_when_the_topology_rests_and_at_their_interval() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    let config = KafkaSpoutConfig { commit_interval: Duration::from_secs(3_600), ..topic.config() };
    let run = Run::start("rests", config, 1, |_| Sentence::Ack);
    run.until_seen(10).await;
    // The acks of the last ones are under way.
    eventually("no tuple is pending", || run.cluster.is_idle("rests").unwrap()).await;
    run.deactivate();
    eventually("commit at rest", || topic.committed_offset(0) == Some(10)).await;
    topic.send(0, &numbers(10..12));
    a_while().await;
    assert_eq!(run.seen().len(), 10);
    run.activate();
    run.until_seen(12).await;
    assert_eq!(run.values(), numbers(0..12));
    run.kill().await;

    let run = Run::start("rests", topic.config(), 1, |_| Sentence::Ack);
    topic.send(0, &numbers(12..14));
    eventually("commit at the interval", || topic.committed_offset(0) == Some(14)).await;
    assert_eq!(run.values(), numbers(12..14));
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_records_are_replayed_in_order() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..20));
    let fails = |offset: i64| [2, 3, 11, 17].contains(&offset);
    let run =
        Run::start("replay", topic.config(), 1, move |seen| match fails(seen.offset) && seen.before == 0 {
            true => Sentence::Fail,
            false => Sentence::Ack,
        });
    run.until_seen(24).await;
    let expected: Vec<i64> = (0..20).chain([2, 3, 11, 17]).collect();
    assert_eq!(run.offsets(), expected);
    eventually("all are committed", || topic.committed_offset(0) == Some(20)).await;
    assert_eq!((run.stats.emitted(), run.stats.retried()), (20, 4));
    run.kill().await;
}

/// Failures arrive one by one and out of order; what has failed is emitted in order none the less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_failed_out_of_order_are_replayed_in_order() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    let initial = Duration::from_millis(100);
    let retries = RetryPolicy { initial, ..RetryPolicy::default() };
    let all = Arc::new(AtomicBool::new(false));
    let seen_all = all.clone();
    let run = Run::start("unordered", KafkaSpoutConfig { retries, ..topic.config() }, 1, move |seen| {
        match (seen.before, seen.offset) {
            // The higher ones at once, the lower ones at the first tick after.
            (0, 6..) => Sentence::Fail,
            (0, _) if !seen_all.load(SeqCst) => Sentence::Hold,
            (0, 3) => Sentence::Fail,
            _ => Sentence::Ack,
        }
    });
    run.until_seen(10).await;
    all.store(true, SeqCst);
    run.until_seen(15).await;
    let again = run.offsets()[10..].to_vec();
    let mut sorted = again.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [3, 6, 7, 8, 9]);
    assert!(again.windows(2).filter(|pair| pair[0] > pair[1]).count() <= 1, "{again:?}");
    eventually("all are committed", || topic.committed_offset(0) == Some(10)).await;
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fails_too_often_counts_as_done() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..5));
    let retries = RetryPolicy { limit: Some(2), ..RetryPolicy::default() };
    let run = Run::start("limit", KafkaSpoutConfig { retries, ..topic.config() }, 1, |_| Sentence::Fail);
    run.until_seen(15).await;
    eventually("all are committed", || topic.committed_offset(0) == Some(5)).await;
    assert!(run.seen().iter().all(|seen| seen.before <= 2));
    assert_eq!((run.seen().len(), run.stats.given_up()), (15, 5));
    run.kill().await;
}

/// Storm's MaxUncommittedOffsetTest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_uncommitted_records_stop_new_ones_but_not_failed_ones() {
    let Some(topic) = Topic::new(2) else { return };
    topic.send(0, &numbers(0..12));
    let config = KafkaSpoutConfig { max_uncommitted_offsets: 5, ..topic.config() };
    let release = Arc::new(AtomicBool::new(false));
    let released = release.clone();
    let run = Run::start("uncommitted", config, 1, move |seen| {
        match (released.load(SeqCst), seen.offset, seen.before) {
            (_, 1..5, 0) => Sentence::Fail,
            (false, 0, _) if seen.partition == 0 => Sentence::Hold,
            _ => Sentence::Ack,
        }
    });
    run.until_seen(9).await;
    a_while().await;
    assert_eq!(run.offsets(), [0, 1, 2, 3, 4, 1, 2, 3, 4], "0 holds the commit back");
    assert_eq!(topic.committed_offset(0), Some(0));
    topic.send(1, &["other"]);
    run.until_seen(10).await;
    release.store(true, SeqCst);
    run.until_seen(17).await;
    eventually("all are committed", || topic.committed_offset(0) == Some(12)).await;
    run.kill().await;
}

/// With a long interval the limit would be a bound on throughput.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_comes_early_if_it_makes_room() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..12));
    let commit_interval = Duration::from_secs(3_600);
    let config = KafkaSpoutConfig { max_uncommitted_offsets: 5, commit_interval, ..topic.config() };
    let run = Run::start("early", config, 1, |_| Sentence::Ack);
    run.until_seen(12).await;
    assert_eq!(run.values(), numbers(0..12));
    run.kill().await;
}

/// Makes tuples of even numbers only.
struct Even;

impl RecordTranslator for Even {
    fn schema(&self) -> SchemaRef {
        fields([("number", DataType::Utf8)])
    }

    fn translate(&self, records: &[Record<'_>]) -> Result<Translated, TaskError> {
        let (mut places, mut texts) = (Vec::new(), Vec::new());
        for (place, record) in records.iter().enumerate() {
            let text = std::str::from_utf8(record.value.unwrap_or_default())?;
            if text.parse::<u32>()? % 2 == 0 {
                places.push(place as u32);
                texts.push(text);
            }
        }
        let column: ArrayRef = Arc::new(StringArray::from(texts));
        Ok(Translated::some(RecordBatch::try_new(self.schema(), vec![column])?, places))
    }
}

/// Acks what is not a multiple of four, and that at the second time.
struct Picky(Vec<String>);

#[async_trait::async_trait]
impl Bolt for Picky {
    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        for tuple in input.iter() {
            let text = tuple.get::<&str>(0)?.to_owned();
            match text.parse::<u32>()? % 4 == 0 && !self.0.contains(&text) {
                true => {
                    self.0.push(text);
                    out.fail_tuple(tuple, "at first");
                }
                false => out.ack_tuple(tuple),
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_without_a_tuple_count_as_done() {
    let Some(topic) = Topic::new(1) else { return };
    topic.send(0, &numbers(0..10));
    let spout = KafkaSpout::with_translator(topic.config(), Even);
    let stats = spout.stats();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("even", move || spout.clone(), 1);
    builder.set_bolt("picky", || Picky(Vec::new()), 1).shuffle_grouping("even");
    let cluster = LocalCluster::new();
    cluster.submit("even", builder.build().unwrap()).unwrap();
    eventually("all are committed", || topic.committed_offset(0) == Some(10)).await;
    assert_eq!((stats.emitted(), stats.without_tuple(), stats.retried()), (5, 5, 3));
    cluster.kill("even", Duration::from_secs(1)).await.unwrap();
}
