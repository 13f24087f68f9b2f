//! Operations on several streams of a batch.

use std::sync::Arc;

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef};
use async_trait::async_trait;
use stratus_topology::TaskError;

use super::{BatchState, Processor, own, owned};
use crate::{batch::TransactionAttempt, multi_reduce::MultiReducer};

/// `merge`: the tuples of all inputs, by position.
pub(crate) struct MergeProcessor {
    pub(crate) schema: SchemaRef,
}

impl Processor for MergeProcessor {
    fn execute(
        &mut self,
        _state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        out.push(RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec())?);
        Ok(())
    }
}

/// `multi_reduce` and `join`: what a partition of a batch has of all inputs, at once.
pub(crate) struct MultiReduceProcessor<R> {
    pub(crate) reducer: R,
    /// The fields of each input.
    pub(crate) inputs: Vec<SchemaRef>,
    pub(crate) schema: SchemaRef,
}

#[async_trait]
impl<R: MultiReducer> Processor for MultiReduceProcessor<R> {
    fn start_batch(&mut self, _attempt: TransactionAttempt) -> BatchState {
        Box::new(vec![Vec::<RecordBatch>::new(); self.inputs.len()])
    }

    fn execute(
        &mut self,
        state: &mut BatchState,
        input: usize,
        rows: RecordBatch,
        _out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        own::<Vec<Vec<RecordBatch>>>(state)?[input].push(rows);
        Ok(())
    }

    async fn finish_batch(
        &mut self,
        _attempt: TransactionAttempt,
        state: BatchState,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let gathered: Vec<Vec<RecordBatch>> = owned(state)?;
        let inputs = self.inputs.iter().zip(&gathered).map(|(schema, rows)| concat_batches(schema, rows));
        let inputs: Vec<RecordBatch> = inputs.collect::<Result<_, _>>()?;
        let reduced = self.reducer.reduce(&inputs)?;
        if reduced.num_rows() > 0 {
            out.push(RecordBatch::try_new(Arc::clone(&self.schema), reduced.columns().to_vec())?);
        }
        Ok(())
    }
}
