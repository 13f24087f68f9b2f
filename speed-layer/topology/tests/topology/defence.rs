//! Panics where nobody expects one: an executor starts over all the same, and no topology is left that only looks alive.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, ListArray, NullArray, RecordBatch},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field},
};
use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

/// An error that does not want to be read.
#[derive(Debug)]
struct Secretive;

impl fmt::Display for Secretive {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no comment")
    }
}

impl std::error::Error for Secretive {}

/// The number that something goes wrong at.
const WRONG: i64 = -1;

/// Feeds a wrong number to a bolt, and then a right one: the wrong one fails at once, the right one is acked.
async fn survives(what: &str, make: impl Fn() -> FnBolt + Send + Sync + 'static) -> ComponentMetrics {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("bolt", make, 1).shuffle_grouping("spout");
    builder.set_bolt("end", || sink(|_| ()), 2).input("bolt", Grouping::custom(|| Choosy));
    let cluster = run(&builder);
    feeder.feed_rows(numbers([WRONG]), MessageIds::From(0));
    until(what, || feeder.told() == 1).await;
    assert_eq!(feeder.failures().len(), 1, "{what}");
    feeder.feed(7);
    until(what, || feeder.told() == 1).await;
    assert_eq!(feeder.acks(), [7], "{what}");
    assert_eq!(cluster.topologies()[NAME].1, TopologyStatus::Active);
    let metrics = cluster.metrics(NAME).unwrap();
    assert_eq!(metrics.failure, None);
    end(&cluster).await;
    metrics.components["bolt"].clone()
}

/// Sends nothing anywhere that is wrong.
struct Choosy;

impl CustomGrouping for Choosy {
    fn choose_tasks(&mut self, rows: &RecordBatch, choice: &mut TaskChoice) -> Result<(), TaskError> {
        match values(rows).contains(&WRONG) {
            true => Err("a wrong one".into()),
            false => {
                choice.send_all(0);
                Ok(())
            }
        }
    }
}

fn is_wrong(input: &Tuples) -> bool {
    values(input.rows()).contains(&WRONG)
}

#[tokio::test]
async fn an_error_whose_text_panics_fails_its_tuples_and_nothing_else() {
    let make = || {
        bolt(|input: Tuples, out| {
            let wrong = is_wrong(&input);
            Box::pin(async move {
                if wrong {
                    return Err(Secretive.into());
                }
                out.ack(&input);
                Ok(())
            })
        })
    };
    let bolt = survives("an error without text", make).await;
    assert_eq!((bolt.errors, bolt.panics), (1, 0));
    let text = "an error whose text cannot be had: no comment";
    assert_eq!(bolt.last_error.as_deref(), Some(text));
}

/// An ack of a row that there is not panics when the call ends, and again when what the call has left is thrown away.
#[tokio::test]
async fn an_ack_that_panics_twice_does_not_end_an_executor() {
    for way in ["a panic in the call", "an emission that cannot leave", "the ack alone"] {
        let make = move || {
            bolt(move |input: Tuples, out| {
                let wrong = is_wrong(&input);
                Box::pin(async move {
                    if wrong {
                        out.ack_rows(&input, &[1_000]);
                        match way {
                            "a panic in the call" => panic!("no more"),
                            "the ack alone" => return Ok(()),
                            _ => out.emit_tuple(DEFAULT_STREAM, (WRONG,), &[input.tuple(0)]).await?,
                        }
                    }
                    out.ack(&input);
                    Ok(())
                })
            })
        };
        let bolt = survives(way, make).await;
        assert!(bolt.panics >= 1, "{way}");
    }
}

/// Panics in its methods themselves, and not in the futures that they return: written without `async`.
struct Hasty(Arc<AtomicUsize>);

impl Bolt for Hasty {
    fn execute<'life0, 'life1, 'async_trait>(
        &'life0 mut self,
        input: Tuples,
        out: &'life1 mut OutputCollector,
    ) -> Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        assert!(!is_wrong(&input), "before it begins");
        out.ack(&input);
        Box::pin(async { Ok(()) })
    }

    fn cleanup<'life0, 'async_trait>(
        &'life0 mut self,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.0.fetch_add(1, SeqCst);
        panic!("before it ends")
    }
}

/// The same of spouts: some of the first calls panic, and one returns an error without text.
#[derive(Clone)]
struct HastySpout {
    feeder: Feeder,
    calls: Arc<AtomicUsize>,
    acks: Arc<AtomicUsize>,
}

impl Spout for HastySpout {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        self.feeder.declare_output_fields(declarer);
    }

    fn next<'life0, 'life1, 'async_trait>(
        &'life0 mut self,
        out: &'life1 mut SpoutOutputCollector,
    ) -> Pin<Box<dyn Future<Output = Result<Next, TaskError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        let call = self.calls.fetch_add(1, SeqCst);
        assert!(call % 5 != 1 || call > 20, "before it begins");
        match call {
            3 => Box::pin(async { Err(Secretive.into()) }),
            _ => self.feeder.next(out),
        }
    }

    fn acked<'life0, 'life1, 'async_trait>(
        &'life0 mut self,
        ids: &'life1 [MessageId],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        self.feeder.look().acked.extend(ids);
        assert!(self.acks.fetch_add(1, SeqCst) > 0, "not the first one");
        Box::pin(async {})
    }
}

