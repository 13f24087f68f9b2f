//! Any aggregate function of SQL as a combiner of Trident streams.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use stratus_sql::{SqlError, TextStates};
use stratus_topology::TaskError;
use stratus_trident::{CombinerAggregator, TridentTuple};

/// An aggregate function of SQL over the first fields of tuples: `avg`, `approx_distinct`, whatever the views know. Its
/// values are states, as text; [`SqlCombiner::column`] makes the function's values of them.
///
/// Tuple by tuple: for many tuples per group, `partition_aggregate_rows` with a plan over whole batches is the faster
/// way, and the way of the views.
#[derive(Debug, Clone)]
pub struct SqlCombiner(Arc<TextStates>);

impl SqlCombiner {
    /// The function of this name over fields of these types.
    ///
    /// # Errors
    /// If there is no such function, it does not take these types, or its states cannot be kept.
    pub fn new(function: &str, arguments: &[DataType]) -> Result<Self, SqlError> {
        Ok(Self(Arc::new(TextStates::of(function, arguments)?)))
    }

    /// The field of the function's value.
    pub fn returns(&self) -> &FieldRef {
        self.0.returns()
    }

    /// The function's values of these states, as a column.
    ///
    /// # Errors
    /// If one of them is not a state of this function.
    pub fn column<'a>(&self, states: impl IntoIterator<Item = &'a str>) -> Result<ArrayRef, TaskError> {
        self.0.values(states).map_err(TaskError::from)
    }
}

impl CombinerAggregator for SqlCombiner {
    type Value = String;

    fn init(&self, tuple: TridentTuple<'_>) -> Result<String, TaskError> {
        let columns: Vec<ArrayRef> =
            tuple.batch().columns().iter().map(|column| column.slice(tuple.row(), 1)).collect();
        Ok(self.0.state(&columns)?)
    }

    fn combine(&self, one: String, other: String) -> Result<String, TaskError> {
        Ok(self.0.merge(&[&one, &other])?)
    }

    fn zero(&self) -> Result<String, TaskError> {
        Ok(self.0.neutral().to_owned())
    }
}
