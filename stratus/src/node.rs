//! The layers of one process, wired together: all of them for `stratus up`, one for `stratus ingest|speed|batch|serve`.

mod administration;
mod dimensions;
mod platform;
mod roles;
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
use stratus_speed::LocalCluster;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::client::Login;
use crate::config::{Config, StateKind};
use crate::http;
use administration::Administrator;
use dimensions::LakeDimensions;
use platform::RunningPlatform;
pub(crate) use roles::Roles;
pub(crate) use sources::OpenLogs;
use tasks::{Layers, Pool};

/// How long a query waits for speed state that is being rebuilt.
const QUERY_PATIENCE: Duration = Duration::from_secs(30);
/// For how long a run of another batch process shows no sign of life until it counts as ended.
const SILENCE: Duration = Duration::from_secs(10);
/// How long running statements may take to finish when the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// A running process.
pub(crate) struct Node {
    pg: Option<SocketAddr>,
    http: Option<SocketAddr>,
    /// How this process gets in at its own front door, if there are users.
    login: Option<Login>,
    took: Duration,
    stop: watch::Sender<bool>,
    layers: Layers,
    doors: Vec<tokio::task::JoinHandle<()>>,
    failures: tokio::sync::Mutex<mpsc::Receiver<anyhow::Error>>,
    /// The threads of the layers; they outlive everything that runs on them.
    _pools: [Pool; 4],
    /// Held for as long as the process uses the data directory; layers in separate processes share it.
    _lock: Option<std::fs::File>,
}

impl Node {
    /// Opens everything and starts the layers of `roles`; answers once the front doors accept. HTTP is at `http`, or
    /// nowhere.
    pub(crate) async fn start(
        config: &Config,
        roles: Roles,
        http: Option<SocketAddr>,
        metrics: PrometheusHandle,
    ) -> anyhow::Result<Self> {
        let began = Instant::now();
        roles.check(config)?;
        let lock = match config.state.kind {
            StateKind::Redis => None,
            StateKind::Redb | StateKind::Memory => Some(tasks::lock_data_directory(&config.data.dir)?),
        };
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
        let logs = Arc::new(OpenLogs::new(config, roles)?);
        let shared = config.state.kind == StateKind::Redis;
        let batch = BatchLayer::new(
            Arc::clone(&catalog),
            Arc::clone(&states),
            lake.clone(),
            Arc::<LakeDimensions>::clone(&dimensions),
            compute.handle(),
            Patience::default(),
        );
        let batch = Arc::new(batch.among_others(if shared { SILENCE } else { Duration::ZERO }));
        let (stop, stopped) = watch::channel(false);
        let cluster = Arc::new(LocalCluster::new());
        let layers = Layers::start(
            tasks::Wiring {
                roles,
                catalog: Arc::clone(&catalog),
                lake: lake.clone(),
                states: Arc::clone(&states),
                dimensions: Arc::<LakeDimensions>::clone(&dimensions),
                logs: Arc::clone(&logs),
                batch,
                cluster: Arc::clone(&cluster),
                shards: config.state.shards,
                shared,
            },
            speed.handle(),
            ingest.handle(),
            stopped.clone(),
        );
        let administration =
            Administrator::new(Arc::clone(&catalog), lake.clone(), Arc::clone(&states), Arc::clone(&logs));
        let engine = Engine::new(Parts {
            catalog: Arc::clone(&catalog),
            lake,
            states: Arc::clone(&states),
            dimensions,
            logs: Arc::<OpenLogs>::clone(&logs),
            topologies: Arc::clone(&cluster),
            administration: Arc::new(administration),
            patience: QUERY_PATIENCE,
        })?;

        let bind = async |address: SocketAddr, what: &str| {
            TcpListener::bind(address).await.with_context(|| format!("{what} cannot listen on {address}"))
        };
        let (failed, failures) = mpsc::channel(4);
        let mut node = Self {
            pg: None,
            http: None,
            login: None,
            took: Duration::ZERO,
            stop,
            layers,
            doors: Vec::new(),
            failures: tokio::sync::Mutex::new(failures),
            _pools: [speed, ingest, compute, queries],
            _lock: lock,
        };
        if roles.serve {
            let listener = bind(config.pg.listen, "the PostgreSQL front door").await?;
            node.pg = Some(listener.local_addr()?);
            let service: Arc<dyn SqlService> = Arc::new(engine);
            let users = match config.pg.users.is_empty() {
                true => None,
                false => {
                    // Nobody else knows it, and it is gone with the process.
                    let user = format!("stratus-itself-{}", Uuid::new_v4());
                    let own = Login { user, password: Uuid::new_v4().to_string() };
                    let secrets =
                        config.pg.users.iter().map(|(user, secret)| (user.clone(), secret.0.clone()));
                    let secrets = secrets.chain([(own.user.clone(), own.password.clone())]);
                    node.login = Some(own);
                    Some(Arc::new(pg::Users::new(secrets)?))
                }
            };
            let options = pg::Options { drain: DRAIN, users, ..pg::Options::new(node._pools[3].handle()) };
            let stopped = tasks::when(stopped.clone());
            node.doors.push(tasks::door("the PostgreSQL front door", &failed, async move {
                pg::serve(listener, service, options, stopped).await
            }));
        }
        if let Some(address) = http {
            let listener = bind(address, "the HTTP front door").await?;
            node.http = Some(listener.local_addr()?);
            let platform = RunningPlatform {
                roles,
                catalog,
                logs,
                states,
                cluster,
                health: node.layers.health(),
                metrics,
            };
            let stopped = tasks::when(stopped);
            node.doors.push(tasks::door("the HTTP front door", &failed, async move {
                http::serve(listener, Arc::new(platform), stopped).await
            }));
        }
        node.took = began.elapsed();
        Ok(node)
    }

    /// Where the PostgreSQL front door listens.
    pub(crate) const fn pg_address(&self) -> Option<SocketAddr> {
        self.pg
    }

    /// Where the HTTP front door listens.
    pub(crate) const fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// How this process gets in at its own front door; none if everybody does.
    pub(crate) const fn login(&self) -> Option<&Login> {
        self.login.as_ref()
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
