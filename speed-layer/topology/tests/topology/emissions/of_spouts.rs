//! Single tuples of a spout that cannot leave.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::picky;
use crate::kit::*;
use stratus_topology::*;

/// Emits numbers as single tuples, without errors of its own.
struct Counting {
    next: u64,
    upto: u64,
    told: Arc<Mutex<Vec<(MessageId, bool)>>>,
}

#[async_trait]
impl Spout for Counting {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        if self.next == self.upto {
            return Ok(Next::Idle);
        }
        self.next += 1;
        out.emit_tuple(DEFAULT_STREAM, (self.next as i64,), Some(self.next)).await?;
        Ok(Next::Emitted)
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        self.told.lock().unwrap().extend(ids.iter().map(|id| (*id, true)));
    }

    async fn failed(&mut self, ids: &[MessageId], _: &FailReason) {
        self.told.lock().unwrap().extend(ids.iter().map(|id| (*id, false)));
    }
}

#[tokio::test]
async fn a_spouts_tuples_that_cannot_leave_fail_and_it_goes_on() {
    let told: Arc<Mutex<Vec<(MessageId, bool)>>> = Arc::default();
    let telling = Arc::clone(&told);
    let mut builder = TopologyBuilder::new();
    let linger = Duration::from_secs(10);
    builder.config(TopologyConfig { batch_rows: 2, linger, ..TopologyConfig::default() });
    builder.set_spout("spout", move || Counting { next: 10, upto: 13, told: Arc::clone(&telling) }, 1);
    builder.set_bolt("all", || sink(|_| ()), 1).shuffle_grouping("spout");
    builder.set_bolt("picky", || sink(|_| ()), 1).input("spout", picky());
    let cluster = run(&builder);
    // 11 and 12 leave as one batch, 13 alone.
    until("an end", || told.lock().unwrap().len() == 3).await;
    let mut told = told.lock().unwrap().clone();
    told.sort_unstable();
    assert_eq!(told, [(11, true), (12, true), (13, false)]);
    let spout = &cluster.metrics(NAME).unwrap().components["spout"];
    assert_eq!((spout.errors, spout.panics, spout.pending), (1, 0, 0));
    assert_eq!(spout.last_error.as_deref(), Some("the grouping of stream `spout.default` failed: thirteen"));
    end(&cluster).await;
}

#[tokio::test]
async fn a_spout_whose_tuples_panic_in_a_grouping_starts_over() {
    let made = Arc::new(AtomicUsize::new(0));
    let (making, told) = (Arc::clone(&made), Arc::<Mutex<Vec<(MessageId, bool)>>>::default());
    let telling = Arc::clone(&told);
    // The first one begins with 14.
    let spout = move || {
        let next = if making.fetch_add(1, SeqCst) < 2 { 13 } else { 14 };
        Counting { next, upto: 15, told: Arc::clone(&telling) }
    };
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig { batch_rows: 1, ..TopologyConfig::default() });
    builder.set_spout("spout", spout, 1);
    builder.set_bolt("picky", || sink(|_| ()), 1).input("spout", picky());
    let cluster = run(&builder);
    until("an end", || told.lock().unwrap().len() == 1).await;
    assert_eq!(*told.lock().unwrap(), [(15, true)]);
    assert_eq!(cluster.metrics(NAME).unwrap().components["spout"].panics, 1);
    end(&cluster).await;
}
