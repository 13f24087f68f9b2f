//! The message time-out and the limit of pending tuples, by a clock that a test moves.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

const T: u64 = 10;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn config() -> TopologyConfig {
    TopologyConfig { message_timeout: seconds(T), ..TopologyConfig::default() }
}

/// Tuples that bolts hold until a test lets them go.
type Held = Arc<Mutex<Vec<Tuples>>>;

/// A bolt that holds everything and, when a negative number comes, acks (-1) or resets (-2) what it holds.
fn holding(held: &Held) -> impl Fn() -> FnBolt + Send + Sync + 'static {
    let held = Arc::clone(held);
    move || {
        let held = Arc::clone(&held);
        bolt(move |input, out| {
            let mut held = held.lock().unwrap();
            for row in 0..input.len() {
                let one = input.take(&[row as u32]).unwrap();
                match values(one.rows())[0] {
                    -1 => held.iter().for_each(|tuples| out.ack(tuples)),
                    -2 => held.iter().for_each(|tuples| out.reset_timeout(tuples)),
                    -3 => held.iter().take(1).for_each(|tuples| out.reset_timeout(tuples)),
                    _ => held.push(one),
                }
            }
            Box::pin(async { Ok(()) })
        })
    }
}

fn holder(feeder: &Feeder, held: &Held) -> TopologyBuilder {
    let mut builder = TopologyBuilder::new();
    builder.config(config());
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("bolt", holding(held), 1).shuffle_grouping("spout");
    builder
}

/// A word to the holding bolt, which nobody follows.
fn say(feeder: &Feeder, word: i64) {
    feeder.feed_rows(numbers([word]), MessageIds::None);
}

/// Storm's `testTimeout`.
#[tokio::test]
async fn a_tuple_that_is_not_acked_fails_after_the_time_out_and_not_before() {
    let (feeder, held) = (Feeder::new(), Held::default());
    let (cluster, hand) = run_by_hand(&holder(&feeder, &held));
    feeder.feed(1);
    settled(&cluster).await;
    hand.advance(seconds(9));
    settled(&cluster).await;
    assert_eq!(feeder.told(), 0);
    hand.advance(seconds(12));
    until("a time-out", || feeder.told() == 1).await;
    assert_eq!(feeder.failures(), [(1, FailReason::TimedOut)]);
    let spout = &cluster.metrics(NAME).unwrap().components["spout"];
    let output = &spout.outputs[DEFAULT_STREAM];
    assert_eq!((output.acked, output.failed, output.timed_out, spout.pending), (0, 1, 1, 0));
    end(&cluster).await;
}

#[tokio::test]
async fn time_outs_are_noticed_within_a_tenth_of_the_time_out() {
    let (feeder, held) = (Feeder::new(), Held::default());
    let (cluster, hand) = run_by_hand(&holder(&feeder, &held));
    feeder.feed(1);
    settled(&cluster).await;
    hand.advance(seconds(T + 1));
    until("a time-out", || feeder.told() == 1).await;
    end(&cluster).await;
}

/// Storm's `testResetTimeout`.
#[tokio::test]
async fn a_reset_gives_a_tree_its_whole_time_again() {
    let (feeder, held) = (Feeder::new(), Held::default());
    let (cluster, hand) = run_by_hand(&holder(&feeder, &held));
    // Both in one batch, so that the batch has more than one deadline.
    feeder.feed_rows(numbers([1, 2]), MessageIds::From(1));
    settled(&cluster).await;
    for _ in 0..5 {
        hand.advance(seconds(6));
        // The first one.
        say(&feeder, -3);
        settled(&cluster).await;
    }
    assert_eq!(feeder.failures(), [(2, FailReason::TimedOut)]);
    assert_eq!(feeder.acks(), NOTHING);
    say(&feeder, -1);
    until("an ack", || feeder.told() == 1).await;
    assert_eq!(feeder.acks(), [1]);
    end(&cluster).await;
}

#[tokio::test]
async fn a_reset_of_everything_moves_the_deadline_once() {
    let (feeder, held) = (Feeder::new(), Held::default());
    let (cluster, hand) = run_by_hand(&holder(&feeder, &held));
    feeder.feed_rows(numbers([1, 2]), MessageIds::From(1));
    settled(&cluster).await;
    hand.advance(seconds(6));
    say(&feeder, -2);
    settled(&cluster).await;
    hand.advance(seconds(9));
    settled(&cluster).await;
    assert_eq!(feeder.told(), 0);
    hand.advance(seconds(2));
    until("time-outs", || feeder.told() == 2).await;
    end(&cluster).await;
}

#[tokio::test]
async fn a_late_ack_or_reset_changes_nothing() {
    let (feeder, held) = (Feeder::new(), Held::default());
    let (cluster, hand) = run_by_hand(&holder(&feeder, &held));
    feeder.feed_rows(numbers([1, 2]), MessageIds::From(1));
    settled(&cluster).await;
    hand.advance(seconds(21));
    until("time-outs", || feeder.told() == 2).await;
    say(&feeder, -2);
    say(&feeder, -1);
    settled(&cluster).await;
    assert_eq!(feeder.acks(), NOTHING);
    assert_eq!(feeder.failures(), [(1, FailReason::TimedOut), (2, FailReason::TimedOut)]);
    // Emitted again, a message is a new tree.
    held.lock().unwrap().clear();
    feeder.feed(1);
    say(&feeder, -1);
    until("an ack", || feeder.told() == 1).await;
    assert_eq!(feeder.acks(), [1]);
    end(&cluster).await;
}

