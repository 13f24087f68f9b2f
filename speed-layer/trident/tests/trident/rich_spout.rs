//! Ordinary spouts as spouts of batches.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use stratus_topology::{
    DEFAULT_STREAM, FailReason, LocalCluster, MessageId, MessageIds, Next, OutputFieldsDeclarer, Spout,
    SpoutOutputCollector, TaskContext, TaskError, TopologyBuilder, testing::FixedSpout,
};
use stratus_trident::{Pace, RichSpout, SpoutKind, TransactionAttempt, TridentSpout};

use crate::{
    counting::{Counts, count, kill, start, topology, until, words},
    support::{batch, text},
};

fn lines(lines: &[&str]) -> FixedSpout {
    FixedSpout::new(text("line")).rows(batch("line", lines))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_acked_when_their_batch_is_committed() {
    let (fixed, counts) = (lines(&["a"; 250]), Counts::default());
    counts.refuse(true);
    let spouts = fixed.clone();
    let spout = RichSpout::new(move || spouts.clone()).max_batch_size(20);
    assert_eq!((spout.kind(), spout.schema()), (SpoutKind::NonTransactional, text("line")));
    let topology = topology();
    count(&topology.new_stream("lines", spout).parallelism_hint(2), &counts);
    let cluster = start(&topology);
    until("some are emitted", || async { fixed.emitted() > 0 }).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fixed.acked(), Vec::<u64>::new(), "nothing is committed");
    counts.refuse(false);
    until("all are acked", || async { fixed.is_done() }).await;
    assert!(counts.now()["a"] >= 250, "at least once");
    kill(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_fail_when_their_batch_fails() {
    let (fixed, counts) = (lines(&["a", "b", "c"]), Counts::default());
    counts.refuse(true);
    let spouts = fixed.clone();
    let topology = topology();
    count(&topology.new_stream("lines", RichSpout::new(move || spouts.clone())), &counts);
    let cluster = start(&topology);
    until("it is told", || async { !fixed.failures().is_empty() }).await;
    let (_, reason) = fixed.failures().remove(0);
    assert!(reason.to_string().contains("not now"), "{reason}");
    counts.refuse(false);
    until("all are acked", || async { fixed.is_done() }).await;
    kill(&cluster).await;
    assert_eq!(counts.now(), words([("a", 1), ("b", 1), ("c", 1)]), "nothing of what failed was written");
}

/// A spout that has nothing but its task's context.
struct Idler(Arc<Mutex<Option<TaskContext>>>);

#[async_trait]
impl Spout for Idler {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(text("line"));
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        *self.0.lock().unwrap() = Some(context.clone());
        Ok(())
    }

    async fn next(&mut self, _: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        Ok(Next::Idle)
    }
}

/// What an emitter is told late, and what it is told of a batch that begins without its spout, takes no message into a
/// batch that never carries it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_no_batch_carries_are_not_acked() {
    let (cluster, found) = (LocalCluster::new(), Arc::new(Mutex::new(None)));
    let (mut builder, idler) = (TopologyBuilder::new(), Arc::clone(&found));
    builder.set_spout("idler", move || Idler(Arc::clone(&idler)), 1);
    cluster.submit("test", builder.build().unwrap()).unwrap();
    until("there is a task", || async { found.lock().unwrap().is_some() }).await;
    let context = found.lock().unwrap().clone().unwrap();

    let fixed = lines(&["a", "b", "c"]);
    let spouts = fixed.clone();
    let spout = RichSpout::new(move || spouts.clone()).max_batch_size(1);
    let mut coordinator = spout.coordinator(&context).await.unwrap();
    coordinator.recover().await.unwrap();
    let mut emitter = spout.emitter(&context).await.unwrap();
    let attempt = |txid, attempt| TransactionAttempt { txid, epoch: 0, attempt };
    let now = 1 << 39;
    assert_eq!(emitter.emit(attempt(1, now), "some").await.unwrap().len(), 1);
    // The coordinator begins anew, and then the word of an attempt before that is heard.
    coordinator.recover().await.unwrap();
    assert!(emitter.emit(attempt(1, 0), "some").await.unwrap().is_empty());
    coordinator.committed(1).await.unwrap();
    assert_eq!(emitter.emit(attempt(2, now), "some").await.unwrap().len(), 1);
    assert_eq!((fixed.acked().len(), fixed.failures().len()), (0, 1));
    // The next attempt at it begins without this spout.
    assert!(emitter.emit(attempt(2, now + 1), "").await.unwrap().is_empty());
    coordinator.committed(2).await.unwrap();
    assert_eq!(emitter.emit(attempt(3, now), "some").await.unwrap().len(), 1);
    assert_eq!((fixed.acked().len(), fixed.failures().len()), (0, 2));
    coordinator.committed(3).await.unwrap();
    until("it is acked", || async { fixed.acked().len() == 1 }).await;
    kill(&cluster).await;
}

