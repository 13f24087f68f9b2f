//! Batches of logs that lose records or cannot be read, and of ledgers that do not stand at the same transaction.

use std::{sync::Arc, time::Duration};

use stratus_seam::{
    ids::SourceId,
    ledger::Ledger,
    store::{Durability, LedgerStore, StateStore, TxnChanges},
};
use stratus_state::memory::MemoryStore;
use stratus_topology::TopologyConfig;
use stratus_trident::LogSpout;

use crate::{
    counting::{Counts, all_committed, count, kill, record, start, topology, until, words},
    memory_log::{Lines, MemoryLog, Trouble},
};

async fn ledger(store: &MemoryStore, source: SourceId) -> Arc<dyn LedgerStore> {
    store.source(source).await.unwrap().ledger
}

fn transactional(log: &MemoryLog, ledger: &Arc<dyn LedgerStore>) -> LogSpout<Lines> {
    LogSpout::transactional(Arc::new(log.clone()), Arc::clone(ledger), Lines)
}

fn opaque(log: &MemoryLog, ledger: &Arc<dyn LedgerStore>) -> LogSpout<Lines> {
    LogSpout::opaque(Arc::new(log.clone()), Arc::clone(ledger), Lines)
}

/// A log and its ledger.
struct Source {
    log: MemoryLog,
    ledger: Arc<dyn LedgerStore>,
}

impl Source {
    async fn new(partitions: usize) -> Self {
        let ledger = ledger(&MemoryStore::new(), SourceId::new()).await;
        Self { log: MemoryLog::new(partitions), ledger }
    }

    fn append(&self, lines: usize, line: &str) {
        (0..lines).for_each(|_| self.log.append(0, line));
    }

    async fn appended(&self, txid: u64) {
        until("it is in the ledger", || async {
            record(&self.ledger).await.is_some_and(|record| record.appended >= txid)
        })
        .await;
    }

