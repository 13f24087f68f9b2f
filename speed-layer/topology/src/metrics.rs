//! Exact counts of everything that moves, per component and stream.
//!
//! Nothing is sampled: counters move once per batch, by its rows. Latencies are histograms in microseconds with two
//! significant digits.

pub(crate) mod prometheus;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{acker::FailReason, queue::QueueGauge};

/// Latencies of tuples.
#[derive(Debug)]
pub(crate) struct Latency(Mutex<LatencySnapshot>);

/// Longer ones count as this long.
const LONGEST: Duration = Duration::from_secs(3_600);

impl Default for Latency {
    fn default() -> Self {
        let bounds = Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 2);
        // The bounds are constants that the library takes.
        let histogram = bounds.unwrap_or_else(|_| unreachable!("valid bounds"));
        Self(Mutex::new(LatencySnapshot { histogram, nanos: 0 }))
    }
}

impl Latency {
    fn record(&self, latency: Duration, tuples: usize) {
        // Rounded up, so that what is said to be within a bound is.
        let micros = latency.min(LONGEST).as_nanos().div_ceil(1_000) as u64;
        let mut latencies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.histogram.saturating_record_n(micros.max(1), tuples as u64);
        latencies.nanos += latency.as_nanos() * tuples as u128;
    }

    fn snapshot(&self) -> LatencySnapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A distribution of latencies at one moment.
#[derive(Clone, Debug)]
pub struct LatencySnapshot {
    histogram: Histogram<u64>,
    /// The sum of all, to the nanosecond: 64 bits would be full after some weeks, as every tuple of a batch counts the
    /// whole time of its call.
    nanos: u128,
}

impl LatencySnapshot {
    /// How many tuples it holds.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that this part of the tuples (0.99: 99 of 100) did not exceed.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.histogram.value_at_quantile(quantile))
    }

    /// The sum over all tuples, exactly, in nanoseconds.
    pub fn sum_nanos(&self) -> u128 {
        self.nanos
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        let mean = self.nanos.checked_div(u128::from(self.count())).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.histogram.max())
    }

    /// How many took at most this long.
    pub fn count_up_to(&self, latency: Duration) -> u64 {
        self.histogram.count_between(0, latency.as_micros() as u64)
    }
}

/// What a component sent on one stream.
#[derive(Debug, Default)]
pub(crate) struct OutputStats {
    emitted: AtomicU64,
    transferred: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    restarted: AtomicU64,
    complete_latency: Latency,
}

impl OutputStats {
    pub(crate) fn emitted(&self, tuples: usize) {
        self.emitted.fetch_add(tuples as u64, Relaxed);
    }

    pub(crate) fn transferred(&self, tuples: usize) {
        self.transferred.fetch_add(tuples as u64, Relaxed);
    }

    /// Trees of a spout's tuples are done.
    pub(crate) fn completed(&self, tuples: usize, latency: Duration) {
        self.acked.fetch_add(tuples as u64, Relaxed);
        self.complete_latency.record(latency, tuples);
    }

    /// Tuples of a spout count as acked, since there are no ackers. How long their trees took nobody knows.
    pub(crate) fn unfollowed(&self, tuples: usize) {
        self.acked.fetch_add(tuples as u64, Relaxed);
    }

    /// Trees of a spout's tuples failed.
    pub(crate) fn failed(&self, tuples: usize, reason: &FailReason) {
        self.failed.fetch_add(tuples as u64, Relaxed);
        if *reason == FailReason::TimedOut {
            self.timed_out.fetch_add(tuples as u64, Relaxed);
        }
    }

    /// Tuples of a spout were open when its executor started over: nobody waits for them any more.
    pub(crate) fn forgotten(&self, tuples: usize) {
        self.failed.fetch_add(tuples as u64, Relaxed);
        self.restarted.fetch_add(tuples as u64, Relaxed);
    }
}

/// What a bolt did with the tuples of one stream.
#[derive(Debug, Default)]
pub(crate) struct InputStats {
    executed: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
    batches: AtomicU64,
    execute_latency: Latency,
}

impl InputStats {
    /// One call took `latency` for `tuples`.
    pub(crate) fn executed(&self, tuples: usize, latency: Duration) {
        self.executed.fetch_add(tuples as u64, Relaxed);
        self.batches.fetch_add(1, Relaxed);
        self.execute_latency.record(latency, tuples);
    }

    pub(crate) fn acked(&self, tuples: usize) {
        self.acked.fetch_add(tuples as u64, Relaxed);
    }

    pub(crate) fn failed(&self, tuples: usize) {
        self.failed.fetch_add(tuples as u64, Relaxed);
    }
}

/// All that is counted for a component. Streams are known before it runs.
#[derive(Debug, Default)]
pub(crate) struct ComponentStats {
    pub(crate) outputs: BTreeMap<String, Arc<OutputStats>>,
    /// By (component, stream).
    pub(crate) inputs: BTreeMap<(String, String), Arc<InputStats>>,
    /// One per executor.
    pub(crate) queues: Vec<QueueGauge>,
    pub(crate) panics: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) pending: AtomicUsize,
    pub(crate) last_error: Mutex<Option<String>>,
}

