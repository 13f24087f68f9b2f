//! A backlog of small batches: what it costs to work it off grows with the tuples, not with their square.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arrow::array::{Int64Array, RecordBatch};
use stratus_topology::*;
use tokio::sync::Semaphore;

use crate::{counting, kit::*};

/// Passes tuples on, once the gate is open.
fn passing(gate: &Arc<Semaphore>) -> impl Fn() -> Executor + Send + Sync + 'static {
    let gate = Arc::clone(gate);
    move || {
        let gate = Arc::clone(&gate);
        let execute: Execute = Box::new(move |input, out| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                drop(gate.acquire().await?);
                out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Same(&input)).await?;
                out.ack(&input);
                Ok(())
            })
        });
        Executor { schema: number(), execute }
    }
}

/// How long this thread has computed, if the kernel tells.
fn computed() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = told.split(' ').next()?.parse().ok()?;
    (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
}

/// Works off so many tuples that were emitted in batches of `size` while the first bolt was busy; says how long that
/// took, without what others had of the processor: all is done on this thread. From there on they are spread over eight
/// tasks and gathered again, twice.
async fn work_off(tuples: usize, size: usize) -> Duration {
    let (told, asked) = (Told::default(), Arc::new(AtomicUsize::new(0)));
    let (telling, asking) = (told.clone(), Arc::clone(&asked));
    let spout = move || {
        let asked = Arc::clone(&asking);
        let emit: Emit = Box::new(move |call, out| {
            asked.store(call, SeqCst);
            Box::pin(async move {
                let first = call * size;
                if first >= tuples {
                    return Ok(Next::Idle);
                }
                let column = (first..first + size).map(|n| n as i64).collect::<Int64Array>();
                let rows = RecordBatch::try_new(number(), vec![Arc::new(column)])?;
                out.emit(DEFAULT_STREAM, rows, MessageIds::From(first as u64)).await?;
                Ok(Next::Emitted)
            })
        });
        Emitter { schema: number(), emit, calls: 0, told: telling.clone() }
    };
    let (gate, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1)));
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig { queue_bytes: 1 << 30, ..TopologyConfig::default() });
    builder.set_spout("spout", spout, 1);
    builder.set_bolt("first", passing(&gate), 1).shuffle_grouping("spout");
    builder.set_bolt("spread", passing(&open), 8).fields_grouping("first", &["n"]);
    builder.set_bolt("gathered", passing(&open), 1).global_grouping("spread");
    builder.set_bolt("again", passing(&open), 8).fields_grouping("gathered", &["n"]);
    builder.set_bolt("end", passing(&open), 1).global_grouping("again");
    let cluster = LocalCluster::new();
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    until("emissions", || asked.load(SeqCst) >= tuples / size).await;
    let (begun, computed_before) = (Instant::now(), computed());
    gate.add_permits(1);
    while told.acked.load(SeqCst) < tuples {
        assert!(begun.elapsed() < Duration::from_secs(100), "{told:?} of {tuples}");
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let took = match (computed_before, computed()) {
        (Some(before), Some(now)) => now.saturating_sub(before),
        _ => begun.elapsed(),
    };
    assert_eq!(told.failed.load(SeqCst), 0);
    cluster.kill(NAME, Duration::from_secs(10)).await.unwrap();
    took
}

async fn fastest(tuples: usize, size: usize) -> f64 {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        fastest = fastest.min(work_off(tuples, size).await);
    }
    fastest.as_secs_f64()
}

#[tokio::test]
#[allow(clippy::await_holding_lock)]
async fn a_backlog_of_batches_of_one_tuple_takes_its_share_of_time_and_no_more() {
    let _alone = counting::alone();
    let (single, large) = (fastest(8_192, 1).await, fastest(8_192, 1_024).await);
    println!(
        "8,192 tuples in batches of one: {:.1} ms, {:.1} times as much as in batches of 1,024: {:.1} ms",
        single * 1e3,
        single / large,
        large * 1e3
    );
    // Some ten times: each batch of one is emitted, followed and acked by itself. With something in it that grew with the
    // square it was 400 times.
    assert!(single < 80.0 * large, "{single} s, and {large} s in large batches");
}
