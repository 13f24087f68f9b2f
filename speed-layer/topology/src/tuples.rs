//! Tuples as a bolt sees them: a batch of rows of one stream, or one row of it.

use std::{fmt, sync::Arc};

use arrow::{
    array::{RecordBatch, UInt32Array},
    error::ArrowError,
};
use thiserror::Error;

use crate::{
    cell::{CellError, FromCell},
    declare::{SYSTEM_COMPONENT, TICK_STREAM},
    delivery::Delivery,
    lineage::{Label, TaskId},
    size::take_rows,
    topology::StreamRef,
};

/// Tuples of one stream, each a row. Each is to be acked or failed once, through the collector. A tuple that nobody holds
/// any more, and that was neither acked nor failed, fails at once. Cloning is cheap and shares the tuples.
#[derive(Clone)]
pub struct Tuples {
    /// The claim to them, row by row.
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) rows: RecordBatch,
}

impl Tuples {
    pub(crate) fn new(delivery: Arc<Delivery>, rows: RecordBatch) -> Self {
        Self { delivery, rows }
    }

    /// The rows.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// How many tuples these are.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there is no tuple.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The component that emitted them.
    pub fn source_component(&self) -> &str {
        &self.delivery.stream.component
    }

    /// The stream that they came by.
    pub fn source_stream(&self) -> &str {
        &self.delivery.stream.stream
    }

    /// The mark that they were emitted with.
    pub fn label(&self) -> Option<Label> {
        self.delivery.label
    }

    /// Whether this is a tick of the clock, see [`ComponentConfig::tick`](crate::ComponentConfig::tick).
    pub fn is_tick(&self) -> bool {
        self.source_component() == SYSTEM_COMPONENT && self.source_stream() == TICK_STREAM
    }

    /// One tuple.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn tuple(&self, row: usize) -> Tuple<'_> {
        assert!(row < self.len(), "row {row} of {}", self.len());
        Tuple { tuples: self, row }
    }

    /// The tuples one by one.
    pub fn iter(&self) -> impl Iterator<Item = Tuple<'_>> {
        (0..self.len()).map(|row| Tuple { tuples: self, row })
    }

    /// Some of the tuples, to be acked or failed by themselves. Their rows are copied, so that a few held tuples keep
    /// neither the memory of their batch nor the tuples that were not taken.
    ///
    /// # Errors
    ///
    /// If a row does not exist, or Arrow cannot copy a type.
    pub fn take(&self, rows: &[u32]) -> Result<Self, ArrowError> {
        if let Some(row) = rows.iter().find(|row| **row as usize >= self.len()) {
            return Err(ArrowError::InvalidArgumentError(format!("row {row} of {}", self.len())));
        }
        let taken = take_rows(&self.rows, &UInt32Array::from(rows.to_vec()))?;
        Ok(Self { delivery: Arc::new(self.delivery.part(rows)), rows: taken })
    }

    /// The same tuples with their rows copied into memory of their own. For tuples that are held.
    ///
    /// # Errors
    ///
    /// If Arrow cannot copy a type.
    pub fn compact(self) -> Result<Self, ArrowError> {
        let every = UInt32Array::from_iter_values(0..self.len() as u32);
        let rows = take_rows(&self.rows, &every)?;
        Ok(Self { rows, ..self })
    }
}

impl fmt::Debug for Tuples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tuples of {}", self.len(), self.delivery.stream)
    }
}

/// A value that could not be read from a tuple.
#[derive(Debug, Error)]
#[error("field `{field}` of a tuple of stream `{stream}`: {why}")]
pub struct FieldError {
    /// The tuple's stream.
    pub stream: StreamRef,
    /// The field's name, or its position.
    pub field: String,
    /// What is wrong.
    pub why: WrongField,
}

/// What is wrong with a field.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WrongField {
    /// No field has this name.
    #[error("there is no such field, there are {0}")]
    NoSuchName(String),
    /// The tuple has fewer fields.
    #[error("there are only {0} fields")]
    NoSuchPosition(usize),
    /// The value cannot be read as asked.
    #[error(transparent)]
    Value(#[from] CellError),
}

/// One tuple of a batch.
#[derive(Clone, Copy)]
pub struct Tuple<'a> {
    pub(crate) tuples: &'a Tuples,
    pub(crate) row: usize,
}

impl<'a> Tuple<'a> {
    /// Its row in the batch.
    pub fn row(&self) -> usize {
        self.row
    }

    /// The value of a field, by position. `Option` takes nulls.
    ///
    /// # Errors
    ///
    /// There is no such field, its type is another, or it is null.
    pub fn get<T: FromCell<'a>>(&self, position: usize) -> Result<T, FieldError> {
        let columns = self.tuples.rows.columns();
        let Some(column) = columns.get(position) else {
            return Err(self.wrong(position.to_string(), WrongField::NoSuchPosition(columns.len())));
        };
        T::from_cell(column.as_ref(), self.row).map_err(|error| {
            let name = self.tuples.rows.schema_ref().field(position).name().clone();
            self.wrong(name, error.into())
        })
    }

    /// The value of a field, by name. `Option` takes nulls. Where it counts, find the position once instead.
    ///
    /// # Errors
    ///
    /// There is no such field, its type is another, or it is null.
    pub fn get_by_name<T: FromCell<'a>>(&self, field: &str) -> Result<T, FieldError> {
        let schema = self.tuples.rows.schema_ref();
        match schema.fields().iter().position(|known| known.name() == field) {
            Some(position) => self.get(position),
            None => {
                let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                Err(self.wrong(field.to_owned(), WrongField::NoSuchName(known.join(", "))))
            }
        }
    }

    /// The component that emitted it.
    pub fn source_component(&self) -> &'a str {
        self.tuples.source_component()
    }

    /// The stream that it came by.
    pub fn source_stream(&self) -> &'a str {
        self.tuples.source_stream()
    }

    /// The task that emitted it.
    pub fn source_task(&self) -> TaskId {
        self.tuples.delivery.sender(self.row)
    }

    fn wrong(&self, field: String, why: WrongField) -> FieldError {
        FieldError { stream: (*self.tuples.delivery.stream).clone(), field, why }
    }
}

impl fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} of {:?}", self.row, self.tuples)
    }
}