impl ComponentStats {
    pub(crate) fn panicked(&self, what: &str) {
        self.panics.fetch_add(1, Relaxed);
        self.remember(format!("panicked: {what}"));
    }

    pub(crate) fn erred(&self, what: &str) {
        self.errors.fetch_add(1, Relaxed);
        self.remember(what.to_owned());
    }

    fn remember(&self, what: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    pub(crate) fn snapshot(&self) -> ComponentMetrics {
        let outputs = self.outputs.iter().map(|(stream, stats)| {
            let metrics = OutputMetrics {
                emitted: stats.emitted.load(Relaxed),
                transferred: stats.transferred.load(Relaxed),
                acked: stats.acked.load(Relaxed),
                failed: stats.failed.load(Relaxed),
                timed_out: stats.timed_out.load(Relaxed),
                restarted: stats.restarted.load(Relaxed),
                complete_latency: stats.complete_latency.snapshot(),
            };
            (stream.clone(), metrics)
        });
        let inputs = self.inputs.iter().map(|(source, stats)| {
            let metrics = InputMetrics {
                executed: stats.executed.load(Relaxed),
                acked: stats.acked.load(Relaxed),
                failed: stats.failed.load(Relaxed),
                batches: stats.batches.load(Relaxed),
                execute_latency: stats.execute_latency.snapshot(),
            };
            (source.clone(), metrics)
        });
        ComponentMetrics {
            outputs: outputs.collect(),
            inputs: inputs.collect(),
            queues: self.queues.iter().map(QueueGauge::read).collect(),
            panics: self.panics.load(Relaxed),
            errors: self.errors.load(Relaxed),
            pending: self.pending.load(Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// The counts of a topology at one moment, by component.
#[derive(Clone, Debug, Default)]
pub struct TopologyMetrics {
    /// The topology's name.
    pub topology: String,
    /// By component.
    pub components: BTreeMap<String, ComponentMetrics>,
    /// Why the topology has failed, if it has.
    pub failure: Option<String>,
}

/// The counts of a component, over all its tasks.
#[derive(Clone, Debug)]
pub struct ComponentMetrics {
    /// What it sent, by stream.
    pub outputs: BTreeMap<String, OutputMetrics>,
    /// What it received, by the source's component and stream.
    pub inputs: BTreeMap<(String, String), InputMetrics>,
    /// What waits in front of each executor.
    pub queues: Vec<QueueFill>,
    /// Calls that panicked; each restarted an executor.
    pub panics: u64,
    /// Calls that returned an error.
    pub errors: u64,
    /// Tuples of a spout that are neither acked nor failed.
    pub pending: usize,
    /// The latest panic or error.
    pub last_error: Option<String>,
}

/// Counts of an output stream, in tuples.
#[derive(Clone, Debug)]
pub struct OutputMetrics {
    /// Tuples emitted.
    pub emitted: u64,
    /// Deliveries of them: each counts once per receiving task.
    pub transferred: u64,
    /// Of a spout: tuples whose trees are done.
    pub acked: u64,
    /// Of a spout: tuples whose trees failed, for whatever reason. What was emitted with a name is acked, failed, or
    /// pending.
    pub failed: u64,
    /// Of a spout: those among them whose trees ran out of time.
    pub timed_out: u64,
    /// Of a spout: those among them that were open when the executor of their task started over after a panic. Nobody
    /// is told of these; the new spouts begin where `open` lets them begin.
    pub restarted: u64,
    /// Of a spout: from the emission to the end of the tree.
    pub complete_latency: LatencySnapshot,
}

/// Counts of an input stream, in tuples.
#[derive(Clone, Debug)]
pub struct InputMetrics {
    /// Tuples given to the bolt.
    pub executed: u64,
    /// Tuples that the bolt acked.
    pub acked: u64,
    /// Tuples that the bolt failed or let go.
    pub failed: u64,
    /// Calls.
    pub batches: u64,
    /// Each tuple with the length of its batch's call.
    pub execute_latency: LatencySnapshot,
}

/// What waits in front of an executor. A batch that is larger than may wait passes alone, so there is never more than
/// the larger one of what may wait and of the largest batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFill {
    /// Rows that wait.
    pub rows: usize,
    /// The most rows that ever waited.
    pub most_rows: usize,
    /// The most rows of one batch that ever waited.
    pub largest_rows: usize,
    /// Rows that may wait.
    pub row_capacity: usize,
    /// Bytes that they and their lineage hold in memory.
    pub bytes: usize,
    /// The most bytes that were ever held.
    pub most_bytes: usize,
    /// The most bytes that one batch ever held.
    pub largest_bytes: usize,
    /// Bytes that may be held.
    pub byte_capacity: usize,
}

impl QueueFill {
    /// Whether there never was more than may be.
    pub fn kept_its_bounds(&self) -> bool {
        self.most_rows <= self.row_capacity.max(self.largest_rows)
            && self.most_bytes <= self.byte_capacity.max(self.largest_bytes)
    }
}
