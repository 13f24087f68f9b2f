//! Tuples that are emitted and acked one by one cost no allocations one by one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use stratus_topology::*;

use crate::{counting, kit::*};

const ROWS: usize = 4_096;
const BATCHES: usize = 40;

#[tokio::test]
#[allow(clippy::await_holding_lock)]
async fn tuples_one_by_one_are_allocated_by_the_batch() {
    let _alone = counting::alone();
    let told = Told::default();
    let telling = told.clone();
    let mut builder = TopologyBuilder::new();
    let spout = move || {
        let emit: Emit = Box::new(|call, out| {
            Box::pin(async move {
                if call >= BATCHES {
                    return Ok(Next::Idle);
                }
                let mut rows = RowBuilder::new(number(), ROWS)?;
                (0..ROWS).try_for_each(|n| rows.append((n,)))?;
                out.emit(DEFAULT_STREAM, rows.finish(), MessageIds::From((call * ROWS) as u64)).await?;
                Ok(Next::Emitted)
            })
        });
        Emitter { schema: number(), emit, calls: 0, told: telling.clone() }
    };
    builder.set_spout("spout", spout, 1);
    // Counted from the first row of a call to the last ack: on one thread, and no other task comes between but where
    // the batch leaves.
    let counted = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&counted);
    let one_by_one = move || {
        let counted = Arc::clone(&counting);
        let execute: Execute = Box::new(move |input, out| {
            let counted = Arc::clone(&counted);
            Box::pin(async move {
                let before = counting::calls();
                for tuple in input.iter() {
                    out.emit_tuple(DEFAULT_STREAM, (tuple.get::<i64>(0)?,), &[tuple]).await?;
                    out.ack_tuple(tuple);
                }
                counted.fetch_add(counting::calls() - before, SeqCst);
                Ok(())
            })
        });
        Executor { schema: number(), execute }
    };
    builder.set_bolt("one by one", one_by_one, 1).shuffle_grouping("spout");
    let end = || {
        let execute: Execute = Box::new(|input, out| {
            input.iter().for_each(|tuple| out.ack_tuple(tuple));
            Box::pin(async { Ok(()) })
        });
        Executor { schema: number(), execute }
    };
    builder.set_bolt("end", end, 1).shuffle_grouping("one by one");
    let before = counting::calls();
    let cluster = LocalCluster::new();
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    until("acks", || told.acked.load(SeqCst) == BATCHES * ROWS).await;
    let per_row = |calls: usize| calls as f64 / (BATCHES * ROWS) as f64;
    let (all, calls) = (per_row(counting::calls() - before), per_row(counted.load(SeqCst)));
    println!("allocations of a tuple: {calls:.3} in the call that emits and acks it, {all:.3} in all");
    assert!(calls < 0.05 && all < 0.25, "{calls} and {all}");
    cluster.kill(NAME, Duration::from_secs(10)).await.unwrap();
}
