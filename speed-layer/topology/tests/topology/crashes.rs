//! Bolts and spouts that panic or err: their tuples fail at once, and they start over.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

/// A number at which things go wrong.
const PANIC: i64 = -1;
const ERROR: i64 = -2;
const HOLD: i64 = -3;

/// Panics, errs and holds at those numbers; counts how often it was made.
struct Fragile {
    task: usize,
    tasks: Arc<Mutex<Vec<(usize, i64)>>>,
    held: Vec<Tuples>,
}

#[async_trait]
impl Bolt for Fragile {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
    }

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.task = context.task_index();
        self.tasks.lock().unwrap().push((self.task, 0));
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        let numbers = values(input.rows());
        self.tasks.lock().unwrap().extend(numbers.iter().map(|n| (self.task, *n)));
        for (row, n) in numbers.into_iter().enumerate() {
            match n {
                PANIC => panic!("{PANIC} is too much"),
                ERROR => return Err("minus two".into()),
                HOLD => self.held.push(input.take(&[row as u32])?),
                _ => out.ack_rows(&input, &[row as u32]),
            }
        }
        Ok(())
    }
}

type Seen = Arc<Mutex<Vec<(usize, i64)>>>;

fn fragile(feeder: &Feeder, executors: usize, tasks: usize) -> (TopologyBuilder, Seen) {
    let seen = Seen::default();
    let seeing = Arc::clone(&seen);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let make = move || Fragile { task: 0, tasks: Arc::clone(&seeing), held: Vec::new() };
    builder.set_bolt("bolt", make, executors).set_num_tasks(tasks).fields_grouping("spout", &["n"]);
    (builder, seen)
}

#[tokio::test]
async fn a_panic_fails_the_call_and_what_is_held_at_once_and_the_bolt_starts_over() {
    let feeder = Feeder::new();
    let (builder, seen) = fragile(&feeder, 1, 1);
    let cluster = run(&builder);
    feeder.feed_rows(numbers([HOLD, HOLD]), MessageIds::From(1));
    settled(&cluster).await;
    assert_eq!(feeder.told(), 0);
    let begun = Instant::now();
    // What was acked before the panic is of the same call, and fails, too.
    feeder.feed_rows(numbers([5, PANIC, 6]), MessageIds::From(10));
    until("failures", || feeder.told() == 5).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "at once");
    let why = because("bolt `bolt` panicked: -1 is too much");
    let expected =
        [(1, FailReason::Dropped), (2, FailReason::Dropped), (10, why.clone()), (11, why.clone()), (12, why)];
    assert_eq!(feeder.failures(), expected);
    feeder.feed(7);
    until("an ack", || feeder.told() == 1).await;
    assert_eq!(feeder.acks(), [7]);
    let expected = [(0, 0), (0, HOLD), (0, HOLD), (0, 5), (0, PANIC), (0, 6), (0, 0), (0, 7)];
    assert_eq!(*seen.lock().unwrap(), expected);
    let bolt = &cluster.metrics(NAME).unwrap().components["bolt"];
    assert_eq!((bolt.panics, bolt.errors), (1, 0));
    assert_eq!(bolt.last_error.as_deref(), Some("panicked: -1 is too much"));
    let input = &bolt.inputs[&("spout".to_owned(), "default".to_owned())];
    assert_eq!((input.executed, input.acked, input.failed), (6, 1, 5));
    end(&cluster).await;
}

#[tokio::test]
async fn an_error_fails_what_is_not_settled_in_the_call_and_nothing_else() {
    let feeder = Feeder::new();
    let (builder, seen) = fragile(&feeder, 1, 1);
    let cluster = run(&builder);
    feeder.feed_rows(numbers([HOLD]), MessageIds::From(1));
    settled(&cluster).await;
    feeder.feed_rows(numbers([5, ERROR, 6]), MessageIds::From(10));
    until("an end", || feeder.told() == 3).await;
    assert_eq!(feeder.acks(), [10]);
    assert_eq!(feeder.failures(), [(11, because("minus two")), (12, because("minus two"))]);
    assert_eq!(seen.lock().unwrap().iter().filter(|(_, n)| *n == 0).count(), 1, "the same bolt goes on");
    let bolt = &cluster.metrics(NAME).unwrap().components["bolt"];
    assert_eq!((bolt.panics, bolt.errors, bolt.last_error.as_deref()), (0, 1, Some("minus two")));
    assert!(!cluster.kill(NAME, Duration::from_millis(20)).await.unwrap().drained, "one is held");
}

