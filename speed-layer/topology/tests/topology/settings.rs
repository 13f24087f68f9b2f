//! What components are told: settings, their place in the topology, and the time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Remembers what its tasks were told.
struct Asking {
    contexts: Arc<Mutex<Vec<TaskContext>>>,
}

#[async_trait]
impl Bolt for Asking {
    fn configuration(&self) -> ComponentConfig {
        ComponentConfig {
            tick: Some(Duration::from_secs(7)),
            queue_rows: Some(11),
            settings: settings(&[("a", "bolt"), ("b", "bolt"), ("d", "bolt")]),
            ..ComponentConfig::default()
        }
    }

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.contexts.lock().unwrap().push(context.clone());
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        out.ack(&input);
        Ok(())
    }
}

/// Storm's `testComponentSpecificConfig`, and what tasks learn of their topology.
#[tokio::test]
async fn a_task_sees_its_settings_over_its_components_over_its_topologys() {
    let contexts: Arc<Mutex<Vec<TaskContext>>> = Arc::default();
    let asking = Arc::clone(&contexts);
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig {
        settings: settings(&[("a", "topology"), ("c", "topology")]),
        ..TopologyConfig::default()
    });
    builder.set_spout("spout", feeder.spout(), 2);
    let over = ComponentConfig {
        queue_bytes: Some(12_345),
        settings: settings(&[("b", "declared"), ("e", "declared")]),
        ..ComponentConfig::default()
    };
    let bolt = builder.set_bolt("bolt", move || Asking { contexts: Arc::clone(&asking) }, 2);
    bolt.set_num_tasks(3).shuffle_grouping("spout").config(over);
    let cluster = run(&builder);
    until("tasks", || contexts.lock().unwrap().len() == 3).await;
    let mut contexts = contexts.lock().unwrap().clone();
    contexts.sort_by_key(TaskContext::task);
    // Components are numbered by name, tasks from 1.
    assert_eq!(contexts.iter().map(TaskContext::task).collect::<Vec<_>>(), [1, 2, 3]);
    for (index, context) in contexts.iter().enumerate() {
        let expected =
            [("a", "bolt"), ("b", "declared"), ("c", "topology"), ("d", "bolt"), ("e", "declared")];
        assert_eq!(context.settings(), settings(&expected));
        assert_eq!((context.topology_name(), context.component()), (NAME, "bolt"));
        assert_eq!((context.task_index(), context.task_count()), (index, 3));
        assert_eq!(context.component_tasks("bolt"), [1, 2, 3]);
        assert_eq!(context.component_tasks("spout"), [4, 5]);
        assert!(context.component_tasks("nobody").is_empty());
        let bolt = &context.topology().components()["bolt"];
        assert_eq!((bolt.executors(), bolt.tasks(), bolt.is_spout()), (2, &[1, 2, 3][..], false));
        assert_eq!(bolt.inputs()[0].source.to_string(), "spout.default");
    }
    let queues = &cluster.metrics(NAME).unwrap().components["bolt"].queues;
    let bounds: Vec<_> = queues.iter().map(|queue| (queue.row_capacity, queue.byte_capacity)).collect();
    assert_eq!(bounds, [(11, 12_345); 2]);
    end(&cluster).await;
}

fn tick(every: Duration) -> ComponentConfig {
    ComponentConfig { tick: Some(every), ..ComponentConfig::default() }
}

