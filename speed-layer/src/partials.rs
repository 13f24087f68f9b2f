//! From a task's part of a batch to the states that it comes to, for every view that the batch feeds.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use stratus_seam::encoding::encode_rows;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::schema::{OFFSET_COLUMN, PARTITION_COLUMN};
use stratus_seam::shard::shard_of;
use stratus_sql::MicroBatchPlan;
use stratus_topology::TaskError;
use stratus_trident::{RowsAggregator, TransactionAttempt};

use crate::error::SpeedError;
use crate::live::Planned;
use crate::work::{Batch, Feed, Work};

/// The fields of partial states: whose they are, and a key with its state as text.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("view", DataType::Utf8, false),
        Field::new("epoch", DataType::Int64, false),
        Field::new("shard", DataType::Int32, false),
        Field::new("key", DataType::Utf8, false),
        Field::new("state", DataType::Utf8, false),
    ]))
}

/// Aggregates events for every view: one pass of the view's own plan over the task's part of the batch.
pub(crate) struct PartialStates {
    work: Arc<Work>,
    plans: Planned<MicroBatchPlan>,
}

impl PartialStates {
    pub(crate) fn new(work: &Arc<Work>) -> Self {
        Self { work: Arc::clone(work), plans: Planned::default() }
    }

    async fn states(
        &mut self,
        attempt: TransactionAttempt,
        batch: &Batch,
        events: &[RecordBatch],
    ) -> Result<Vec<RecordBatch>, SpeedError> {
        self.plans.follow(&batch.views);
        let mut partials = Vec::with_capacity(batch.feeds.len());
        for feed in &batch.feeds {
            let plan =
                self.plans.get(feed.scope.view, &feed.view, |view| async move { view.plan().await }).await?;
            let counted = above(batch, events, &feed.from)?;
            if counted.is_empty() {
                continue;
            }
            let (states, failed) = plan.run(counted).await.map_err(|error| feed.view.failure(&error))?;
            batch.count(attempt, |tally| *tally.failed.entry(feed.scope.view).or_default() += failed);
            for states in states.iter().filter(|states| states.num_rows() > 0) {
                partials.push(encoded(feed, states, batch.hold.shards.count())?);
            }
        }
        Ok(partials)
    }
}

impl Clone for PartialStates {
    fn clone(&self) -> Self {
        Self::new(&self.work)
    }
}

#[async_trait]
impl RowsAggregator for PartialStates {
    async fn aggregate(
        &mut self,
        attempt: TransactionAttempt,
        rows: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        let batch = self.work.batch(attempt).ok_or("the batch is no longer under way")?;
        match self.states(attempt, &batch, &rows).await {
            Ok(states) => Ok(states),
            Err(error) => Err(self.work.failed(&batch.hold, error).into()),
        }
    }
}

/// The events at or above a vector: in a new generation a view skips what its version already holds.
fn above(batch: &Batch, events: &[RecordBatch], from: &OffsetVector) -> Result<Vec<RecordBatch>, SpeedError> {
    if batch.txn.ranges.iter().all(|(partition, range)| range.from >= from.get(*partition)) {
        return Ok(events.iter().filter(|events| events.num_rows() > 0).cloned().collect());
    }
    let kept = events.iter().filter_map(|events| counted(events, from).transpose());
    kept.collect::<Result<_, _>>().map_err(|error| SpeedError::Topology(error.to_string()))
}

fn counted(
    events: &RecordBatch,
    from: &OffsetVector,
) -> Result<Option<RecordBatch>, arrow::error::ArrowError> {
    let column = |name: &str| {
        events
            .column_by_name(name)
            .ok_or_else(|| arrow::error::ArrowError::SchemaError(format!("the events have no column {name}")))
    };
    let partitions = column(PARTITION_COLUMN)?.as_primitive::<Int32Type>();
    let offsets = column(OFFSET_COLUMN)?.as_primitive::<Int64Type>();
    let places = partitions.values().iter().zip(offsets.values());
    let kept: BooleanArray =
        places.map(|(partition, offset)| Some(*offset as u64 >= from.get(*partition as u32))).collect();
    match kept.true_count() {
        0 => Ok(None),
        all if all == events.num_rows() => Ok(Some(events.clone())),
        _ => filter_record_batch(events, &kept).map(Some),
    }
}

/// States as rows of the stream.
fn encoded(feed: &Feed, states: &RecordBatch, shards: u32) -> Result<RecordBatch, SpeedError> {
    let count = states.num_rows();
    let (keys, states) = states.columns().split_at(feed.view.keys);
    let (keys, states) = (encode_rows(keys, count)?, encode_rows(states, count)?);
    let of: Int32Array = keys.iter().map(|key| Some(shard_of(key, shards) as i32)).collect();
    let view = feed.scope.view.to_string();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(view, count))),
        Arc::new(Int64Array::from(vec![i64::from(feed.scope.epoch); count])),
        Arc::new(of),
        Arc::new(StringArray::from(keys)),
        Arc::new(StringArray::from(states)),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| SpeedError::Topology(error.to_string()))
}
