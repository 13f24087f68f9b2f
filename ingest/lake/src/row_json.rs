//! Events as the JSON that they decode from.
//!
//! Whatever the options of the source, a codec makes the very same row of what is written here: moments stand in RFC
//! 3339, which no unit changes; decimals as all their digits and a power of ten; floats in the shortest spelling that
//! is read back as the same number. A NULL field is left out. Nothing takes more room than it must, because the codec
//! refuses records above a length.

use std::fmt::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, ListArray, PrimitiveArray, RecordBatch, StringArray,
    StructArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType,
};
use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use stratus_seam::schema::{Column, ColumnType};

use crate::LakeError;

/// Writes rows of one batch.
pub(crate) struct RowWriter<'a> {
    fields: Vec<Field<'a>>,
}

/// A declared column, and its values.
struct Field<'a> {
    /// The name as a JSON string.
    name: String,
    values: Values<'a>,
}

enum Values<'a> {
    Boolean(&'a BooleanArray),
    SmallInt(&'a PrimitiveArray<Int16Type>),
    Int(&'a PrimitiveArray<Int32Type>),
    BigInt(&'a PrimitiveArray<Int64Type>),
    Real(&'a PrimitiveArray<Float32Type>),
    Double(&'a PrimitiveArray<Float64Type>),
    Numeric(&'a PrimitiveArray<Decimal128Type>, i8),
    Text(&'a StringArray),
    Bytea(&'a BinaryArray),
    Date(&'a PrimitiveArray<Date32Type>),
    /// Whether the type has a zone.
    Timestamp(&'a PrimitiveArray<TimestampMicrosecondType>, bool),
    Struct(&'a StructArray, Vec<Field<'a>>),
    List(&'a ListArray, Box<Self>),
}

fn misfit(what: impl std::fmt::Display) -> LakeError {
    LakeError::Invalid(format!("an event cannot be written as JSON: {what}"))
}

impl<'a> RowWriter<'a> {
    /// A writer of a batch's declared columns.
    pub(crate) fn new(columns: &[Column], batch: &'a RecordBatch) -> Result<Self, LakeError> {
        let field = |column: &Column| {
            let values = batch.column_by_name(&column.name);
            Field::new(column, values.ok_or_else(|| misfit(format!("there is no column {}", column.name)))?)
        };
        Ok(Self { fields: columns.iter().map(field).collect::<Result<_, _>>()? })
    }

    /// One row.
    ///
    /// # Errors
    /// [`LakeError::Invalid`] for a value that JSON cannot say: one that no codec has put there.
    pub(crate) fn row(&self, row: usize) -> Result<String, LakeError> {
        let mut out = String::with_capacity(128);
        object(&self.fields, row, &mut out)?;
        Ok(out)
    }
}

impl<'a> Field<'a> {
    fn new(column: &Column, values: &'a ArrayRef) -> Result<Self, LakeError> {
        let name = serde_json::to_string(&column.name).map_err(misfit)?;
        Ok(Self { name, values: Values::new(&column.kind, values)? })
    }
}

fn primitive<T: ArrowPrimitiveType>(values: &ArrayRef) -> Option<&PrimitiveArray<T>> {
    values.as_primitive_opt::<T>()
}

impl<'a> Values<'a> {
    fn new(kind: &ColumnType, values: &'a ArrayRef) -> Result<Self, LakeError> {
        let found = match kind {
            ColumnType::Boolean => values.as_boolean_opt().map(Self::Boolean),
            ColumnType::SmallInt => primitive(values).map(Self::SmallInt),
            ColumnType::Int => primitive(values).map(Self::Int),
            ColumnType::BigInt => primitive(values).map(Self::BigInt),
            ColumnType::Real => primitive(values).map(Self::Real),
            ColumnType::Double => primitive(values).map(Self::Double),
            ColumnType::Numeric(_, scale) => primitive(values).map(|values| Self::Numeric(values, *scale)),
            ColumnType::Text => values.as_string_opt().map(Self::Text),
            ColumnType::Bytea => values.as_binary_opt().map(Self::Bytea),
            ColumnType::Date => primitive(values).map(Self::Date),
            ColumnType::Timestamp => primitive(values).map(|values| Self::Timestamp(values, false)),
            ColumnType::TimestampTz => primitive(values).map(|values| Self::Timestamp(values, true)),
            ColumnType::Struct(columns) => match values.as_struct_opt() {
                Some(values) if values.num_columns() == columns.len() => {
                    let fields = columns.iter().zip(values.columns());
                    let fields = fields.map(|(column, values)| Field::new(column, values));
                    Some(Self::Struct(values, fields.collect::<Result<_, _>>()?))
                }
                _ => None,
            },
            ColumnType::List(item) => match values.as_list_opt() {
                Some(values) => Some(Self::List(values, Box::new(Self::new(item, values.values())?))),
                None => None,
            },
        };
        found.ok_or_else(|| misfit(format!("a column declared {kind} holds {}", values.data_type())))
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Boolean(values) => values,
            Self::SmallInt(values) => values,
            Self::Int(values) => values,
            Self::BigInt(values) => values,
            Self::Real(values) => values,
            Self::Double(values) => values,
            Self::Numeric(values, _) => values,
            Self::Text(values) => values,
            Self::Bytea(values) => values,
            Self::Date(values) => values,
            Self::Timestamp(values, _) => values,
            Self::Struct(values, _) => values,
            Self::List(values, _) => values,
        }
    }

    /// Writes a value that is not NULL.
    fn write(&self, row: usize, out: &mut String) -> Result<(), LakeError> {
        match self {
            Self::Boolean(values) => write!(out, "{}", values.value(row)),
            Self::SmallInt(values) => write!(out, "{}", values.value(row)),
            Self::Int(values) => write!(out, "{}", values.value(row)),
            Self::BigInt(values) => write!(out, "{}", values.value(row)),
            Self::Real(values) => {
                let value = values.value(row);
                return float(value.is_finite(), &format!("{value}"), &format!("{value:e}"), out);
            }
            Self::Double(values) => {
                let value = values.value(row);
                return float(value.is_finite(), &format!("{value}"), &format!("{value:e}"), out);
            }
            Self::Numeric(values, scale) => return decimal(values.value(row), *scale, out),
            Self::Text(values) => {
                out.push_str(&serde_json::to_string(values.value(row)).map_err(misfit)?);
                return Ok(());
            }
            Self::Bytea(values) => write!(out, "\"{}\"", BASE64.encode(values.value(row))),
            Self::Date(values) => {
                let date =
                    date32_to_datetime(values.value(row)).ok_or_else(|| misfit("a date out of range"))?;
                write!(out, "\"{}\"", date.format("%Y-%m-%d"))
            }
            Self::Timestamp(values, zoned) => {
                let moment = timestamp_us_to_datetime(values.value(row));
                let moment = moment.ok_or_else(|| misfit("a moment out of range"))?;
                let zone = if *zoned { "Z" } else { "" };
                let fraction = if values.value(row) % 1_000_000 == 0 { "" } else { "%.6f" };
                let form = format!("%Y-%m-%dT%H:%M:%S{fraction}");
                write!(out, "\"{}{zone}\"", moment.format(&form))
            }
            Self::Struct(_, fields) => return object(fields, row, out),
            Self::List(values, items) => return list(values, items, row, out),
        }
        .map_err(misfit)
    }
}

fn object(fields: &[Field<'_>], row: usize, out: &mut String) -> Result<(), LakeError> {
    out.push('{');
    let mut first = true;
    for field in fields.iter().filter(|field| field.values.array().is_valid(row)) {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        out.push_str(&field.name);
        out.push(':');
        field.values.write(row, out)?;
    }
    out.push('}');
    Ok(())
}

fn list(values: &ListArray, items: &Values<'_>, row: usize, out: &mut String) -> Result<(), LakeError> {
    let offsets = values.value_offsets();
    let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
    out.push('[');
    for item in from..to {
        if item > from {
            out.push(',');
        }
        match items.array().is_valid(item) {
            true => items.write(item, out)?,
            false => out.push_str("null"),
        }
    }
    out.push(']');
    Ok(())
}

/// The shorter one of two spellings, both of which are read back as the same number.
fn float(is_finite: bool, plain: &str, scientific: &str, out: &mut String) -> Result<(), LakeError> {
    if !is_finite {
        return Err(misfit(format!("{plain} is no JSON number")));
    }
    out.push_str(if plain.len() <= scientific.len() { plain } else { scientific });
    Ok(())
}

fn decimal(value: i128, scale: i8, out: &mut String) -> Result<(), LakeError> {
    let (mut digits, mut power) = (value, -i32::from(scale));
    while digits != 0 && digits % 10 == 0 && power != 0 {
        digits /= 10;
        power += 1;
    }
    match (digits, power) {
        (0, _) | (_, 0) => write!(out, "{digits}"),
        _ => write!(out, "{digits}e{power}"),
    }
    .map_err(misfit)
}
