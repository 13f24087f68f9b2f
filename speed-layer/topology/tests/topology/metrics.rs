//! Counts are exact, and Prometheus can read them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::kit::*;
use stratus_topology::*;

/// A spout of 1,000 tuples, a bolt that emits each twice and fails every tenth, and two listeners.
async fn counted(feeder: &Feeder) -> (LocalCluster, Arc<[AtomicU64; 2]>) {
    let seen: Arc<[AtomicU64; 2]> = Arc::default();
    let mut builder = TopologyBuilder::new();
    builder.config(TopologyConfig { batch_rows: 64, ..TopologyConfig::default() });
    builder.set_spout("spout", feeder.spout(), 1);
    let twice = || {
        bolt(|input: Tuples, out| {
            Box::pin(async move {
                out.emit(DEFAULT_STREAM, input.rows().clone(), Anchors::Same(&input)).await?;
                for tuple in input.iter() {
                    out.emit_tuple(DEFAULT_STREAM, (tuple.get::<i64>(0)?,), &[tuple]).await?;
                    if tuple.get::<i64>(0)? % 10 == 0 {
                        out.fail_tuple(tuple, "tenth");
                    }
                }
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("twice", twice, 2).shuffle_grouping("spout");
    for (place, id, tasks) in [(0, "one", 3), (1, "all", 4)] {
        let seeing = Arc::clone(&seen);
        let see = move || {
            let seen = Arc::clone(&seeing);
            sink(move |input| {
                seen[place].fetch_add(input.len() as u64, SeqCst);
            })
        };
        let bolt = builder.set_bolt(id, see, 2).set_num_tasks(tasks);
        match id {
            "one" => bolt.fields_grouping("twice", &["n"]),
            _ => bolt.all_grouping("twice"),
        };
    }
    let cluster = run(&builder);
    for first in (0..1_000).step_by(50) {
        feeder.feed_rows(numbers(first..first + 50), MessageIds::From(first as u64));
    }
    until("an end", || feeder.told() == 1_000).await;
    settled(&cluster).await;
    (cluster, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact() {
    let feeder = Feeder::new();
    let (cluster, seen) = counted(&feeder).await;
    assert_eq!([0, 1].map(|place| seen[place].load(SeqCst)), [2_000, 8_000]);
    assert_eq!((feeder.acks().len(), feeder.failures().len()), (900, 100));
    until("idleness", || cluster.is_idle(NAME).unwrap()).await;
    let metrics = cluster.metrics(NAME).unwrap();
    assert_eq!(metrics.topology, NAME);
    let output = |component: &str| metrics.components[component].outputs[DEFAULT_STREAM].clone();
    let spout = output("spout");
    assert_eq!((spout.emitted, spout.transferred), (1_000, 1_000));
    assert_eq!((spout.acked, spout.failed, spout.timed_out), (900, 100, 0));
    assert_eq!(spout.complete_latency.count(), 900);
    let latency = &spout.complete_latency;
    let (median, p99, max) = (latency.quantile(0.5), latency.quantile(0.99), latency.max());
    assert!(median <= p99 && p99 <= max && max < Duration::from_secs(20), "{median:?} {p99:?} {max:?}");
    assert!(latency.mean() <= max && latency.mean() > Duration::ZERO);
    let twice = output("twice");
    assert_eq!((twice.emitted, twice.transferred), (2_000, 10_000));
    assert_eq!(
        (twice.acked, twice.failed, twice.complete_latency.count()),
        (0, 0, 0),
        "trees are the spout's"
    );
    let input = |component: &str, source: &str| {
        metrics.components[component].inputs[&(source.to_owned(), DEFAULT_STREAM.to_owned())].clone()
    };
    let cases = [
        ("twice", "spout", (1_000, 900, 100)),
        ("one", "twice", (2_000, 2_000, 0)),
        ("all", "twice", (8_000, 8_000, 0)),
    ];
    for (component, source, expected) in cases {
        let input = input(component, source);
        assert_eq!((input.executed, input.acked, input.failed), expected, "{component}");
        assert_eq!(input.execute_latency.count(), input.executed);
        assert!(input.batches >= 1 && input.batches <= input.executed);
    }
    for component in metrics.components.values() {
        assert_eq!((component.panics, component.errors, component.pending), (0, 0, 0));
        assert!(component.queues.iter().all(|queue| (queue.rows, queue.bytes) == (0, 0)));
    }
    assert_eq!(metrics.components["one"].queues.len(), 2, "one for each executor");
    assert!(metrics.components["one"].queues.iter().all(|queue| queue.most_rows > 0 && queue.most_bytes > 0));
    end(&cluster).await;
}

/// Samples of Prometheus text: the value by name and labels.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Reads the format as its description says, and checks that every sample's family has been introduced before.
fn parsed(text: &str) -> (BTreeMap<String, String>, Samples) {
    let (mut kinds, mut samples) = (BTreeMap::new(), Samples::new());
    let mut described = None;
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty());
            described = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(described.as_deref(), Some(name), "HELP comes before TYPE");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} occurs once");
        } else {
            let family = described.clone().unwrap();
            let (name, rest) = line.split_once('{').unwrap();
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is of {family}"));
            match kinds[&family].as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                "counter" => assert!(suffix.is_empty() && family.ends_with("_total"), "{line}"),
                _ => assert!(suffix.is_empty(), "{line}"),
            }
            let (labels, value) = labels(rest);
            let value: f64 = value.trim().parse().unwrap();
            assert!(samples.insert((name.to_owned(), labels), value).is_none(), "{line} occurs once");
        }
    }
    (kinds, samples)
}

/// `key="value",...} rest`
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        let (key, value) = rest.split_once("=\"").unwrap();
        let mut chars = value.char_indices();
        let mut read = String::new();
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => read.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => read.push(other),
            }
        };
        assert!(labels.insert(key.to_owned(), read).is_none());
        rest = &value[end + 1..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (labels, more),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_reads_the_same_counts() {
    let feeder = Feeder::new();
    let (cluster, _) = counted(&feeder).await;
    // One with a name that has to be escaped.
    let odd = "a \"quoted\\name\"\nof two lines";
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout{}", Feeder::new().spout(), 1);
    builder.set_bolt("bolt,", || sink(|_| ()), 1).shuffle_grouping("spout{}");
    cluster.submit(odd, builder.build().unwrap()).unwrap();
    let (kinds, samples) = parsed(&cluster.prometheus());
    assert_eq!(kinds["stratus_topology_execute_seconds"], "histogram");
    let sample = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        samples[&(format!("stratus_topology_{name}"), labels.collect())]
    };
    let spout = [("topology", NAME), ("component", "spout"), ("stream", DEFAULT_STREAM)];
    assert_eq!(sample("emitted_total", &spout), 1_000.0);
    assert_eq!(sample("completed_total", &spout), 900.0);
    assert_eq!(sample("tree_failures_total", &spout), 100.0);
    assert_eq!(sample("complete_seconds_count", &spout), 900.0);
    let all = [("topology", NAME), ("component", "all"), ("source", "twice"), ("stream", DEFAULT_STREAM)];
    assert_eq!(sample("executed_total", &all), 8_000.0);
    assert_eq!(sample("execute_seconds_count", &all), 8_000.0);
    assert!(sample("execute_seconds_sum", &all) > 0.0);
    assert_eq!(sample("pending", &[("topology", odd), ("component", "spout{}")]), 0.0);
    let bolt = [("topology", odd), ("component", "bolt,"), ("source", "spout{}"), ("stream", DEFAULT_STREAM)];
    assert_eq!(sample("executed_total", &bolt), 0.0);
    // Buckets add up.
    let mut buckets: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), value) in &samples {
        if name.ends_with("_bucket") {
            let mut labels = labels.clone();
            let bound: f64 = labels.remove("le").unwrap().replace("+Inf", "inf").parse().unwrap();
            buckets.entry((name.replace("_bucket", "_count"), labels)).or_default().push((bound, *value));
        }
    }
    assert!(buckets.len() >= 5);
    for (of, mut buckets) in buckets {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{of:?}: {buckets:?}");
        assert_eq!(buckets.last().unwrap(), &(f64::INFINITY, samples[&of]));
    }
    cluster.kill(odd, Duration::from_secs(5)).await.unwrap();
    end(&cluster).await;
}