/// Storm's `TickTupleTest`.
#[tokio::test]
async fn ticks_come_as_often_as_each_component_asks() {
    let counts: [Arc<AtomicUsize>; 3] = Default::default();
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let counting = |count: &Arc<AtomicUsize>| {
        let count = Arc::clone(count);
        move || {
            let count = Arc::clone(&count);
            sink(move |input| {
                if input.is_tick() {
                    assert_eq!((input.source_component(), input.source_stream()), ("__system", "__tick"));
                    assert_eq!(input.tuple(0).source_task(), 0);
                    count.fetch_add(1, SeqCst);
                }
            })
        }
    };
    let [one, three, never] = &counts;
    // The bolt's own wish, another's over it, and none.
    let asking = |count: &Arc<AtomicUsize>| {
        let make = counting(count);
        move || make().asking(tick(Duration::from_secs(1)))
    };
    builder.set_bolt("one", asking(one), 1).set_num_tasks(2).shuffle_grouping("spout");
    builder
        .set_bolt("three", asking(three), 1)
        .config(tick(Duration::from_secs(3)))
        .shuffle_grouping("spout");
    builder.set_bolt("never", counting(never), 1).shuffle_grouping("spout");
    let (cluster, hand) = run_by_hand(&builder);
    settled(&cluster).await;
    for second in 1..=9 {
        hand.advance(Duration::from_secs(1));
        // Each of the two tasks has its own.
        until("ticks", || one.load(SeqCst) == 2 * second && three.load(SeqCst) == second / 3).await;
    }
    assert_eq!(never.load(SeqCst), 0);
    let metrics = cluster.metrics(NAME).unwrap();
    let ticks = ("__system".to_owned(), "__tick".to_owned());
    assert_eq!(metrics.components["one"].inputs[&ticks].executed, 18);
    assert_eq!(metrics.components["three"].inputs[&ticks].acked, 3);
    assert!(!metrics.components["never"].inputs.contains_key(&ticks));
    // At rest they go on: windows end also when nothing comes.
    cluster.deactivate(NAME).unwrap();
    hand.advance(Duration::from_secs(1));
    until("ticks", || one.load(SeqCst) == 20).await;
    end(&cluster).await;
}

/// A tick that takes longer than the time between two must not keep tuples from being executed.
#[tokio::test]
async fn slow_ticks_leave_room_for_tuples() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let slow = || {
        bolt(|input: Tuples, out| {
            Box::pin(async move {
                if input.is_tick() {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("bolt", slow, 1).shuffle_grouping("spout").config(tick(Duration::from_millis(1)));
    let cluster = run(&builder);
    for n in 0..10 {
        feeder.feed(n);
        until("an ack", || feeder.told() == n as usize + 1).await;
    }
    let metrics = cluster.metrics(NAME).unwrap();
    let ticks = ("__system".to_owned(), "__tick".to_owned());
    assert!(metrics.components["bolt"].inputs[&ticks].executed >= 5);
    end(&cluster).await;
}

#[tokio::test]
async fn what_a_tick_emits_is_not_anchored_and_leaves() {
    let (feeder, seen) = (Feeder::new(), Arc::new(AtomicUsize::new(0)));
    let seeing = Arc::clone(&seen);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let ticking = || {
        bolt(|input: Tuples, out| {
            Box::pin(async move {
                if input.is_tick() {
                    out.emit_tuple(DEFAULT_STREAM, (1_i64,), &[input.tuple(0)]).await?;
                    out.emit(DEFAULT_STREAM, numbers([2]), Anchors::Same(&input)).await?;
                }
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("bolt", ticking, 1).shuffle_grouping("spout").config(tick(Duration::from_secs(1)));
    let see = move || {
        let seen = Arc::clone(&seeing);
        sink(move |input| {
            seen.fetch_add(input.len(), SeqCst);
        })
    };
    builder.set_bolt("see", see, 1).shuffle_grouping("bolt");
    let (cluster, hand) = run_by_hand(&builder);
    settled(&cluster).await;
    hand.advance(Duration::from_secs(1));
    until("tuples", || seen.load(SeqCst) == 2).await;
    assert_eq!(cluster.metrics(NAME).unwrap().components["bolt"].errors, 0);
    end(&cluster).await;
}

/// An executor with a thread of its own may block.
#[tokio::test]
async fn a_component_with_threads_of_its_own_does_not_hold_others_up() {
    let (feeder, quick) = (Feeder::new(), Feeder::new());
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    builder.set_spout("quick", quick.spout(), 1);
    let own = ComponentConfig { own_thread: true, ..ComponentConfig::default() };
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let blocking = move || {
        let held = Arc::clone(&held);
        sink(move |_| {
            // Until the test lets go.
            let _released = held.lock().unwrap().recv_timeout(Duration::from_secs(20));
        })
    };
    builder.set_bolt("blocking", blocking, 2).shuffle_grouping("spout").config(own);
    builder.set_bolt("bolt", || sink(|_| ()), 1).shuffle_grouping("quick");
    let cluster = run(&builder);
    feeder.feed(1);
    feeder.feed(2);
    until("both threads", || cluster.metrics(NAME).unwrap().components["spout"].pending == 2).await;
    (0..10).for_each(|n| quick.feed(n));
    until("quick acks", || quick.told() == 10).await;
    assert_eq!(feeder.told(), 0, "the runtime's one thread was free meanwhile");
    drop(release);
    until("slow acks", || feeder.told() == 2).await;
    end(&cluster).await;
}
