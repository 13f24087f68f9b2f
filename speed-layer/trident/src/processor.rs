//! What happens to a batch between two repartitionings.

mod aggregate;
mod answer;
mod best;
mod each;
mod persist;
mod reduce;
mod rows;

use std::{any::Any, fmt};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};

pub(crate) use aggregate::{AggregateProcessor, OfNothing};
pub(crate) use answer::AnswerProcessor;
pub(crate) use best::BestProcessor;
pub(crate) use each::{EachProcessor, FilterProcessor, FlatMapProcessor, ProjectProcessor, RowsProcessor};
pub(crate) use persist::{PersistProcessor, QueryProcessor};
pub(crate) use reduce::{MergeProcessor, MultiReduceProcessor};
pub(crate) use rows::RowsAggregateProcessor;

use crate::batch::TransactionAttempt;

/// What a processor keeps of a batch.
pub(crate) type BatchState = Box<dyn Any + Send>;

/// One operation of one task. Batches may be under way side by side, so what belongs to a batch is in its state.
#[async_trait]
pub(crate) trait Processor: Send {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let _ = context;
        Ok(())
    }

    /// A batch begins.
    fn start_batch(&mut self, attempt: TransactionAttempt) -> BatchState {
        let _ = attempt;
        Box::new(())
    }

    /// Rows of a batch from one of the inputs; what comes of them is pushed to `out`.
    fn execute(
        &mut self,
        state: &mut BatchState,
        input: usize,
        rows: RecordBatch,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError>;

    /// The batch that is finished next has this digest, if one is known.
    fn is_of(&mut self, digest: Option<u64>) {
        let _ = digest;
    }

    /// All rows of a batch have come. Before a commit this happens in the order of the txids.
    async fn finish_batch(
        &mut self,
        attempt: TransactionAttempt,
        state: BatchState,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let _ = (attempt, state, out);
        Ok(())
    }
}

impl fmt::Debug for dyn Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Processor")
    }
}

/// The state that a processor made for the batch.
fn own<T: 'static>(state: &mut BatchState) -> Result<&mut T, TaskError> {
    state.downcast_mut().ok_or_else(|| "the batch's state is another operation's".into())
}

/// The state that a processor made for the batch, to keep.
fn owned<T: 'static>(state: BatchState) -> Result<T, TaskError> {
    state.downcast().map(|state| *state).map_err(|_| "the batch's state is another operation's".into())
}
