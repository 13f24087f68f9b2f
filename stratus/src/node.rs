//! Every layer in one process, wired together: what `stratus up` runs.

mod administration;
mod dimensions;
mod platform;
mod sources;
mod tasks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use stratus_batch::{BatchLayer, Patience};
use stratus_lake::Lake;
use stratus_seam::catalog_log::Catalog;
use stratus_seam::store::StateStore;
use stratus_serving::pg;
use stratus_serving::service::SqlService;
use stratus_serving::{Engine, Parts};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::http;
use administration::Administrator;
use dimensions::LakeDimensions;
use platform::RunningPlatform;
use sources::OpenLogs;
use tasks::{Layers, Pool};

/// How long a query waits for speed state that is being rebuilt.
const QUERY_PATIENCE: Duration = Duration::from_secs(30);
/// How long running statements may take to finish when the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// A running process.
pub(crate) struct Node {
    pg: SocketAddr,
    http: SocketAddr,
    took: Duration,
    stop: watch::Sender<bool>,
    layers: Layers,
    doors: Vec<tokio::task::JoinHandle<()>>,
    failures: tokio::sync::Mutex<mpsc::Receiver<anyhow::Error>>,
    /// The threads of the layers; they outlive everything that runs on them.
    _pools: [Pool; 4],
    /// Held for as long as the process uses the data directory.
    _lock: std::fs::File,
}

impl Node {
    /// Opens everything and starts every layer; answers once the front doors accept.
    pub(crate) async fn start(config: &Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let began = Instant::now();
        let lock = tasks::lock_data_directory(&config.data.dir)?;
        // Sockets and commits never share threads with what computes long.
        let speed = Pool::new("speed", 2)?;
        let ingest = Pool::new("ingest", 1)?;
        let compute = Pool::new("batch", 2)?;
        let queries = Pool::new("query", 2)?;

        let lake = Lake::open(&config.lake_url())?;
        let catalog = Arc::new(Catalog::new(Arc::new(lake.catalog())));
        catalog.refresh().await.context("the catalog cannot be read")?;
        let states: Arc<dyn StateStore> = tasks::open_state(config).await?;
        let dimensions = Arc::new(LakeDimensions::new(lake.clone()));
        let logs = Arc::new(OpenLogs::new(config.logs_dir()));
        let batch = Arc::new(BatchLayer::new(
            Arc::clone(&catalog),
            Arc::clone(&states),
            lake.clone(),
            Arc::<LakeDimensions>::clone(&dimensions),
            compute.handle(),
            Patience::default(),
        ));
        let (stop, stopped) = watch::channel(false);
        let layers = Layers::start(
            tasks::Wiring {
                catalog: Arc::clone(&catalog),
                lake: lake.clone(),
                states: Arc::clone(&states),
                dimensions: Arc::<LakeDimensions>::clone(&dimensions),
                logs: Arc::clone(&logs),
                batch,
                shards: config.state.shards,
            },
            speed.handle(),
            ingest.handle(),
            stopped.clone(),
        );
        let administration = Administrator::new(Arc::clone(&catalog), lake.clone(), Arc::clone(&logs));
        let engine = Engine::new(Parts {
            catalog: Arc::clone(&catalog),
            lake,
            states: Arc::clone(&states),
            dimensions,
            logs: Arc::<OpenLogs>::clone(&logs),
            administration: Arc::new(administration),
            patience: QUERY_PATIENCE,
        })?;

        let bind = async |address: SocketAddr, what: &str| {
            TcpListener::bind(address).await.with_context(|| format!("{what} cannot listen on {address}"))
        };
        let pg_listener = bind(config.pg.listen, "the PostgreSQL front door").await?;
        let http_listener = bind(config.http.listen, "the HTTP front door").await?;
        let (pg, http) = (pg_listener.local_addr()?, http_listener.local_addr()?);
        let (failed, failures) = mpsc::channel(4);
        let service: Arc<dyn SqlService> = Arc::new(engine);
        let platform = RunningPlatform { catalog, logs, states, health: layers.health(), metrics };
        let options = pg::Options { drain: DRAIN, ..pg::Options::new(queries.handle()) };
        let doors = vec![
            tasks::door("the PostgreSQL front door", &failed, {
                let stopped = tasks::when(stopped.clone());
                async move { pg::serve(pg_listener, service, options, stopped).await }
            }),
            tasks::door("the HTTP front door", &failed, {
                let stopped = tasks::when(stopped);
                async move { http::serve(http_listener, Arc::new(platform), stopped).await }
            }),
        ];
        Ok(Self {
            pg,
            http,
            took: began.elapsed(),
            stop,
            layers,
            doors,
            failures: tokio::sync::Mutex::new(failures),
            _pools: [speed, ingest, compute, queries],
            _lock: lock,
        })
    }

    /// Where the PostgreSQL front door listens.
    pub(crate) const fn pg_address(&self) -> SocketAddr {
        self.pg
    }

    /// Where the HTTP front door listens.
    pub(crate) const fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// How long the start took.
    pub(crate) const fn took(&self) -> Duration {
        self.took
    }

    /// Resolves when a part that cannot be started again has stopped.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        match self.failures.lock().await.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Drains and stops: the doors first, so that nothing new comes in, then the layers.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        for door in self.doors {
            door.await?;
        }
        self.layers.stopped().await;
        Ok(())
    }
}
