//! Operations on states.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    compute::concat_batches,
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};
use tokio::sync::Mutex;

use super::{BatchState, Processor, own, owned};
use crate::{
    batch::TransactionAttempt,
    collector::TridentCollector,
    state::{QueryFunction, SharedStates, State, StateFactory, StateUpdater},
};

/// A partition's state, once there is one.
struct Partition<F: StateFactory> {
    states: Arc<SharedStates<F>>,
    state: Option<Arc<Mutex<F::State>>>,
}

impl<F: StateFactory> Partition<F> {
    fn new(states: Arc<SharedStates<F>>) -> Self {
        Self { states, state: None }
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let (partition, count) = (context.task_index(), context.task_count());
        self.state = Some(self.states.partition(context, partition, count).await?);
        Ok(())
    }

    fn state(&self) -> Result<&Arc<Mutex<F::State>>, TaskError> {
        self.state.as_ref().ok_or_else(|| "the state was not opened".into())
    }
}

/// `partition_persist`: the batch's tuples wait for the commit.
pub(crate) struct PersistProcessor<F: StateFactory, U> {
    partition: Partition<F>,
    updater: U,
    input: Vec<usize>,
    emitted: SchemaRef,
    /// Whether batches are transactions. Those of remote calls are not: their txids begin anew with each coordinator.
    transactional: bool,
    digest: Option<u64>,
}

impl<F: StateFactory, U> PersistProcessor<F, U> {
    pub(crate) fn new(
        states: Arc<SharedStates<F>>,
        updater: U,
        input: Vec<usize>,
        emitted: SchemaRef,
        transactional: bool,
    ) -> Self {
        Self { partition: Partition::new(states), updater, input, emitted, transactional, digest: None }
    }
}

#[async_trait]
impl<F: StateFactory, U: StateUpdater<F::State>> Processor for PersistProcessor<F, U> {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.partition.open(context).await
    }

    fn start_batch(&mut self, _attempt: TransactionAttempt) -> BatchState {
        Box::new(Vec::<RecordBatch>::new())
    }

    fn execute(
        &mut self,
        state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        _out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        own::<Vec<RecordBatch>>(state)?.push(rows.project(&self.input)?);
        Ok(())
    }

    fn is_of(&mut self, digest: Option<u64>) {
        self.digest = digest;
    }

    async fn finish_batch(
        &mut self,
        attempt: TransactionAttempt,
        state: BatchState,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let rows: Vec<RecordBatch> = owned(state)?;
        let mut collector = TridentCollector::new(Arc::clone(&self.emitted));
        let txid = self.transactional.then_some(attempt.txid);
        let mut state = self.partition.state()?.lock().await;
        state.begin_attempt(attempt);
        state.is_of(self.digest);
        let committed = async {
            state.begin_commit(txid).await?;
            if let Some(first) = rows.first() {
                let rows = concat_batches(first.schema_ref(), &rows)?;
                self.updater.update_state(&mut state, &rows, &mut collector).await?;
            }
            state.commit(txid).await
        };
        let committed = committed.await;
        // Until the next attempt queries are to see what is there.
        committed.inspect_err(|_| state.abandon())?;
        if collector.len() > 0 {
            out.push(collector.finish()?);
        }
        Ok(())
    }
}

/// `state_query`: each tuple with what was found for it.
pub(crate) struct QueryProcessor<F: StateFactory, Q> {
    partition: Partition<F>,
    query: Q,
    input: Vec<usize>,
    schema: SchemaRef,
}

impl<F: StateFactory, Q> QueryProcessor<F, Q> {
    pub(crate) fn new(states: Arc<SharedStates<F>>, query: Q, input: Vec<usize>, schema: SchemaRef) -> Self {
        Self { partition: Partition::new(states), query, input, schema }
    }
}

#[async_trait]
impl<F: StateFactory, Q: QueryFunction<F::State>> Processor for QueryProcessor<F, Q> {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.partition.open(context).await
    }

    fn start_batch(&mut self, _attempt: TransactionAttempt) -> BatchState {
        Box::new(Vec::<RecordBatch>::new())
    }

    fn execute(
        &mut self,
        state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        _out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        own::<Vec<RecordBatch>>(state)?.push(rows);
        Ok(())
    }

    async fn finish_batch(
        &mut self,
        _attempt: TransactionAttempt,
        state: BatchState,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let rows: Vec<RecordBatch> = owned(state)?;
        let Some(first) = rows.first() else { return Ok(()) };
        let rows = concat_batches(first.schema_ref(), &rows)?;
        let mut state = self.partition.state()?.lock().await;
        let found = self.query.batch_retrieve(&mut state, &rows.project(&self.input)?).await?;
        let columns: Vec<ArrayRef> = rows.columns().iter().cloned().chain(found).collect();
        out.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        Ok(())
    }
}
