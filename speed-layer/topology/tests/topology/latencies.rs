//! Latencies by a clock that stands still, so that it is known what they are; and their sums.

use std::{sync::Arc, time::Duration};

use crate::kit::*;
use stratus_topology::*;

/// A bolt whose every call lasts until it is let through.
fn gated(builder: &mut TopologyBuilder) -> Arc<tokio::sync::Semaphore> {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let wait = move || {
        let gate = Arc::clone(&waiting);
        bolt(move |input, out| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                gate.acquire().await?.forget();
                out.ack(&input);
                Ok(())
            })
        })
    };
    builder.set_bolt("bolt", wait, 1).shuffle_grouping("spout");
    gate
}

/// The sum that Prometheus is told, by the name of the histogram.
fn sum(cluster: &LocalCluster, name: &str) -> f64 {
    let (text, name) = (cluster.prometheus(), format!("stratus_topology_{name}_seconds_sum{{"));
    text.lines()
        .find(|line| line.starts_with(&name))
        .map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

fn latencies(cluster: &LocalCluster) -> (LatencySnapshot, LatencySnapshot) {
    let metrics = cluster.metrics(NAME).unwrap();
    let input = &metrics.components["bolt"].inputs[&("spout".to_owned(), DEFAULT_STREAM.to_owned())];
    let output = &metrics.components["spout"].outputs[DEFAULT_STREAM];
    (input.execute_latency.clone(), output.complete_latency.clone())
}

#[tokio::test]
async fn latencies_are_those_of_the_clock_and_their_sums_are_exact() {
    let feeder = Feeder::new();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let gate = gated(&mut builder);
    let (cluster, hand) = run_by_hand(&builder);
    // How many tuples each call has, and how long it lasts.
    let calls = [(1, 1_500), (10, 40_000_000), (1, 0), (3, 999), (1, 250_000), (7, 7_200_000_000_000_u64)];
    let (mut total, mut count, mut last) = (0_u128, 0, 0.0);
    for (tuples, nanos) in calls {
        let ids = MessageIds::From(count);
        feeder.feed_rows(numbers(0..tuples), ids);
        count += tuples as u64;
        // The call has begun when its tuples are out of the queue.
        let sent = || cluster.metrics(NAME).unwrap().components["spout"].outputs[DEFAULT_STREAM].transferred;
        until("a call", || {
            sent() == count && cluster.metrics(NAME).unwrap().components["bolt"].queues[0].rows == 0
        })
        .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        hand.advance(Duration::from_nanos(nanos));
        gate.add_permits(1);
        // A tuple that takes two hours is out of time before; its call lasts as long all the same.
        until("an end", || feeder.told() as u64 == count).await;
        settled(&cluster).await;
        total += u128::from(nanos) * tuples as u128;
        let (execute, complete) = latencies(&cluster);
        assert_eq!((execute.count(), execute.sum_nanos()), (count, total));
        if nanos < 1_000_000_000 {
            assert_eq!((complete.count(), complete.sum_nanos()), (count, total));
        }
        let now = sum(&cluster, "execute");
        assert!(now >= last && (now - total as f64 / 1e9).abs() < 1e-6, "{now} after {last}");
        last = now;
    }
    let (execute, complete) = latencies(&cluster);
    // 16 tuples were done in time: one at once, three in 1 us, one in 2, one in 250, and ten in 40 ms.
    assert_eq!(complete.count_up_to(Duration::from_micros(1)), 4);
    assert_eq!(complete.count_up_to(Duration::from_micros(2)), 5);
    assert_eq!(complete.count_up_to(Duration::from_micros(249)), 5);
    assert_eq!(complete.count_up_to(Duration::from_micros(250)), 6);
    assert_eq!(complete.count_up_to(Duration::from_millis(39)), 6);
    assert_eq!(complete.count_up_to(Duration::from_millis(41)), 16);
    assert_eq!(complete.mean(), Duration::from_nanos((1_500 + 400_000_000 + 3 * 999 + 250_000) / 16));
    let median = complete.quantile(0.5).as_secs_f64();
    assert!((0.0396..0.0404).contains(&median), "{median}");
    assert_eq!(execute.count(), 23);
    let max = execute.max().as_secs_f64();
    assert!((3_564.0..3_640.0).contains(&max), "more than an hour counts as one: {max}");
    end(&cluster).await;
}
