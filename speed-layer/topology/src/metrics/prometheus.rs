//! The counts as Prometheus text, <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use super::{ComponentMetrics, LatencySnapshot, TopologyMetrics};

/// Upper bounds of the latency buckets.
const BOUNDS: [Duration; 12] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
];

/// All metrics of some topologies as Prometheus text.
pub(crate) fn render(topologies: &[TopologyMetrics]) -> String {
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = write_all(&mut text, topologies);
    text
}

fn write_all(out: &mut String, topologies: &[TopologyMetrics]) -> fmt::Result {
    let name = "stratus_topology_up";
    head(out, name, "gauge", "1, or 0 if something that runs the topology is gone.")?;
    for TopologyMetrics { topology, failure, .. } in topologies {
        let up = u8::from(failure.is_none());
        writeln!(out, "{name}{{topology=\"{}\"}} {up}", escaped(topology))?;
    }
    let outputs = |out: &mut String, name: &str, help: &str, value: fn(&super::OutputMetrics) -> u64| {
        head(out, name, "counter", help)?;
        each(out, topologies, |out, labels, component| {
            for (stream, metrics) in &component.outputs {
                writeln!(out, "{name}{{{labels},stream=\"{}\"}} {}", escaped(stream), value(metrics))?;
            }
            Ok(())
        })
    };
    outputs(out, "stratus_topology_emitted_total", "Tuples emitted.", |m| m.emitted)?;
    outputs(out, "stratus_topology_transferred_total", "Tuples delivered to tasks.", |m| m.transferred)?;
    outputs(out, "stratus_topology_completed_total", "Spout tuples whose trees are done.", |m| m.acked)?;
    outputs(out, "stratus_topology_tree_failures_total", "Spout tuples whose trees failed.", |m| m.failed)?;
    outputs(out, "stratus_topology_timed_out_total", "Spout tuples that ran out of time.", |m| m.timed_out)?;
    let help = "Spout tuples that were open when their executor started over.";
    outputs(out, "stratus_topology_restarted_total", help, |m| m.restarted)?;
    let inputs = |out: &mut String, name: &str, help: &str, value: fn(&super::InputMetrics) -> u64| {
        head(out, name, "counter", help)?;
        each(out, topologies, |out, labels, component| {
            for ((source, stream), metrics) in &component.inputs {
                let (source, stream) = (escaped(source), escaped(stream));
                writeln!(
                    out,
                    "{name}{{{labels},source=\"{source}\",stream=\"{stream}\"}} {}",
                    value(metrics)
                )?;
            }
            Ok(())
        })
    };
    inputs(out, "stratus_topology_executed_total", "Tuples given to bolts.", |m| m.executed)?;
    inputs(out, "stratus_topology_acked_total", "Tuples acked by bolts.", |m| m.acked)?;
    inputs(out, "stratus_topology_failed_total", "Tuples failed by bolts.", |m| m.failed)?;
    let components =
        |out: &mut String, name: &str, kind: &str, help: &str, value: fn(&ComponentMetrics) -> u64| {
            head(out, name, kind, help)?;
            each(out, topologies, |out, labels, component| {
                writeln!(out, "{name}{{{labels}}} {}", value(component))
            })
        };
    components(out, "stratus_topology_panics_total", "counter", "Calls that panicked.", |c| c.panics)?;
    components(out, "stratus_topology_errors_total", "counter", "Calls that returned an error.", |c| {
        c.errors
    })?;
    components(out, "stratus_topology_pending", "gauge", "Spout tuples under way.", |c| c.pending as u64)?;
    let rows = |c: &ComponentMetrics| c.queues.iter().map(|queue| queue.rows as u64).sum();
    components(out, "stratus_topology_queue_rows", "gauge", "Tuples that wait for executors.", rows)?;
    let bytes = |c: &ComponentMetrics| c.queues.iter().map(|queue| queue.bytes as u64).sum();
    components(out, "stratus_topology_queue_bytes", "gauge", "Memory that waiting tuples hold.", bytes)?;

    let name = "stratus_topology_execute_seconds";
    head(out, name, "histogram", "How long the calls took that tuples were given to a bolt in.")?;
    each(out, topologies, |out, labels, component| {
        for ((source, stream), metrics) in &component.inputs {
            let labels = format!("{labels},source=\"{}\",stream=\"{}\"", escaped(source), escaped(stream));
            histogram(out, name, &labels, &metrics.execute_latency)?;
        }
        Ok(())
    })?;
    let name = "stratus_topology_complete_seconds";
    head(out, name, "histogram", "From a spout tuple's emission to the end of its tree.")?;
    each(out, topologies, |out, labels, component| {
        for (stream, metrics) in &component.outputs {
            if metrics.complete_latency.count() > 0 {
                let labels = format!("{labels},stream=\"{}\"", escaped(stream));
                histogram(out, name, &labels, &metrics.complete_latency)?;
            }
        }
        Ok(())
    })
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn each(
    out: &mut String,
    topologies: &[TopologyMetrics],
    mut line: impl FnMut(&mut String, &str, &ComponentMetrics) -> fmt::Result,
) -> fmt::Result {
    for topology in topologies {
        for (component, metrics) in &topology.components {
            let labels =
                format!("topology=\"{}\",component=\"{}\"", escaped(&topology.topology), escaped(component));
            line(out, &labels, metrics)?;
        }
    }
    Ok(())
}

fn histogram(out: &mut String, name: &str, labels: &str, latency: &LatencySnapshot) -> fmt::Result {
    for bound in BOUNDS {
        let count = latency.count_up_to(bound);
        writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {count}", bound.as_secs_f64())?;
    }
    let count = latency.count();
    writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    let (seconds, nanos) = (latency.sum_nanos() / 1_000_000_000, latency.sum_nanos() % 1_000_000_000);
    writeln!(out, "{name}_sum{{{labels}}} {seconds}.{nanos:09}")?;
    writeln!(out, "{name}_count{{{labels}}} {count}")
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
