//! Operations over what several streams have of one batch.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::take,
    datatypes::{Field, Schema, SchemaRef},
    row::{RowConverter, SortField},
};
use stratus_topology::TaskError;

use crate::keys::canonical;

/// Takes what a partition of a batch has of several streams.
pub trait MultiReducer: Clone + Send + Sync + 'static {
    /// What comes of it, with the declared fields. There is one input per stream, also if it has no rows.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn reduce(&mut self, inputs: &[RecordBatch]) -> Result<RecordBatch, TaskError>;
}

/// Which tuples a join keeps that have no partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// None.
    Inner,
    /// Those of the left stream, with nulls for the right one.
    Left,
    /// Those of both streams, with nulls for the other.
    Full,
}

/// A hash join of two streams, by key columns of equal types. Null keys have no partner; a NaN has every other NaN.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) kind: JoinKind,
    pub(crate) left: Vec<usize>,
    pub(crate) right: Vec<usize>,
}

impl Join {
    /// The fields of a join: the key, then the left stream's other fields, then the right one's.
    pub(crate) fn fields(&self, left: &SchemaRef, right: &SchemaRef) -> Vec<Field> {
        let key = self.left.iter().map(|column| left.field(*column).clone().with_nullable(true));
        let others = |schema: &SchemaRef, key: &[usize]| -> Vec<Field> {
            let columns = (0..schema.fields().len()).filter(|column| !key.contains(column));
            columns.map(|column| schema.field(column).clone().with_nullable(true)).collect()
        };
        key.chain(others(left, &self.left)).chain(others(right, &self.right)).collect()
    }
}

impl MultiReducer for Join {
    fn reduce(&mut self, inputs: &[RecordBatch]) -> Result<RecordBatch, TaskError> {
        let [left, right] = inputs else { return Err("a join has two streams".into()) };
        let columns = |rows: &RecordBatch, key: &[usize]| {
            let columns: Vec<ArrayRef> = key.iter().map(|column| Arc::clone(rows.column(*column))).collect();
            canonical(&columns)
        };
        let (left_key, right_key) = (columns(left, &self.left)?, columns(right, &self.right)?);
        let sorts = left_key.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let converter = RowConverter::new(sorts)?;
        let (left_rows, right_rows) =
            (converter.convert_columns(&left_key)?, converter.convert_columns(&right_key)?);
        let is_null = |key: &[ArrayRef], row: usize| key.iter().any(|column| column.is_null(row));
        let mut partners: std::collections::HashMap<_, Vec<u32>> = std::collections::HashMap::new();
        for row in (0..right.num_rows()).filter(|row| !is_null(&right_key, *row)) {
            partners.entry(right_rows.row(row)).or_default().push(row as u32);
        }
        let mut pairs: Vec<(Option<u32>, Option<u32>)> = Vec::new();
        let mut matched = vec![false; right.num_rows()];
        for row in 0..left.num_rows() {
            let found = if is_null(&left_key, row) { None } else { partners.get(&left_rows.row(row)) };
            match found {
                Some(found) => {
                    for partner in found {
                        matched[*partner as usize] = true;
                        pairs.push((Some(row as u32), Some(*partner)));
                    }
                }
                None if self.kind != JoinKind::Inner => pairs.push((Some(row as u32), None)),
                None => {}
            }
        }
        if self.kind == JoinKind::Full {
            let alone = (0..right.num_rows()).filter(|row| !matched[*row]);
            pairs.extend(alone.map(|row| (None, Some(row as u32))));
        }
        let of_left: UInt32Array = pairs.iter().map(|(row, _)| *row).collect();
        let of_right: UInt32Array = pairs.iter().map(|(_, row)| *row).collect();
        let mut joined = Vec::new();
        for (one, other) in left_key.iter().zip(&right_key) {
            // The key is the left one's, or where there is none, the right one's.
            let both = arrow::compute::concat(&[one.as_ref(), other.as_ref()])?;
            let places: UInt32Array = pairs
                .iter()
                .map(|(left_row, right_row)| left_row.or_else(|| right_row.map(|row| row + one.len() as u32)))
                .collect();
            joined.push(take(&both, &places, None)?);
        }
        for (rows, key, places) in [(left, &self.left, &of_left), (right, &self.right, &of_right)] {
            for column in (0..rows.num_columns()).filter(|column| !key.contains(column)) {
                joined.push(take(rows.column(column), places, None)?);
            }
        }
        let schema = Arc::new(Schema::new(self.fields(left.schema_ref(), right.schema_ref())));
        Ok(RecordBatch::try_new(schema, joined)?)
    }
}
