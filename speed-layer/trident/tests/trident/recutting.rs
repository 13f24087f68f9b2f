//! A spout that cuts a batch anew each time that it is tried: each record is in one batch that commits, and an attempt
//! has other records than the one before. No ledger, no promise of the same batch: opaque in Storm's sense.

use std::sync::{Arc, Mutex};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::StdRng};
use stratus_seam::{log::Log, offsets::OffsetVector};
use stratus_topology::{TaskContext, TaskError, fields};
use stratus_trident::{BatchCoordinator, Emitter, Recovery, SpoutKind, TransactionAttempt, TridentSpout};

use crate::memory_log::MemoryLog;

/// Records of the partitions of a log. Clones share where they stand, and it outlives its topologies.
#[derive(Clone)]
pub(crate) struct RecuttingSpout {
    log: MemoryLog,
    committed: Arc<Mutex<(u64, OffsetVector)>>,
    rng: Arc<Mutex<StdRng>>,
}

/// One partition's offsets in a batch: from, to.
type Cut = Vec<(u64, u64)>;

impl RecuttingSpout {
    pub(crate) fn new(log: MemoryLog, seed: u64) -> Self {
        let rng = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        Self { log, committed: Arc::new(Mutex::new((0, OffsetVector::zero()))), rng }
    }

    pub(crate) fn committed_to(&self) -> OffsetVector {
        self.committed.lock().unwrap().1.clone()
    }
}

/// The coordinator of one life.
struct Coordinator {
    spout: RecuttingSpout,
    open: std::collections::BTreeMap<u64, Cut>,
}

impl Coordinator {
    /// Some of what is behind the batches before this one.
    async fn cut(&mut self, txid: u64) -> Result<Option<String>, TaskError> {
        let mut at = self.spout.committed_to();
        for cut in self.open.range(..txid).map(|(_, cut)| cut) {
            cut.iter().enumerate().for_each(|(partition, (_, to))| at.set(partition as u32, *to));
        }
        let end = self.spout.log.end().await?;
        let partitions = self.spout.log.partitions().await?;
        let mut rng = self.spout.rng.lock().unwrap();
        let ranges = (0..partitions).map(|partition| {
            let from = at.get(partition);
            (from, from + rng.random_range(0..=end.get(partition) - from))
        });
        let cut: Cut = ranges.collect();
        let text = serde_json::to_string(&cut)?;
        let empty = cut.iter().all(|(from, to)| from == to);
        self.open.insert(txid, cut);
        Ok((!empty).then_some(text))
    }
}

#[async_trait]
impl BatchCoordinator for Coordinator {
    async fn recover(&mut self) -> Result<Recovery, TaskError> {
        self.open.clear();
        Ok(Recovery { committed: self.spout.committed.lock().unwrap().0, ..Recovery::default() })
    }

    async fn next(&mut self, txid: u64) -> Result<Option<String>, TaskError> {
        self.cut(txid).await
    }

    async fn again(&mut self, txid: u64, _metadata: &str) -> Result<String, TaskError> {
        Ok(self.cut(txid).await?.unwrap_or_else(|| "[]".to_owned()))
    }

    async fn committed(&mut self, txid: u64) -> Result<(), TaskError> {
        let Some(cut) = self.open.remove(&txid) else { return Ok(()) };
        let mut committed = self.spout.committed.lock().unwrap();
        committed.0 = txid;
        cut.iter().enumerate().for_each(|(partition, (_, to))| committed.1.set(partition as u32, *to));
        Ok(())
    }
}

#[async_trait]
impl Emitter for RecuttingSpout {
    async fn emit(
        &mut self,
        _attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        let cut: Cut = if metadata.is_empty() { Vec::new() } else { serde_json::from_str(metadata)? };
        let mut lines = Vec::new();
        for (partition, (from, to)) in cut.into_iter().enumerate() {
            let chunk = self.log.read(partition as u32, from, Some(to), usize::MAX).await?;
            let records = 0..chunk.records.len();
            lines.extend(records.map(|index| String::from_utf8_lossy(chunk.payload(index)).into_owned()));
        }
        let lines = StringArray::from_iter_values(lines);
        Ok(vec![RecordBatch::try_new(self.schema(), vec![Arc::new(lines)])?])
    }
}

/// It emits as one task.
#[derive(Clone)]
struct Nothing;

#[async_trait]
impl Emitter for Nothing {
    async fn emit(
        &mut self,
        _attempt: TransactionAttempt,
        _metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl TridentSpout for RecuttingSpout {
    fn schema(&self) -> SchemaRef {
        fields([("line", DataType::Utf8)])
    }

    fn kind(&self) -> SpoutKind {
        SpoutKind::Opaque
    }

    async fn coordinator(&self, _context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        Ok(Box::new(Coordinator { spout: self.clone(), open: Default::default() }))
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        if context.task_index() > 0 { Ok(Box::new(Nothing)) } else { Ok(Box::new(self.clone())) }
    }
}