/// Tasks that share an executor go down together; others do not notice.
#[tokio::test]
async fn other_executors_are_not_disturbed_by_a_panic() {
    let feeder = Feeder::new();
    let (builder, seen) = fragile(&feeder, 2, 4);
    let cluster = run(&builder);
    feeder.feed_rows(numbers([PANIC]), MessageIds::From(1));
    until("a failure", || feeder.told() == 1).await;
    feeder.feed_rows(numbers(1..100), MessageIds::From(1));
    until("acks", || feeder.told() == 100).await;
    let seen = seen.lock().unwrap().clone();
    let hit = seen.iter().find(|(_, n)| *n == PANIC).unwrap().0;
    for task in 0..4 {
        let made = seen.iter().filter(|seen| **seen == (task, 0)).count();
        assert_eq!(made, if task / 2 == hit / 2 { 2 } else { 1 }, "task {task} with {hit}");
    }
    end(&cluster).await;
}

/// A bolt that crashes all the time is given longer and longer pauses, and does not keep others from working.
#[tokio::test]
async fn crash_loops_back_off() {
    let (made, feeder) = (Arc::new(AtomicUsize::new(0)), Feeder::new());
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("good", || sink(|_| ()), 1).shuffle_grouping("spout");
    let making = Arc::clone(&made);
    let bad = move || {
        making.fetch_add(1, SeqCst);
        Unprepared
    };
    builder.set_bolt("bad", bad, 1).input_stream("spout", SYSTEM_STREAM, Grouping::Global);
    let begun = Instant::now();
    let cluster = run(&builder);
    let made_at_first = made.load(SeqCst);
    let crashes = || made.load(SeqCst) - made_at_first;
    until("crashes", || crashes() >= 8).await;
    // 10, 20, 40, 80, 160, 320 and 640 ms lie between the first eight.
    let crashes = crashes();
    let pauses = Duration::from_millis(10 * ((1 << (crashes - 1)) - 1));
    assert!(begun.elapsed() >= pauses, "{crashes} crashes within {:?}", begun.elapsed());
    let metrics = cluster.metrics(NAME).unwrap();
    assert!(metrics.components["bad"].panics >= 4);
    assert_eq!(metrics.components["bad"].last_error.as_deref(), Some("panicked: unprepared"));
    feeder.feed(1);
    until("an ack", || feeder.told() == 1).await;
    // A kill does not wait for the pause, which is longer than a second now.
    let begun = Instant::now();
    cluster.kill(NAME, Duration::ZERO).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
}

struct Unprepared;

#[async_trait]
impl Bolt for Unprepared {
    async fn prepare(&mut self, _: &TaskContext) -> Result<(), TaskError> {
        panic!("unprepared");
    }

    async fn execute(&mut self, _: Tuples, _: &mut OutputCollector) -> Result<(), TaskError> {
        unreachable!("it was never prepared");
    }
}

/// What a fickle spout does in a call.
#[derive(Clone, Copy, Debug)]
enum Act {
    Emit(i64),
    Err,
    Panic,
    /// Later, when it is told of an ack or failure.
    PanicWhenTold,
}

#[derive(Clone)]
struct Fickle {
    acts: Arc<Mutex<VecDeque<Act>>>,
    opens: Arc<Mutex<VecDeque<Act>>>,
    log: Arc<Mutex<Vec<String>>>,
    then: bool,
}

impl Fickle {
    fn new(opens: &[Act], acts: &[Act]) -> Self {
        let queue = |acts: &[Act]| Arc::new(Mutex::new(acts.iter().copied().collect()));
        Self { acts: queue(acts), opens: queue(opens), log: Arc::default(), then: false }
    }

    fn say(&self, what: impl ToString) {
        self.log.lock().unwrap().push(what.to_string());
    }
}

#[async_trait]
impl Spout for Fickle {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
    }

    async fn open(&mut self, _: &TaskContext) -> Result<(), TaskError> {
        self.say("open");
        let act = self.opens.lock().unwrap().pop_front();
        match act {
            Some(Act::Err) => Err("closed today".into()),
            Some(Act::Panic) => panic!("at the door"),
            _ => Ok(()),
        }
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        let act = self.acts.lock().unwrap().pop_front();
        match act {
            None => return Ok(Next::Idle),
            Some(Act::Emit(n)) => {
                out.emit_tuple(DEFAULT_STREAM, (n,), Some(n as u64)).await?;
                out.emit(DEFAULT_STREAM, numbers([n + 100]), MessageIds::From(n as u64 + 100)).await?;
            }
            Some(Act::Err) => return Err("no".into()),
            Some(Act::Panic) => panic!("no more"),
            Some(Act::PanicWhenTold) => self.then = true,
        }
        Ok(Next::Emitted)
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        assert!(!ids.is_empty());
        ids.iter().for_each(|id| self.say(format!("acked {id}")));
        assert!(!self.then, "told");
    }

    async fn failed(&mut self, ids: &[MessageId], _: &FailReason) {
        assert!(!ids.is_empty());
        ids.iter().for_each(|id| self.say(format!("failed {id}")));
    }

    async fn close(&mut self) {
        self.say("close");
    }
}

