//! What one task sends to another arrives in the order of sending, however full the queues are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{
    array::AsArray,
    datatypes::{DataType, Int64Type},
};
use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

/// Emits (task, 0), (task, 1), ... in batches of all sizes and as single tuples.
struct Sequence {
    task: i64,
    next: i64,
    upto: i64,
    streams: &'static [&'static str],
}

fn sequence(upto: i64, streams: &'static [&'static str]) -> impl Fn() -> Sequence + Send + Sync + 'static {
    move || Sequence { task: 0, next: 0, upto, streams }
}

#[async_trait]
impl Spout for Sequence {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        for stream in self.streams {
            declarer.declare_stream(stream, pair());
        }
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.task = i64::from(context.task());
        Ok(())
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        let size = [1, 1, 7, 1, 900, 2, 1_500, 3][fastrand::usize(0..8)].min(self.upto - self.next);
        let stream = self.streams[fastrand::usize(0..self.streams.len())];
        let values = self.next..self.next + size;
        self.next += size;
        if size == 0 {
            return Ok(Next::Idle);
        }
        if size < 10 {
            for n in values {
                out.emit_tuple(stream, (self.task, n), Some(n as u64)).await?;
            }
        } else {
            let mut rows = RowBuilder::new(pair(), size as usize)?;
            for n in values.clone() {
                rows.append((self.task, n))?;
            }
            out.emit(stream, rows.finish(), MessageIds::From(values.start as u64)).await?;
        }
        Ok(Next::Emitted)
    }
}

fn pair() -> arrow::datatypes::SchemaRef {
    fields([("task", DataType::Int64), ("n", DataType::Int64)])
}

/// The latest number by (receiving task, sending task).
type Latest = Arc<Mutex<BTreeMap<(TaskId, TaskId), i64>>>;

/// Checks that what comes from one task comes in order, and is slow now and then.
struct InOrder {
    task: TaskId,
    latest: Latest,
    wrong: Arc<Mutex<Vec<String>>>,
    slow: bool,
}

#[async_trait]
impl Bolt for InOrder {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.task = context.task();
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        for tuple in input.iter() {
            let (from, n): (i64, i64) = (tuple.get(0)?, tuple.get(1)?);
            assert_eq!(i64::from(tuple.source_task()), from);
            let key = (self.task, tuple.source_task());
            let before = self.latest.lock().unwrap().insert(key, n);
            if before.is_some_and(|before| before >= n) {
                self.wrong.lock().unwrap().push(format!("{n} behind {before:?}, (to, from) {key:?}"));
            }
        }
        if self.slow && fastrand::u8(0..10) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        out.ack(&input);
        Ok(())
    }
}

/// Sends a number to two tasks, and a few to none.
struct Pairs;

impl CustomGrouping for Pairs {
    fn choose_tasks(
        &mut self,
        rows: &arrow::array::RecordBatch,
        choice: &mut TaskChoice,
    ) -> Result<(), TaskError> {
        for (row, n) in rows.column(1).as_primitive::<Int64Type>().values().iter().enumerate() {
            if n % 17 > 0 {
                let first = *n as usize % choice.targets();
                choice.send(row, first);
                choice.send(row, (first + 1) % choice.targets());
            }
        }
        Ok(())
    }
}

/// Runs `spouts` executors of sequences into `bolts` slow tasks and says what came out of order.
async fn disorder(
    streams: &'static [&'static str],
    groupings: &[Grouping],
    config: TopologyConfig,
    slow: bool,
) -> Vec<String> {
    const UPTO: i64 = 10_000;
    let (latest, wrong) = (Latest::default(), Arc::<Mutex<Vec<String>>>::default());
    let mut builder = TopologyBuilder::new();
    builder.config(config);
    builder.set_spout("spout", sequence(UPTO, streams), 2).set_num_tasks(3);
    let (l, w) = (Arc::clone(&latest), Arc::clone(&wrong));
    let check = move || InOrder { task: 0, latest: Arc::clone(&l), wrong: Arc::clone(&w), slow };
    let mut bolt = builder.set_bolt("bolt", check, 2).set_num_tasks(4);
    for (stream, grouping) in streams.iter().zip(groupings) {
        bolt = bolt.input_stream("spout", stream, grouping.clone());
    }
    let cluster = run(&builder);
    until("acks", || {
        let outputs = &cluster.metrics(NAME).unwrap().components["spout"].outputs;
        outputs.values().map(|output| output.acked).sum::<u64>() == 3 * UPTO as u64
    })
    .await;
    end(&cluster).await;
    wrong.lock().unwrap().clone()
}

