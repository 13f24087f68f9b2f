//! `stratus.topologies`, `stratus.topology_components` and `stratus.topology_streams`: the speed layer's topologies in
//! this process, with exact counts since they began.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use stratus_topology::{Component, LatencySnapshot, LocalCluster, Topology, TopologyMetrics, TopologyStatus};

use super::{BIGINT, INT, Row, TEXT, bigint, text};

/// The columns of `stratus.topologies`.
pub(super) fn columns() -> Vec<(&'static str, DataType)> {
    vec![
        ("name", TEXT),
        ("status", TEXT),
        ("components", INT),
        ("executors", INT),
        ("tasks", INT),
        ("pending", BIGINT),
        ("acked", BIGINT),
        ("failed", BIGINT),
        ("panics", BIGINT),
        ("errors", BIGINT),
        ("failure", TEXT),
        ("dot", TEXT),
    ]
}

/// The columns of `stratus.topology_components`.
pub(super) fn component_columns() -> Vec<(&'static str, DataType)> {
    vec![
        ("topology", TEXT),
        ("component", TEXT),
        ("kind", TEXT),
        ("executors", INT),
        ("tasks", INT),
        ("pending", BIGINT),
        ("queued_rows", BIGINT),
        ("most_queued_rows", BIGINT),
        ("queue_capacity", BIGINT),
        ("panics", BIGINT),
        ("errors", BIGINT),
        ("last_error", TEXT),
    ]
}

/// The columns of `stratus.topology_streams`.
pub(super) fn stream_columns() -> Vec<(&'static str, DataType)> {
    vec![
        ("topology", TEXT),
        ("component", TEXT),
        ("direction", TEXT),
        ("stream", TEXT),
        ("grouping", TEXT),
        ("tuples", BIGINT),
        ("transferred", BIGINT),
        ("acked", BIGINT),
        ("failed", BIGINT),
        ("p50_us", BIGINT),
        ("p99_us", BIGINT),
    ]
}

type Running = (String, Arc<Topology>, TopologyStatus, TopologyMetrics);

/// The topologies with their counts; one that ends meanwhile is not among them.
fn running(cluster: &LocalCluster) -> Vec<Running> {
    let running = cluster.topologies().into_iter().filter_map(|(name, (topology, status))| {
        let metrics = cluster.metrics(&name).ok()?;
        Some((name, topology, status, metrics))
    });
    running.collect()
}

/// The topologies.
pub(super) fn rows(cluster: &LocalCluster) -> Vec<Row> {
    let row = |(name, topology, status, metrics): Running| {
        let components = topology.components();
        let spouts = || {
            let of_spouts = metrics
                .components
                .iter()
                .filter(|(id, _)| components.get(id.as_str()).is_some_and(Component::is_spout));
            of_spouts.flat_map(|(_, component)| component.outputs.values())
        };
        let all = || metrics.components.values();
        vec![
            text(name),
            text(format!("{status:?}").to_lowercase()),
            int(components.len()),
            int(components.values().map(Component::executors).sum()),
            int(components.values().map(|component| component.tasks().len()).sum()),
            bigint(all().map(|component| component.pending as u64).sum()),
            bigint(spouts().map(|output| output.acked).sum()),
            bigint(spouts().map(|output| output.failed).sum()),
            bigint(all().map(|component| component.panics).sum()),
            bigint(all().map(|component| component.errors).sum()),
            metrics.failure.as_ref().map_or(ScalarValue::Utf8(None), text),
            text(topology.to_dot()),
        ]
    };
    running(cluster).into_iter().map(row).collect()
}

/// Their components.
pub(super) fn component_rows(cluster: &LocalCluster) -> Vec<Row> {
    let rows = |(name, topology, _, metrics): Running| {
        let rows = topology.components().iter().filter_map(|(id, component)| {
            let counts = metrics.components.get(id)?;
            let queue = |of: fn(&stratus_topology::QueueFill) -> usize| {
                bigint(counts.queues.iter().map(|queue| of(queue) as u64).sum())
            };
            Some(vec![
                text(&name),
                text(id),
                text(if component.is_spout() { "spout" } else { "bolt" }),
                int(component.executors()),
                int(component.tasks().len()),
                bigint(counts.pending as u64),
                queue(|queue| queue.rows),
                queue(|queue| queue.most_rows),
                queue(|queue| queue.row_capacity),
                bigint(counts.panics),
                bigint(counts.errors),
                counts.last_error.as_ref().map_or(ScalarValue::Utf8(None), text),
            ])
        });
        rows.collect::<Vec<_>>()
    };
    running(cluster).into_iter().flat_map(rows).collect()
}

/// What their components emit and receive. The times are from a spout's tuple to its last ack, and those of one call of
/// a bolt.
pub(super) fn stream_rows(cluster: &LocalCluster) -> Vec<Row> {
    running(cluster).into_iter().flat_map(|running| streams(&running)).collect()
}

fn streams((name, topology, _, metrics): &Running) -> Vec<Row> {
    let no_text = || ScalarValue::Utf8(None);
    let mut rows = Vec::new();
    for (id, counts) in &metrics.components {
        for (stream, output) in &counts.outputs {
            let [p50, p99] = quantiles(&output.complete_latency);
            rows.push(vec![
                text(name),
                text(id),
                text("out"),
                text(stream),
                no_text(),
                bigint(output.emitted),
                bigint(output.transferred),
                bigint(output.acked),
                bigint(output.failed),
                p50,
                p99,
            ]);
        }
        for ((component, stream), input) in &counts.inputs {
            let inputs = topology.components().get(id).map_or(&[][..], Component::inputs);
            let is_it = |input: &&stratus_topology::Subscription| {
                (&input.source.component, &input.source.stream) == (component, stream)
            };
            let grouping = inputs.iter().find(is_it).map(|input| format!("{:?}", input.grouping));
            let [p50, p99] = quantiles(&input.execute_latency);
            rows.push(vec![
                text(name),
                text(id),
                text("in"),
                text(format!("{component}.{stream}")),
                grouping.map_or_else(no_text, text),
                bigint(input.executed),
                ScalarValue::Int64(None),
                bigint(input.acked),
                bigint(input.failed),
                p50,
                p99,
            ]);
        }
    }
    rows
}

fn quantiles(latency: &LatencySnapshot) -> [ScalarValue; 2] {
    let micros = |quantile| match latency.count() {
        0 => ScalarValue::Int64(None),
        _ => i64::try_from(Duration::as_micros(&latency.quantile(quantile)))
            .map_or(ScalarValue::Int64(None), |micros| ScalarValue::Int64(Some(micros))),
    };
    [micros(0.5), micros(0.99)]
}

fn int(value: usize) -> ScalarValue {
    super::int(u32::try_from(value).unwrap_or(u32::MAX))
}
