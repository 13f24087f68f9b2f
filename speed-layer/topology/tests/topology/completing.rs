//! Runs of whole topologies to their end, as tests do them.

use std::time::Duration;

use arrow::datatypes::DataType;
use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::{
    testing::{CompletionError, FixedSpout, complete_topology, complete_topology_by},
    *,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn fixed(values: impl IntoIterator<Item = i64>) -> FixedSpout {
    FixedSpout::new(number()).rows(numbers(values))
}

/// Emits directly to a task, and what a tick says.
struct Deal {
    targets: Vec<TaskId>,
    dealt: i64,
}

#[async_trait]
impl Bolt for Deal {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare_direct_stream("dealt", number());
        declarer.declare_stream("ticked", number());
    }

    fn configuration(&self) -> ComponentConfig {
        ComponentConfig { tick: Some(Duration::from_secs(60)), ..ComponentConfig::default() }
    }

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.targets = context.component_tasks("hand").to_vec();
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        if input.is_tick() {
            return Ok(out.emit("ticked", numbers([self.dealt]), Anchors::None).await?);
        }
        for (row, n) in values(input.rows()).into_iter().enumerate() {
            let rows = [row as u32];
            let to = self.targets[n as usize % self.targets.len()];
            out.emit_direct(to, "dealt", numbers([n]), Anchors::Rows(&input, &rows)).await?;
            self.dealt += 1;
        }
        out.ack(&input);
        Ok(())
    }
}

fn dealing(hand: impl Fn() -> FnBolt + Send + Sync + 'static) -> Topology {
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", || fixed([]), 1);
    builder.set_bolt("deal", || Deal { targets: Vec::new(), dealt: 0 }, 1).shuffle_grouping("spout");
    builder.set_bolt("hand", hand, 3).direct_grouping("deal", "dealt");
    builder.build().unwrap()
}

#[tokio::test]
async fn what_was_emitted_directly_is_kept_too() {
    let topology = dealing(|| sink(|_| ()));
    let done = complete_topology(topology, &[("spout", fixed(0..30))], PATIENCE).await.unwrap();
    let dealt: Vec<i64> = done.batches("deal", "dealt").iter().flat_map(values).collect();
    assert_eq!(dealt, (0..30).collect::<Vec<_>>());
    let hand = &done.metrics.components["hand"].inputs[&("deal".to_owned(), "dealt".to_owned())];
    assert_eq!(hand.executed, 30, "and still each goes to one task");
}

/// The kit's ear does not count as a listener.
#[tokio::test]
async fn a_direct_emission_to_nobody_is_an_error_all_the_same() {
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", || fixed([]), 1);
    let deal = || {
        bolt(|input: Tuples, out| {
            Box::pin(async move {
                let refused = out.emit_direct(999, "dealt", numbers([1]), Anchors::None).await.unwrap_err();
                assert_eq!(refused.to_string(), "task 999 does not listen to stream `deal.dealt`");
                out.ack(&input);
                Ok(())
            })
        })
        .direct_stream("dealt", number())
    };
    builder.set_bolt("deal", deal, 1).shuffle_grouping("spout");
    let topology = builder.build().unwrap();
    let spout = fixed([1]);
    let done = complete_topology(topology, &[("spout", spout.clone())], PATIENCE).await.unwrap();
    assert_eq!((spout.failures(), done.batches("deal", "dealt").len()), (vec![], 0));
}

#[tokio::test]
async fn time_can_be_moved_by_hand() {
    let (clock, hand) = Clock::manual();
    // Acks an odd one only when it comes again, after a time-out.
    let forgetful = || {
        let (mut seen, mut held) = (std::collections::BTreeSet::new(), Vec::new());
        bolt(move |input: Tuples, out| {
            for (row, n) in values(input.rows()).into_iter().enumerate() {
                if n % 2 == 0 || !seen.insert(n) {
                    out.ack_rows(&input, &[row as u32]);
                }
            }
            held.push(input);
            Box::pin(async { Ok(()) })
        })
    };
    let topology = dealing(forgetful);
    let spout = fixed(0..6);
    let moving = spout.clone();
    let mover = tokio::spawn(async move {
        until("the even ones", || moving.acked() == [0, 2, 4]).await;
        assert_eq!(moving.failures(), []);
        // Beyond the time-out of 30 s with its tenth, and beyond a tick.
        hand.advance(Duration::from_secs(61));
    });
    let done = complete_topology_by(clock, topology, &[("spout", spout.clone())], PATIENCE).await.unwrap();
    mover.await.unwrap();
    let expected: Vec<(MessageId, FailReason)> = [1, 3, 5].map(|id| (id, FailReason::TimedOut)).into();
    assert_eq!((spout.failures(), spout.emitted()), (expected, 9));
    let ticked: Vec<i64> = done.batches("deal", "ticked").iter().flat_map(values).collect();
    assert_eq!(ticked.len(), 1, "{ticked:?}");
}

#[tokio::test]
async fn a_spout_that_there_is_not_is_named() {
    for name in ["spouts", "deal"] {
        let topology = dealing(|| sink(|_| ()));
        let refused = complete_topology(topology, &[(name, fixed([]))], PATIENCE).await.unwrap_err();
        assert!(matches!(&refused, CompletionError::NoSpout(named) if named == name));
        assert_eq!(refused.to_string(), format!("the topology has no spout `{name}`"));
    }
}

#[tokio::test]
async fn trees_that_are_not_done_in_time_are_told_of() {
    let hold = || {
        let mut held = Vec::new();
        bolt(move |input: Tuples, out| {
            let two: Vec<u32> = (0..input.len() as u32).filter(|row| *row < 2).collect();
            out.ack_rows(&input, &two);
            held.push(input);
            Box::pin(async { Ok(()) })
        })
    };
    let mut builder = TopologyBuilder::new();
    builder.set_spout("a", || fixed([]), 1);
    builder.set_spout("b", || fixed([]), 1);
    builder.set_bolt("hold", hold, 1).shuffle_grouping("a");
    builder.set_bolt("end", || sink(|_| ()), 1).shuffle_grouping("b");
    let spouts = [("a", fixed(0..5)), ("b", fixed(0..5))];
    let patience = Duration::from_secs(2);
    let late = complete_topology(builder.build().unwrap(), &spouts, patience).await.unwrap_err();
    assert_eq!(late.to_string(), "after 2s these spouts were not done: `a`: 2 acked");
    assert_eq!(spouts[1].1.acked().len(), 5);
}

#[test]
fn without_a_runtime_nothing_completes() {
    let topology = dealing(|| sink(|_| ()));
    let spouts = [("spout", fixed([]))];
    let completing = complete_topology(topology, &spouts, PATIENCE);
    let refused = at_once(completing).unwrap_err();
    assert!(matches!(refused, CompletionError::Cluster(ClusterError::NoRuntime)), "{refused}");
}

/// What a future says that has no need to wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn rows_of_another_schema_are_refused_and_change_nothing() {
    let spout = fixed([1]);
    let others = [fields([("m", DataType::Int64)]), fields([("n", DataType::Utf8)])];
    for schema in others {
        let rows = arrow::array::RecordBatch::new_empty(schema);
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| spout.clone().rows(rows)));
        assert!(refused.is_err());
    }
    assert!(!spout.is_done() && spout.clone().rows(numbers([2])).acked().is_empty());
}
