//! Some tuples of a partition of a batch: the first ones, or the greatest or least.

use arrow::{
    array::RecordBatch,
    compute::{SortOptions, concat_batches, sort_to_indices, take_record_batch},
};
use async_trait::async_trait;
use stratus_topology::TaskError;

use super::{BatchState, Processor, own, owned};
use crate::batch::TransactionAttempt;

/// `first_n`, `top_n`, `min_by`, `max_by`.
pub(crate) struct BestProcessor {
    pub(crate) count: usize,
    /// By which column, and whether the greatest come first; none: in the order of arrival.
    pub(crate) by: Option<(usize, bool)>,
}

#[async_trait]
impl Processor for BestProcessor {
    fn start_batch(&mut self, _attempt: TransactionAttempt) -> BatchState {
        Box::new(None::<RecordBatch>)
    }

    fn execute(
        &mut self,
        state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        _out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let best: &mut Option<RecordBatch> = own(state)?;
        let all = match best.take() {
            Some(before) => concat_batches(rows.schema_ref(), [&before, &rows])?,
            None => rows,
        };
        *best = Some(match self.by {
            None => all.slice(0, self.count.min(all.num_rows())),
            Some((column, descending)) => {
                // Nulls are neither great nor small.
                let options = SortOptions { descending, nulls_first: false };
                let order = sort_to_indices(all.column(column), Some(options), Some(self.count))?;
                take_record_batch(&all, &order)?
            }
        });
        Ok(())
    }

    async fn finish_batch(
        &mut self,
        _attempt: TransactionAttempt,
        state: BatchState,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let best: Option<RecordBatch> = owned(state)?;
        out.extend(best.filter(|rows| rows.num_rows() > 0));
        Ok(())
    }
}
