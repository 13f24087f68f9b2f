//! Keys and states as text: one JSON array per row, typed by the schema that the reader has.
//!
//! `["/", 1700000000000000]` is a key of a TEXT and a TIMESTAMPTZ; `[12]` the state of a count. Integers, dates and
//! timestamps are JSON numbers, decimals their unscaled integer as a string, binary is base64, floats are written
//! so that they read back bit for bit, with `"NaN"`, `"inf"` and `"-inf"` as strings. Two equal rows have equal
//! text, so that the text can be compared, hashed and looked up. NULL is `null`, everywhere.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, ListArray, NullArray,
    PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, FieldRef, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

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
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Timestamp(_, _) => true,
        _ => false,
    }
}

/// Writes each row of some columns of equal length.
///
/// # Errors
/// [`EncodingError::Unsupported`] for a type without an encoding.
pub fn encode_rows(columns: &[ArrayRef]) -> Result<Vec<String>, EncodingError> {
    let rows = columns.first().map_or(0, |column| column.len());
    let writers = columns.iter().map(|column| writer(column)).collect::<Result<Vec<_>, _>>()?;
    Ok((0..rows)
        .map(|row| {
            let mut text = String::with_capacity(16 * writers.len());
            text.push('[');
            for (i, write) in writers.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write(&mut text, row);
            }
            text.push(']');
            text
        })
        .collect())
}

type Writer<'a> = Box<dyn Fn(&mut String, usize) + 'a>;

/// What writes the value of one column at a row, with its type resolved once.
fn writer(column: &dyn Array) -> Result<Writer<'_>, EncodingError> {
    let write: Writer<'_> = match column.data_type() {
        DataType::Null => Box::new(|text, _| text.push_str("null")),
        DataType::Boolean => {
            let values = column.as_boolean();
            Box::new(move |text, row| text.push_str(if values.value(row) { "true" } else { "false" }))
        }
        DataType::Int8 => number::<Int8Type>(column),
        DataType::Int16 => number::<Int16Type>(column),
        DataType::Int32 => number::<Int32Type>(column),
        DataType::Int64 => number::<Int64Type>(column),
        DataType::UInt8 => number::<UInt8Type>(column),
        DataType::UInt16 => number::<UInt16Type>(column),
        DataType::UInt32 => number::<UInt32Type>(column),
        DataType::UInt64 => number::<UInt64Type>(column),
        DataType::Date32 => number::<Date32Type>(column),
        DataType::Timestamp(TimeUnit::Second, _) => number::<TimestampSecondType>(column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => number::<TimestampMillisecondType>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => number::<TimestampMicrosecondType>(column),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => number::<TimestampNanosecondType>(column),
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            Box::new(move |text, row| float(text, f64::from(values.value(row))))
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            Box::new(move |text, row| float(text, values.value(row)))
        }
        DataType::Decimal128(_, _) => {
            let values = column.as_primitive::<Decimal128Type>();
            Box::new(move |text, row| {
                text.push('"');
                text.push_str(&values.value(row).to_string());
                text.push('"');
            })
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            Box::new(move |text, row| string(text, values.value(row)))
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            Box::new(move |text, row| {
                text.push('"');
                BASE64.encode_string(values.value(row), text);
                text.push('"');
            })
        }
        DataType::List(_) => {
            let values = column.as_list::<i32>();
            let write = writer(values.values().as_ref())?;
            Box::new(move |text, row| {
                let offsets = values.value_offsets();
                text.push('[');
                for (i, item) in (offsets[row]..offsets[row + 1]).enumerate() {
                    if i > 0 {
                        text.push(',');
                    }
                    // Offsets of an Arrow list are never negative.
                    write(text, item as usize);
                }
                text.push(']');
            })
        }
        DataType::Struct(_) => {
            let writers = column
                .as_struct()
                .columns()
                .iter()
                .map(|c| writer(c.as_ref()))
                .collect::<Result<Vec<_>, _>>()?;
            Box::new(move |text, row| {
                text.push('[');
                for (i, write) in writers.iter().enumerate() {
                    if i > 0 {
                        text.push(',');
                    }
                    write(text, row);
                }
                text.push(']');
            })
        }
        other => return Err(EncodingError::Unsupported(other.clone())),
    };
    Ok(match column.nulls() {
        None => write,
        Some(nulls) => Box::new(
            move |text, row| {
                if nulls.is_null(row) { text.push_str("null") } else { write(text, row) }
            },
        ),
    })
}

