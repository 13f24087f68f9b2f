//! Topologies begin, rest, go on and end.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arrow::array::AsArray;
use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

/// Writes down what it is called for, and acks.
struct Logging {
    calls: Arc<Mutex<Vec<String>>>,
    index: usize,
}

#[async_trait]
impl Bolt for Logging {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.index = context.task_index();
        self.calls.lock().unwrap().push(format!("prepare {}", self.index));
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        self.calls.lock().unwrap().push(format!("execute {} {}", self.index, input.len()));
        out.ack(&input);
        Ok(())
    }

    async fn cleanup(&mut self) {
        self.calls.lock().unwrap().push(format!("cleanup {}", self.index));
    }
}

type Calls = Arc<Mutex<Vec<String>>>;

fn logging(feeder: &Feeder, tasks: usize, config: TopologyConfig) -> (TopologyBuilder, Calls) {
    let calls = Calls::default();
    let logging = Arc::clone(&calls);
    let mut builder = TopologyBuilder::new();
    builder.config(config);
    builder.set_spout("spout", feeder.spout(), 1);
    let make = move || Logging { calls: Arc::clone(&logging), index: 0 };
    builder.set_bolt("bolt", make, 1).set_num_tasks(tasks).all_grouping("spout");
    (builder, calls)
}

fn inactive() -> TopologyConfig {
    TopologyConfig { active: false, ..TopologyConfig::default() }
}