    /// Counts to the end with a spout of one batch for each line.
    async fn count_alone(&self, counts: &Counts) {
        let topology = topology();
        count(&topology.new_stream("a", transactional(&self.log, &self.ledger).max_bytes(1)), counts);
        let cluster = start(&topology);
        all_committed(&self.ledger, &self.log).await;
        kill(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spout_that_joins_others_goes_on_where_they_are() {
    for new_is_first in [true, false] {
        let (old, new, counts) = (Source::new(1).await, Source::new(1).await, Counts::default());
        old.append(20, "old");
        old.count_alone(&counts).await;
        // A backlog of several batches, and a crash while they are open.
        new.append(10, "new");
        old.append(3, "old");
        counts.refuse(true);
        for ends in [false, true] {
            let topology = topology();
            let of_old =
                || topology.new_stream("old", transactional(&old.log, &old.ledger).max_bytes(1)).shuffle();
            let of_new =
                || topology.new_stream("new", transactional(&new.log, &new.ledger).max_bytes(1)).shuffle();
            let lines = match new_is_first {
                true => of_new().merge(&[&of_old()]),
                false => of_old().merge(&[&of_new()]),
            };
            count(&lines, &counts);
            let cluster = start(&topology);
            if ends {
                counts.refuse(false);
                all_committed(&old.ledger, &old.log).await;
                all_committed(&new.ledger, &new.log).await;
            } else {
                old.appended(23).await;
                new.appended(23).await;
            }
            kill(&cluster).await;
        }
        assert_eq!(counts.now(), words([("new", 10), ("old", 23)]), "the new one first: {new_is_first}");
        let (old, new) = (record(&old.ledger).await.unwrap(), record(&new.ledger).await.unwrap());
        assert_eq!(old.appended, new.appended, "both know every batch");
        assert!(new.appended >= 30);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_lost_its_tail_is_refused_and_one_that_is_whole_goes_on() {
    let (store, id) = (MemoryStore::new(), SourceId::new());
    let (kept, counts) = (Source::new(1).await, Counts::default());
    let lost = Source { log: MemoryLog::new(1), ledger: ledger(&store, id).await };
    let merged = || {
        let topology = topology();
        let one = topology.new_stream("kept", transactional(&kept.log, &kept.ledger).max_bytes(1)).shuffle();
        let other = topology.new_stream("lost", transactional(&lost.log, &lost.ledger).max_bytes(1));
        count(&one.merge(&[&other]), &counts);
        start(&topology)
    };
    let cluster = merged();
    lost.append(3, "lost");
    all_committed(&lost.ledger, &lost.log).await;
    let early = store.snapshot();
    lost.append(5, "lost");
    kept.append(5, "kept");
    all_committed(&lost.ledger, &lost.log).await;
    all_committed(&kept.ledger, &kept.log).await;
    kill(&cluster).await;
    let late = store.snapshot();

    store.restore_ledger(id, &early);
    lost.append(1, "lost");
    let cluster = merged();
    until("it is refused", || async {
        let metrics = cluster.metrics("test").unwrap();
        let error = metrics.components["$mastercoord-bg0"].last_error.clone().unwrap_or_default();
        error.contains("spout `lost`: its ledger ends with batch") && error.contains("lost its tail")
    })
    .await;
    kill(&cluster).await;
    assert_eq!(counts.now(), words([("kept", 5), ("lost", 8)]), "nothing was counted twice");

    store.restore_ledger(id, &late);
    let cluster = merged();
    all_committed(&lost.ledger, &lost.log).await;
    kill(&cluster).await;
    assert_eq!(counts.now(), words([("kept", 5), ("lost", 9)]));
}

/// The store of a running process's ledger loses its end, or everything: the process knows what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_its_store_lost_is_written_down_again() {
    for (everything, refuses) in [(false, false), (false, true), (true, false), (true, true)] {
        let (store, id) = (MemoryStore::new(), SourceId::new());
        let mut back = store.snapshot();
        let source = Source { log: MemoryLog::new(2), ledger: ledger(&store, id).await };
        let counts = Counts::default();
        let topology = topology();
        count(
            &topology.new_stream("lines", transactional(&source.log, &source.ledger).max_bytes(1)),
            &counts,
        );
        let cluster = start(&topology);
        source.append(3, "before");
        all_committed(&source.ledger, &source.log).await;
        if !everything {
            back = store.snapshot();
        }
        source.append(4, "lost");
        all_committed(&source.ledger, &source.log).await;
        // Batches of which the store then knows nothing are under way, and have written or not.
        counts.refuse(refuses);
        let committed = record(&source.ledger).await.unwrap().committed;
        source.append(5, "open");
        source.appended(committed + 1).await;
        store.restore_ledger(id, &back);
        source.log.append(1, "after");
        tokio::time::sleep(Duration::from_millis(50)).await;
        counts.refuse(false);
        all_committed(&source.ledger, &source.log).await;
        kill(&cluster).await;
        let all = words([("before", 3), ("lost", 4), ("open", 5), ("after", 1)]);
        assert_eq!(counts.now(), all, "everything: {everything}, refuses: {refuses}");
        let record = record(&source.ledger).await.unwrap();
        assert_eq!(record.appended, record.committed);
        // The next life goes on from there.
        source.append(1, "after");
        source.count_alone(&counts).await;
        assert_eq!(counts.now()["after"], 2);
    }
}

/// As one is whose restoring was cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_lacks_an_entry_is_not_gone_on_from() {
    let (source, counts) = of_five().await;
    source.count_alone(&counts).await;
    let whole = record(&source.ledger).await.unwrap();
    let next = Ledger { appended: whole.appended + 1, revision: whole.revision + 1, ..whole.clone() };
    let expected = Some((whole.token, whole.revision));
    source.ledger.write(expected, &next, TxnChanges::default(), Durability::Now).await.unwrap();
    source.append(1, "f");
    let topology = topology();
    count(&topology.new_stream("a", transactional(&source.log, &source.ledger)), &counts);
    let cluster = start(&topology);
    let lacks = format!("and lacks batch {}", next.appended);
    until("it is refused", || async {
        let metrics = cluster.metrics("test").unwrap();
        metrics.components["$mastercoord-bg0"].last_error.as_ref().is_some_and(|error| error.contains(&lacks))
    })
    .await;
    kill(&cluster).await;
    assert_eq!(counts.now().len(), 5);
}

/// What is told of a batch of two spouts may be too much for one piece.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_a_batch_of_many_partitions_is_told_in_pieces() {
    const PARTITIONS: usize = 2_000;
    let (one, other, counts) =
        (Source::new(PARTITIONS).await, Source::new(PARTITIONS).await, Counts::default());
    let config = TopologyConfig { queue_bytes: 64 << 10, ..TopologyConfig::default() };
    let topology = topology().config(config);
    let of_one = topology.new_stream("one", transactional(&one.log, &one.ledger)).parallelism_hint(2);
    let of_other = topology.new_stream("other", transactional(&other.log, &other.ledger));
    count(&of_one.shuffle().merge(&[&of_other.shuffle()]), &counts);
    (0..PARTITIONS).for_each(|partition| {
        one.log.append(partition, "one");
        other.log.append(partition, "other");
    });
    let cluster = start(&topology);
    all_committed(&one.ledger, &one.log).await;
    all_committed(&other.ledger, &other.log).await;
    kill(&cluster).await;
    let each = PARTITIONS as i64;
    assert_eq!(counts.now(), words([("one", each), ("other", each)]));
    let batches = record(&one.ledger).await.unwrap().committed;
    assert!(batches < 100, "in few batches: {batches}");
}

/// What is given to a log that lost its end has offsets that were counted before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_end_is_not_read_on() {
    let (source, counts) = of_five().await;
    let life = || {
        let topology = topology();
        count(&topology.new_stream("lines", opaque(&source.log, &source.ledger)), &counts);
        start(&topology)
    };
    let refused = async |cluster: &_| {
        until("it is refused", || async {
            let metrics = stratus_topology::LocalCluster::metrics(cluster, "test").unwrap();
            let error = metrics.components["$mastercoord-bg0"].last_error.clone().unwrap_or_default();
            error.contains("lost its tail")
        })
        .await;
    };
    let cluster = life();
    all_committed(&source.ledger, &source.log).await;
    source.log.cut_off(0, 3);
    refused(&cluster).await;
    source.log.append_all(0, &["x", "y", "z"]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    kill(&cluster).await;
    assert_eq!(counts.now().len(), 5, "also when it is longer than it was");
    source.log.cut_off(0, 4);
    let cluster = life();
    refused(&cluster).await;
    kill(&cluster).await;
    assert_eq!(counts.now().len(), 5, "the next life looks where it ends");
}

/// Lets a batch be written down, not committed, and lets the process end; `lose` happens, and it begins again.
async fn replayed(source: &Source, counts: &Counts, is_opaque: bool, lose: impl FnOnce()) -> bool {
    counts.refuse(true);
    let spout = || match is_opaque {
        true => opaque(&source.log, &source.ledger),
        false => transactional(&source.log, &source.ledger),
    };
    let life = || {
        let topology = topology();
        count(&topology.new_stream("lines", spout()), counts);
        start(&topology)
    };
    let cluster = life();
    source.appended(1).await;
    kill(&cluster).await;
    lose();
    counts.refuse(false);
    let cluster = life();
    let done = tokio::time::timeout(Duration::from_millis(if is_opaque { 15_000 } else { 400 }), async {
        all_committed(&source.ledger, &source.log).await;
    });
    let done = done.await.is_ok();
    kill(&cluster).await;
    done
}

async fn of_five() -> (Source, Counts) {
    let source = Source::new(1).await;
    ["a", "b", "c", "d", "e"].iter().for_each(|word| source.log.append(0, word));
    (source, Counts::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opaque_replay_of_a_compacted_log_goes_on_with_what_is_left() {
    // In the middle, at the front, and in the end.
    for (lost, left) in [
        (vec![1, 2], words([("a", 1), ("d", 1), ("e", 1)])),
        (vec![0], words([("b", 1), ("c", 1), ("d", 1), ("e", 1)])),
        (vec![3, 4], words([("a", 1), ("b", 1), ("c", 1)])),
        (vec![0, 1, 2, 3, 4], words([])),
    ] {
        let (source, counts) = of_five().await;
        let lose = || lost.iter().for_each(|offset| source.log.compact(0, *offset));
        assert!(replayed(&source, &counts, true, lose).await);
        assert_eq!(counts.now(), left, "{lost:?} were lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opaque_replay_goes_on_without_what_retention_took() {
    let (source, counts) = of_five().await;
    assert!(replayed(&source, &counts, true, || source.log.forget(0, 2)).await);
    assert_eq!(counts.now(), words([("c", 1), ("d", 1), ("e", 1)]));
    let (source, counts) = of_five().await;
    let lose = || {
        source.log.forget(0, 2);
        source.log.compact(0, 3);
    };
    assert!(replayed(&source, &counts, true, lose).await);
    assert_eq!(counts.now(), words([("c", 1), ("e", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transactional_replay_waits_for_what_is_gone() {
    let (source, counts) = of_five().await;
    assert!(!replayed(&source, &counts, false, || source.log.compact(0, 2)).await);
    let (other, others) = of_five().await;
    assert!(!replayed(&other, &others, false, || other.log.forget(0, 2)).await);
    assert_eq!((counts.now(), others.now()), (words([]), words([])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opaque_spout_passes_over_what_it_has_never_seen() {
    let (source, counts) = of_five().await;
    source.log.forget(0, 3);
    let topology = topology();
    count(&topology.new_stream("lines", opaque(&source.log, &source.ledger)), &counts);
    let cluster = start(&topology);
    all_committed(&source.ledger, &source.log).await;
    assert_eq!(counts.now(), words([("d", 1), ("e", 1)]));
    // Also if nothing is left at all.
    source.log.append(0, "f");
    source.log.forget(0, 6);
    all_committed(&source.ledger, &source.log).await;
    source.log.append(0, "g");
    all_committed(&source.ledger, &source.log).await;
    kill(&cluster).await;
    assert_eq!(counts.now()["g"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_cannot_be_read_stops_no_other() {
    let (source, counts) = (Source::new(2).await, Counts::default());
    let topology = topology();
    count(&topology.new_stream("lines", transactional(&source.log, &source.ledger)), &counts);
    let cluster = start(&topology);
    source.log.append(1, "before");
    all_committed(&source.ledger, &source.log).await;
    let token = record(&source.ledger).await.unwrap().token;
    source.log.trouble(0, Some(Trouble::Fails));
    source.log.append(0, "unread");
    for n in 1..=5 {
        source.log.append(1, "read");
        until("the other partition is counted", || async { counts.now().get("read") == Some(&n) }).await;
    }
    source.log.trouble(0, None);
    all_committed(&source.ledger, &source.log).await;
    kill(&cluster).await;
    assert_eq!(counts.now(), words([("before", 1), ("read", 5), ("unread", 1)]));
    assert_eq!(record(&source.ledger).await.unwrap().token, token, "the ledger was not taken over again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_do_not_wait_for_a_log() {
    let (source, counts) = (Source::new(1).await, Counts::default());
    counts.refuse(true);
    let topology = topology();
    count(&topology.new_stream("lines", transactional(&source.log, &source.ledger)), &counts);
    let cluster = start(&topology);
    source.log.append(0, "a");
    source.appended(1).await;
    source.log.trouble(0, Some(Trouble::Hangs));
    source.log.append(0, "b");
    // Somebody reads now, and will not come to an end.
    let reads = source.log.reads();
    until("it is read", || async { source.log.reads() > reads }).await;
    counts.refuse(false);
    until("the first batch is committed", || async { record(&source.ledger).await.unwrap().committed == 1 })
        .await;
    assert_eq!(counts.now(), words([("a", 1)]));
    kill(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_log_is_left_alone() {
    let (source, counts) = (Source::new(4).await, Counts::default());
    let topology = topology();
    count(&topology.new_stream("lines", transactional(&source.log, &source.ledger)), &counts);
    let cluster = start(&topology);
    source.log.append(0, "a");
    all_committed(&source.ledger, &source.log).await;
    let reads = source.log.reads();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let idle = source.log.reads() - reads;
    assert!(idle <= 3 * 4, "{idle} reads of an idle log");
    // And it is soon seen that it is not idle any more.
    source.log.append(3, "b");
    all_committed(&source.ledger, &source.log).await;
    kill(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_makes_large_batches_and_an_idle_log_small_ones() {
    let (source, counts) = (Source::new(2).await, Counts::default());
    // All of it in one partition: the other has no use for its share.
    source.append(10_000, "behind");
    let topology = topology();
    let spout = transactional(&source.log, &source.ledger).max_bytes(20_000);
    count(&topology.new_stream("lines", spout), &counts);
    let cluster = start(&topology);
    all_committed(&source.ledger, &source.log).await;
    let behind = record(&source.ledger).await.unwrap().committed;
    assert!((3..=5).contains(&behind), "{behind} batches of 20,000 bytes for 60,000");
    for n in 1..=10 {
        source.append(1, "idle");
        all_committed(&source.ledger, &source.log).await;
        assert_eq!(record(&source.ledger).await.unwrap().committed, behind + n, "one record, one batch");
    }
    // While nothing can be committed records gather, and one batch takes them all.
    counts.refuse(true);
    source.append(1, "gathering");
    source.appended(behind + 11).await;
    for n in 0..1_000 {
        source.append(1, "gathering");
        if n % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    counts.refuse(false);
    all_committed(&source.ledger, &source.log).await;
    let gathered = record(&source.ledger).await.unwrap().committed - behind - 10;
    assert!(gathered <= 12, "{gathered} batches for what gathered");
    kill(&cluster).await;
    assert_eq!(counts.now(), words([("behind", 10_000), ("gathering", 1_001), ("idle", 10)]));
}
