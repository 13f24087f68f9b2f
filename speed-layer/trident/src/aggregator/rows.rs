//! Aggregations that take a partition of a batch as a whole.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};

use crate::batch::TransactionAttempt;

/// Aggregates all rows of a partition of a batch at once: for those that work on columns, as query engines do, and for
/// those that wait for something meanwhile.
#[async_trait]
pub trait RowsAggregator: Clone + Send + Sync + 'static {
    /// Called once per task, before everything else.
    ///
    /// # Errors
    ///
    /// An error restarts the task.
    fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let _ = context;
        Ok(())
    }

    /// The rows that take the place of these, with the declared fields. Rows come in the fragments in which they
    /// travelled; there may be none.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn aggregate(
        &mut self,
        batch: TransactionAttempt,
        rows: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>, TaskError>;
}
