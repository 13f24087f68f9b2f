//! States: what outlives batches.
//!
//! A state is committed batch by batch, in the order of their txids. What makes it exactly once is kept beside each
//! value: the txid that wrote it last, and for opaque states the value before.

mod map;
mod memory;
mod value;

use std::{collections::HashMap, fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};
use tokio::sync::Mutex;

pub use map::{BackingMap, CachedMap, MapState, NonTransactionalMap, OpaqueMap, TransactionalMap};
pub use memory::{MemoryMap, MemoryMaps, NonTransactionalMemoryMaps, TransactionalMemoryMaps};
pub use value::{OpaqueValue, TransactionalValue};

use crate::{batch::TransactionAttempt, collector::TridentCollector};

/// What a state can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// Nothing: a replayed batch counts again.
    NonTransactional,
    /// Exactly once, if a replayed batch is the same batch.
    Transactional,
    /// Exactly once, also if a replayed batch has other tuples.
    Opaque,
}

/// A state of one partition.
#[async_trait]
pub trait State: Send + 'static {
    /// What follows is this attempt's: for states that tell attempts at the same transaction apart.
    fn begin_attempt(&mut self, attempt: TransactionAttempt) {
        let _ = attempt;
    }

    /// What is committed next is the batch of which this is written down, as a digest; none: nobody knows. For states that
    /// tell a batch from another one that was given its number because the ledger had forgotten it.
    fn is_of(&mut self, digest: Option<u64>) {
        let _ = digest;
    }

    /// What follows belongs to this transaction; none: to no transaction, as from a remote call. A transaction without
    /// tuples for this partition begins and commits, too.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn begin_commit(&mut self, txid: Option<u64>) -> Result<(), TaskError>;

    /// The transaction's updates are complete. They are durable when this returns.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn commit(&mut self, txid: Option<u64>) -> Result<(), TaskError>;

    /// The transaction that was begun is not committed: something went wrong, and it will begin anew.
    fn abandon(&mut self) {}
}

/// Makes the states of a topology's partitions.
#[async_trait]
pub trait StateFactory: Send + Sync + 'static {
    /// The states.
    type State: State;

    /// What they promise.
    fn kind(&self) -> StateKind;

    /// How many partitions there must be, if that is not free.
    fn partitions(&self) -> Option<usize> {
        None
    }

    /// The state of one of `count` partitions.
    ///
    /// # Errors
    ///
    /// An error restarts the task, which asks again a little later.
    async fn make(
        &self,
        context: &TaskContext,
        partition: usize,
        count: usize,
    ) -> Result<Self::State, TaskError>;
}

/// Brings the tuples of a batch into a state.
#[async_trait]
pub trait StateUpdater<S: State>: Clone + Send + Sync + 'static {
    /// All tuples of a batch that belong to the state's partition. What is emitted goes to the stream of new values.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn update_state(
        &mut self,
        state: &mut S,
        rows: &RecordBatch,
        out: &mut TridentCollector,
    ) -> Result<(), TaskError>;
}

/// Looks something up in a state for each tuple.
#[async_trait]
pub trait QueryFunction<S: State>: Clone + Send + Sync + 'static {
    /// The fields that it puts behind those of the tuple.
    fn fields(&self) -> SchemaRef;

    /// Columns of these fields, with a row for each row.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn batch_retrieve(&mut self, state: &mut S, rows: &RecordBatch)
    -> Result<Vec<ArrayRef>, TaskError>;
}

/// A partition's state, for whoever updates and queries it.
type Shared<F> = Arc<Mutex<<F as StateFactory>::State>>;

/// The states of one `partition_persist`, for those who update and those who query them in the same process.
pub(crate) struct SharedStates<F: StateFactory> {
    factory: F,
    /// By partition and how many there are: two bolts that query a state may have different numbers of tasks.
    open: Mutex<HashMap<(usize, usize), Shared<F>>>,
}

impl<F: StateFactory> SharedStates<F> {
    pub(crate) fn new(factory: F) -> Arc<Self> {
        Arc::new(Self { factory, open: Mutex::default() })
    }

    /// The state of a partition; made if nobody has it yet.
    pub(crate) async fn partition(
        &self,
        context: &TaskContext,
        partition: usize,
        count: usize,
    ) -> Result<Shared<F>, TaskError> {
        let mut open = self.open.lock().await;
        if let Some(state) = open.get(&(partition, count)) {
            return Ok(Arc::clone(state));
        }
        let state = Arc::new(Mutex::new(self.factory.make(context, partition, count).await?));
        open.insert((partition, count), Arc::clone(&state));
        Ok(state)
    }
}

impl<F: StateFactory> fmt::Debug for SharedStates<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedStates({:?})", self.factory.kind())
    }
}
