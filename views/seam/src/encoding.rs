//! Keys and states as text: one JSON array per row, typed by the schema that the reader has.
//!
//! `["/", 1700000000000000]` is a key of a TEXT and a TIMESTAMPTZ; `[12]` the state of a count. Integers, dates and
//! timestamps are JSON numbers, decimals their unscaled integer as a string, binary is base64, floats are written
//! so that they read back bit for bit, with `"NaN"`, `"inf"` and `"-inf"` as strings. Two equal rows have equal
//! text, so that the text can be compared, hashed and looked up. NULL is `null`, everywhere.

mod read;
mod write;

use arrow::datatypes::{DataType, TimeUnit};

pub use read::decode_rows;
pub use write::encode_rows;

/// Why rows could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// No encoding is defined for a type.
    #[error("values of type {0} cannot be kept as a key or state")]
    Unsupported(DataType),
    /// A stored text is not what its schema says: the store was written by another version, or damaged.
    #[error("stored row {row} does not fit its types: {what}")]
    Misfit {
        /// The row's text.
        row: String,
        /// What does not fit.
        what: String,
    },
}

/// Whether values of a type can be written.
pub fn supports(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) => supports(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| supports(field.data_type())),
        DataType::Null
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(_, _)
        | DataType::Decimal256(_, _)
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Time64(TimeUnit::Microsecond)
        | DataType::Timestamp(_, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Decimal256Array, Float64Array,
        Int64Array, ListArray, StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
        UInt64Array,
    };
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::{Field, FieldRef, Float64Type, i256};
    use proptest::prelude::*;

    use super::*;

    fn round_trip(columns: Vec<ArrayRef>) -> Vec<String> {
        let fields: Vec<FieldRef> = columns
            .iter()
            .map(|c| Arc::new(Field::new("c", c.data_type().clone(), true)) as FieldRef)
            .collect();
        let rows = encode_rows(&columns, columns[0].len()).unwrap();
        let read = decode_rows(rows.iter().map(String::as_str), &fields).unwrap();
        assert_eq!(read, columns);
        rows
    }

    #[test]
    fn rows_are_readable_text() {
        let at =
            TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_000), None]).with_timezone("UTC");
        let rows = round_trip(vec![Arc::new(StringArray::from(vec![Some("/\"ü"), None])), Arc::new(at)]);
        assert_eq!(rows, ["[\"/\\\"ü\",1700000000000000]", "[null,null]"]);
    }

    #[test]
    fn every_kind_of_state_reads_back() {
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>(vec![
            Some(vec![Some(0.1), None, Some(-0.0)]),
            None,
            Some(vec![]),
        ]);
        let decimals = Decimal128Array::from(vec![Some(i128::MAX / 10), Some(-1), None]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(0), None])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
            Arc::new(BinaryArray::from(vec![Some(&[0u8, 255, 10][..]), Some(&[]), None])),
            Arc::new(decimals.with_precision_and_scale(38, 4).unwrap()),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            Arc::new(Time64MicrosecondArray::from(vec![Some(0), Some(86_399_999_999), None])),
            Arc::new(
                Decimal256Array::from(vec![Some(i256::MIN), Some(i256::MAX), None])
                    .with_precision_and_scale(76, 2)
                    .unwrap(),
            ),
            Arc::new(list),
        ];
        let fields: Vec<FieldRef> =
            ["a", "b"].map(|n| Arc::new(Field::new(n, DataType::Int64, true)) as _).to_vec();
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let nulls = NullBuffer::from(vec![true, true, false]);
        let masked: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, None]));
        let rows = StructArray::try_new(fields.into(), vec![masked.clone(), masked], Some(nulls)).unwrap();
        round_trip([columns, vec![ints, Arc::new(rows)]].concat());
    }

    #[test]
    fn rows_without_columns_are_rows() {
        assert_eq!(encode_rows(&[], 3).unwrap(), ["[]", "[]", "[]"]);
        assert!(decode_rows(["[]", "[]"], &[]).unwrap().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let fields = [Arc::new(Field::new("c", DataType::Int32, true)) as FieldRef];
        for row in ["[1,2]", "[\"1\"]", "[3000000000]", "[1.5]", "[", "{}"] {
            assert!(decode_rows([row], &fields).is_err(), "{row}");
        }
    }

    proptest! {
        #[test]
        fn floats_read_back_bit_for_bit(values in prop::collection::vec(any::<f64>(), 1..20)) {
            let bits = |column: &ArrayRef| -> Vec<u64> {
                let of = |v: &f64| if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
                column.as_primitive::<Float64Type>().values().iter().map(of).collect()
            };
            let column: ArrayRef = Arc::new(Float64Array::from(values));
            let rows = encode_rows(&[Arc::clone(&column)], column.len()).unwrap();
            let fields = [Arc::new(Field::new("c", DataType::Float64, true)) as FieldRef];
            let read = decode_rows(rows.iter().map(String::as_str), &fields).unwrap();
            prop_assert_eq!(bits(&read[0]), bits(&column));
        }

        #[test]
        fn strings_read_back(values in prop::collection::vec(any::<Option<String>>(), 1..20)) {
            round_trip(vec![Arc::new(StringArray::from(values))]);
        }
    }
}
