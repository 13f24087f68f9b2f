//! Tuples and values as operations see them.

use arrow::{array::RecordBatch, datatypes::DataType};
use serde::{Serialize, de::DeserializeOwned};
use stratus_topology::{FromCell, TaskError, ToCell};

/// One tuple of a stream: a row of a batch.
#[derive(Clone, Copy, Debug)]
pub struct TridentTuple<'a> {
    rows: &'a RecordBatch,
    row: usize,
}

impl<'a> TridentTuple<'a> {
    pub(crate) fn new(rows: &'a RecordBatch, row: usize) -> Self {
        Self { rows, row }
    }

    /// The value of a field, by position. `Option` takes nulls.
    ///
    /// # Errors
    ///
    /// There is no such field, its type is another, or it is null.
    pub fn get<T: FromCell<'a>>(&self, position: usize) -> Result<T, TaskError> {
        let Some(column) = self.rows.columns().get(position) else {
            return Err(format!("there is no field {position}, there are {}", self.rows.num_columns()).into());
        };
        T::from_cell(column.as_ref(), self.row).map_err(|error| {
            format!("field `{}`: {error}", self.rows.schema_ref().field(position).name()).into()
        })
    }

    /// The value of a field, by name. `Option` takes nulls.
    ///
    /// # Errors
    ///
    /// There is no such field, its type is another, or it is null.
    pub fn get_by_name<T: FromCell<'a>>(&self, field: &str) -> Result<T, TaskError> {
        self.get(self.rows.schema_ref().index_of(field)?)
    }

    /// The batch that it is in.
    pub fn batch(&self) -> &'a RecordBatch {
        self.rows
    }

    /// Its row in the batch.
    pub fn row(&self) -> usize {
        self.row
    }
}

/// The tuples of a batch, one by one.
pub(crate) fn tuples(rows: &RecordBatch) -> impl Iterator<Item = TridentTuple<'_>> {
    (0..rows.num_rows()).map(|row| TridentTuple { rows, row })
}

/// A value that aggregations produce and states keep.
pub trait TridentValue:
    ToCell + for<'a> FromCell<'a> + Clone + Send + Sync + Serialize + DeserializeOwned + 'static
{
    /// The type of a field that holds it.
    fn data_type() -> DataType;
}

macro_rules! values {
    ($($value:ty: $kind:ident),*) => {$(
        impl TridentValue for $value {
            fn data_type() -> DataType {
                DataType::$kind
            }
        }

        impl TridentValue for Option<$value> {
            fn data_type() -> DataType {
                DataType::$kind
            }
        }
    )*};
}

values!(i32: Int32, i64: Int64, u64: UInt64, f64: Float64, bool: Boolean, String: Utf8);
