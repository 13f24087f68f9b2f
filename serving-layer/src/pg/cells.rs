//! The values of one column of a batch, written one by one in PostgreSQL's text or binary form.

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, ListArray, PrimitiveArray, StringArray, StructArray,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Field, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use pgwire::api::Type;
use stratus_sql::SqlError;

use super::binary;
use super::errors::error;
use super::text;
use super::types::{column_type, value_type, wire_form};

/// A column of a batch, made ready to be written value by value.
#[derive(Debug)]
pub(crate) struct Cells {
    values: Values,
    /// The type on the wire, which a value inside a record carries with it.
    oid: u32,
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanArray),
    Int16(PrimitiveArray<Int16Type>),
    Int32(PrimitiveArray<Int32Type>),
    Int64(PrimitiveArray<Int64Type>),
    Float32(PrimitiveArray<Float32Type>),
    Float64(PrimitiveArray<Float64Type>),
    Decimal128(PrimitiveArray<Decimal128Type>, i8),
    Decimal256(PrimitiveArray<Decimal256Type>, i8),
    Text(StringArray),
    Char(StringArray),
    Bytes(BinaryArray),
    Date(PrimitiveArray<Date32Type>),
    Time(PrimitiveArray<Time64MicrosecondType>),
    Timestamp(PrimitiveArray<TimestampMicrosecondType>, bool),
    Interval(PrimitiveArray<IntervalMonthDayNanoType>),
    List(ListArray, Box<Cells>),
    Record(StructArray, Vec<Cells>),
}

/// A cast that would change a value is an error, not a NULL.
const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: FormatOptions::new().with_display_error(true) };

impl Cells {
    /// The values of a column.
    ///
    /// # Errors
    /// 22003 if a value has no place in the type that stands for its own on the wire.
    pub(crate) fn new(field: &Field, array: &ArrayRef) -> Result<Self, SqlError> {
        let kind = column_type(field);
        let oid = kind.oid();
        let Some(form) = wire_form(array.data_type()) else {
            return Ok(Self { values: Values::Text(displayed(array)?), oid });
        };
        let array = if *array.data_type() == form {
            array.clone()
        } else {
            cast_with_options(array, &form, &STRICT).map_err(|e| error("22003", e.to_string()))?
        };
        let mut cells = Self::of_wire_form(&array)?;
        if kind == Type::CHAR
            && let Values::Text(text) = cells.values
        {
            cells.values = Values::Char(text);
        }
        cells.oid = oid;
        Ok(cells)
    }

    fn of_wire_form(array: &ArrayRef) -> Result<Self, SqlError> {
        let values = match array.data_type() {
            DataType::Boolean => Values::Boolean(array.as_boolean().clone()),
            DataType::Int16 => Values::Int16(array.as_primitive().clone()),
            DataType::Int32 => Values::Int32(array.as_primitive().clone()),
            DataType::Int64 => Values::Int64(array.as_primitive().clone()),
            DataType::Float32 => Values::Float32(array.as_primitive().clone()),
            DataType::Float64 => Values::Float64(array.as_primitive().clone()),
            DataType::Decimal128(_, scale) => Values::Decimal128(array.as_primitive().clone(), *scale),
            DataType::Decimal256(_, scale) => Values::Decimal256(array.as_primitive().clone(), *scale),
            DataType::Utf8 => Values::Text(array.as_string::<i32>().clone()),
            DataType::Binary => Values::Bytes(array.as_binary::<i32>().clone()),
            DataType::Date32 => Values::Date(array.as_primitive().clone()),
            DataType::Time64(_) => Values::Time(array.as_primitive().clone()),
            DataType::Timestamp(_, zone) => Values::Timestamp(array.as_primitive().clone(), zone.is_some()),
            DataType::Interval(_) => Values::Interval(array.as_primitive().clone()),
            DataType::List(_) => {
                let list = array.as_list::<i32>().clone();
                let items = Self::of_wire_form(list.values())?;
                Values::List(list, Box::new(items))
            }
            DataType::Struct(_) => {
                let record = array.as_struct().clone();
                let fields = record.columns().iter().map(Self::of_wire_form).collect::<Result<_, _>>()?;
                Values::Record(record, fields)
            }
            other => {
                return Err(error("XX000", format!("a column of type {other} cannot be sent")));
            }
        };
        Ok(Self { values, oid: value_type(array.data_type()).oid() })
    }

