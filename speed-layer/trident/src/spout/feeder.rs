//! A spout that is fed by hand, for tests and for topologies inside a program.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};
use tokio::sync::watch;

use super::{BatchCoordinator, Emitter, Recovery, SpoutKind, TridentSpout};
use crate::batch::TransactionAttempt;

/// A transactional spout whose batches are fed to it. Clones share them, and they outlive its topologies. Each task
/// emits an equal share of a batch.
#[derive(Clone, Debug)]
pub struct FeederBatchSpout {
    schema: SchemaRef,
    fed: Arc<Fed>,
}

#[derive(Debug)]
struct Fed {
    batches: Mutex<Batches>,
    committed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Batches {
    /// Transaction n is batch n - 1.
    batches: Vec<RecordBatch>,
    begun: u64,
}

impl FeederBatchSpout {
    /// A spout of tuples with these fields.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, fed: Arc::new(Fed { batches: Mutex::default(), committed: watch::Sender::new(0) }) }
    }

    /// Feeds a batch; it may be empty. Answers with its transaction.
    pub fn feed(&self, rows: RecordBatch) -> u64 {
        let mut batches = self.lock();
        batches.batches.push(rows);
        batches.batches.len() as u64
    }

    /// Waits until a transaction is committed.
    pub async fn wait(&self, txid: u64) {
        // The sender is part of this.
        let _ = self.fed.committed.subscribe().wait_for(|committed| *committed >= txid).await;
    }

    /// Feeds a batch and waits until it is committed.
    pub async fn feed_and_wait(&self, rows: RecordBatch) {
        let txid = self.feed(rows);
        self.wait(txid).await;
    }

    fn lock(&self) -> MutexGuard<'_, Batches> {
        self.fed.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TridentSpout for FeederBatchSpout {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn kind(&self) -> SpoutKind {
        SpoutKind::Transactional
    }

    async fn coordinator(&self, _context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        Ok(Box::new(self.clone()))
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        Ok(Box::new(Share { spout: self.clone(), task: context.task_index(), tasks: context.task_count() }))
    }
}

#[async_trait]
impl BatchCoordinator for FeederBatchSpout {
    async fn recover(&mut self) -> Result<Recovery, TaskError> {
        let committed = *self.fed.committed.borrow();
        let open = (committed + 1..=self.lock().begun).map(|txid| (txid, txid.to_string())).collect();
        Ok(Recovery { committed, open })
    }

    async fn next(&mut self, txid: u64) -> Result<Option<String>, TaskError> {
        let mut batches = self.lock();
        if txid > batches.batches.len() as u64 {
            return Ok(None);
        }
        batches.begun = batches.begun.max(txid);
        Ok(Some(txid.to_string()))
    }

    async fn committed(&mut self, txid: u64) -> Result<(), TaskError> {
        self.fed.committed.send_if_modified(|committed| {
            let is_new = *committed < txid;
            *committed = (*committed).max(txid);
            is_new
        });
        Ok(())
    }
}

/// One task's emitter.
struct Share {
    spout: FeederBatchSpout,
    task: usize,
    tasks: usize,
}

#[async_trait]
impl Emitter for Share {
    async fn emit(
        &mut self,
        attempt: TransactionAttempt,
        _metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        let batches = self.spout.lock();
        let place = attempt.txid.checked_sub(1).and_then(|place| batches.batches.get(place as usize));
        let rows = place.ok_or_else(|| format!("transaction {} was not fed", attempt.txid))?;
        let (from, to) =
            (rows.num_rows() * self.task / self.tasks, rows.num_rows() * (self.task + 1) / self.tasks);
        Ok(vec![rows.slice(from, to - from)])
    }
}
