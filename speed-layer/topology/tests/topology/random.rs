//! Random topologies with random mishaps: every spout tuple is acked in the end, none before its whole tree is done.
//!
//! The trees are followed twice: by the engine, and by the rows themselves. Each row says which tuples it stems from,
//! and which attempt at each. Whoever sends a row writes down beforehand how many tasks will receive it, and whoever
//! acks one writes that down, too. An attempt that its spout is told is done must have nothing open by then.

mod plan;
mod sources;
mod trees;
mod workers;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

use crate::kit::NAME;
use plan::Plan;
use sources::Source;
use stratus_topology::*;
use trees::Trees;
use workers::Worker;

/// How long one topology may take; most take some milliseconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a panic on purpose says.
const ON_PURPOSE: &str = "on purpose";

/// Runs the topology of a seed to its end.
async fn play(seed: u64) {
    let plan = Plan::new(seed);
    let trees = Arc::new(Trees::new(&plan));
    let cluster = LocalCluster::new();
    cluster.submit(NAME, topology(&plan, &trees)).unwrap();
    let begun = Instant::now();
    let explain = |what: &str| {
        let metrics = cluster.metrics(NAME);
        format!("seed {seed}: {what}\n{plan:#?}\n{}\n{metrics:#?}", trees.open())
    };
    while !(trees.all_done() && cluster.is_idle(NAME).unwrap()) {
        assert!(begun.elapsed() < PATIENCE, "{}", explain("it hangs"));
        assert_eq!(trees.wrong(), None, "{}", explain("a tree is wrong"));
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    for (id, component) in &cluster.metrics(NAME).unwrap().components {
        assert_eq!(component.pending, 0, "{}", explain(id));
        for queue in &component.queues {
            assert_eq!((queue.rows, queue.bytes), (0, 0), "{}", explain(id));
            assert!(queue.kept_its_bounds(), "{}", explain(id));
        }
    }
    if plan.mishaps == 0 {
        assert_eq!(trees.failures(), 0, "{}", explain("failures without a mishap"));
    }
    let ending = Instant::now();
    let killed = cluster.kill(NAME, PATIENCE).await.unwrap();
    assert!(
        killed.drained && ending.elapsed() < Duration::from_secs(5),
        "seed {seed}: it does not end\n{plan:#?}"
    );
    assert_eq!(trees.wrong(), None, "seed {seed}\n{plan:#?}");
}

fn topology(plan: &Plan, trees: &Arc<Trees>) -> Topology {
    let mut builder = TopologyBuilder::new();
    builder.config(plan.config.clone());
    for (number, spout) in plan.spouts.iter().enumerate() {
        let (source, trees) = (Source::new(plan, number), Arc::clone(trees));
        let declared = builder.set_spout(&spout.id, move || source.of(&trees), spout.executors);
        declared.set_num_tasks(spout.tasks).config(spout.config.clone());
    }
    for bolt in &plan.bolts {
        let (worker, trees) = (Worker::new(plan, bolt), Arc::clone(trees));
        let mut declared = builder.set_bolt(&bolt.part.id, move || worker.of(&trees), bolt.part.executors);
        declared = declared.set_num_tasks(bolt.part.tasks).config(bolt.part.config.clone());
        for (component, grouping) in &bolt.inputs {
            declared = declared.input(component, grouping.made());
        }
    }
    builder.build().unwrap()
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().unwrap()
}

/// Plays the seeds from `first` on for a while; returns how many.
fn play_for(time: Duration, threads: usize, first: u64) -> u64 {
    let runtime = runtime(threads);
    let begun = Instant::now();
    let mut seed = first;
    while begun.elapsed() < time {
        runtime.block_on(play(seed));
        seed += 1;
    }
    seed - first
}

/// `TOPOLOGY_SEED` plays one seed again, many times over; `TOPOLOGY_SECONDS` says how long to search for others.
#[test]
fn every_tuple_is_done_in_the_end_and_none_too_early() {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref() != Some(&ON_PURPOSE) {
            show(panic);
        }
    }));
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("TOPOLOGY_SEED") {
        for round in 0..30 {
            runtime(1 + round % 3).block_on(play(seed));
        }
        return;
    }
    let third = Duration::from_secs(number("TOPOLOGY_SECONDS").unwrap_or(24)) / 3;
    let first = fastrand::u64(1_000_000..1 << 40);
    // The same ones every time, others, and these on one thread, where the order is another.
    let same = play_for(third, 3, 0);
    let others = play_for(third, 3, first);
    let alone = play_for(third, 1, first);
    println!("seeds 0..{same}, {first}..{}, and on one thread ..{}", first + others, first + alone);
}