#[tokio::test]
async fn a_method_that_panics_before_it_returns_its_future_is_guarded_too() {
    let (feeder, cleaned) = (Feeder::new(), Arc::new(AtomicUsize::new(0)));
    let spout = HastySpout { feeder: feeder.clone(), calls: Arc::default(), acks: Arc::default() };
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", move || spout.clone(), 1);
    let cleaning = Arc::clone(&cleaned);
    builder.set_bolt("bolt", move || Hasty(Arc::clone(&cleaning)), 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    // What is open when the spout starts over nobody hears of: so on and on.
    let mut id = 0;
    let mut acked = |most: usize| {
        id += 1;
        feeder.feed(id);
        feeder.look().acked.len() >= most
    };
    until("an ack", || acked(1)).await;
    feeder.feed_rows(numbers([WRONG]), MessageIds::None);
    until("a panic", || cluster.metrics(NAME).unwrap().components["bolt"].panics == 1).await;
    let before = feeder.look().acked.len();
    until("more acks", || acked(before + 1)).await;
    let metrics = cluster.metrics(NAME).unwrap();
    assert_eq!(metrics.failure, None);
    assert!(metrics.components["spout"].panics >= 2 && metrics.components["spout"].errors >= 1);
    cluster.kill(NAME, Duration::from_secs(5)).await.unwrap();
    assert_eq!(cleaned.load(SeqCst), 1, "none after its own panic, one at the end");
}

/// Arrow panics when offsets overflow: two lists of one and a half milliards of nulls each, which take no memory.
#[tokio::test]
async fn batches_that_cannot_be_put_together_come_one_by_one() {
    const MANY: usize = 1_500_000_000;
    let item = Arc::new(Field::new_list_field(DataType::Null, true));
    let schema = fields([("list", DataType::List(Arc::clone(&item)))]);
    let feeder = Feeder::of(Arc::clone(&schema));
    let offsets = OffsetBuffer::new(vec![0, MANY as i32].into());
    let list: ArrayRef = Arc::new(ListArray::new(item, offsets, Arc::new(NullArray::new(MANY)), None));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let wait = move || {
        let gate = Arc::clone(&waiting);
        bolt(move |input, out| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                let _permit = gate.acquire().await?;
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("bolt", wait, 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    for id in 0..4 {
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(&list)]).unwrap();
        feeder.feed_rows(rows, MessageIds::From(id));
    }
    until("emissions", || feeder.look().asked > 4).await;
    gate.add_permits(1);
    until("acks", || feeder.told() == 4).await;
    assert_eq!(feeder.acks(), [0, 1, 2, 3]);
    assert_eq!(cluster.metrics(NAME).unwrap().components["bolt"].panics, 0);
    end(&cluster).await;
}

/// A payload that panics once more when it is dropped, outside of the call that it came from.
struct Grudge;

impl Drop for Grudge {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("and another thing")
        }
    }
}

#[tokio::test]
async fn a_panic_outside_of_a_call_starts_an_executor_over_and_fails_what_it_holds_at_once() {
    let make = || {
        let mut held = Vec::new();
        bolt(move |input: Tuples, out| {
            if is_wrong(&input) {
                held.push(input);
                std::panic::panic_any(Grudge);
            }
            out.ack(&input);
            Box::pin(async { Ok(()) })
        })
    };
    let begun = Instant::now();
    let bolt = survives("a grudge", make).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "no time-out was waited for");
    assert!(bolt.panics >= 1);
    assert_eq!(bolt.last_error.as_deref(), Some("panicked: and another thing"));
}

/// The same in a spout: the executor starts over, and what was open counts as failed.
#[derive(Clone)]
struct GrudgingSpout(Arc<AtomicUsize>);

#[async_trait]
impl Spout for GrudgingSpout {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        match self.0.fetch_add(1, SeqCst) {
            0 => {
                out.emit(DEFAULT_STREAM, numbers([1, 2, 3]), MessageIds::From(1)).await?;
                std::panic::panic_any(Grudge)
            }
            _ => Ok(Next::Idle),
        }
    }
}

#[tokio::test]
async fn a_spouts_executor_starts_over_too() {
    let calls = Arc::new(AtomicUsize::new(0));
    let spout = GrudgingSpout(Arc::clone(&calls));
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", move || spout.clone(), 1);
    builder.set_bolt("bolt", || sink(|_| ()), 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    until("a restart", || calls.load(SeqCst) > 2).await;
    settled(&cluster).await;
    let metrics = cluster.metrics(NAME).unwrap();
    let spout = &metrics.components["spout"];
    let output = &spout.outputs[DEFAULT_STREAM];
    assert_eq!((output.emitted, spout.pending, metrics.failure), (3, 0, None));
    assert_eq!(output.acked + output.failed, 3);
    end(&cluster).await;
}
