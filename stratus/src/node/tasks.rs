//! The tasks of a running process: for each source an ingester and a speed layer, the first runs, the front doors.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use stratus_batch::BatchLayer;
use stratus_ingest::Ingester;
use stratus_lake::{BackedLog, Lake, MasterLog};
use stratus_seam::catalog::{Connector, Source};
use stratus_seam::catalog_log::Catalog;
use stratus_seam::ids::SourceId;
use stratus_seam::log::Log;
use stratus_seam::store::StateStore;
use stratus_speed::{LocalCluster, SpeedLayer, Standing};
use stratus_sql::cataloged::DimensionTables;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::roles::Roles;
use super::sources::{OpenLogs, Reader, codec_options};
use crate::config::{Config, StateKind};
use crate::exit::{self, Failure};

/// Between two looks at the catalog for new and dropped sources.
const POLL: Duration = Duration::from_millis(25);
/// Between two tries to open a source's log, which may be away.
const RETRY: Duration = Duration::from_secs(1);

/// A runtime that may be dropped anywhere.
#[derive(Debug)]
pub(super) struct Pool(Option<tokio::runtime::Runtime>);

impl Pool {
    pub(super) fn new(name: &str, threads: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(format!("stratus-{name}"))
            .enable_all()
            .build()
            .with_context(|| format!("the threads of the {name} layer cannot be started"))?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn handle(&self) -> Handle {
        // It is there until the drop.
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Takes the data directory for this process alone.
pub(super) fn lock_data_directory(dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(dir)
        .with_context(|| format!("the data directory {} cannot be made", dir.display()))?;
    let path = dir.join("stratus.lock");
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = open.with_context(|| format!("{} cannot be opened", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => {
            let message = format!(
                "the data directory {} is in use by another process. Stop it, or give this one another directory ([data] dir)",
                dir.display()
            );
            Err(Failure::new(exit::TEMPORARY, message).into())
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

/// Opens the configured state store.
pub(super) async fn open_state(config: &Config) -> anyhow::Result<Arc<dyn StateStore>> {
    let (kind, location) = match config.state.kind {
        StateKind::Memory => ("memory", String::new()),
        StateKind::Redb => ("redb", config.state_path().to_string_lossy().into_owned()),
        StateKind::Redis => ("redis", config.state.url.clone().unwrap_or_default()),
    };
    Ok(stratus_state::open(kind, &location).await?)
}

/// Resolves when a stop is asked for.
pub(super) async fn when(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone has stopped, too.
    _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Runs a front door; its failure is the process's.
pub(super) fn door(
    name: &'static str,
    failed: &mpsc::Sender<anyhow::Error>,
    serve: impl Future<Output = io::Result<()>> + Send + 'static,
) -> JoinHandle<()> {
    let failed = failed.clone();
    tokio::spawn(async move {
        if let Err(error) = serve.await {
            // The receiver is gone only when the process is going.
            _ = failed.send(anyhow::Error::from(error).context(format!("{name} has failed"))).await;
        }
    })
}

/// What the layers work with.
#[derive(Debug, Clone)]
pub(super) struct Wiring {
    pub(super) roles: Roles,
    pub(super) catalog: Arc<Catalog>,
    pub(super) lake: Lake,
    pub(super) states: Arc<dyn StateStore>,
    pub(super) dimensions: Arc<dyn DimensionTables>,
    pub(super) logs: Arc<OpenLogs>,
    pub(super) batch: Arc<BatchLayer>,
    /// The topologies of this process: one for each source.
    pub(super) cluster: Arc<LocalCluster>,
    pub(super) shards: u32,
    /// Whether other processes can reach the state.
    pub(super) shared: bool,
}

/// Which layers of which source have stopped or wait, and why.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    parts: Arc<Mutex<BTreeMap<String, String>>>,
    /// Of the speed layers that run.
    standings: Arc<Mutex<BTreeMap<SourceId, (String, Standing)>>>,
}

impl Health {
    fn runs(&self, source: SourceId, part: String, standing: Standing) {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        standings.insert(source, (part, standing));
    }

    fn ended(&self, source: SourceId) {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).remove(&source);
    }

    fn stopped(&self, part: String, reason: &dyn std::fmt::Display) {
        tracing::error!("{part} has stopped: {reason}");
        self.parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part, format!("has stopped: {reason}"));
    }

    fn waits(&self, part: String, reason: &dyn std::fmt::Display) {
        let told = format!("waits: {reason}");
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.get(&part) != Some(&told) {
            tracing::warn!("{part} {told}");
            parts.insert(part, told);
        }
    }

    fn goes_on(&self, part: &str) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// The reasons, a sentence each.
    pub(super) fn reasons(&self) -> Vec<String> {
        let stopped = self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = standings.values().filter_map(|(part, standing)| Some((part.clone(), standing.stuck()?)));
        stopped.into_iter().chain(stuck).map(|(part, reason)| format!("{part} {reason}")).collect()
    }
}

/// The layers of a process.
#[derive(Debug)]
pub(super) struct Layers {
    health: Health,
    supervisor: JoinHandle<()>,
    batch: JoinHandle<()>,
}

impl Layers {
    /// Starts what the process's roles ask for: an ingester and a speed layer for every source, now and later, and
    /// the batch layer's runs.
    pub(super) fn start(wiring: Wiring, speed: Handle, ingest: Handle, stop: watch::Receiver<bool>) -> Self {
        let health = Health::default();
        let (roles, batch) = (wiring.roles, Arc::clone(&wiring.batch));
        let supervisor = tokio::spawn(supervise(wiring, health.clone(), speed, ingest, stop.clone()));
        let batch = tokio::spawn(async move {
            if roles.batch {
                batch.run(stop).await;
            }
        });
        Self { health, supervisor, batch }
    }

    pub(super) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Waits until every task has ended.
    pub(super) async fn stopped(self) {
        for task in [self.supervisor, self.batch] {
            if let Err(error) = task.await {
                tracing::error!("a layer ended badly: {error}");
            }
        }
    }
}

/// Follows the catalog: each source has its two tasks for as long as it is there.
async fn supervise(
    wiring: Wiring,
    health: Health,
    speed: Handle,
    ingest: Handle,
    mut stop: watch::Receiver<bool>,
) {
    let mut known: HashSet<SourceId> = HashSet::new();
    let mut retry: HashMap<SourceId, Instant> = HashMap::new();
    let mut tasks = JoinSet::new();
    while !*stop.borrow() {
        match wiring.catalog.refresh().await {
            Ok(catalog) => {
                for source in catalog.sources.values() {
                    let waits = retry.get(&source.id).is_some_and(|at| *at > Instant::now());
                    if waits || known.contains(&source.id) {
                        continue;
                    }
                    let part = format!("source \"{}\"", source.name);
                    match begin(&wiring, source, &health, (&speed, &ingest), &stop, &mut tasks).await {
                        Ok(()) => {
                            known.insert(source.id);
                            health.goes_on(&part);
                        }
                        Err(error) => {
                            health.waits(part, &error);
                            retry.insert(source.id, Instant::now() + RETRY);
                        }
                    }
                }
                for gone in known.clone().into_iter().filter(|id| catalog.source(*id).is_none()) {
                    known.remove(&gone);
                    forget(&wiring, gone).await;
                }
            }
            Err(error) => tracing::warn!("the catalog cannot be read: {error}"),
        }
        tokio::select! {
            _ = stop.changed() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Starts a source's layers in this process.
async fn begin(
    wiring: &Wiring,
    source: &Source,
    health: &Health,
    (speed, ingest): (&Handle, &Handle),
    stop: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let (name, roles) = (&source.name, wiring.roles);
    let codec = codec_options(&source.options)?;
    let ingester = match roles.ingest {
        false => None,
        true => Some(Ingester {
            source: source.clone(),
            log: wiring.logs.reader(source, Reader::Ingest).await?,
            lake: wiring.lake.clone(),
            catalog: Arc::clone(&wiring.catalog),
            codec,
            limits: stratus_ingest::Limits::default(),
        }),
    };
    let layer = match roles.speed {
        false => None,
        true => Some(SpeedLayer {
            source: source.clone(),
            log: backed(wiring, source).await?,
            state: wiring.states.source(source.id).await?,
            catalog: Arc::clone(&wiring.catalog),
            dimensions: Arc::clone(&wiring.dimensions),
            codec,
            shards: wiring.shards,
            limits: stratus_speed::Limits { shared: wiring.shared, ..Default::default() },
            standing: Standing::default(),
        }),
    };
    if let Some(ingester) = ingester {
        let (health, stop, part) = (health.clone(), stop.clone(), format!("ingest of \"{name}\""));
        let work = async move {
            if let Err(error) = ingester.run(stop).await {
                health.stopped(part, &error);
            }
        };
        tasks.spawn_on(work, ingest);
    }
    if let Some(layer) = layer {
        let (health, stop, part) = (health.clone(), stop.clone(), format!("the speed layer of \"{name}\""));
        let cluster = Arc::clone(&wiring.cluster);
        let work = async move {
            health.runs(layer.source.id, part.clone(), layer.standing.clone());
            let ended = layer.run(&cluster, stop).await;
            health.ended(layer.source.id);
            if let Err(error) = ended {
                health.stopped(part, &error);
            }
        };
        tasks.spawn_on(work, speed);
    }
    Ok(())
}

/// The log that the speed layer reads: what a topic no longer holds comes from the master dataset. A directory log
/// forgets nothing.
async fn backed(wiring: &Wiring, source: &Source) -> anyhow::Result<Arc<dyn Log>> {
    let live = wiring.logs.reader(source, Reader::Speed).await?;
    if source.connector == Connector::Directory {
        return Ok(live);
    }
    let codec = codec_options(&source.options)?;
    let master = MasterLog::open(&wiring.lake, source, codec.max_record_bytes).await?;
    Ok(Arc::new(BackedLog::new(live, Arc::new(master))))
}

/// What a dropped source leaves in the state store is deleted; its log and its part of the lake stay.
async fn forget(wiring: &Wiring, source: SourceId) {
    wiring.logs.close(source).await;
    if !wiring.roles.speed {
        return;
    }
    if let Err(error) = wiring.states.forget(source).await {
        tracing::warn!(%source, "the state of a dropped source was not deleted: {error}");
    }
}