/// Storm's table says no: what an attempt has written and the next one lacks counts twice when it comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_non_transactional_spout_and_an_opaque_state_are_seen_to_be_wrong() {
    let (fixed, counts) = (lines(&["x", "y"]), Counts::default());
    counts.hide();
    let spouts = fixed.clone();
    // One batch at a time: `x` fails while `y` waits for the next one.
    let topology = topology().pace(Pace { max_pending: 1, interval: Duration::from_millis(1) });
    count(&topology.new_stream("lines", RichSpout::new(move || spouts.clone()).max_batch_size(1)), &counts);
    let plan = topology.build().unwrap();
    assert_eq!(
        plan.warnings,
        ["spout `lines` is NonTransactional and a state of it is Opaque: not exactly once"]
    );
    let cluster = start(&topology);
    until("all are acked", || async { fixed.is_done() }).await;
    kill(&cluster).await;
    assert_eq!(counts.now(), words([("x", 2), ("y", 1)]));
}

/// Emits `a` with ids of its own, a thousand at a time, single tuples, tuples of another stream, and nothing at times;
/// and fails or panics now and then.
struct Unruly {
    log: Arc<Mutex<BTreeMap<MessageId, &'static str>>>,
    next: Arc<AtomicU64>,
    calls: u64,
    troubles: Arc<AtomicBool>,
    again: Vec<MessageId>,
}

#[async_trait]
impl Spout for Unruly {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(text("line"));
        declarer.declare_stream("aside", text("line"));
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        assert_eq!((context.component(), context.task_count()), ("spout-lines", 1));
        // What a former life had under way it never heard of.
        let log = self.log.lock().unwrap();
        self.again = log.iter().filter(|(_, what)| **what != "acked").map(|(id, _)| *id).collect();
        Ok(())
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        self.calls += 1;
        let again = std::mem::take(&mut self.again);
        if !again.is_empty() {
            let rows = batch("line", &vec!["a"; again.len()]);
            out.emit(DEFAULT_STREAM, rows, MessageIds::Each(again)).await?;
        }
        if self.next.load(SeqCst) >= 5_000 {
            return Ok(Next::Idle);
        }
        let many = |count: u64| {
            let first = self.next.fetch_add(count, SeqCst);
            let mut log = self.log.lock().unwrap();
            log.extend((first..first + count).map(|id| (id, "open")));
            first
        };
        match self.calls % 8 {
            1 => {
                let first = many(1_000);
                out.emit(DEFAULT_STREAM, batch("line", &["a"; 1_000]), MessageIds::From(first)).await?;
            }
            2 => return Ok(Next::Idle),
            3 => out.emit_tuple(DEFAULT_STREAM, ("a",), Some(many(1))).await?,
            4 => out.emit_tuple("aside", ("b",), Some(many(1))).await?,
            5 => out.emit(DEFAULT_STREAM, batch("line", &["nameless"]), MessageIds::None).await?,
            6 if self.troubles.load(SeqCst) => return Err("it has trouble".into()),
            7 if self.troubles.swap(false, SeqCst) => panic!("while reading what to emit"),
            _ => {}
        }
        Ok(Next::Emitted)
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        let mut log = self.log.lock().unwrap();
        for id in ids {
            assert_eq!(log.insert(*id, "acked"), Some("open"), "{id}");
        }
    }

    async fn failed(&mut self, ids: &[MessageId], _reason: &FailReason) {
        self.again.extend(ids);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_spout_emits_comes_in_batches_of_the_asked_size() {
    let (log, next) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Arc::<AtomicU64>::default());
    let (troubles, counts) = (Arc::new(AtomicBool::new(true)), Counts::default());
    let spout = {
        let (log, next, troubles) = (Arc::clone(&log), Arc::clone(&next), Arc::clone(&troubles));
        RichSpout::new(move || Unruly {
            log: Arc::clone(&log),
            next: Arc::clone(&next),
            calls: 0,
            troubles: Arc::clone(&troubles),
            again: Vec::new(),
        })
    };
    let topology = topology();
    let largest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&largest);
    let watch = move |rows: &RecordBatch| {
        seen.fetch_max(rows.num_rows() as u64, SeqCst);
        Ok(rows.clone())
    };
    let stream = topology.new_stream("lines", spout.max_batch_size(300)).map_rows(watch, text("line"));
    count(&stream, &counts);
    let cluster = start(&topology);
    until("all are acked", || async {
        next.load(SeqCst) >= 5_000 && log.lock().unwrap().values().all(|what| *what == "acked")
    })
    .await;
    kill(&cluster).await;
    assert!(largest.load(SeqCst) <= 300, "{largest:?}");
    let (found, aside) = (counts.now(), log.lock().unwrap().len() as i64 - counts.now()["a"]);
    assert!(!troubles.load(SeqCst), "it has panicked");
    assert!(aside <= 50, "those aside are acked and in no batch: {aside}");
    assert!(found["nameless"] > 0 && !found.contains_key("b"), "{found:?}");
}