/// What is anchored to a tree that has timed out goes on, to no avail.
#[tokio::test]
async fn a_tree_times_out_as_a_whole() {
    let (feeder, held) = (Feeder::new(), Held::default());
    let mut builder = TopologyBuilder::new();
    builder.config(config());
    builder.set_spout("spout", feeder.spout(), 1);
    let copy = || {
        bolt(|input: Tuples, out| {
            Box::pin(async move {
                out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Same(&input)).await?;
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("copy", copy, 1).shuffle_grouping("spout");
    builder.set_bolt("bolt", holding(&held), 1).shuffle_grouping("copy");
    let (cluster, hand) = run_by_hand(&builder);
    feeder.feed(1);
    settled(&cluster).await;
    hand.advance(seconds(21));
    until("a time-out", || feeder.told() == 1).await;
    say(&feeder, -1);
    settled(&cluster).await;
    assert_eq!(feeder.acks(), NOTHING);
    end(&cluster).await;
}

#[tokio::test]
async fn a_time_out_may_be_longer_than_time_itself() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig {
        message_timeout: Duration::MAX,
        linger: Duration::MAX,
        ..TopologyConfig::default()
    });
    builder.set_spout("spout", feeder.spout(), 1);
    let never = ComponentConfig { tick: Some(Duration::MAX), ..ComponentConfig::default() };
    builder.set_bolt("bolt", || sink(|_| ()), 1).shuffle_grouping("spout").config(never.clone());
    let cluster = run(&builder);
    feeder.feed(1);
    until("an ack", || feeder.told() == 1).await;
    let killed = cluster.kill(NAME, Duration::MAX).await.unwrap();
    assert!(killed.drained);
    // Also by a clock whose hand has moved.
    let (clock, hand) = Clock::manual();
    hand.advance(seconds(1));
    let cluster = LocalCluster::with_clock(clock);
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    feeder.feed(2);
    until("an ack", || feeder.told() == 2).await;
    end(&cluster).await;
}

/// Emits one tuple per call, as fast as it is asked.
struct Eager {
    next: u64,
    by_batch: bool,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    pending: AtomicUsize,
    most: AtomicUsize,
    asked: AtomicUsize,
    settled: AtomicUsize,
}

#[async_trait]
impl Spout for Eager {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        self.counts.asked.fetch_add(1, SeqCst);
        let pending = self.counts.pending.fetch_add(1, SeqCst) + 1;
        self.counts.most.fetch_max(pending, SeqCst);
        self.next += 1;
        if self.by_batch {
            out.emit(DEFAULT_STREAM, numbers([1]), MessageIds::From(self.next)).await?;
        } else {
            out.emit_tuple(DEFAULT_STREAM, (1_i64,), Some(self.next)).await?;
        }
        Ok(Next::Emitted)
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        self.counts.pending.fetch_sub(ids.len(), SeqCst);
        self.counts.settled.fetch_add(ids.len(), SeqCst);
    }

    async fn failed(&mut self, ids: &[MessageId], _: &FailReason) {
        self.counts.pending.fetch_sub(ids.len(), SeqCst);
        self.counts.settled.fetch_add(ids.len(), SeqCst);
    }
}

fn eager(by_batch: bool, counts: &Arc<Counts>) -> impl Fn() -> Eager + Send + Sync + 'static {
    let counts = Arc::clone(counts);
    move || Eager { next: 0, by_batch, counts: Arc::clone(&counts) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_tuples_are_pending_than_may_be() {
    for by_batch in [false, true] {
        for limit in [1, 3, 100] {
            let counts = Arc::new(Counts::default());
            let mut builder = TopologyBuilder::new();
            let component = ComponentConfig { max_spout_pending: Some(limit), ..ComponentConfig::default() };
            builder.set_spout("spout", eager(by_batch, &counts), 1).config(component);
            builder.set_bolt("bolt", || sink(|_| ()), 2).shuffle_grouping("spout");
            let cluster = run(&builder);
            until("acks", || counts.settled.load(SeqCst) >= 300).await;
            end(&cluster).await;
            assert!(counts.most.load(SeqCst) <= limit, "{} of {limit}", counts.most.load(SeqCst));
        }
    }
}

#[tokio::test]
async fn a_spout_with_too_many_pending_tuples_is_not_asked() {
    let (counts, held) = (Arc::new(Counts::default()), Held::default());
    let release = Arc::new(AtomicBool::new(false));
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig { max_spout_pending: 5, ..config() });
    // Each of the two tasks of the one executor has a limit of its own.
    builder.set_spout("spout", eager(false, &counts), 1).set_num_tasks(2);
    let (hold, let_go) = (Arc::clone(&held), Arc::clone(&release));
    let keeping = move || {
        let (hold, let_go) = (Arc::clone(&hold), Arc::clone(&let_go));
        sink(|_| ());
        bolt(move |input, out| {
            match let_go.load(SeqCst) {
                true => out.ack(&input),
                false => hold.lock().unwrap().push(input),
            }
            Box::pin(async { Ok(()) })
        })
    };
    builder.set_bolt("bolt", keeping, 1).shuffle_grouping("spout");
    let (cluster, hand) = run_by_hand(&builder);
    settled(&cluster).await;
    assert_eq!(counts.asked.load(SeqCst), 10);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(counts.asked.load(SeqCst), 10);
    release.store(true, SeqCst);
    // What is held fails, and makes room.
    hand.advance(seconds(11));
    until("going on", || counts.settled.load(SeqCst) > 200).await;
    assert!(counts.most.load(SeqCst) <= 10);
    end(&cluster).await;
}
