//! Emits a log's records.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use stratus_seam::log::Chunk;
use stratus_topology::{TaskContext, TaskError};

use super::{
    LogSpout, Translator,
    ranges::{self, Ranges},
};
use crate::{
    batch::TransactionAttempt,
    spout::{Emitter, SpoutKind},
};

/// Emits the records of every `tasks`-th partition.
pub(super) struct LogEmitter<T> {
    spout: LogSpout<T>,
    task: u32,
    tasks: u32,
}

impl<T> LogEmitter<T> {
    pub(super) fn new(spout: LogSpout<T>, context: &TaskContext) -> Self {
        Self { spout, task: context.task_index() as u32, tasks: context.task_count() as u32 }
    }
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