/// Tuples that nobody waits for count as failed, too, when a bolt lets them go. Ticks are not to be acked.
#[tokio::test]
async fn tuples_without_a_name_that_are_let_go_count_as_failed() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let forget = || {
        bolt(|input: Tuples, out| {
            if !input.is_tick() {
                out.ack_rows(&input, &[0]);
            }
            Box::pin(async { Ok(()) })
        })
    };
    let config = ComponentConfig { tick: Some(Duration::from_secs(1)), ..ComponentConfig::default() };
    builder.set_bolt("bolt", forget, 1).config(config).shuffle_grouping("spout");
    let (cluster, hand) = run_by_hand(&builder);
    feeder.feed_rows(numbers(0..5), MessageIds::None);
    let input = |source: &str, stream: &str| {
        let inputs = &cluster.metrics(NAME).unwrap().components["bolt"].inputs;
        let input = &inputs[&(source.to_owned(), stream.to_owned())];
        (input.executed, input.acked, input.failed)
    };
    until("failures", || input("spout", DEFAULT_STREAM) == (5, 1, 4)).await;
    hand.advance(Duration::from_secs(1));
    until("a tick", || input(SYSTEM_COMPONENT, TICK_STREAM).0 == 1).await;
    settled(&cluster).await;
    assert_eq!(input(SYSTEM_COMPONENT, TICK_STREAM), (1, 0, 0));
    end(&cluster).await;
}
