//! Batches from the partitions of a log: a Kafka topic, a directory, the master dataset.
//!
//! The ledger of the log's state says what is in which batch, by offset ranges. It has one writer: a coordinator takes
//! it over when it starts, and one that was taken over from is refused with its next write.

mod ranges;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::{
    array::{BinaryBuilder, Int32Builder, Int64Builder, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use stratus_seam::{
    ids::{SourceId, ViewId},
    ledger::{Ledger, Txn},
    log::{Chunk, Log},
    offsets::{OffsetRange, OffsetVector, Partition},
    store::{Durability, LedgerStore, LedgerWrite, TxnChanges},
};
use stratus_topology::{TaskContext, TaskError, fields};

use super::{BatchCoordinator, Emitter, Recovery, SpoutKind, TridentSpout};
use crate::batch::TransactionAttempt;

/// Makes rows of records.
pub trait Translator: Clone + Send + Sync + 'static {
    /// The fields of the rows.
    fn schema(&self) -> SchemaRef;

    /// The rows of consecutive records of one partition.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again: a record that can never be read is better left out.
    fn translate(&mut self, records: &Chunk) -> Result<RecordBatch, TaskError>;
}

/// Each record as `(partition, offset, value)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Records;

impl Translator for Records {
    fn schema(&self) -> SchemaRef {
        fields([("partition", DataType::Int32), ("offset", DataType::Int64), ("value", DataType::Binary)])
    }

    fn translate(&mut self, records: &Chunk) -> Result<RecordBatch, TaskError> {
        let count = records.records.len();
        let (mut partitions, mut offsets) =
            (Int32Builder::with_capacity(count), Int64Builder::with_capacity(count));
        let mut values = BinaryBuilder::with_capacity(count, records.bytes.len());
        for (index, record) in records.records.iter().enumerate() {
            partitions.append_value(i32::try_from(records.partition)?);
            offsets.append_value(i64::try_from(record.offset)?);
            values.append_value(records.payload(index));
        }
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(partitions.finish()), Arc::new(offsets.finish()), Arc::new(values.finish())];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

/// Batches of a log's records.
///
/// A batch's ranges are written down before it is emitted, and a replay, also one after a crash, reads the same ranges.
/// While the log cannot deliver every record of them, a transactional spout does not go on; an opaque one goes on
/// without those that are gone for good, so that a replay may have fewer tuples.
pub struct LogSpout<T> {
    log: Arc<dyn Log>,
    ledger: Arc<dyn LedgerStore>,
    translator: T,
    kind: SpoutKind,
    start: OffsetVector,
    max_bytes: usize,
    /// What the coordinator has read for batches that are not committed, for the emitters.
    read: Arc<Mutex<HashMap<u64, Arc<Vec<Chunk>>>>>,
}

impl<T: Translator> LogSpout<T> {
    /// Batches that are the same whenever they are tried. `ledger` is nobody else's.
    pub fn transactional(log: Arc<dyn Log>, ledger: Arc<dyn LedgerStore>, translator: T) -> Self {
        Self {
            log,
            ledger,
            translator,
            kind: SpoutKind::Transactional,
            start: OffsetVector::zero(),
            max_bytes: 4 << 20,
            read: Arc::default(),
        }
    }

    /// Batches that do not wait for records that are gone for good. `ledger` is nobody else's.
    pub fn opaque(log: Arc<dyn Log>, ledger: Arc<dyn LedgerStore>, translator: T) -> Self {
        Self { kind: SpoutKind::Opaque, ..Self::transactional(log, ledger, translator) }
    }

    /// Begins at these offsets, if the ledger is still empty.
    #[must_use]
    pub fn start(mut self, start: OffsetVector) -> Self {
        self.start = start;
        self
    }

    /// About how many bytes of records a batch holds at most.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    fn read(&self) -> MutexGuard<'_, HashMap<u64, Arc<Vec<Chunk>>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for LogSpout<T>
where
    T: Clone,
{
    fn clone(&self) -> Self {
        Self {
            log: Arc::clone(&self.log),
            ledger: Arc::clone(&self.ledger),
            translator: self.translator.clone(),
            start: self.start.clone(),
            read: Arc::clone(&self.read),
            ..*self
        }
    }
}

impl<T> fmt::Debug for LogSpout<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogSpout({:?}, {:?})", self.kind, self.log)
    }
}

#[async_trait]
impl<T: Translator> TridentSpout for LogSpout<T> {
    fn schema(&self) -> SchemaRef {
        self.translator.schema()
    }

