//! The spout of a source's topology: its coordinator cuts the log into batches, its emitters decode them.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use stratus_logs::codec::JsonCodec;
use stratus_seam::log::Chunk;
use stratus_seam::schema::event_schema;
use stratus_topology::{TaskContext, TaskError};
use stratus_trident::{BatchCoordinator, Emitter, Pace, SpoutKind, TransactionAttempt, TridentSpout};

use crate::batch;
use crate::coordinator::ViewCoordinator;
use crate::error::SpeedError;
use crate::live::LiveViews;
use crate::work::{Batch, Work};

/// A source's events in batches that are the same whenever they are tried.
pub(crate) struct EventSpout {
    work: Arc<Work>,
    schema: SchemaRef,
}

impl EventSpout {
    pub(crate) fn new(work: &Arc<Work>) -> Self {
        let all = event_schema(&work.layer.source.columns);
        // Columns that no view reads are not decoded.
        let fields = all.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        Self { schema: Arc::new(Schema::new(fields.collect::<Vec<Field>>())), work: Arc::clone(work) }
    }
}

#[async_trait]
impl TridentSpout for EventSpout {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn kind(&self) -> SpoutKind {
        SpoutKind::Transactional
    }

    fn pace(&self) -> Option<Pace> {
        let limits = &self.work.layer.limits;
        Some(Pace { max_pending: limits.max_pending.max(1), interval: limits.linger })
    }

    async fn coordinator(&self, _context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        Ok(Box::new(ViewCoordinator::new(Arc::clone(&self.work))))
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        Ok(Box::new(EventEmitter {
            work: Arc::clone(&self.work),
            schema: Arc::clone(&self.schema),
            task: context.task_index(),
            tasks: context.task_count(),
            codec: None,
        }))
    }
}

/// Decodes every so many chunks of a batch.
struct EventEmitter {
    work: Arc<Work>,
    schema: SchemaRef,
    task: usize,
    tasks: usize,
    /// With the views whose columns it decodes.
    codec: Option<(Arc<LiveViews>, JsonCodec)>,
}

impl EventEmitter {
    async fn events(
        &mut self,
        attempt: TransactionAttempt,
        batch: &Batch,
    ) -> Result<Vec<RecordBatch>, SpeedError> {
        let again;
        let chunks: Vec<&Chunk> = match &batch.chunks {
            Some(chunks) => chunks.iter().skip(self.task).step_by(self.tasks).collect(),
            None => {
                let mine = |partition: u32| partition as usize % self.tasks == self.task;
                again = batch::read_again(self.work.layer.log.as_ref(), &batch.txn, mine).await?;
                again.iter().collect()
            }
        };
        let codec = match &mut self.codec {
            Some((views, codec)) if Arc::ptr_eq(views, &batch.views) => codec,
            codec => {
                let layer = &self.work.layer;
                let fresh = batch.views.codec(&layer.source, &layer.codec)?;
                &mut codec.insert((Arc::clone(&batch.views), fresh)).1
            }
        };
        let (mut events, mut bad) = (Vec::with_capacity(chunks.len()), 0);
        for chunk in chunks {
            let decoded = codec.decode(&batch.log, chunk)?;
            bad += decoded.bad.len() as u64;
            events.push(whole(&self.schema, &decoded.events)?);
        }
        batch.count(attempt, |tally| tally.bad_records += bad);
        Ok(events)
    }
}

/// Events with the columns that were not decoded, as nulls.
fn whole(schema: &SchemaRef, events: &RecordBatch) -> Result<RecordBatch, SpeedError> {
    let column = |field: &Arc<Field>| -> ArrayRef {
        match events.column_by_name(field.name()) {
            Some(column) => Arc::clone(column),
            None => new_null_array(field.data_type(), events.num_rows()),
        }
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| SpeedError::Topology(error.to_string()))
}

#[async_trait]
impl Emitter for EventEmitter {
    async fn emit(
        &mut self,
        attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        let metadata: serde_json::Value = serde_json::from_str(metadata)?;
        let number = metadata.get("batch").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let batch = self.work.attempt(attempt, number).ok_or("the batch is no longer under way")?;
        match self.events(attempt, &batch).await {
            Ok(events) => Ok(events),
            Err(error) => Err(self.work.failed(&batch.hold, error).into()),
        }
    }
}