/// Storm's `testSubmitInactiveTopology`.
#[tokio::test]
async fn an_inactive_topology_does_nothing_until_it_is_activated() {
    let feeder = Feeder::new();
    let (builder, calls) = logging(&feeder, 2, inactive());
    feeder.feed(1);
    let cluster = run(&builder);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(cluster.topologies()[NAME].1, TopologyStatus::Inactive);
    assert!(feeder.look().calls.is_empty() && feeder.look().asked == 0);
    assert!(calls.lock().unwrap().is_empty());
    cluster.activate(NAME).unwrap();
    until("an ack", || feeder.told() == 1).await;
    assert_eq!(cluster.topologies()[NAME].1, TopologyStatus::Active);
    end(&cluster).await;
    assert_eq!(feeder.look().calls, ["open", "activate", "deactivate", "close"]);
    let calls = calls.lock().unwrap().clone();
    let expected = ["prepare 0", "prepare 1", "execute 0 1", "execute 1 1", "cleanup 0", "cleanup 1"];
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn what_never_began_is_neither_opened_nor_closed() {
    let feeder = Feeder::new();
    let (builder, calls) = logging(&feeder, 1, inactive());
    let cluster = run(&builder);
    end(&cluster).await;
    assert!(feeder.look().calls.is_empty());
    assert!(calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_topology_rests_and_goes_on() {
    let feeder = Feeder::new();
    let (builder, _) = logging(&feeder, 1, TopologyConfig::default());
    let cluster = run(&builder);
    feeder.feed(1);
    until("an ack", || feeder.told() == 1).await;
    for round in 0..20 {
        cluster.deactivate(NAME).unwrap();
        until("rest", || feeder.look().calls.last() == Some(&"deactivate")).await;
        let asked = feeder.look().asked;
        feeder.feed(round);
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_eq!(feeder.look().asked, asked);
        cluster.activate(NAME).unwrap();
        until("an ack", || feeder.told() == round as usize + 2).await;
    }
    end(&cluster).await;
    let calls = feeder.look().calls.clone();
    assert_eq!(calls.len(), 2 + 40 + 2);
    assert!(calls[1..43].chunks(2).all(|calls| calls[0] == "activate"), "{calls:?}");
}

#[tokio::test]
async fn what_was_emitted_before_a_rest_is_worked_off() {
    let feeder = Feeder::new();
    let gate = Arc::new(AtomicBool::new(false));
    let gated = Arc::clone(&gate);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let slow = move || {
        let gate = Arc::clone(&gated);
        bolt(move |input, out| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                while !gate.load(SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("bolt", slow, 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    (0..10).for_each(|n| feeder.feed(n));
    until("emissions", || feeder.look().asked > 10).await;
    cluster.deactivate(NAME).unwrap();
    until("rest", || feeder.look().calls.last() == Some(&"deactivate")).await;
    assert!(!cluster.is_idle(NAME).unwrap());
    gate.store(true, SeqCst);
    // Acks reach a spout at rest.
    until("acks", || feeder.told() == 10).await;
    until("idleness", || cluster.is_idle(NAME).unwrap()).await;
    end(&cluster).await;
}

/// Emits single tuples without ids as fast as it can, and counts them.
struct Flood {
    emitted: Arc<AtomicUsize>,
    single: bool,
}

#[async_trait]
impl Spout for Flood {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        match self.single {
            true => out.emit_tuple(DEFAULT_STREAM, (1_i64,), None).await?,
            false => out.emit(DEFAULT_STREAM, numbers([1]), MessageIds::None).await?,
        }
        self.emitted.fetch_add(1, SeqCst);
        Ok(Next::Emitted)
    }
}

/// Nobody waits for these tuples, but a kill that says that everything was worked off means them, too.
#[test]
fn a_kill_works_off_everything_that_was_emitted() {
    for (round, threads) in (0..40).map(|round| (round, 1 + round % 2)) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
        runtime.block_on(async move {
            let (emitted, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (emitting, seeing) = (Arc::clone(&emitted), Arc::clone(&seen));
            let mut builder = TopologyBuilder::new();
            builder.config(TopologyConfig { linger: Duration::from_secs(1), ..TopologyConfig::default() });
            let single = round % 4 < 2;
            builder.set_spout("spout", move || Flood { emitted: Arc::clone(&emitting), single }, 2);
            let count = move || {
                let seen = Arc::clone(&seeing);
                sink(move |input| {
                    seen.fetch_add(input.len(), SeqCst);
                })
            };
            builder.set_bolt("bolt", count, 2).shuffle_grouping("spout");
            let cluster = run(&builder);
            tokio::time::sleep(Duration::from_millis(round as u64 % 7)).await;
            end(&cluster).await;
            assert_eq!(seen.load(SeqCst), emitted.load(SeqCst), "round {round}");
        });
    }
}

#[tokio::test]
async fn a_kill_does_not_wait_longer_than_it_is_told() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let held: Arc<Mutex<Vec<Tuples>>> = Arc::default();
    let holding = Arc::clone(&held);
    let hold = move || {
        let held = Arc::clone(&holding);
        bolt(move |input, _| {
            held.lock().unwrap().push(input);
            Box::pin(async { Ok(()) })
        })
    };
    builder.set_bolt("bolt", hold, 1).shuffle_grouping("spout");
    let cluster = run(&builder);
    feeder.feed(1);
    settled(&cluster).await;
    let begun = Instant::now();
    let killed = cluster.kill(NAME, Duration::from_millis(50)).await.unwrap();
    assert!(!killed.drained);
    assert!((Duration::from_millis(50)..Duration::from_secs(20)).contains(&begun.elapsed()));
    assert_eq!(feeder.look().calls.last(), Some(&"close"));
}

#[tokio::test]
async fn names_are_taken_until_their_topology_is_killed() {
    let (feeder, other) = (Feeder::new(), Feeder::new());
    let (builder, _) = logging(&feeder, 1, TopologyConfig::default());
    let (second, _) = logging(&other, 1, TopologyConfig::default());
    let cluster = run(&builder);
    let taken = cluster.submit(NAME, second.build().unwrap()).unwrap_err();
    assert_eq!(
        taken.to_string(),
        "a topology `tested` is running already: kill it first, or submit under another name"
    );
    cluster.submit("other", second.build().unwrap()).unwrap();
    let unknown = "no topology `else` is running; these are: other, tested";
    assert_eq!(cluster.activate("else").unwrap_err().to_string(), unknown);
    assert_eq!(cluster.deactivate("else").unwrap_err().to_string(), unknown);
    assert_eq!(cluster.metrics("else").unwrap_err().to_string(), unknown);
    assert_eq!(cluster.is_idle("else").unwrap_err().to_string(), unknown);
    assert_eq!(cluster.kill("else", Duration::ZERO).await.unwrap_err().to_string(), unknown);
    // Side by side, without a word to each other.
    feeder.feed(1);
    other.feed(2);
    until("acks", || feeder.told() + other.told() == 2).await;
    assert_eq!((feeder.acks(), other.acks()), (vec![1], vec![2]));
    end(&cluster).await;
    assert_eq!(cluster.topologies().keys().collect::<Vec<_>>(), ["other"]);
    // The other one goes on, and the name is free.
    other.feed(3);
    until("an ack", || other.told() == 1).await;
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    feeder.feed(4);
    until("an ack", || feeder.told() == 1).await;
    end(&cluster).await;
    assert!(cluster.kill("other", Duration::from_secs(5)).await.unwrap().drained);
}

/// Whoever kills a topology that somebody else is killing, too, does not hit its successor.
#[tokio::test]
async fn a_second_kill_does_not_end_the_next_topology_of_the_name() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let hold = || {
        let mut held = Vec::new();
        bolt(move |input, _| {
            held.push(input);
            Box::pin(async { Ok(()) })
        })
    };
    builder.set_bolt("bolt", hold, 1).shuffle_grouping("spout");
    let cluster = Arc::new(run(&builder));
    feeder.feed(1);
    settled(&cluster).await;
    let kill = |wait: u64| {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move { cluster.kill(NAME, Duration::from_millis(wait)).await })
    };
    let (first, second) = (kill(20), kill(150));
    first.await.unwrap().unwrap();
    let (next, _) = logging(&feeder, 1, TopologyConfig::default());
    cluster.submit(NAME, next.build().unwrap()).unwrap();
    second.await.unwrap().unwrap();
    assert!(cluster.topologies().contains_key(NAME));
    feeder.feed(2);
    until("an ack", || feeder.acks() == [2]).await;
    end(&cluster).await;
}

#[tokio::test]
async fn a_killed_topology_is_not_activated_again() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_bolt("bolt", || bolt(|_, _| Box::pin(std::future::pending())), 1).shuffle_grouping("spout");
    let cluster = Arc::new(run(&builder));
    feeder.feed(1);
    until("emission", || feeder.look().asked > 1).await;
    let killing = {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move { cluster.kill(NAME, Duration::from_millis(100)).await })
    };
    until("rest", || feeder.look().calls.last() == Some(&"deactivate")).await;
    assert_eq!(cluster.topologies()[NAME].1, TopologyStatus::Killed);
    cluster.activate(NAME).unwrap();
    assert_eq!(cluster.topologies()[NAME].1, TopologyStatus::Killed);
    // A bolt that never returns is given up in the end.
    let killed = killing.await.unwrap().unwrap();
    assert!(!killed.drained);
    assert_eq!(feeder.look().calls, ["open", "activate", "deactivate", "close"]);
}

#[tokio::test]
async fn a_cluster_that_is_dropped_ends_its_topologies() {
    let feeder = Feeder::new();
    let (builder, calls) = logging(&feeder, 1, TopologyConfig::default());
    let cluster = run(&builder);
    until("a beginning", || feeder.look().asked > 0).await;
    drop(cluster);
    until("an end", || feeder.look().calls.last() == Some(&"close")).await;
    until("an end", || calls.lock().unwrap().last().is_some_and(|call| call == "cleanup 0")).await;
}

#[test]
fn without_a_runtime_nothing_can_be_submitted() {
    let feeder = Feeder::new();
    let (builder, _) = logging(&feeder, 1, TopologyConfig::default());
    let refused = LocalCluster::new().submit(NAME, builder.build().unwrap());
    assert_eq!(refused, Err(ClusterError::NoRuntime));
}

/// Storm's `testSystemStream`.
#[tokio::test]
async fn each_task_announces_that_it_began() {
    let (feeder, seen) = (Feeder::new(), Arc::new(Mutex::new(BTreeMap::<String, usize>::new())));
    let (mut builder, _) = logging(&feeder, 3, TopologyConfig::default());
    let seeing = Arc::clone(&seen);
    let see = move || {
        let seen = Arc::clone(&seeing);
        sink(move |input| {
            for event in input.rows().column(0).as_string::<i32>().iter().flatten() {
                let what = format!("{} {event}", input.source_component());
                *seen.lock().unwrap().entry(what).or_default() += 1;
            }
        })
    };
    let see = builder.set_bolt("see", see, 1).input_stream("spout", SYSTEM_STREAM, Grouping::Global);
    see.input_stream("bolt", SYSTEM_STREAM, Grouping::Shuffle);
    let cluster = run(&builder);
    settled(&cluster).await;
    let expected = BTreeMap::from([("spout startup".to_owned(), 1), ("bolt startup".to_owned(), 3)]);
    assert_eq!(*seen.lock().unwrap(), expected);
    end(&cluster).await;
}
