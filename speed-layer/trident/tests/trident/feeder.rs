//! Spouts that are fed by hand, together with other spouts.

use std::{sync::Arc, time::Duration};

use stratus_seam::{
    ids::SourceId,
    store::{LedgerStore, StateStore},
};
use stratus_state::memory::MemoryStore;
use stratus_trident::{FeederBatchSpout, LogSpout};

use crate::{
    counting::{Counts, all_committed, count, kill, start, topology, words},
    memory_log::{Lines, MemoryLog},
    support::{batch, text},
};

async fn log() -> (MemoryLog, Arc<dyn LedgerStore>) {
    (MemoryLog::new(1), MemoryStore::new().source(SourceId::new()).await.unwrap().ledger)
}

async fn soon(what: &str, done: impl Future<Output = ()>) {
    assert!(tokio::time::timeout(Duration::from_secs(10), done).await.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feeder_without_a_batch_stops_nobody() {
    let ((log, ledger), counts) = (log().await, Counts::default());
    let (fed, idle) = (FeederBatchSpout::new(text("line")), FeederBatchSpout::new(text("line")));
    let topology = topology();
    let lines =
        topology.new_stream("log", LogSpout::transactional(Arc::new(log.clone()), ledger.clone(), Lines));
    let (some, none) = (topology.new_stream("fed", fed.clone()), topology.new_stream("idle", idle.clone()));
    count(&lines.shuffle().merge(&[&some, &none]), &counts);
    let cluster = start(&topology);
    log.append(0, "log log");
    all_committed(&ledger, &log).await;
    soon("the other feeder has nothing", fed.feed_and_wait(batch("line", &["fed"]))).await;
    log.append(0, "log");
    all_committed(&ledger, &log).await;
    soon("this is its first batch", idle.feed_and_wait(batch("line", &["late"]))).await;
    assert_eq!(idle.feed(batch("line", &["late"])), 2);
    soon("and its second", idle.wait(2)).await;
    kill(&cluster).await;
    assert_eq!(counts.now(), words([("fed", 1), ("late", 2), ("log", 3)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feeder_beside_a_log_that_is_ahead_begins_with_its_first_batch() {
    let ((log, ledger), counts) = (log().await, Counts::default());
    (0..10).for_each(|_| log.append(0, "log"));
    let fed = FeederBatchSpout::new(text("line"));
    for with_feeder in [false, true] {
        let topology = topology();
        let spout = LogSpout::transactional(Arc::new(log.clone()), ledger.clone(), Lines).max_bytes(1);
        let mut lines = topology.new_stream("log", spout).shuffle();
        if with_feeder {
            lines = lines.merge(&[&topology.new_stream("fed", fed.clone())]);
        }
        count(&lines, &counts);
        let cluster = start(&topology);
        all_committed(&ledger, &log).await;
        if with_feeder {
            for line in ["one", "two", "three"] {
                soon(line, fed.feed_and_wait(batch("line", &[line]))).await;
            }
        }
        kill(&cluster).await;
    }
    assert_eq!(counts.now(), words([("log", 10), ("one", 1), ("three", 1), ("two", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_let_go_and_what_is_not_outlives_the_topology() {
    let (fed, counts) = (FeederBatchSpout::new(text("line")), Counts::default());
    for life in 1..=3 {
        let topology = topology();
        count(&topology.new_stream("fed", fed.clone()), &counts);
        counts.refuse(true);
        let cluster = start(&topology);
        for _ in 0..10 {
            fed.feed(batch("line", &["a", "b"]));
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(fed.waiting(), 10, "nothing is committed");
        if life < 3 {
            kill(&cluster).await;
        }
        counts.refuse(false);
        if life < 3 {
            // The next life commits what this one had begun.
            let cluster = start(&topology);
            soon("they are committed", fed.wait(life * 10)).await;
            kill(&cluster).await;
        } else {
            soon("they are committed", fed.wait(life * 10)).await;
            kill(&cluster).await;
        }
        assert_eq!(fed.waiting(), 0);
    }
    assert_eq!(counts.now(), words([("a", 30), ("b", 30)]));
}
