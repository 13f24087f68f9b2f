//! Which task takes which tuples.

use std::rc::Rc;

use arrow::array::RecordBatch;
use stratus_topology::{CustomGrouping, Grouping, GroupingContext, TaskChoice, TaskError};

use super::{Stream, can_be_compared};
use crate::{batch::TransactionAttempt, graph::Kind, processor::ProjectProcessor, topology::batch_task};

impl Stream {
    /// Spreads tuples evenly over the tasks of what follows.
    pub fn shuffle(&self) -> Self {
        self.repartition(Grouping::Shuffle)
    }

    /// As [`shuffle`](Self::shuffle), to tasks in the same process if there are any.
    pub fn local_or_shuffle(&self) -> Self {
        self.repartition(Grouping::LocalOrShuffle)
    }

    /// Sends tuples with equal values of these fields to the same task.
    pub fn partition_by(&self, key: &[&str]) -> Self {
        let columns = self.columns("partition_by", key);
        self.check_types("partition_by", &columns, can_be_compared);
        self.repartition(Grouping::fields(key))
    }

    /// Sends every tuple to every task of what follows.
    pub fn broadcast(&self) -> Self {
        self.repartition(Grouping::All)
    }

    /// Sends all tuples to one task.
    pub fn global(&self) -> Self {
        self.repartition(Grouping::Global)
    }

    /// Sends all tuples of a batch to one task; different batches may go to different tasks.
    pub fn batch_global(&self) -> Self {
        self.repartition(Grouping::custom(|| BatchGlobal))
    }

    /// Sends tuples to the tasks that a grouping of the user's own chooses.
    pub fn partition(&self, grouping: Grouping) -> Self {
        self.repartition(grouping)
    }

    pub(super) fn repartition(&self, grouping: Grouping) -> Self {
        // Between two repartitionings there must be something that runs.
        let on = match self.graph.borrow().nodes[self.node].kind {
            Kind::Partition(_) => Some((0..self.schema().fields().len()).collect::<Vec<usize>>()),
            _ => None,
        };
        let from = match on {
            Some(columns) => {
                self.processor("pass", self.schema(), move || ProjectProcessor { columns: columns.clone() })
            }
            None => self.clone(),
        };
        let schema = from.schema();
        let node =
            self.graph.borrow_mut().add(Kind::Partition(grouping), "partition", vec![from.node], schema);
        Self::new(Rc::clone(&self.graph), node)
    }
}

/// Sends a batch as a whole to one task.
struct BatchGlobal;

impl CustomGrouping for BatchGlobal {
    fn prepare(&mut self, _context: &GroupingContext) {}

    fn choose_tasks(&mut self, _rows: &RecordBatch, choice: &mut TaskChoice) -> Result<(), TaskError> {
        let label = choice.label().ok_or("a tuple belongs to no batch")?;
        choice.send_all(batch_task(TransactionAttempt::of(label), choice.targets()));
        Ok(())
    }
}