    fn kind(&self) -> SpoutKind {
        self.kind
    }

    async fn coordinator(&self, _context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        Ok(Box::new(LogCoordinator { spout: self.clone(), record: None, open: BTreeMap::new() }))
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        let (task, tasks) = (context.task_index() as u32, context.task_count() as u32);
        Ok(Box::new(LogEmitter { spout: self.clone(), task, tasks }))
    }
}

type Ranges = BTreeMap<Partition, OffsetRange>;

/// The one writer of the ledger.
struct LogCoordinator<T> {
    spout: LogSpout<T>,
    /// The ledger as this coordinator wrote it last.
    record: Option<Ledger>,
    /// The entries of batches that are not committed.
    open: BTreeMap<u64, Txn>,
}

impl<T: Translator> LogCoordinator<T> {
    fn record(&self) -> Result<&Ledger, TaskError> {
        self.record.as_ref().ok_or_else(|| "the ledger was not taken over".into())
    }

    /// Writes the ledger. A write without an answer may have happened, so what the ledger says decides.
    async fn write(
        &mut self,
        next: Ledger,
        changes: TxnChanges,
        durability: Durability,
    ) -> Result<(), TaskError> {
        let held = self.record()?;
        let expected = (held.token, held.revision);
        let refused = match self.spout.ledger.write(Some(expected), &next, changes, durability).await {
            Ok(LedgerWrite::Written) => None,
            Ok(LedgerWrite::Refused(found)) => Some(found.map(|found| *found)),
            Err(error) => {
                tracing::warn!("a write of the ledger has no answer: {error}");
                Some(self.spout.ledger.read().await?)
            }
        };
        match refused {
            None => {}
            Some(Some(found)) if (found.token, found.revision) == (next.token, next.revision) => {}
            Some(_) => {
                self.record = None;
                return Err("the ledger was taken over by another coordinator, or was lost".into());
            }
        }
        self.record = Some(next);
        Ok(())
    }

    /// Writes down what is in a batch. The ledger's numbers are the coordinator's: where other spouts of the group went
    /// on alone while this one's ledger was lost or new, empty entries make up for it.
    async fn append(&mut self, txid: u64, ranges: Ranges) -> Result<(), TaskError> {
        loop {
            let appended = self.record()?.appended;
            if appended >= txid {
                return Err(format!(
                    "the ledger holds batch {appended} already, and {txid} was to be written"
                )
                .into());
            }
            let of_this = if appended + 1 == txid { ranges.clone() } else { Ranges::new() };
            let (next, txn) = self.record()?.append(of_this)?;
            let changes =
                TxnChanges { append: Some(txn.clone()), forget_below: next.committed, forget_all: false };
            self.write(next, changes, Durability::Now).await?;
            self.open.insert(txn.txid, txn);
            if appended + 1 == txid {
                return Ok(());
            }
        }
    }

