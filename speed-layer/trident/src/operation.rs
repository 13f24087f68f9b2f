//! Operations on tuples.

use arrow::array::RecordBatch;
use stratus_topology::{TaskContext, TaskError};

use crate::{collector::TridentCollector, tuple::TridentTuple};

/// Emits for each tuple none, one or several others, which are put behind it. Closures are functions, too.
pub trait Function: Clone + Send + Sync + 'static {
    /// Called once per task, before everything else.
    ///
    /// # Errors
    ///
    /// An error restarts the task.
    fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let _ = context;
        Ok(())
    }

    /// Works on a tuple.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn execute(&mut self, tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError>;
}

impl<F> Function for F
where
    F: FnMut(TridentTuple<'_>, &mut TridentCollector) -> Result<(), TaskError>
        + Clone
        + Send
        + Sync
        + 'static,
{
    fn execute(&mut self, tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
        self(tuple, out)
    }
}

/// Keeps some tuples. Closures are filters, too.
pub trait Filter: Clone + Send + Sync + 'static {
    /// Called once per task, before everything else.
    ///
    /// # Errors
    ///
    /// An error restarts the task.
    fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let _ = context;
        Ok(())
    }

    /// Whether to keep a tuple.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn is_keep(&mut self, tuple: TridentTuple<'_>) -> Result<bool, TaskError>;
}

impl<F> Filter for F
where
    F: FnMut(TridentTuple<'_>) -> Result<bool, TaskError> + Clone + Send + Sync + 'static,
{
    fn is_keep(&mut self, tuple: TridentTuple<'_>) -> Result<bool, TaskError> {
        self(tuple)
    }
}

/// Works on all rows of a fragment at once. Closures are such operations, too.
pub trait BatchFunction: Clone + Send + Sync + 'static {
    /// Other rows in place of these, with the declared fields.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn execute(&mut self, rows: &RecordBatch) -> Result<RecordBatch, TaskError>;
}

impl<F> BatchFunction for F
where
    F: FnMut(&RecordBatch) -> Result<RecordBatch, TaskError> + Clone + Send + Sync + 'static,
{
    fn execute(&mut self, rows: &RecordBatch) -> Result<RecordBatch, TaskError> {
        self(rows)
    }
}
