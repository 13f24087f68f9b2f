//! Several aggregations in one pass.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::take,
    datatypes::SchemaRef,
};
use stratus_topology::TaskError;

use super::{Aggregator, AnyAggregator};

/// Aggregations over the same groups. What comes out for a group is every combination of what they emitted for it,
/// which is one tuple if each emitted one.
#[derive(Clone, Default)]
pub struct ChainedAggregator {
    pub(crate) links: Vec<Link>,
}

/// One aggregation with what it reads and emits.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) input: Vec<String>,
    pub(crate) emitted: SchemaRef,
    make: Arc<dyn Fn() -> Box<dyn AnyAggregator> + Send + Sync>,
}

impl Link {
    pub(crate) fn make(&self) -> Box<dyn AnyAggregator> {
        (self.make)()
    }
}

impl std::fmt::Debug for ChainedAggregator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.links.iter().map(|link| &link.input)).finish()
    }
}

impl ChainedAggregator {
    /// No aggregation yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an aggregation of these fields, which emits those.
    #[must_use]
    pub fn aggregate<A: Aggregator>(mut self, input: &[&str], aggregator: A, emitted: SchemaRef) -> Self {
        let input = input.iter().map(ToString::to_string).collect();
        self.links.push(Link { input, emitted, make: Arc::new(move || Box::new(aggregator.clone())) });
        self
    }
}

/// Every combination of the rows of some batches, in order; the first batch's rows change slowest.
pub(crate) fn combinations(batches: &[RecordBatch]) -> Result<Vec<ArrayRef>, TaskError> {
    let count: usize = batches.iter().map(RecordBatch::num_rows).product();
    let mut columns = Vec::new();
    let mut repeat = count;
    for batch in batches {
        repeat = repeat.checked_div(batch.num_rows()).unwrap_or(0);
        let rows = batch.num_rows();
        let chosen: UInt32Array = (0..count).map(|at| (at / repeat.max(1) % rows.max(1)) as u32).collect();
        for column in batch.columns() {
            columns.push(take(column, &chosen, None)?);
        }
    }
    Ok(columns)
}
