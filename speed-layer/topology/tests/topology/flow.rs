//! Slow bolts slow their spouts down: queues keep their bounds, memory stays flat, nothing is dropped or stuck.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arrow::array::{Array, Int64Array, RecordBatch};
use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

/// Rows of a batch: so many that bolts do not put batches together, which would copy them.
const ROWS: usize = 1_024;

/// Emits batches as fast as it may, and can tell which of them still exist somewhere.
#[derive(Clone, Default)]
struct Torrent {
    emitted: Arc<AtomicUsize>,
    acked: Arc<AtomicUsize>,
    batches: Arc<Mutex<Vec<Weak<dyn Array>>>>,
}

impl Torrent {
    fn alive(&self) -> usize {
        let mut batches = self.batches.lock().unwrap();
        batches.retain(|batch| batch.strong_count() > 0);
        batches.len()
    }
}

#[async_trait]
impl Spout for Torrent {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        let column: Arc<dyn Array> = Arc::new(Int64Array::from(vec![7; ROWS]));
        self.batches.lock().unwrap().push(Arc::downgrade(&column));
        let rows = RecordBatch::try_new(number(), vec![column])?;
        let first = self.emitted.fetch_add(ROWS, SeqCst);
        out.emit(DEFAULT_STREAM, rows, MessageIds::From(first as u64)).await?;
        Ok(Next::Emitted)
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        self.acked.fetch_add(ids.len(), SeqCst);
    }

    async fn failed(&mut self, _: &[MessageId], reason: &FailReason) {
        panic!("{reason}");
    }
}

/// A number and an edge for each row.
const BATCH: usize = ROWS * (8 + 16);
/// Four batches by the number of their rows, and four by the bytes of their memory.
const BY_ROWS: (usize, usize) = (4 * ROWS, 1 << 30);
const BY_BYTES: (usize, usize) = (1 << 20, 4 * BATCH + BATCH / 2);

/// A bolt that is 100 times slower than its spout, for a minute: beside the other tests it hardly takes time, since it
/// sleeps. `TOPOLOGY_SLOW_SECONDS` says otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_bolt_slows_its_spout_and_memory_stays_flat_for_a_minute() {
    let seconds = std::env::var("TOPOLOGY_SLOW_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    stays_flat(BY_ROWS, seconds.unwrap_or(60)).await;
}

/// The same for some seconds with the bound in bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_bolt_slows_its_spout_and_memory_stays_flat() {
    stays_flat(BY_BYTES, 5).await;
}

/// A batch takes the spout less than 0.1 ms, the bolt 10 ms.
async fn stays_flat((queue_rows, queue_bytes): (usize, usize), seconds: u64) {
    let (torrent, executed) = (Torrent::default(), Arc::new(AtomicUsize::new(0)));
    let mut builder = TopologyBuilder::new();
    // Only the queue limits the spout.
    builder.config(TopologyConfig {
        queue_rows,
        queue_bytes,
        max_spout_pending: usize::MAX,
        ..TopologyConfig::default()
    });
    let spout = torrent.clone();
    builder.set_spout("spout", move || spout.clone(), 1);
    let executing = Arc::clone(&executed);
    let slow = move || {
        let executed = Arc::clone(&executing);
        bolt(move |input, out| {
            let executed = Arc::clone(&executed);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                executed.fetch_add(input.len(), SeqCst);
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("bolt", slow, 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(3)).await;
        most = most.max(torrent.alive());
        let fill = cluster.metrics(NAME).unwrap().components["bolt"].queues[0];
        assert!(fill.rows <= queue_rows && fill.bytes <= queue_bytes, "{fill:?}");
        // Four wait, one is in the bolt's hands and one in the spout's. Whoever takes one out makes room for the
        // next before it is executed.
        let under_way = torrent.emitted.load(SeqCst).saturating_sub(executed.load(SeqCst));
        assert!(under_way <= 7 * ROWS, "{under_way} rows under way");
    }
    assert!((5..=7).contains(&most), "{most} batches were in memory at once");
    let fill = cluster.metrics(NAME).unwrap().components["bolt"].queues[0];
    assert!(fill.most_rows <= queue_rows && fill.most_bytes <= queue_bytes, "{fill:?}");
    assert!(fill.most_rows == 4 * ROWS, "it was as full as may be: {fill:?}");
    end(&cluster).await;
    let emitted = torrent.emitted.load(SeqCst);
    assert_eq!((executed.load(SeqCst), torrent.acked.load(SeqCst)), (emitted, emitted), "nothing is lost");
    assert!(emitted >= 20 * seconds as usize * ROWS, "{emitted}");
    assert_eq!(torrent.alive(), 0);
}

fn branching() -> FnBolt {
    bolt(|input: Tuples, out| {
        Box::pin(async move {
            out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Same(&input)).await?;
            for tuple in input.iter() {
                out.emit_tuple(DEFAULT_STREAM, (tuple.get::<i64>(0)?,), &[tuple]).await?;
            }
            out.ack(&input);
            Ok(())
        })
    })
}

/// Acks never wait for room, or a spout that waits for room could wait for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_queues_do_not_lock_up() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig {
        queue_rows: 1,
        queue_bytes: 1,
        batch_rows: 3,
        max_spout_pending: usize::MAX,
        ..TopologyConfig::default()
    });
    builder.set_spout("spout", feeder.spout(), 2);
    builder.set_bolt("a", branching, 2).shuffle_grouping("spout");
    builder.set_bolt("b", branching, 3).fields_grouping("a", &["n"]).shuffle_grouping("spout");
    builder.set_bolt("c", branching, 1).all_grouping("b").shuffle_grouping("a");
    builder.set_bolt("d", || sink(|_| ()), 2).all_grouping("c").shuffle_grouping("b");
    let cluster = run(&builder);
    for first in (0..2_000).step_by(20) {
        feeder.feed_rows(numbers(first..first + 20), MessageIds::From(first as u64));
    }
    until("acks", || feeder.told() == 2_000).await;
    assert_eq!(feeder.acks(), (0..2_000).collect::<Vec<_>>());
    end(&cluster).await;
}

