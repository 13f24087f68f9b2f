//! Keys: what makes tuples belong together.
//!
//! Equal keys are those that fields grouping sends to one task: a NaN is a NaN whatever its bits, and `-0.0` is `0.0`.
//! Everything that looks keys up, as groups, joins and states do, looks at their canonical values, so that tuples which
//! meet on a task also meet there.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray, StructArray},
    datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type},
    error::ArrowError,
};
use stratus_seam::encoding::{EncodingError, encode_rows, supports};
use stratus_topology::TaskError;

/// A float of 16 bits.
type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// Whether values of a type can be keys in a state.
pub(crate) fn can_be_key(kind: &DataType) -> Result<(), EncodingError> {
    if supports(kind) { Ok(()) } else { Err(EncodingError::Unsupported(kind.clone())) }
}

/// Each row's key in a state: a JSON array of these columns' values, an empty one of none.
pub(crate) fn state_keys(columns: &[ArrayRef], rows: usize) -> Result<Vec<String>, TaskError> {
    Ok(encode_rows(&canonical(columns)?, rows)?)
}

/// Columns with one form for values that are equal as keys.
pub(crate) fn canonical(columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ArrowError> {
    columns.iter().map(canonical_column).collect()
}

fn canonical_column(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match column.data_type() {
        DataType::Float64 => {
            floats::<Float64Type>(column, |value| if value.is_nan() { f64::NAN } else { value + 0.0 })
        }
        DataType::Float32 => {
            floats::<Float32Type>(column, |value| if value.is_nan() { f32::NAN } else { value + 0.0 })
        }
        DataType::Float16 => {
            floats::<Float16Type>(column, |value| if value.is_nan() { Half::NAN } else { value + Half::ZERO })
        }
        DataType::List(item) => {
            let list = column.as_list::<i32>();
            let items = canonical_column(list.values())?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, items, nulls)?)
        }
        DataType::Struct(fields) => {
            let rows = column.as_struct();
            let (columns, nulls) = (canonical(rows.columns())?, rows.nulls().cloned());
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, rows.len())?)
        }
        _ => Arc::clone(column),
    })
}

fn floats<T: ArrowPrimitiveType>(column: &ArrayRef, canonical: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    let floats: &PrimitiveArray<T> = column.as_primitive();
    Arc::new(floats.unary::<_, T>(canonical))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Float64Array, Int64Array};

    use super::*;

    /// Another NaN than the usual one.
    const OTHER_NAN: f64 = f64::from_bits(0xFFF8_0000_0000_0001);

    #[test]
    fn keys_that_are_hashed_as_equal_are_written_as_equal() {
        let floats: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(OTHER_NAN), Some(0.0), Some(-0.0), None]));
        let keys = state_keys(&[Arc::clone(&floats)], 5).unwrap();
        assert_eq!(keys, ["[\"NaN\"]", "[\"NaN\"]", "[0.0]", "[0.0]", "[null]"]);
        let bits: Vec<Option<u64>> = canonical(&[floats]).unwrap()[0]
            .as_primitive::<Float64Type>()
            .iter()
            .map(|value| value.map(f64::to_bits))
            .collect();
        assert_eq!((bits[0], bits[2]), (bits[1], bits[3]));
        let narrow: ArrayRef = Arc::new(Float32Array::from(vec![0.0, -0.0]));
        assert_eq!(state_keys(&[narrow], 2).unwrap(), ["[0.0]", "[0.0]"]);
        let lists = ListArray::from_iter_primitive::<Float64Type, _, _>([
            Some(vec![Some(-0.0), None]),
            Some(vec![Some(OTHER_NAN)]),
            None,
        ]);
        let keys = state_keys(&[Arc::new(lists)], 3).unwrap();
        assert_eq!(keys, ["[[0.0,null]]", "[[\"NaN\"]]", "[null]"]);
    }

    #[test]
    fn what_has_no_key_fields_has_one_key() {
        assert_eq!(state_keys(&[], 2).unwrap(), ["[]", "[]"]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert_eq!(state_keys(&[numbers], 1).unwrap(), ["[1]"]);
    }
}
