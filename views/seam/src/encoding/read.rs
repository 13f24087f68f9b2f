//! Rows from text.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, ListArray, NullArray, PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, FieldRef, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type, i256,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::EncodingError;

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
        DataType::Time64(TimeUnit::Microsecond) => integers::<Time64MicrosecondType>(kind, values)?,
        DataType::Timestamp(TimeUnit::Second, _) => integers::<TimestampSecondType>(kind, values)?,
        DataType::Timestamp(TimeUnit::Millisecond, _) => integers::<TimestampMillisecondType>(kind, values)?,
        DataType::Timestamp(TimeUnit::Microsecond, _) => integers::<TimestampMicrosecondType>(kind, values)?,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => integers::<TimestampNanosecondType>(kind, values)?,
        // What was widened on the way out is narrowed without loss.
        DataType::Float32 => {
            primitives::<Float32Type>(kind, values, |value| read_float(value).map(|value| value as f32))?
        }
        DataType::Float64 => primitives::<Float64Type>(kind, values, read_float)?,
        DataType::Decimal128(_, _) => primitives::<Decimal128Type>(kind, values, read_quoted)?,
        DataType::Decimal256(_, _) => {
            primitives::<Decimal256Type>(kind, values, |value| value.as_str().and_then(i256::from_string))?
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

fn read_quoted<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str().and_then(|text| text.parse().ok())
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