fn number<T: ArrowPrimitiveType<Native: std::fmt::Display>>(column: &dyn Array) -> Writer<'_> {
    use std::fmt::Write;
    let values = column.as_primitive::<T>();
    // Writing to a string cannot fail.
    Box::new(move |text, row| _ = write!(text, "{}", values.value(row)))
}

/// The shortest text that reads back as the same bits.
fn float(text: &mut String, value: f64) {
    use std::fmt::Write;
    if value.is_nan() {
        text.push_str("\"NaN\"");
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "\"inf\"" } else { "\"-inf\"" });
    } else {
        _ = write!(text, "{value:?}");
    }
}

fn string(text: &mut String, value: &str) {
    // A string always has a JSON form.
    text.push_str(&serde_json::to_string(value).unwrap_or_default());
}

/// Reads rows as columns of the given fields.
///
/// # Errors
/// [`EncodingError::Misfit`] if a row is not what the fields say.
pub fn decode_rows<'a>(
    rows: impl IntoIterator<Item = &'a str>,
    fields: &[FieldRef],
) -> Result<Vec<ArrayRef>, EncodingError> {
    let mut columns: Vec<Vec<Value>> = vec![Vec::new(); fields.len()];
    for row in rows {
        let misfit = |what: String| EncodingError::Misfit { row: row.to_owned(), what };
        let values: Vec<Value> = serde_json::from_str(row).map_err(|error| misfit(error.to_string()))?;
        if values.len() != fields.len() {
            return Err(misfit(format!("it has {} values, not {}", values.len(), fields.len())));
        }
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
    }
    let build = |(field, values): (&FieldRef, Vec<Value>)| {
        array(field.data_type(), &values.iter().collect::<Vec<_>>())
    };
    fields.iter().zip(columns).map(build).collect()
}