    /// Reads what is behind `at` for a batch; `None` if there is nothing.
    async fn cut(&self, txid: u64, at: &OffsetVector) -> Result<Option<Ranges>, TaskError> {
        let skips = self.spout.kind == SpoutKind::Opaque;
        let chunks = ranges::read_new(self.spout.log.as_ref(), at, self.spout.max_bytes, skips).await?;
        if chunks.is_empty() {
            return Ok(None);
        }
        let ranges = ranges::of(&chunks, at);
        self.spout.read().insert(txid, Arc::new(chunks));
        Ok(Some(ranges))
    }
}

fn metadata(ranges: &Ranges) -> Result<String, TaskError> {
    Ok(serde_json::to_string(ranges)?)
}

#[async_trait]
impl<T: Translator> BatchCoordinator for LogCoordinator<T> {
    async fn recover(&mut self) -> Result<Recovery, TaskError> {
        let (ledger, log) = (Arc::clone(&self.spout.ledger), self.spout.log.id().await?);
        let found = ledger.read().await?;
        let (expected, next) = match found {
            Some(found) if found.log != log => {
                let was = found.log;
                return Err(format!(
                    "the ledger is of the log {was}, which is now {log}: its offsets mean others"
                )
                .into());
            }
            Some(found) => (Some((found.token, found.revision)), found.take_over(0)),
            None => {
                let stream = BTreeMap::from([(ViewId(SourceId::default().0), self.spout.start.clone())]);
                let target = OffsetVector::zero();
                (None, Ledger::begin("first start", env!("CARGO_PKG_VERSION"), log, 0, &stream, target, 0))
            }
        };
        match ledger.write(expected, &next, TxnChanges::default(), Durability::Now).await? {
            LedgerWrite::Written => {}
            LedgerWrite::Refused(_) => {
                return Err("another coordinator takes the ledger over at this moment".into());
            }
        }
        self.open.clear();
        self.spout.read().clear();
        let committed = next.committed;
        for txn in ledger.txns(committed + 1).await?.into_iter().filter(|txn| txn.txid <= next.appended) {
            self.open.insert(txn.txid, txn);
        }
        self.record = Some(next);
        let open = self.open.iter().map(|(txid, txn)| Ok((*txid, metadata(&txn.ranges)?)));
        Ok(Recovery { committed, open: open.collect::<Result<_, TaskError>>()? })
    }

    async fn next(&mut self, txid: u64) -> Result<Option<String>, TaskError> {
        let at = self.record()?.appended_to.clone();
        let Some(ranges) = self.cut(txid, &at).await? else { return Ok(None) };
        let metadata = metadata(&ranges)?;
        let (next, txn) = self.record()?.append(ranges)?;
        let changes =
            TxnChanges { append: Some(txn.clone()), forget_below: next.committed, forget_all: false };
        self.write(next, changes, Durability::Now).await?;
        self.open.insert(txid, txn);
        Ok(Some(metadata))
    }

    async fn nothing(&mut self, txid: u64) -> Result<(), TaskError> {
        self.append(txid, Ranges::new()).await
    }

    async fn committed(&mut self, txid: u64) -> Result<(), TaskError> {
        self.spout.read().remove(&txid);
        // One after the other, also those that only the others of the group had known to be committed.
        while let Some(txn) =
            self.open.first_key_value().map(|(_, txn)| txn.clone()).filter(|txn| txn.txid <= txid)
        {
            let next = self.record()?.commit(&txn, &BTreeMap::new())?;
            let changes = TxnChanges { forget_below: next.committed, ..TxnChanges::default() };
            self.write(next, changes, Durability::Now).await?;
            self.open.remove(&txn.txid);
        }
        let committed_to = self.record()?.committed_to.clone();
        self.spout.log.acknowledge(&committed_to).await;
        Ok(())
    }
}

/// Emits the records of every `tasks`-th partition.
struct LogEmitter<T> {
    spout: LogSpout<T>,
    task: u32,
    tasks: u32,
}

#[async_trait]
impl<T: Translator> Emitter for LogEmitter<T> {
    async fn emit(
        &mut self,
        attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        if metadata.is_empty() {
            return Ok(Vec::new());
        }
        let ranges: Ranges = serde_json::from_str(metadata)?;
        let cached = self.spout.read().get(&attempt.txid).cloned();
        let mut rows = Vec::new();
        for (partition, range) in ranges.iter().filter(|(partition, _)| *partition % self.tasks == self.task)
        {
            let kept =
                cached.iter().flat_map(|chunks| chunks.iter()).filter(|chunk| chunk.partition == *partition);
            let mut chunks: Vec<Chunk> = kept.cloned().collect();
            if !ranges::covers(&chunks, *range) {
                let skips = self.spout.kind == SpoutKind::Opaque;
                chunks = ranges::read_again(self.spout.log.as_ref(), *partition, *range, skips).await?;
            }
            for chunk in &chunks {
                rows.push(self.spout.translator.translate(chunk)?);
            }
        }
        Ok(rows)
    }
}
