//! Operations that need nothing but the rows in front of them.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};

use super::{BatchState, Processor};
use crate::{
    collector::TridentCollector,
    operation::{BatchFunction, Filter, Function},
    tuple::{TridentTuple, tuples},
};

/// The columns that an operation asked for, as rows of their own.
fn selected(rows: &RecordBatch, columns: &[usize]) -> Result<RecordBatch, TaskError> {
    Ok(rows.project(columns)?)
}

/// `each` with a function: emitted fields behind those of the tuple.
pub(crate) struct EachProcessor<F> {
    pub(crate) function: F,
    pub(crate) input: Vec<usize>,
    pub(crate) emitted: SchemaRef,
    pub(crate) schema: SchemaRef,
}

#[async_trait]
impl<F: Function> Processor for EachProcessor<F> {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.function.prepare(context)
    }

    fn execute(
        &mut self,
        _state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let mut collector = TridentCollector::new(Arc::clone(&self.emitted));
        let input = selected(&rows, &self.input)?;
        for tuple in tuples(&input) {
            collector.source = tuple.row() as u32;
            self.function.execute(tuple, &mut collector)?;
        }
        if collector.len() > 0 {
            out.push(collector.finish_behind(rows.columns(), &self.schema)?);
        }
        Ok(())
    }
}

/// `map` and `flat_map`: emitted tuples in place of the tuple.
pub(crate) struct FlatMapProcessor<F> {
    pub(crate) function: F,
    pub(crate) schema: SchemaRef,
}

#[async_trait]
impl<F: Function> Processor for FlatMapProcessor<F> {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.function.prepare(context)
    }

    fn execute(
        &mut self,
        _state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let mut collector = TridentCollector::new(Arc::clone(&self.schema));
        for tuple in tuples(&rows) {
            self.function.execute(tuple, &mut collector)?;
        }
        if collector.len() > 0 {
            out.push(collector.finish()?);
        }
        Ok(())
    }
}

/// `filter` and `peek`.
pub(crate) struct FilterProcessor<F> {
    pub(crate) filter: F,
    pub(crate) input: Vec<usize>,
}

#[async_trait]
impl<F: Filter> Processor for FilterProcessor<F> {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.filter.prepare(context)
    }

    fn execute(
        &mut self,
        _state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let input = selected(&rows, &self.input)?;
        let kept: Vec<bool> = tuples(&input)
            .map(|tuple: TridentTuple<'_>| self.filter.is_keep(tuple))
            .collect::<Result<_, _>>()?;
        if kept.iter().all(|kept| *kept) {
            out.push(rows);
        } else if kept.contains(&true) {
            out.push(filter_record_batch(&rows, &BooleanArray::from(kept))?);
        }
        Ok(())
    }
}

/// `project`: some of the fields.
pub(crate) struct ProjectProcessor {
    pub(crate) columns: Vec<usize>,
}

impl Processor for ProjectProcessor {
    fn execute(
        &mut self,
        _state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        out.push(selected(&rows, &self.columns)?);
        Ok(())
    }
}

/// `map_rows`: whole fragments at once.
pub(crate) struct RowsProcessor<F> {
    pub(crate) function: F,
    pub(crate) schema: SchemaRef,
}

impl<F: BatchFunction> Processor for RowsProcessor<F> {
    fn execute(
        &mut self,
        _state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let mapped = self.function.execute(&rows)?;
        if mapped.num_rows() > 0 {
            let columns: Vec<ArrayRef> = mapped.columns().to_vec();
            out.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        Ok(())
    }
}
