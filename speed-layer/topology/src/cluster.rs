//! A cluster in one process: topologies that run side by side.

mod launch;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::task::JoinHandle;

use crate::{
    clock::Clock,
    executor::Orders,
    metrics::{ComponentStats, TopologyMetrics, prometheus},
    topology::Topology,
};

/// Why a cluster did not do what it was asked.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterError {
    /// Names are taken until their topology is killed.
    #[error("a topology `{0}` is running already: kill it first, or submit under another name")]
    Taken(String),
    /// There is no such topology.
    #[error("no topology `{name}` is running; these are: {running}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        running: String,
    },
    /// Outside of a tokio runtime nothing can run.
    #[error("a topology must be submitted from within a tokio runtime")]
    NoRuntime,
    /// The system gives a component that asks for threads of its own none.
    #[error("an executor of `{component}` can have no thread of its own: {why}")]
    Thread {
        /// The component.
        component: String,
        /// What the system says.
        why: String,
    },
}

/// Whether a topology's spouts are asked for tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopologyStatus {
    /// They are.
    Active,
    /// They are not; what they emitted is worked off.
    Inactive,
    /// The topology ends when what its spouts emitted is worked off.
    Killed,
    /// Something that runs the topology is gone and did not start over; [`TopologyMetrics::failure`] says what. It can
    /// only be killed.
    Failed,
}

/// How a topology ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed {
    /// Whether everything that had been emitted was worked off before.
    pub drained: bool,
}

/// Runs topologies in this process, on the tokio runtime that they are submitted from.
#[derive(Debug)]
pub struct LocalCluster {
    clock: Clock,
    topologies: Mutex<BTreeMap<String, Arc<Running>>>,
}

/// A topology that runs.
#[derive(Debug)]
struct Running {
    topology: Arc<Topology>,
    orders: tokio::sync::watch::Sender<Orders>,
    status: Mutex<TopologyStatus>,
    stats: BTreeMap<String, Arc<ComponentStats>>,
    in_flight: Arc<AtomicUsize>,
    /// Executors of spouts that may emit.
    at_work: Arc<AtomicUsize>,
    /// Locked by who ends it.
    work: tokio::sync::Mutex<Vec<Work>>,
    failure: Arc<watch::Failure>,
}

/// What runs a task or an acker.
#[derive(Debug)]
enum Work {
    Task(JoinHandle<()>),
    Thread(std::thread::JoinHandle<()>),
}

