//! How long tuples take at a fixed rate, from the moment at which each was due to be emitted: one that had to wait for
//! its emission because those before it were slow has waited, too.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use hdrhistogram::Histogram;
use stratus_topology::{
    DEFAULT_STREAM, LocalCluster, MessageIds, Next, OutputFieldsDeclarer, Spout, SpoutOutputCollector,
    TaskError,
};

use crate::shapes::{Shape, payload};

/// Between two batches.
const EVERY: Duration = Duration::from_millis(1);

/// Emits a batch each millisecond, and measures how long its tuples take.
#[derive(Clone)]
struct PacedSpout {
    rows: RecordBatch,
    began: Option<Instant>,
    emitted: u64,
    /// In microseconds, of each tuple.
    latencies: Arc<Mutex<Histogram<u64>>>,
}

#[async_trait]
impl Spout for PacedSpout {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(payload());
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        let began = *self.began.get_or_insert_with(Instant::now);
        if began.elapsed() < EVERY * self.emitted as u32 {
            return Ok(Next::Idle);
        }
        let first = self.emitted * self.rows.num_rows() as u64;
        self.emitted += 1;
        out.emit(DEFAULT_STREAM, self.rows.clone(), MessageIds::From(first)).await?;
        Ok(Next::Emitted)
    }

    async fn acked(&mut self, ids: &[u64]) {
        let Some(began) = self.began else { return };
        let (now, size) = (began.elapsed(), self.rows.num_rows() as u64);
        let mut latencies = self.latencies.lock().unwrap();
        for tuples in ids.chunk_by(|one, other| one / size == other / size) {
            let due = EVERY * (tuples[0] / size) as u32;
            let micros = now.saturating_sub(due).as_micros() as u64;
            latencies.saturating_record_n(micros, tuples.len() as u64);
        }
    }
}

/// The latencies of spout tuples, in microseconds, at this many of them a second.
pub(crate) fn measured(shape: Shape, rate: f64, time: Duration) -> Histogram<u64> {
    let rows = shape.rows();
    let size = ((rate * EVERY.as_secs_f64()) as usize).clamp(1, rows.num_rows());
    let latencies = Arc::new(Mutex::new(Histogram::new(3).unwrap()));
    let spout =
        PacedSpout { rows: rows.slice(0, size), began: None, emitted: 0, latencies: Arc::clone(&latencies) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = LocalCluster::new();
        let topology = shape.topology_of(true, 1, &Arc::default(), move || spout.clone());
        cluster.submit("latency", topology).unwrap();
        tokio::time::sleep(time).await;
        cluster.kill("latency", Duration::from_secs(5)).await.unwrap();
    });
    let latencies = latencies.lock().unwrap();
    latencies.clone()
}
