//! Batches from the partitions of a log: a Kafka topic, a directory, the master dataset.
//!
//! The ledger of the log's state says what is in which batch, by offset ranges. It has one writer: a coordinator takes
//! it over when it starts, and one that was taken over from is refused with its next write.

mod coordinator;
mod emitter;
mod known;
mod ranges;
mod reader;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::{
    array::{BinaryBuilder, Int32Builder, Int64Builder, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use stratus_seam::{
    log::{Chunk, Log},
    offsets::OffsetVector,
    store::LedgerStore,
};
use stratus_topology::{TaskContext, TaskError, fields};

use self::{coordinator::LogCoordinator, emitter::LogEmitter, known::Known};
use super::{BatchCoordinator, Emitter, SpoutKind, TridentSpout};

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
/// without those that are gone for good, by retention or compaction, so that a replay may have fewer tuples.
///
/// A batch takes what is there, up to [`max_bytes`](Self::max_bytes): it is small and soon committed when the log is
/// idle, and grows with the backlog when the topology is behind. Records are read beside the coordinator, whose commits
/// never wait for the log. A partition that cannot be read rests, a little longer each time, while the others go on.
pub struct LogSpout<T> {
    log: Arc<dyn Log>,
    ledger: Arc<dyn LedgerStore>,
    translator: T,
    kind: SpoutKind,
    start: OffsetVector,
    max_bytes: usize,
    /// What the coordinator has read for batches that are not committed, for the emitters.
    read: Arc<Mutex<HashMap<u64, Arc<Vec<Chunk>>>>>,
    /// What the ledger's store has acknowledged: it outlives a coordinator that panics.
    known: Arc<Mutex<Known>>,
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
            known: Arc::default(),
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

    /// About how many bytes of records a batch holds at most: each partition has a share of them, and what some have no
    /// use for, those with a backlog divide among them. 4 MiB if nothing is said.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
            known: Arc::clone(&self.known),
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

    fn metadata_stays(&self) -> bool {
        true
    }

    async fn coordinator(&self, _context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        Ok(Box::new(LogCoordinator::new(self.clone())))
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        Ok(Box::new(LogEmitter::new(self.clone(), context)))
    }
}