/// Storm's `InOrderDeliveryTest` and `JCQueueBackpressureTest`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tuples_of_a_task_arrive_in_order_also_under_backpressure() {
    let few_rows = TopologyConfig { queue_rows: 10, ..TopologyConfig::default() };
    let few_bytes = TopologyConfig { queue_bytes: 4_000, batch_rows: 100, ..TopologyConfig::default() };
    for config in [TopologyConfig::default(), few_rows, few_bytes] {
        let groupings = [
            Grouping::Shuffle,
            Grouping::LocalOrShuffle,
            Grouping::None,
            Grouping::fields(&["n"]),
            Grouping::partial_key(&["n"]),
            Grouping::All,
            Grouping::Global,
            Grouping::custom(|| Pairs),
        ];
        for grouping in groupings {
            let wrong = disorder(&["default"], std::slice::from_ref(&grouping), config.clone(), true).await;
            assert!(wrong.is_empty(), "{grouping:?}: {:?} and so on", wrong.first());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tuples_of_two_streams_from_one_task_arrive_in_order_too() {
    let groupings = [Grouping::Global, Grouping::Global, Grouping::Global];
    let wrong = disorder(&["b", "a", "c"], &groupings, TopologyConfig::default(), false).await;
    assert!(wrong.is_empty(), "{:?} and so on", wrong.first());
}

/// Sends what it gets in runs of all lengths directly to one task or another.
struct Dealer {
    targets: Vec<TaskId>,
    task: i64,
}

#[async_trait]
impl Bolt for Dealer {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare_direct_stream("dealt", pair());
    }

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.targets = context.component_tasks("bolt").to_vec();
        self.task = i64::from(context.task());
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        let numbers = values(input.rows());
        let mut row = 0;
        while row < numbers.len() {
            let end = (row + fastrand::usize(1..40)).min(numbers.len());
            let mut rows = RowBuilder::new(pair(), end - row)?;
            for n in &numbers[row..end] {
                rows.append((self.task, *n))?;
            }
            let to = self.targets[fastrand::usize(0..self.targets.len())];
            let anchors: Vec<u32> = (row as u32..end as u32).collect();
            out.emit_direct(to, "dealt", rows.finish(), Anchors::Rows(&input, &anchors)).await?;
            row = end;
        }
        out.ack(&input);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_directly_arrives_in_order_too() {
    let few_rows = TopologyConfig { queue_rows: 10, ..TopologyConfig::default() };
    for config in [TopologyConfig::default(), few_rows] {
        let (feeder, latest, wrong) =
            (Feeder::new(), Latest::default(), Arc::<Mutex<Vec<String>>>::default());
        let mut builder = TopologyBuilder::new();
        builder.config(config);
        builder.set_spout("spout", feeder.spout(), 1);
        builder.set_bolt("deal", || Dealer { targets: Vec::new(), task: 0 }, 1).shuffle_grouping("spout");
        let (l, w) = (Arc::clone(&latest), Arc::clone(&wrong));
        let check = move || InOrder { task: 0, latest: Arc::clone(&l), wrong: Arc::clone(&w), slow: true };
        builder.set_bolt("bolt", check, 2).set_num_tasks(4).direct_grouping("deal", "dealt");
        let cluster = run(&builder);
        for first in (0..10_000).step_by(500) {
            feeder.feed_rows(numbers(first..first + 500), MessageIds::From(first as u64));
        }
        until("acks", || feeder.told() == 10_000).await;
        assert_eq!(feeder.failures(), []);
        end(&cluster).await;
        assert_eq!(latest.lock().unwrap().len(), 4, "every task has some");
        assert!(wrong.lock().unwrap().is_empty(), "{:?}", wrong.lock().unwrap().first());
    }
}

/// Sends the odd ones by one stream and the even ones by another, behind each other.
fn zip(single: bool) -> FnBolt {
    let zip = bolt(move |input: Tuples, out| {
        Box::pin(async move {
            for tuple in input.iter() {
                let (n, row) = (tuple.get::<i64>(0)?, [tuple.row() as u32]);
                let stream = if n % 2 == 0 { "even" } else { "a odd" };
                match single {
                    true => out.emit_tuple(stream, (n,), &[tuple]).await?,
                    false => out.emit(stream, numbers([n]), Anchors::Rows(&input, &row)).await?,
                }
            }
            out.ack(&input);
            Ok(())
        })
    });
    zip.stream("even", number()).stream("a odd", number())
}

struct Zip;

impl BasicBolt for Zip {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare_stream("even", number());
        declarer.declare_stream("a odd", number());
    }

    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        let n: i64 = tuple.get(0)?;
        out.emit_to(if n % 2 == 0 { "even" } else { "a odd" }, (n,))
    }
}

