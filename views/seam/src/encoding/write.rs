//! Rows to text.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::EncodingError;

/// Writes each row of some columns, which all have so many rows. Without a column every row is `[]`.
///
/// # Errors
/// [`EncodingError::Unsupported`] for a type without an encoding.
pub fn encode_rows(columns: &[ArrayRef], rows: usize) -> Result<Vec<String>, EncodingError> {
    debug_assert!(columns.iter().all(|column| column.len() == rows));
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
        DataType::Time64(TimeUnit::Microsecond) => number::<Time64MicrosecondType>(column),
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
        DataType::Decimal128(_, _) => quoted::<Decimal128Type>(column),
        DataType::Decimal256(_, _) => quoted::<Decimal256Type>(column),
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

/// Numbers that JSON readers would round.
fn quoted<T: ArrowPrimitiveType<Native: std::fmt::Display>>(column: &dyn Array) -> Writer<'_> {
    use std::fmt::Write;
    let values = column.as_primitive::<T>();
    // Writing to a string cannot fail.
    Box::new(move |text, row| _ = write!(text, "\"{}\"", values.value(row)))
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
