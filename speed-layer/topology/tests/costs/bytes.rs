//! Bounds in bytes hold for all that is on its way, whoever puts it together.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use async_trait::async_trait;
use stratus_topology::*;

use crate::{counting, kit::*};

/// Bytes of a tuple, and how many come: 128 MiB in all, and few enough to be one batch by their number.
const SIZE: usize = 32 << 10;
const TUPLES: usize = 4_096;
const QUEUE: usize = 1 << 20;

/// Emits each tuple again, from within a call for one tuple.
struct Again;

impl BasicBolt for Again {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(text());
    }

    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        out.emit((tuple.get::<&str>(0)?,))?;
        Ok(())
    }
}

fn emitter(told: &Told) -> Emitter {
    let emit: Emit = Box::new(|call, out| {
        Box::pin(async move {
            if call >= TUPLES {
                return Ok(Next::Idle);
            }
            out.emit_tuple(DEFAULT_STREAM, ("x".repeat(SIZE),), Some(call as u64)).await?;
            Ok(Next::Emitted)
        })
    });
    Emitter { schema: text(), emit, calls: 0, told: told.clone() }
}

/// Emits each tuple again, one by one.
fn one_by_one() -> Executor {
    let execute: Execute = Box::new(|input, out| {
        Box::pin(async move {
            for tuple in input.iter() {
                out.emit_tuple(DEFAULT_STREAM, (tuple.get::<&str>(0)?,), &[tuple]).await?;
            }
            out.ack(&input);
            Ok(())
        })
    });
    Executor { schema: text(), execute }
}

fn slow() -> Executor {
    let execute: Execute = Box::new(|input, out| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_micros(20) * input.len() as u32).await;
            out.ack(&input);
            Ok(())
        })
    });
    Executor { schema: text(), execute }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock)]
async fn large_tuples_keep_within_the_queues_bytes() {
    let _alone = counting::alone();
    let told = Told::default();
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig {
        queue_bytes: QUEUE,
        linger: Duration::from_secs(1),
        ..TopologyConfig::default()
    });
    let telling = told.clone();
    builder.set_spout("spout", move || emitter(&telling), 1);
    builder.set_bolt("one by one", one_by_one, 1).shuffle_grouping("spout");
    builder.set_bolt("again", || PerTuple::new(Again), 1).fields_grouping("one by one", &["text"]);
    builder.set_bolt("slow", slow, 1).shuffle_grouping("again");
    let before = counting::watch();
    let cluster = LocalCluster::new();
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    until("acks", || told.acked.load(SeqCst) + told.failed.load(SeqCst) == TUPLES).await;
    let most = counting::most() - before;
    println!(
        "{} MiB went through queues for 1 MiB; at most {} KiB at once",
        (SIZE * TUPLES) >> 20,
        most >> 10
    );
    for (id, component) in cluster.metrics(NAME).unwrap().components {
        for queue in component.queues {
            assert!(queue.kept_its_bounds() && queue.largest_bytes <= QUEUE / 2, "{id}: {queue:?}");
        }
    }
    assert_eq!(told.failed.load(SeqCst), 0);
    // Three queues; and of each hop what is being put together, waits for room, was gathered, and is executed.
    assert!(most < 10 * QUEUE, "{most}");
    cluster.kill(NAME, Duration::from_secs(10)).await.unwrap();
}

/// Rows of eight bytes with a thousand anchors each are large, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock)]
async fn lineage_counts_as_bytes() {
    const ANCHORS: usize = 1_024;
    let _alone = counting::alone();
    let told = Told::default();
    let telling = told.clone();
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig { queue_bytes: QUEUE, ..TopologyConfig::default() });
    let spout = move || {
        let emit: Emit = Box::new(|call, out| {
            Box::pin(async move {
                if call > 0 {
                    return Ok(Next::Idle);
                }
                let mut rows = RowBuilder::new(text(), ANCHORS)?;
                (0..ANCHORS).try_for_each(|_| rows.append(("x",)))?;
                out.emit(DEFAULT_STREAM, rows.finish(), MessageIds::From(0)).await?;
                Ok(Next::Emitted)
            })
        });
        Emitter { schema: text(), emit, calls: 0, told: telling.clone() }
    };
    builder.set_spout("spout", spout, 1);
    let every = || {
        let execute: Execute = Box::new(|input, out| {
            Box::pin(async move {
                let every: &[&Tuples] = &[&input];
                out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Every(every)).await?;
                out.ack(&input);
                Ok(())
            })
        });
        Executor { schema: text(), execute }
    };
    builder.set_bolt("every", every, 1).shuffle_grouping("spout");
    builder.set_bolt("slow", slow, 1).shuffle_grouping("every");
    let cluster = LocalCluster::new();
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    until("acks", || told.acked.load(SeqCst) == ANCHORS).await;
    let queue = cluster.metrics(NAME).unwrap().components["slow"].queues[0];
    // 16 MiB of edges, a quarter of a MiB at a time.
    assert!(queue.kept_its_bounds(), "{queue:?}");
    assert!((200 << 10..=QUEUE / 2).contains(&queue.largest_bytes), "{queue:?}");
    cluster.kill(NAME, Duration::from_secs(10)).await.unwrap();
}

/// Tuples that are held of large batches, one of each.
struct Holding(Arc<std::sync::Mutex<Vec<Tuples>>>);

#[async_trait]
impl Bolt for Holding {
    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        let last = input.len() as u32 - 1;
        self.0.lock().unwrap().push(input.take(&[last])?);
        out.ack_rows(&input, &(0..last).collect::<Vec<_>>());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock)]
async fn a_held_tuple_keeps_nothing_of_its_batch() {
    const BATCHES: usize = 100;
    const ROWS: usize = 4_096;
    let _alone = counting::alone();
    let (told, held) = (Told::default(), Arc::default());
    let (telling, holding) = (told.clone(), Arc::clone(&held));
    let mut builder = TopologyBuilder::new();
    let spout = move || {
        let emit: Emit = Box::new(|call, out| {
            Box::pin(async move {
                if call >= BATCHES {
                    return Ok(Next::Idle);
                }
                let mut rows = RowBuilder::new(text(), ROWS)?;
                (0..ROWS).try_for_each(|_| rows.append(("0123456789",)))?;
                out.emit(DEFAULT_STREAM, rows.finish(), MessageIds::From((call * ROWS) as u64)).await?;
                Ok(Next::Emitted)
            })
        });
        Emitter { schema: text(), emit, calls: 0, told: telling.clone() }
    };
    builder.set_spout("spout", spout, 1);
    builder.set_bolt("holding", move || Holding(Arc::clone(&holding)), 1).shuffle_grouping("spout");
    let cluster = LocalCluster::new();
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    until("acks", || told.acked.load(SeqCst) == BATCHES * (ROWS - 1)).await;
    until("all held", || held.lock().unwrap().len() == BATCHES).await;
    // What the ackers and the spout know of the rows is theirs, and they let go of it while this is counted: here only
    // what this thread frees counts, which is what goes with the held tuples.
    let before = counting::freed_here();
    held.lock().unwrap().clear();
    let each = (counting::freed_here() - before) / BATCHES;
    println!("a held tuple keeps {each} bytes");
    assert!(each < 4_096, "{each}");
    until("the end", || told.failed.load(SeqCst) == BATCHES).await;
    cluster.kill(NAME, Duration::from_secs(10)).await.unwrap();
}