fn array(kind: &DataType, values: &[&Value]) -> Result<ArrayRef, EncodingError> {
    Ok(match kind {
        DataType::Null => Arc::new(NullArray::new(values.len())),
        DataType::Boolean => Arc::new(
            values.iter().map(|v| read(v, kind, Value::as_bool)).collect::<Result<BooleanArray, _>>()?,
        ),
        DataType::Int8 => integers::<Int8Type>(kind, values)?,
        DataType::Int16 => integers::<Int16Type>(kind, values)?,
        DataType::Int32 => integers::<Int32Type>(kind, values)?,
        DataType::Int64 => integers::<Int64Type>(kind, values)?,
        DataType::UInt8 => integers::<UInt8Type>(kind, values)?,
        DataType::UInt16 => integers::<UInt16Type>(kind, values)?,
        DataType::UInt32 => integers::<UInt32Type>(kind, values)?,
        DataType::UInt64 => integers::<UInt64Type>(kind, values)?,
        DataType::Date32 => integers::<Date32Type>(kind, values)?,
        DataType::Timestamp(TimeUnit::Second, _) => integers::<TimestampSecondType>(kind, values)?,
        DataType::Timestamp(TimeUnit::Millisecond, _) => integers::<TimestampMillisecondType>(kind, values)?,
        DataType::Timestamp(TimeUnit::Microsecond, _) => integers::<TimestampMicrosecondType>(kind, values)?,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => integers::<TimestampNanosecondType>(kind, values)?,
        // What was widened on the way out is narrowed without loss.
        DataType::Float32 => {
            primitives::<Float32Type>(kind, values, |value| read_float(value).map(|value| value as f32))?
        }
        DataType::Float64 => primitives::<Float64Type>(kind, values, read_float)?,
        DataType::Decimal128(precision, scale) => {
            let number = |value: &Value| value.as_str().and_then(|text| text.parse::<i128>().ok());
            let numbers =
                values.iter().map(|v| read(v, kind, number)).collect::<Result<Decimal128Array, _>>()?;
            let typed = numbers.with_precision_and_scale(*precision, *scale);
            Arc::new(typed.map_err(|_| EncodingError::Unsupported(kind.clone()))?)
        }
        DataType::Utf8 => {
            Arc::new(values.iter().map(|v| read(v, kind, Value::as_str)).collect::<Result<StringArray, _>>()?)
        }
        DataType::Binary => {
            let bytes = |value: &Value| value.as_str().and_then(|text| BASE64.decode(text).ok());
            Arc::new(values.iter().map(|v| read(v, kind, bytes)).collect::<Result<BinaryArray, _>>()?)
        }
        DataType::List(item) => {
            let lists =
                values.iter().map(|v| read(v, kind, Value::as_array)).collect::<Result<Vec<_>, _>>()?;
            let items: Vec<&Value> = lists.iter().flatten().flat_map(|list| list.iter()).collect();
            let lengths = lists.iter().map(|list| list.map_or(0, Vec::len));
            let nulls: NullBuffer = lists.iter().map(Option::is_some).collect();
            let offsets = OffsetBuffer::from_lengths(lengths);
            let list =
                ListArray::try_new(Arc::clone(item), offsets, array(item.data_type(), &items)?, Some(nulls));
            Arc::new(list.map_err(|_| EncodingError::Unsupported(kind.clone()))?)
        }
        DataType::Struct(fields) => {
            let rows =
                values.iter().map(|v| read(v, kind, Value::as_array)).collect::<Result<Vec<_>, _>>()?;
            let nulls: NullBuffer = rows.iter().map(Option::is_some).collect();
            let column = |index: usize| -> Vec<&Value> {
                rows.iter().map(|row| row.and_then(|row| row.get(index)).unwrap_or(&Value::Null)).collect()
            };
            let columns = fields
                .iter()
                .enumerate()
                .map(|(index, field)| array(field.data_type(), &column(index)))
                .collect::<Result<Vec<_>, _>>()?;
            let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
            let rows = StructArray::try_new_with_length(fields.clone(), columns, nulls, values.len());
            Arc::new(rows.map_err(|_| EncodingError::Unsupported(kind.clone()))?)
        }
        other => return Err(EncodingError::Unsupported(other.clone())),
    })
}

/// A value of a kind, none for NULL.
fn read<'a, T>(
    value: &'a Value,
    kind: &DataType,
    of: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, EncodingError> {
    if value.is_null() {
        return Ok(None);
    }
    let misfit = || EncodingError::Misfit { row: value.to_string(), what: format!("it is no {kind}") };
    of(value).map(Some).ok_or_else(misfit)
}

fn primitives<T: ArrowPrimitiveType>(
    kind: &DataType,
    values: &[&Value],
    of: impl Fn(&Value) -> Option<T::Native>,
) -> Result<ArrayRef, EncodingError> {
    let numbers = values.iter().map(|v| read(v, kind, &of)).collect::<Result<PrimitiveArray<T>, _>>()?;
    Ok(Arc::new(numbers.with_data_type(kind.clone())))
}

fn integers<T>(kind: &DataType, values: &[&Value]) -> Result<ArrayRef, EncodingError>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i64> + TryFrom<u64>,
{
    primitives::<T>(kind, values, |value| {
        let signed = value.as_i64().and_then(|number| T::Native::try_from(number).ok());
        signed.or_else(|| value.as_u64().and_then(|number| T::Native::try_from(number).ok()))
    })
}

fn read_float(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, TimestampMicrosecondArray, UInt64Array};
    use arrow::datatypes::Field;
    use proptest::prelude::*;

    use super::*;

    fn round_trip(columns: Vec<ArrayRef>) -> Vec<String> {
        let fields: Vec<FieldRef> = columns
            .iter()
            .map(|c| Arc::new(Field::new("c", c.data_type().clone(), true)) as FieldRef)
            .collect();
        let rows = encode_rows(&columns).unwrap();
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
            let rows = encode_rows(&[Arc::clone(&column)]).unwrap();
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
