//! The end of a remote call.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use stratus_seam::encoding::encode_rows;
use stratus_topology::{TaskContext, TaskError};

use super::{BatchState, Processor, own, owned};
use crate::{batch::TransactionAttempt, drpc::DrpcServer, topology::batch_task};

/// `returns`: the rows of a batch are the answer to its call.
pub(crate) struct AnswerProcessor {
    pub(crate) server: DrpcServer,
    pub(crate) function: String,
    /// The task's place, and how many there are.
    pub(crate) place: (usize, usize),
}

#[async_trait]
impl Processor for AnswerProcessor {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.place = (context.task_index(), context.task_count());
        Ok(())
    }

    fn start_batch(&mut self, _attempt: TransactionAttempt) -> BatchState {
        Box::new(Vec::<String>::new())
    }

    fn execute(
        &mut self,
        state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        _out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        own::<Vec<String>>(state)?.extend(encode_rows(rows.columns(), rows.num_rows())?);
        Ok(())
    }

    async fn finish_batch(
        &mut self,
        attempt: TransactionAttempt,
        state: BatchState,
        _out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let rows: Vec<String> = owned(state)?;
        if batch_task(attempt, self.place.1) == self.place.0 {
            self.server.answer(&self.function, attempt, Ok(format!("[{}]", rows.join(","))));
        }
        Ok(())
    }
}