    /// Whether the value of a row is NULL.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        match &self.values {
            Values::Boolean(array) => array.is_null(row),
            Values::Int16(array) => array.is_null(row),
            Values::Int32(array) => array.is_null(row),
            Values::Int64(array) => array.is_null(row),
            Values::Float32(array) => array.is_null(row),
            Values::Float64(array) => array.is_null(row),
            Values::Decimal128(array, _) => array.is_null(row),
            Values::Decimal256(array, _) => array.is_null(row),
            Values::Text(array) | Values::Char(array) => array.is_null(row),
            Values::Bytes(array) => array.is_null(row),
            Values::Date(array) => array.is_null(row),
            Values::Time(array) => array.is_null(row),
            Values::Timestamp(array, _) => array.is_null(row),
            Values::Interval(array) => array.is_null(row),
            Values::List(array, _) => array.is_null(row),
            Values::Record(array, _) => array.is_null(row),
        }
    }

    /// Writes the value of a row that is not NULL as text.
    pub(crate) fn write_text(&self, row: usize, out: &mut Vec<u8>) {
        match &self.values {
            Values::Boolean(array) => out.push(if array.value(row) { b't' } else { b'f' }),
            Values::Int16(array) => integer(out, i64::from(array.value(row))),
            // An object id is unsigned.
            Values::Int32(array) if self.oid != Type::INT4.oid() => {
                integer(out, i64::from(array.value(row).cast_unsigned()));
            }
            Values::Int32(array) => integer(out, i64::from(array.value(row))),
            Values::Int64(array) => integer(out, array.value(row)),
            Values::Float32(array) => text::float32(out, array.value(row)),
            Values::Float64(array) => text::float64(out, array.value(row)),
            Values::Decimal128(array, scale) => text::numeric(out, &array.value(row).to_string(), *scale),
            Values::Decimal256(array, scale) => text::numeric(out, &array.value(row).to_string(), *scale),
            Values::Text(array) | Values::Char(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::Bytes(array) => text::bytea(out, array.value(row)),
            Values::Date(array) => text::date(out, array.value(row)),
            Values::Time(array) => text::time(out, array.value(row)),
            Values::Timestamp(array, zone) => text::timestamp(out, array.value(row), *zone),
            Values::Interval(array) => {
                let value = array.value(row);
                text::interval(out, value.months, value.days, value.nanoseconds / 1_000);
            }
            Values::List(list, items) => {
                out.push(b'{');
                let mut element = Vec::new();
                for (i, item) in item_rows(list, row).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    if items.is_null(item) {
                        out.extend_from_slice(b"NULL");
                    } else if matches!(items.values, Values::List(..)) {
                        items.write_text(item, out);
                    } else {
                        element.clear();
                        items.write_text(item, &mut element);
                        text::array_element(out, &element);
                    }
                }
                out.push(b'}');
            }
            Values::Record(_, fields) => {
                out.push(b'(');
                let mut value = Vec::new();
                for (i, field) in fields.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    if !field.is_null(row) {
                        value.clear();
                        field.write_text(row, &mut value);
                        text::record_field(out, &value);
                    }
                }
                out.push(b')');
            }
        }
    }

    /// Writes the value of a row that is not NULL in binary.
    ///
    /// # Errors
    /// 22008 for a date that the binary form has no room for, 2202E for a list of lists that is no rectangle.
    pub(crate) fn write_binary(&self, row: usize, out: &mut Vec<u8>) -> Result<(), SqlError> {
        match &self.values {
            Values::Boolean(array) => out.push(u8::from(array.value(row))),
            Values::Int16(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Values::Int32(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Values::Int64(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Values::Float32(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Values::Float64(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Values::Decimal128(array, scale) => binary::numeric(out, &array.value(row).to_string(), *scale),
            Values::Decimal256(array, scale) => binary::numeric(out, &array.value(row).to_string(), *scale),
            Values::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::Char(array) => out.push(array.value(row).bytes().next().unwrap_or(0)),
            Values::Bytes(array) => out.extend_from_slice(array.value(row)),
            Values::Date(array) => binary::date(out, array.value(row))?,
            Values::Time(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Values::Timestamp(array, _) => binary::timestamp(out, array.value(row))?,
            Values::Interval(array) => {
                let value = array.value(row);
                binary::interval(out, value.months, value.days, value.nanoseconds / 1_000);
            }
            Values::List(list, items) => self.write_array(list, items, row, out)?,
            Values::Record(_, fields) => {
                out.extend_from_slice(&length(fields.len())?.to_be_bytes());
                for field in fields {
                    out.extend_from_slice(&field.oid.to_be_bytes());
                    field.write_sized(row, out, true)?;
                }
            }
        }
        Ok(())
    }

    /// Writes a value with its length before it, or the mark of NULL.
    ///
    /// # Errors
    /// As [`write_binary`](Self::write_binary); 54000 for a value of more than two gigabytes.
    pub(crate) fn write_sized(&self, row: usize, out: &mut Vec<u8>, binary: bool) -> Result<(), SqlError> {
        if self.is_null(row) {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return Ok(());
        }
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        if binary {
            self.write_binary(row, out)?;
        } else {
            self.write_text(row, out);
        }
        let size = length(out.len() - start - 4)?.to_be_bytes();
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&size);
        }
        Ok(())
    }

    fn write_array(
        &self,
        list: &ListArray,
        items: &Self,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), SqlError> {
        // Go down one dimension at a time: all rows of a level must be lists of one length.
        let mut dimensions = Vec::new();
        let mut rows = vec![row];
        let mut lists = Some(list);
        let mut cells = self;
        let mut below = items;
        while let Some(level) = lists {
            if rows.iter().any(|row| cells.is_null(*row)) {
                return Err(ragged());
            }
            let lengths: Vec<usize> = rows.iter().map(|row| item_rows(level, *row).len()).collect();
            let first = lengths.first().copied().unwrap_or(0);
            if lengths.iter().any(|length| *length != first) {
                return Err(ragged());
            }
            dimensions.push(first);
            rows = rows.iter().flat_map(|row| item_rows(level, *row)).collect();
            cells = below;
            lists = match &below.values {
                Values::List(next, next_items) => {
                    below = next_items;
                    Some(next)
                }
                _ => None,
            };
        }
        if rows.is_empty() {
            dimensions.clear();
        }
        out.extend_from_slice(&length(dimensions.len())?.to_be_bytes());
        out.extend_from_slice(&i32::from(rows.iter().any(|row| cells.is_null(*row))).to_be_bytes());
        out.extend_from_slice(&cells.oid.to_be_bytes());
        for dimension in dimensions {
            out.extend_from_slice(&length(dimension)?.to_be_bytes());
            out.extend_from_slice(&1_i32.to_be_bytes());
        }
        rows.into_iter().try_for_each(|row| cells.write_sized(row, out, true))
    }
}

fn ragged() -> SqlError {
    let mut ragged = error("2202E", "multidimensional arrays must have sub-arrays with matching dimensions");
    ragged.hint = Some("ask for this column in text format, or unnest it".to_owned());
    ragged
}

/// A length as the wire counts it.
///
/// # Errors
/// 54000 beyond two gigabytes.
pub(crate) fn length(length: usize) -> Result<i32, SqlError> {
    i32::try_from(length).map_err(|_| error("54000", "a value of the answer is larger than two gigabytes"))
}

/// The rows of a list's items that belong to one row of the list.
fn item_rows(list: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offset = |at: usize| list.value_offsets().get(at).and_then(|o| usize::try_from(*o).ok()).unwrap_or(0);
    offset(row)..offset(row + 1)
}

fn integer(out: &mut Vec<u8>, value: i64) {
    use std::io::Write;
    let _ = write!(out, "{value}");
}

fn displayed(array: &ArrayRef) -> Result<StringArray, SqlError> {
    let options = FormatOptions::new().with_display_error(true);
    let formatter = ArrayFormatter::try_new(array, &options).map_err(|e| error("XX000", e.to_string()))?;
    Ok((0..array.len()).map(|row| (!array.is_null(row)).then(|| formatter.value(row).to_string())).collect())
}