#[tokio::test]
async fn a_batch_that_is_larger_than_a_queue_passes_alone() {
    let feeder = Feeder::new();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let measuring = Arc::clone(&sizes);
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig { queue_rows: 10, queue_bytes: 100, ..TopologyConfig::default() });
    builder.set_spout("spout", feeder.spout(), 1);
    let measure = move || {
        let sizes = Arc::clone(&measuring);
        sink(move |input| sizes.lock().unwrap().push(input.len()))
    };
    builder.set_bolt("bolt", measure, 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    feeder.feed_rows(numbers(0..10_000), MessageIds::From(0));
    feeder.feed_rows(numbers([1]), MessageIds::From(10_000));
    until("acks", || feeder.told() == 10_001).await;
    // Cut by batch_rows, not by the queue.
    assert_eq!(*sizes.lock().unwrap(), [4_096, 4_096, 1_808, 1]);
    let fill = cluster.metrics(NAME).unwrap().components["bolt"].queues[0];
    assert_eq!((fill.rows, fill.bytes), (0, 0));
    // Each waited alone, the largest with all its rows.
    assert_eq!((fill.most_rows, fill.largest_rows), (4_096, 4_096));
    assert_eq!(fill.most_bytes, fill.largest_bytes);
    assert!(fill.kept_its_bounds(), "{fill:?}");
    end(&cluster).await;
}

/// Small batches that wait become larger ones: a bolt that is behind catches up.
#[tokio::test]
async fn a_bolt_that_is_behind_gets_larger_batches() {
    let feeder = Feeder::new();
    let (sizes, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(tokio::sync::Semaphore::new(0)));
    let (measuring, waiting) = (Arc::clone(&sizes), Arc::clone(&gate));
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let measure = move || {
        let (sizes, gate) = (Arc::clone(&measuring), Arc::clone(&waiting));
        bolt(move |input, out| {
            let (sizes, gate) = (Arc::clone(&sizes), Arc::clone(&gate));
            Box::pin(async move {
                let _permit = gate.acquire().await?;
                sizes.lock().unwrap().push(input.len());
                let roots: Vec<i64> = values(input.rows());
                assert!(roots.is_sorted());
                // Rows of different root batches are settled one by one all the same.
                let odd: Vec<u32> =
                    (0..roots.len() as u32).filter(|row| roots[*row as usize] % 2 == 1).collect();
                out.fail_rows(&input, &odd, "odd");
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("bolt", measure, 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    (0..500).for_each(|n| feeder.feed(n));
    until("emissions", || feeder.look().asked > 500).await;
    gate.add_permits(1);
    until("an end", || feeder.told() == 500).await;
    assert_eq!(feeder.acks(), (0..500).step_by(2).collect::<Vec<_>>());
    assert_eq!(feeder.failures().len(), 250);
    let sizes = sizes.lock().unwrap().clone();
    assert!(sizes.len() <= 3, "{sizes:?}");
    end(&cluster).await;
}
