//! Aggregation of a partition of a batch by whole record batches.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};

use super::{BatchState, Processor, own, owned};
use crate::{aggregator::RowsAggregator, batch::TransactionAttempt};

/// `partition_aggregate_rows`.
pub(crate) struct RowsAggregateProcessor<A> {
    pub(crate) aggregator: A,
    pub(crate) input: Vec<usize>,
    pub(crate) schema: SchemaRef,
}

#[async_trait]
impl<A: RowsAggregator> Processor for RowsAggregateProcessor<A> {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.aggregator.prepare(context)
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

    async fn finish_batch(
        &mut self,
        attempt: TransactionAttempt,
        state: BatchState,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        for rows in self.aggregator.aggregate(attempt, owned(state)?).await? {
            if rows.num_rows() > 0 {
                out.push(RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec())?);
            }
        }
        Ok(())
    }
}
