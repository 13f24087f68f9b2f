//! The speed layer of one source: its views' topology, for as long as the source is there.

use std::sync::Arc;
use std::time::Duration;

use stratus_logs::codec::CodecOptions;
use stratus_seam::catalog::Source;
use stratus_seam::catalog_log::Catalog;
use stratus_seam::log::Log;
use stratus_seam::store::SourceState;
use stratus_sql::cataloged::DimensionTables;
use stratus_topology::{ClusterError, LocalCluster, TopologyStatus};
use tokio::sync::watch;

use crate::error::SpeedError;
use crate::standing::Standing;
use crate::topology;
use crate::work::Work;

/// How long a topology that ends may finish what it has begun. Whatever it does not finish is done by the next one.
const DRAIN: Duration = Duration::from_millis(200);
/// Between two attempts to start beside a topology of the same name that is about to end.
const POLL: Duration = Duration::from_millis(50);
/// Between two looks whether the topology is still at work.
const WATCH: Duration = Duration::from_secs(1);

/// Bounds of a micro-batch.
#[derive(Debug, Clone)]
pub struct Limits {
    /// About how many bytes of records a batch holds at most.
    pub batch_bytes: usize,
    /// The least time from one batch to the next: what comes in meanwhile goes into one.
    pub linger: Duration,
    /// How many batches may be under way at once. They commit one after the other.
    pub max_pending: usize,
    /// How many tasks decode and aggregate a batch.
    pub tasks: usize,
    /// Whether other processes can reach the state, so that one may stand by for this one.
    pub shared: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_bytes: 16 << 20,
            linger: Duration::from_millis(20),
            max_pending: 3,
            tasks: std::thread::available_parallelism().map_or(1, usize::from).min(8),
            shared: false,
        }
    }
}

/// The speed layer of one source.
#[derive(Debug, Clone)]
pub struct SpeedLayer {
    /// The source.
    pub source: Source,
    /// Its log.
    pub log: Arc<dyn Log>,
    /// Its state.
    pub state: SourceState,
    /// The catalog, for its views and their versions.
    pub catalog: Arc<Catalog>,
    /// The dimension tables that the views join.
    pub dimensions: Arc<dyn DimensionTables>,
    /// How records are decoded.
    pub codec: CodecOptions,
    /// How many shards a new generation has.
    pub shards: u32,
    /// Bounds of a batch.
    pub limits: Limits,
    /// Where it says whether its batches go on.
    pub standing: Standing,
}

impl SpeedLayer {
    /// Runs the topology of the source's views on a cluster, under the source's name, until `stop` says so or the
    /// source is dropped. Whatever fails is recovered from.
    ///
    /// # Errors
    /// [`SpeedError::Stop`] if a person must look, or a log that was replaced; no other failure ends it.
    pub async fn run(
        &self,
        cluster: &LocalCluster,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), SpeedError> {
        let name = &self.source.name;
        loop {
            let work = Arc::new(Work::new(self.clone(), stop.clone()));
            match cluster.submit(name, topology::of(&work)?) {
                Ok(()) => {}
                // A source of this name was dropped a moment ago, or the machine has no threads left.
                Err(error @ (ClusterError::Taken(_) | ClusterError::Thread { .. })) => {
                    if *stop.borrow() {
                        return Ok(());
                    }
                    self.standing.fails(&error);
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Err(error) => return Err(SpeedError::Topology(error.to_string())),
            }
            let verdict = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => Some(Ok(())),
                verdict = work.ended() => Some(verdict),
                reason = failed(cluster, name) => {
                    tracing::error!(source = name, "the topology of the source's views begins anew: {reason}");
                    self.standing.fails(&reason);
                    None
                }
            };
            if let Err(error) = cluster.kill(name, DRAIN).await {
                tracing::warn!(source = name, "the topology of the source's views was gone already: {error}");
            }
            if let Some(verdict) = verdict {
                return verdict;
            }
            tokio::time::sleep(WATCH).await;
        }
    }
}

/// Waits until a topology has failed as a whole, and says why.
async fn failed(cluster: &LocalCluster, name: &str) -> String {
    loop {
        tokio::time::sleep(WATCH).await;
        if cluster.topologies().get(name).is_some_and(|(_, status)| *status == TopologyStatus::Failed) {
            let reason = cluster.metrics(name).ok().and_then(|metrics| metrics.failure);
            return reason.unwrap_or_else(|| "it has failed".to_owned());
        }
    }
}
