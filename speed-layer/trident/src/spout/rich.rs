//! Any spout of the engine as a spout of batches: Storm's `RichSpoutBatchExecutor`.

mod host;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use async_trait::async_trait;
use stratus_topology::{DEFAULT_STREAM, OutputFieldsDeclarer, Spout, TaskContext, TaskError};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use self::host::{Host, Order};
use super::{BatchCoordinator, Emitter, Recovery, SpoutKind, TridentSpout};
use crate::{batch::TransactionAttempt, coordinator::begun_attempts};

/// What a batch's metadata says: that there is something to emit. What that is each task's spout decides.
const METADATA: &str = "some";
/// How long a spout may take to close before another takes its place.
const CLOSING: Duration = Duration::from_secs(5);

/// Batches of what ordinary spouts emit to their default stream: each task of the stream runs a spout of its own, and
/// puts what that has, up to a number of tuples, into a batch. The spout's messages are acked when their batch is
/// committed, and fail when it fails.
///
/// Non-transactional: nothing is written down, and a batch that is tried again has whatever the spouts then have. Tuples
/// of a reliable spout are counted at least once, with any state. The transactions of a process begin at 1, so a state
/// that keeps their numbers can outlive the process only with a spout that writes them down.
///
/// Clones are one spout, for one topology at a time.
#[derive(Clone)]
pub struct RichSpout {
    make: Arc<dyn Fn() -> Box<dyn Spout> + Send + Sync>,
    schema: SchemaRef,
    max_batch_size: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The tasks' spouts, by the task's place.
    desks: Mutex<BTreeMap<usize, Desk>>,
    /// The last transaction that is committed.
    committed: Mutex<u64>,
    /// Attempts below this one were replaced: who still asks for them gets nothing.
    first: Arc<AtomicU64>,
}

/// Where a task's spout takes orders.
struct Desk {
    /// The task itself holds on to it: when it ends, so does the spout.
    orders: mpsc::WeakUnboundedSender<Order>,
    /// Whether the spout has something for a batch.
    ready: Arc<AtomicBool>,
    work: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Whether the task is to emit: as its spout has something, or has panicked and is to be opened anew.
    fn calls(&self) -> bool {
        self.ready.load(SeqCst) || (self.work.is_finished() && self.orders.upgrade().is_some())
    }
}

impl RichSpout {
    /// Batches of the spouts that `make` makes.
    pub fn new<S: Spout>(make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let mut declared = OutputFieldsDeclarer::default();
        make().declare_output_fields(&mut declared);
        let schema = declared.schema(DEFAULT_STREAM).map(Arc::clone);
        Self {
            make: Arc::new(move || Box::new(make())),
            schema: schema.unwrap_or_else(|| Arc::new(Schema::empty())),
            max_batch_size: 1_000,
            shared: Arc::default(),
        }
    }

    /// How many tuples of each task a batch holds at most; 1,000 if nothing is said.
    #[must_use]
    pub fn max_batch_size(mut self, tuples: usize) -> Self {
        self.max_batch_size = tuples.max(1);
        self
    }

    /// Gives every task's spout an order.
    fn tell(&self, order: impl Fn() -> Order) {
        for desk in lock(&self.shared.desks).values() {
            // One that has ended has nothing under way.
            if let Some(orders) = desk.orders.upgrade() {
                let _ = orders.send(order());
            }
        }
    }

    /// Opens the spout of a task; that of the task's former life is closed first.
    async fn open(&self, context: &TaskContext) -> Result<mpsc::UnboundedSender<Order>, TaskError> {
        let before = lock(&self.shared.desks).remove(&context.task_index());
        if let Some(mut before) = before
            && tokio::time::timeout(CLOSING, &mut before.work).await.is_err()
        {
            before.work.abort();
        }
        let ready = Arc::new(AtomicBool::new(false));
        let first = Arc::clone(&self.shared.first);
        let mut host = Host::new((self.make)(), context, self.max_batch_size, first, Arc::clone(&ready));
        host.open(context).await?;
        let (orders, taken) = mpsc::unbounded_channel();
        let work = tokio::spawn(host.work(taken));
        let desk = Desk { orders: orders.downgrade(), ready, work };
        lock(&self.shared.desks).insert(context.task_index(), desk);
        Ok(orders)
    }
}

impl fmt::Debug for RichSpout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RichSpout of {} tasks", lock(&self.shared.desks).len())
    }
}

#[async_trait]
impl TridentSpout for RichSpout {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn kind(&self) -> SpoutKind {
        SpoutKind::NonTransactional
    }

    async fn coordinator(&self, _context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        Ok(Box::new(self.clone()))
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        let orders = self.open(context).await?;
        Ok(Box::new(RichEmitter { spout: self.clone(), context: context.clone(), orders: Some(orders) }))
    }
}

#[async_trait]
impl BatchCoordinator for RichSpout {
    async fn recover(&mut self) -> Result<Recovery, TaskError> {
        // What was under way is in no batch any more.
        self.shared.first.store(begun_attempts(), SeqCst);
        self.tell(|| Order::FailAll);
        Ok(Recovery { committed: *lock(&self.shared.committed), ..Recovery::default() })
    }

    async fn catch_up(&mut self, committed: u64) -> Result<(), TaskError> {
        *lock(&self.shared.committed) = committed;
        Ok(())
    }

    async fn next(&mut self, _txid: u64) -> Result<Option<String>, TaskError> {
        let found = lock(&self.shared.desks).values().any(Desk::calls);
        Ok(found.then(|| METADATA.to_owned()))
    }

    async fn committed(&mut self, txid: u64) -> Result<(), TaskError> {
        *lock(&self.shared.committed) = txid;
        self.tell(|| Order::Committed(txid));
        Ok(())
    }

    async fn give_up(&mut self, txid: u64, reason: &str) -> bool {
        self.tell(|| Order::Failed(txid, reason.into()));
        false
    }
}

/// Asks its task's spout for tuples.
struct RichEmitter {
    spout: RichSpout,
    context: TaskContext,
    /// `None`: the spout has panicked.
    orders: Option<mpsc::UnboundedSender<Order>>,
}

#[async_trait]
impl Emitter for RichEmitter {
    async fn emit(
        &mut self,
        attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        if metadata.is_empty() {
            // An attempt before this one may have had a part in the batch.
            if let Some(orders) = &self.orders {
                drop(orders.send(Order::Failed(attempt.txid, "its batch begins without it".into())));
            }
            return Ok(Vec::new());
        }
        let orders = match self.orders.take() {
            Some(orders) => orders,
            None => self.spout.open(&self.context).await?,
        };
        let (answer, answered) = oneshot::channel();
        // What was not taken is let go here, and with it the answer.
        drop(orders.send(Order::Emit(attempt, answer)));
        match answered.await {
            Ok(rows) => {
                self.orders = Some(orders);
                Ok(rows)
            }
            Err(_) => Err("the spout has panicked: a new one begins".into()),
        }
    }
}