async fn run_fickle(fickle: &Fickle) -> (LocalCluster, TopologyMetrics) {
    let mut builder = TopologyBuilder::new();
    let made = fickle.clone();
    builder.set_spout("spout", move || made.clone(), 1);
    builder.set_bolt("bolt", || sink(|_| ()), 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    until("acts", || fickle.acts.lock().unwrap().is_empty()).await;
    settled(&cluster).await;
    until("acks", || cluster.is_idle(NAME).unwrap()).await;
    let metrics = cluster.metrics(NAME).unwrap();
    (cluster, metrics)
}

#[tokio::test]
async fn an_erring_spout_is_asked_again() {
    let fickle = Fickle::new(&[], &[Act::Emit(1), Act::Err, Act::Err, Act::Emit(2), Act::Err, Act::Emit(3)]);
    let (cluster, metrics) = run_fickle(&fickle).await;
    end(&cluster).await;
    let mut log = fickle.log.lock().unwrap().clone();
    assert_eq!((log.remove(0), log.pop()), ("open".to_owned(), Some("close".to_owned())));
    log.sort_unstable();
    assert_eq!(log, ["acked 1", "acked 101", "acked 102", "acked 103", "acked 2", "acked 3"]);
    let spout = &metrics.components["spout"];
    assert_eq!((spout.errors, spout.panics, spout.last_error.as_deref()), (3, 0, Some("no")));
}

#[tokio::test]
async fn a_spout_that_panics_starts_over_and_is_not_told_of_what_it_does_not_know() {
    let fickle = Fickle::new(&[Act::Err, Act::Panic], &[Act::Emit(1), Act::Panic, Act::Emit(2)]);
    let (cluster, metrics) = run_fickle(&fickle).await;
    end(&cluster).await;
    let mut log = fickle.log.lock().unwrap().clone();
    assert_eq!(log[..3], ["open", "open", "open"]);
    assert_eq!(log.iter().filter(|what| *what == "open").count(), 4);
    assert_eq!(log.pop().unwrap(), "close");
    // The first two may have been acked before the panic or not.
    assert!(log.contains(&"acked 2".to_owned()) && log.contains(&"acked 102".to_owned()), "{log:?}");
    let spout = &metrics.components["spout"];
    assert_eq!((spout.errors, spout.panics, spout.pending), (1, 2, 0));
}

#[tokio::test]
async fn a_spout_that_panics_over_an_ack_starts_over() {
    let fickle = Fickle::new(&[], &[Act::PanicWhenTold, Act::Emit(1), Act::Emit(2)]);
    let (cluster, _) = run_fickle(&fickle).await;
    until("a restart", || fickle.log.lock().unwrap().iter().filter(|what| *what == "open").count() == 2)
        .await;
    let metrics = cluster.metrics(NAME).unwrap();
    assert_eq!((metrics.components["spout"].panics, metrics.components["spout"].pending), (1, 0));
    end(&cluster).await;
}

/// Panics also when it is thrown away.
struct Grudging;

impl Drop for Grudging {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("not like this");
        }
    }
}

/// Even a bolt that panics while it is dropped does not take its executor with it.
#[tokio::test]
async fn a_bolt_that_panics_while_it_goes_starts_over() {
    let feeder = Feeder::new();
    let made = Arc::new(AtomicUsize::new(0));
    let making = Arc::clone(&made);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let make = move || {
        // The first is made for its declarations, the second crashes.
        let grudge = (making.fetch_add(1, SeqCst) == 1).then(|| Grudging);
        bolt(move |input, out| {
            let crash = grudge.is_some();
            out.ack(&input);
            Box::pin(async move {
                match crash {
                    true => panic!("crash"),
                    false => Ok(()),
                }
            })
        })
    };
    builder.set_bolt("bolt", make, 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    feeder.feed(1);
    until("a failure", || feeder.told() == 1).await;
    feeder.feed(2);
    until("an ack", || feeder.told() == 2).await;
    assert_eq!(feeder.acks(), [2]);
    end(&cluster).await;
}
