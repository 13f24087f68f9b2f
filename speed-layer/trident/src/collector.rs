//! What operations emit tuples through.

use std::{mem, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::{concat_batches, take},
    datatypes::SchemaRef,
};
use stratus_topology::{Row, RowBuilder, TaskError};

/// Takes the tuples that an operation emits, one by one or as whole columns, in the order in which they come.
#[derive(Debug)]
pub struct TridentCollector {
    schema: SchemaRef,
    /// What was emitted one by one since the last whole columns; made when there is such a tuple, because not every
    /// type of field can be written that way.
    rows: Option<RowBuilder>,
    /// What was emitted before that.
    done: Vec<RecordBatch>,
    /// The input row that each emitted row comes from.
    sources: Vec<u32>,
    pub(crate) source: u32,
}

impl TridentCollector {
    /// A collector of rows with these fields.
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema, rows: None, done: Vec::new(), sources: Vec::new(), source: 0 }
    }

    /// Emits a tuple.
    ///
    /// # Errors
    ///
    /// The tuple does not fit the fields that the operation was declared with, or one of these can be emitted as a
    /// whole column only.
    pub fn emit(&mut self, tuple: impl Row) -> Result<(), TaskError> {
        let rows = match &mut self.rows {
            Some(rows) => rows,
            None => self.rows.insert(RowBuilder::new(Arc::clone(&self.schema), 16)?),
        };
        rows.append(tuple)?;
        self.sources.push(self.source);
        Ok(())
    }

    /// Emits whole columns of the fields that the operation was declared with. Where each tuple is worked on by itself,
    /// all of these rows come from that tuple.
    ///
    /// # Errors
    ///
    /// The columns do not fit the fields.
    pub fn emit_rows(&mut self, columns: Vec<ArrayRef>) -> Result<(), TaskError> {
        let whole = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.close();
        self.sources.resize(self.sources.len() + whole.num_rows(), self.source);
        self.done.push(whole);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// What was emitted, without what it comes from.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, TaskError> {
        self.sources.clear();
        self.close();
        let done = mem::take(&mut self.done);
        match &done[..] {
            [one] => Ok(one.clone()),
            several => Ok(concat_batches(&self.schema, several)?),
        }
    }

    /// What was emitted, each row behind these columns of the row that it comes from.
    pub(crate) fn finish_behind(
        &mut self,
        before: &[ArrayRef],
        schema: &SchemaRef,
    ) -> Result<RecordBatch, TaskError> {
        let sources = UInt32Array::from(mem::take(&mut self.sources));
        let emitted = self.finish()?;
        let mut columns = Vec::with_capacity(before.len() + emitted.num_columns());
        for column in before {
            columns.push(take(column, &sources, None)?);
        }
        columns.extend(emitted.columns().iter().cloned());
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// What was emitted one by one becomes whole.
    fn close(&mut self) {
        if let Some(rows) = self.rows.as_mut().filter(|rows| !rows.is_empty()) {
            self.done.push(rows.finish());
        }
    }
}