/// How long an executor may take to end after its topology has, before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Default for LocalCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalCluster {
    /// A cluster without topologies, by the system's clock.
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// A cluster without topologies, by this clock.
    pub fn with_clock(clock: Clock) -> Self {
        Self { clock, topologies: Mutex::default() }
    }

    /// Starts a topology. It is active unless its configuration says otherwise.
    ///
    /// # Errors
    ///
    /// The name is taken, there is no runtime to run on, or no thread for an executor that asks for one.
    pub fn submit(&self, name: &str, topology: Topology) -> Result<(), ClusterError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| ClusterError::NoRuntime)?;
        let mut topologies = self.lock();
        if topologies.contains_key(name) {
            return Err(ClusterError::Taken(name.to_owned()));
        }
        let running = launch::launch(name, topology, &self.clock, &runtime, |thread, job| thread.spawn(job))?;
        topologies.insert(name.to_owned(), Arc::new(running));
        Ok(())
    }

    /// Lets a topology's spouts emit.
    ///
    /// # Errors
    ///
    /// There is no such topology.
    pub fn activate(&self, name: &str) -> Result<(), ClusterError> {
        self.turn(name, TopologyStatus::Active, Orders::Work)
    }

    /// Lets a topology's spouts rest. What they have emitted is worked off.
    ///
    /// # Errors
    ///
    /// There is no such topology.
    pub fn deactivate(&self, name: &str) -> Result<(), ClusterError> {
        self.turn(name, TopologyStatus::Inactive, Orders::Rest)
    }

    fn turn(&self, name: &str, to: TopologyStatus, orders: Orders) -> Result<(), ClusterError> {
        let running = self.running(name)?;
        let mut status = running.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *status != TopologyStatus::Killed {
            *status = to;
            running.orders.send_if_modified(|current| {
                // What was never active has nothing to rest from.
                let differs = *current != orders && (*current, orders) != (Orders::Wait, Orders::Rest);
                if differs {
                    *current = orders;
                }
                differs
            });
        }
        Ok(())
    }

    /// Ends a topology: its spouts rest, what they have emitted is worked off for at most `wait`, and everything is
    /// closed. The name is free afterwards. If somebody else kills it, too, both return when that is done.
    ///
    /// # Errors
    ///
    /// There is no such topology.
    pub async fn kill(&self, name: &str, wait: Duration) -> Result<Killed, ClusterError> {
        let running = self.running(name)?;
        {
            let mut status = running.status.lock().unwrap_or_else(PoisonError::into_inner);
            *status = TopologyStatus::Killed;
            running.orders.send_if_modified(|orders| {
                let works = *orders == Orders::Work;
                if works {
                    *orders = Orders::Rest;
                }
                works
            });
        }
        // `None`: there is no so late a time.
        let deadline = tokio::time::Instant::now().checked_add(wait);
        while !running.is_drained() && deadline.is_none_or(|deadline| tokio::time::Instant::now() < deadline)
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let drained = running.is_drained();
        running.orders.send_replace(Orders::End);
        // Whoever is second waits here. Each is taken out when it has ended, as a kill may be given up halfway.
        let mut work = running.work.lock().await;
        let patience = tokio::time::Instant::now() + PATIENCE;
        while let Some(last) = work.last_mut() {
            last.end(patience).await;
            work.pop();
        }
        let mut topologies = self.lock();
        // Somebody else may have killed it, too, and the name may be another's by now.
        if topologies.get(name).is_some_and(|current| Arc::ptr_eq(current, &running)) {
            topologies.remove(name);
        }
        Ok(Killed { drained })
    }

    /// Whether nothing that a topology's spouts have emitted is under way. More may follow while it is active.
    ///
    /// # Errors
    ///
    /// There is no such topology.
    pub fn is_idle(&self, name: &str) -> Result<bool, ClusterError> {
        Ok(self.running(name)?.is_idle())
    }

    /// The topologies that run, by name.
    pub fn topologies(&self) -> BTreeMap<String, (Arc<Topology>, TopologyStatus)> {
        let topologies = self.lock();
        let each = topologies.iter();
        each.map(|(name, running)| (name.clone(), (Arc::clone(&running.topology), running.status())))
            .collect()
    }

    /// The counts of a topology, now.
    ///
    /// # Errors
    ///
    /// There is no such topology.
    pub fn metrics(&self, name: &str) -> Result<TopologyMetrics, ClusterError> {
        Ok(self.running(name)?.metrics(name))
    }

    /// The counts of all topologies, now, as Prometheus text.
    pub fn prometheus(&self) -> String {
        let topologies: Vec<TopologyMetrics> =
            self.lock().iter().map(|(name, running)| running.metrics(name)).collect();
        prometheus::render(&topologies)
    }

    fn running(&self, name: &str) -> Result<Arc<Running>, ClusterError> {
        let topologies = self.lock();
        topologies.get(name).cloned().ok_or_else(|| {
            let running: Vec<&str> = topologies.keys().map(String::as_str).collect();
            ClusterError::Unknown { name: name.to_owned(), running: running.join(", ") }
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Running>>> {
        self.topologies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn status(&self) -> TopologyStatus {
        let status = *self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match self.failure.reason() {
            Some(_) if status != TopologyStatus::Killed => TopologyStatus::Failed,
            _ => status,
        }
    }

    /// Fragments first: what a bolt sends on is counted before what it received is not.
    fn is_idle(&self) -> bool {
        self.in_flight.load(SeqCst) == 0 && self.stats.values().all(|stats| stats.pending.load(SeqCst) == 0)
    }

    /// Idle, and nothing will follow: every spout is at rest.
    fn is_drained(&self) -> bool {
        self.at_work.load(SeqCst) == 0 && self.is_idle()
    }

    fn metrics(&self, name: &str) -> TopologyMetrics {
        let components = self.stats.iter().map(|(component, stats)| (component.clone(), stats.snapshot()));
        TopologyMetrics {
            topology: name.to_owned(),
            components: components.collect(),
            failure: self.failure.reason(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.orders.send_replace(Orders::End);
    }
}

impl Work {
    async fn end(&mut self, patience: tokio::time::Instant) {
        match self {
            Self::Task(task) => {
                if tokio::time::timeout_at(patience, &mut *task).await.is_err() {
                    tracing::warn!("an executor does not end; it is given up");
                    task.abort();
                }
            }
            Self::Thread(thread) => {
                while !thread.is_finished() && tokio::time::Instant::now() < patience {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if !thread.is_finished() {
                    tracing::warn!("an executor's thread does not end; it is left alone");
                }
            }
        }
    }
}
