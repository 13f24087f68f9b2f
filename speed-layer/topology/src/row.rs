//! Writing tuples as the rows of a batch.

mod column;

use std::{fmt, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{DataType, SchemaRef},
};
use thiserror::Error;

use crate::cell::CellError;
pub use column::{ColumnBuilder, ToCell};

/// Why a tuple is not a row of a stream.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowError {
    /// It has fewer or more values than the stream has fields.
    #[error("a tuple of {found} values for {expected} fields")]
    Width {
        /// The stream's fields.
        expected: usize,
        /// The tuple's values.
        found: usize,
    },
    /// A value does not fit its field.
    #[error("field `{field}`: {why}")]
    Value {
        /// The field.
        field: String,
        /// What is wrong.
        why: CellError,
    },
    /// A null for a field that has none.
    #[error("field `{field}` is null, and is declared without nulls")]
    Null {
        /// The field.
        field: String,
    },
    /// Fields of this type can only be emitted as whole batches.
    #[error(
        "field `{field}` of type {data_type} cannot be written value by value: emit record batches instead"
    )]
    Unsupported {
        /// The field.
        field: String,
        /// Its type.
        data_type: DataType,
    },
}

/// A tuple that can be a row of a stream: Rust tuples of one to eight values.
pub trait Row {
    /// How many values it has.
    const WIDTH: usize;

    /// Writes the values to the columns from the first one on. The number of the value that does not fit comes with
    /// the error.
    ///
    /// # Errors
    ///
    /// A value does not fit its column.
    fn write(self, columns: &mut [ColumnBuilder]) -> Result<(), (usize, CellError)>;
}

macro_rules! rows {
    ($($width:literal: $($value:ident $at:tt),*;)*) => {$(
        impl<$($value: ToCell),*> Row for ($($value,)*) {
            const WIDTH: usize = $width;

            fn write(self, columns: &mut [ColumnBuilder]) -> Result<(), (usize, CellError)> {
                $(self.$at.write(&mut columns[$at]).map_err(|error| ($at, error))?;)*
                Ok(())
            }
        }
    )*};
}

rows! {
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
}

/// Collects tuples into a batch of rows.
pub struct RowBuilder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    rows: usize,
}

impl RowBuilder {
    /// An empty builder for rows of this schema, with room for so many at first.
    ///
    /// # Errors
    ///
    /// A field's type can only be emitted as whole batches.
    pub fn new(schema: SchemaRef, capacity: usize) -> Result<Self, RowError> {
        let columns = schema.fields().iter().map(|field| {
            ColumnBuilder::new(field.data_type(), capacity).ok_or_else(|| RowError::Unsupported {
                field: field.name().clone(),
                data_type: field.data_type().clone(),
            })
        });
        Ok(Self { columns: columns.collect::<Result<_, _>>()?, schema, rows: 0 })
    }

    /// Adds a row, or leaves everything as it was.
    ///
    /// # Errors
    ///
    /// The tuple is not a row of the schema.
    pub fn append<R: Row>(&mut self, row: R) -> Result<(), RowError> {
        if R::WIDTH != self.columns.len() {
            return Err(RowError::Width { expected: self.columns.len(), found: R::WIDTH });
        }
        let written = row
            .write(&mut self.columns)
            .map_err(|(at, why)| RowError::Value { field: self.schema.field(at).name().clone(), why });
        let checked = written.and_then(|()| {
            let fields = self.schema.fields().iter().zip(&self.columns);
            let mut nulls = fields.filter(|(field, column)| !field.is_nullable() && column.ends_with_null());
            match nulls.next() {
                Some((field, _)) => Err(RowError::Null { field: field.name().clone() }),
                None => Ok(()),
            }
        });
        match checked {
            Ok(()) => self.rows += 1,
            // Rare enough to pay for it here alone.
            Err(_) => self.columns.iter_mut().for_each(|column| column.truncate(self.rows)),
        }
        checked
    }

    /// How many rows it holds.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// About how many bytes they hold.
    pub(crate) fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.held_bytes(self.rows)).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The schema of its rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows, which leaves the builder empty.
    pub fn finish(&mut self) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        let columns = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .unwrap_or_else(|_| unreachable!("every column was built for its field"))
    }
}

impl fmt::Debug for RowBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowBuilder")
            .field("schema", &self.schema)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use arrow::{array::AsArray, datatypes::Int32Type};

    use super::*;
    use crate::declare::fields;

    #[test]
    fn rows_become_a_batch_and_the_builder_is_empty_again() {
        let schema = fields([("word", DataType::Utf8), ("count", DataType::Int32)]);
        let mut builder = RowBuilder::new(schema, 4).unwrap();
        builder.append(("a", 1_i64)).unwrap();
        builder.append((None::<&str>, 2_u8)).unwrap();
        let batch = builder.finish();
        assert_eq!(batch.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a"), None]);
        assert_eq!(batch.column(1).as_primitive::<Int32Type>().values(), &[1, 2]);
        assert!(builder.is_empty());
        builder.append(("b".to_owned(), 3_i32)).unwrap();
        assert_eq!(builder.finish().num_rows(), 1);
    }

    #[test]
    fn a_row_that_does_not_fit_leaves_no_trace() {
        let schema = fields([("word", DataType::Utf8), ("count", DataType::Int8)]);
        let mut builder = RowBuilder::new(schema, 4).unwrap();
        builder.append(("a", 1_i64)).unwrap();
        let error = builder.append(("b", 300_i64)).unwrap_err();
        assert_eq!(error.to_string(), "field `count`: the number 300 does not fit into Int8");
        assert!(matches!(builder.append((1_i64, 1_i64)), Err(RowError::Value { .. })));
        assert_eq!(builder.append(("c",)), Err(RowError::Width { expected: 2, found: 1 }));
        builder.append(("d", 2_i64)).unwrap();
        let batch = builder.finish();
        assert_eq!(batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "d"]);
    }

    #[test]
    fn a_null_is_refused_where_the_field_has_none() {
        let field = arrow::datatypes::Field::new("word", DataType::Utf8, false);
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![field]));
        let mut builder = RowBuilder::new(schema, 1).unwrap();
        assert_eq!(builder.append((None::<&str>,)), Err(RowError::Null { field: "word".to_owned() }));
        assert_eq!(builder.finish().num_rows(), 0);
    }
}
