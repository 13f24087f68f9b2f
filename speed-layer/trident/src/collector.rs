//! What operations emit tuples through.

use std::{mem, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::take,
    datatypes::SchemaRef,
};
use stratus_topology::{Row, RowBuilder, RowError, TaskError};

/// Takes the tuples that an operation emits.
#[derive(Debug)]
pub struct TridentCollector {
    rows: RowBuilder,
    /// The input row that each comes from.
    sources: Vec<u32>,
    pub(crate) source: u32,
    /// What was emitted as whole columns.
    whole: Option<RecordBatch>,
}

impl TridentCollector {
    /// A collector of rows with these fields.
    ///
    /// # Errors
    ///
    /// A field's type cannot be written value by value.
    pub(crate) fn new(schema: SchemaRef) -> Result<Self, RowError> {
        Ok(Self { rows: RowBuilder::new(schema, 256)?, sources: Vec::new(), source: 0, whole: None })
    }

    /// Emits a tuple.
    ///
    /// # Errors
    ///
    /// The tuple does not fit the fields that the operation was declared with.
    pub fn emit(&mut self, tuple: impl Row) -> Result<(), TaskError> {
        self.rows.append(tuple)?;
        self.sources.push(self.source);
        Ok(())
    }

    /// Emits whole columns of the fields that the operation was declared with.
    ///
    /// # Errors
    ///
    /// The columns do not fit the fields, or tuples were emitted one by one before.
    pub fn emit_rows(&mut self, columns: Vec<ArrayRef>) -> Result<(), TaskError> {
        if !self.rows.is_empty() || self.whole.is_some() {
            return Err("rows are emitted as a whole once, or tuple by tuple".into());
        }
        self.whole = Some(RecordBatch::try_new(Arc::clone(self.rows.schema()), columns)?);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.whole.as_ref().map_or(self.rows.len(), RecordBatch::num_rows)
    }

    /// What was emitted, without what it comes from.
    pub(crate) fn finish(&mut self) -> RecordBatch {
        self.sources.clear();
        self.whole.take().unwrap_or_else(|| self.rows.finish())
    }

    /// What was emitted, each row behind these columns of the row that it comes from.
    pub(crate) fn finish_behind(
        &mut self,
        before: &[ArrayRef],
        schema: &SchemaRef,
    ) -> Result<RecordBatch, TaskError> {
        let sources = UInt32Array::from(mem::take(&mut self.sources));
        let emitted = self.rows.finish();
        let mut columns = Vec::with_capacity(before.len() + emitted.num_columns());
        for column in before {
            columns.push(take(column, &sources, None)?);
        }
        columns.extend(emitted.columns().iter().cloned());
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}