#[tokio::test]
async fn a_bolts_tuples_of_two_streams_arrive_in_order() {
    for way in ["batches", "tuples", "basic"] {
        let (feeder, seen) = (Feeder::new(), Arc::new(Mutex::new(Vec::new())));
        let mut builder = TopologyBuilder::new();
        builder.config(TopologyConfig { batch_rows: 100, ..TopologyConfig::default() });
        builder.set_spout("spout", feeder.spout(), 1);
        let zip = match way {
            "basic" => builder.set_bolt("zip", || PerTuple::new(Zip), 1),
            _ => builder.set_bolt("zip", move || zip(way == "tuples"), 1),
        };
        zip.shuffle_grouping("spout");
        let seeing = Arc::clone(&seen);
        let see = move || {
            let seen = Arc::clone(&seeing);
            sink(move |input| seen.lock().unwrap().extend(values(input.rows())))
        };
        let see = builder.set_bolt("see", see, 1).input_stream("zip", "even", Grouping::Shuffle);
        see.input_stream("zip", "a odd", Grouping::Shuffle);
        let cluster = run(&builder);
        feeder.feed_rows(numbers(0..500), MessageIds::From(0));
        until("acks", || feeder.told() == 500).await;
        assert_eq!(feeder.acks().len(), 500);
        assert_eq!(*seen.lock().unwrap(), (0..500).collect::<Vec<_>>(), "{way}");
        end(&cluster).await;
    }
}

/// Streams that never meet at a listener leave in full batches however they alternate.
#[tokio::test]
async fn streams_that_do_not_meet_do_not_break_each_others_batches() {
    for basic in [false, true] {
        let feeder = Feeder::new();
        let mut builder = TopologyBuilder::new();
        builder.set_spout("spout", feeder.spout(), 1);
        let zip = match basic {
            true => builder.set_bolt("zip", || PerTuple::new(Zip), 1),
            false => builder.set_bolt("zip", || zip(true), 1),
        };
        zip.shuffle_grouping("spout");
        builder.set_bolt("even", || sink(|_| ()), 1).input_stream("zip", "even", Grouping::Shuffle);
        builder.set_bolt("odd", || sink(|_| ()), 1).input_stream("zip", "a odd", Grouping::Shuffle);
        let cluster = run(&builder);
        feeder.feed_rows(numbers(0..500), MessageIds::From(0));
        until("acks", || feeder.told() == 500).await;
        let metrics = cluster.metrics(NAME).unwrap();
        let input = &metrics.components["odd"].inputs[&("zip".to_owned(), "a odd".to_owned())];
        assert_eq!((input.executed, input.batches), (250, 1));
        end(&cluster).await;
    }
}
