//! As in Storm's KafkaSpoutLogCompactionSupportTest, over a topic that is compacted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::broker::{Topic, eventually};
use crate::judge::{Run, Sentence, a_while};

/// Compacts at once what is not in the last segment, and begins another segment after a moment.
const COMPACTED: [(&str, &str); 5] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "200"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("max.compaction.lag.ms", "200"),
    ("delete.retention.ms", "100"),
];

impl Topic {
    /// Begins a new segment, and waits until these offsets are gone from those before.
    async fn compact(&self, gone: &[i64]) {
        tokio::time::sleep(Duration::from_millis(400)).await;
        self.send_keys(&["last"]);
        eventually("the topic is compacted", || {
            let there = self.records();
            gone.iter().all(|offset| !there.contains(offset))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_records_that_compaction_took_do_not_hold_the_others_back() {
    let Some(topic) = Topic::with(1, &COMPACTED) else { return };
    // 7 and 8 go: 9 and 10 replace them.
    topic.send_keys(&["a", "b", "c", "d", "e", "f", "g", "x", "y", "x", "y"]);
    let (compacted, released) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_compacted, is_released) = (compacted.clone(), released.clone());
    let run = Run::start("compacted", topic.config(), 1, move |seen| match (seen.offset, seen.before) {
        (7 | 8 | 10, _) if !is_compacted.load(SeqCst) => Sentence::Hold,
        (7 | 10, 0) => Sentence::Fail,
        (3, _) if !is_released.load(SeqCst) => Sentence::Hold,
        _ => Sentence::Ack,
    });
    run.until_seen(11).await;
    topic.compact(&[7, 8]).await;
    assert_eq!(topic.records(), [0, 1, 2, 3, 4, 5, 6, 9, 10, 11]);
    compacted.store(true, SeqCst);
    eventually("what is left is emitted again", || run.offsets()[11..].contains(&10)).await;
    eventually("what is gone is given up", || run.stats.vanished() == 1).await;
    a_while().await;
    assert_eq!(topic.committed_offset(0), Some(3), "3 is under way");
    released.store(true, SeqCst);
    eventually("all are committed", || topic.committed_offset(0) == Some(12)).await;
    assert_eq!((run.stats.vanished(), run.stats.retried()), (1, 1));
    run.kill().await;
}

/// The records behind the failed one are not asked for: only a later record tells that it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_record_is_given_up_when_a_later_one_comes_in_its_place() {
    let Some(topic) = Topic::with(1, &COMPACTED) else { return };
    topic.send_keys(&["a", "x", "y", "x", "y"]);
    let compacted = Arc::new(AtomicBool::new(false));
    let is_compacted = compacted.clone();
    let run = Run::start("in-place", topic.config(), 1, move |seen| match (seen.offset, seen.before) {
        (1, _) if !is_compacted.load(SeqCst) => Sentence::Hold,
        (1, 0) => Sentence::Fail,
        _ => Sentence::Ack,
    });
    run.until_seen(5).await;
    topic.compact(&[1, 2]).await;
    compacted.store(true, SeqCst);
    eventually("all are committed", || topic.committed_offset(0) == Some(6)).await;
    assert_eq!((run.stats.vanished(), run.stats.retried()), (1, 0));
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_compacted_already_is_read_and_committed_to_its_end() {
    let Some(topic) = Topic::with(1, &COMPACTED) else { return };
    topic.send_keys(&["x", "y", "a", "x", "y", "b", "x"]);
    topic.compact(&[0, 1, 3]).await;
    assert_eq!(topic.records(), [2, 4, 5, 6, 7]);
    // From the middle of a gap on.
    topic.commit(0, 1);
    let run = Run::start("voids-of-compaction", topic.config(), 1, |seen| match seen.before {
        0 => Sentence::Fail,
        _ => Sentence::Ack,
    });
    run.until_seen(10).await;
    eventually("all are committed", || topic.committed_offset(0) == Some(8)).await;
    assert_eq!((run.stats.vanished(), run.stats.retried()), (0, 5));
    run.kill().await;
}
