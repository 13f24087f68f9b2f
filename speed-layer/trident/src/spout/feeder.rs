//! A spout that is fed by hand, for tests and for topologies inside a program.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};
use tokio::sync::watch;

use super::{BatchCoordinator, Emitter, Recovery, SpoutKind, TridentSpout};
use crate::batch::TransactionAttempt;

/// A transactional spout whose batches are fed to it. Clones share them, and they outlive its topologies; what is
/// committed is let go. Each task emits an equal share of a batch.
///
/// Where it shares its batches with other spouts, it has no part in those that begin while nothing is fed: the n-th
/// batch that was fed need not be the n-th of the topology.
#[derive(Clone, Debug)]
pub struct FeederBatchSpout {
    schema: SchemaRef,
    fed: Arc<Fed>,
}

#[derive(Debug)]
struct Fed {
    batches: Mutex<Batches>,
    /// How many of those that were fed are committed.
    committed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Batches {
    /// How many were fed.
    fed: u64,
    /// Those that are not committed, by when they were fed: the first has number 1.
    waiting: BTreeMap<u64, RecordBatch>,
    /// How many of them have begun.
    begun: u64,
    /// What is in the transactions that have begun and are not committed; `None`: nothing.
    open: BTreeMap<u64, Option<u64>>,
    /// The last transaction that is committed.
    committed: u64,
}

impl Batches {
    fn begin(&mut self, txid: u64) -> Option<u64> {
        if self.begun == self.fed {
            return None;
        }
        self.begun += 1;
        self.open.insert(txid, Some(self.begun));
        Some(self.begun)
    }

    /// Lets go of what is committed; answers with the last number of it.
    fn commit(&mut self, txid: u64) -> Option<u64> {
        self.committed = self.committed.max(txid);
        let open = self.open.split_off(&(txid + 1));
        let last = std::mem::replace(&mut self.open, open).into_values().flatten().max();
        if let Some(last) = last {
            self.waiting = self.waiting.split_off(&(last + 1));
        }
        last
    }
}

impl FeederBatchSpout {
    /// A spout of tuples with these fields.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, fed: Arc::new(Fed { batches: Mutex::default(), committed: watch::Sender::new(0) }) }
    }

    /// Feeds a batch; it may be empty. Answers with how many were fed, which is its number.
    pub fn feed(&self, rows: RecordBatch) -> u64 {
        let mut batches = self.lock();
        batches.fed += 1;
        let number = batches.fed;
        batches.waiting.insert(number, rows);
        number
    }

    /// Waits until the batch that was fed with this number is committed, and all before it.
    pub async fn wait(&self, number: u64) {
        // The sender is part of this.
        let _ = self.fed.committed.subscribe().wait_for(|committed| *committed >= number).await;
    }

    /// Feeds a batch and waits until it is committed.
    pub async fn feed_and_wait(&self, rows: RecordBatch) {
        let number = self.feed(rows);
        self.wait(number).await;
    }

    /// How many batches are kept, as they are not committed.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn commit(&self, txid: u64) {
        if let Some(last) = self.lock().commit(txid) {
            self.fed.committed.send_replace(last);
        }
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

/// A batch's number; the empty text for none.
fn metadata(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

#[async_trait]
impl BatchCoordinator for FeederBatchSpout {
    async fn recover(&mut self) -> Result<Recovery, TaskError> {
        let batches = self.lock();
        let open = batches.open.iter().map(|(txid, number)| (*txid, metadata(*number)));
        Ok(Recovery { committed: batches.committed, epoch: 0, open: open.collect() })
    }

    async fn catch_up(&mut self, committed: u64) -> Result<(), TaskError> {
        self.commit(committed);
        Ok(())
    }

    async fn next(&mut self, txid: u64) -> Result<Option<String>, TaskError> {
        Ok(self.lock().begin(txid).map(|number| metadata(Some(number))))
    }

    async fn nothing(&mut self, txid: u64) -> Result<(), TaskError> {
        self.lock().open.insert(txid, None);
        Ok(())
    }

    async fn committed(&mut self, txid: u64) -> Result<(), TaskError> {
        self.commit(txid);
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
        _attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        if metadata.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.spout.lock().waiting.get(&metadata.parse()?).cloned();
        let rows = rows.ok_or_else(|| format!("batch {metadata} that was fed is committed already"))?;
        let (from, to) =
            (rows.num_rows() * self.task / self.tasks, rows.num_rows() * (self.task + 1) / self.tasks);
        Ok(vec![rows.slice(from, to - from)])
    }
}
