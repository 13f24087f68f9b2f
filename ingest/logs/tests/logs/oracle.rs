//! The codec's rules once more, written as plainly as possible over `serde_json`'s own values, to compare with.

use std::fmt;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use stratus_seam::schema::{Column, ColumnType};

/// The columns that the oracle knows how to judge.
pub(crate) fn columns() -> Vec<Column> {
    let mut needed = Column::new("needed", ColumnType::Boolean);
    needed.not_null = true;
    let mut inner = Column::new("b", ColumnType::Text);
    inner.not_null = true;
    vec![
        Column::new("text", ColumnType::Text),
        Column::new("int", ColumnType::Int),
        needed,
        Column::new("big", ColumnType::BigInt),
        Column::new("double", ColumnType::Double),
        Column::new("list", ColumnType::List(Box::new(ColumnType::Text))),
        Column::new("struct", ColumnType::Struct(vec![Column::new("a", ColumnType::Int), inner])),
    ]
}

/// An object's fields as they stand, repeated names and all.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// The row that a payload is, as one JSON value per column; none for a bad record.
pub(crate) fn row(payload: &[u8], columns: &[Column]) -> Option<Vec<Value>> {
    object(std::str::from_utf8(payload).ok()?, columns)
}

fn object(text: &str, columns: &[Column]) -> Option<Vec<Value>> {
    let fields: Fields<'_> = serde_json::from_str(text).ok()?;
    let mut row = Vec::new();
    for column in columns {
        let mut value = Value::Null;
        for (name, raw) in &fields.0 {
            if *name == column.name {
                value = cell(raw.get(), &column.kind)?;
                if column.not_null && value.is_null() {
                    return None;
                }
            }
        }
        if column.not_null && value.is_null() {
            return None;
        }
        row.push(value);
    }
    Some(row)
}

fn cell(text: &str, kind: &ColumnType) -> Option<Value> {
    if text == "null" {
        return Some(Value::Null);
    }
    if let ColumnType::Struct(columns) = kind {
        let row = object(text, columns)?;
        return Some(columns.iter().map(|column| column.name.clone()).zip(row).collect());
    }
    let value: Value = serde_json::from_str(text).ok()?;
    match (kind, &value) {
        (ColumnType::Text, Value::String(_)) | (ColumnType::Boolean, Value::Bool(_)) => Some(value),
        (ColumnType::Int, Value::Number(_)) => {
            integer(text).filter(|n| i32::try_from(*n).is_ok()).map(|n| json!(n))
        }
        (ColumnType::BigInt, Value::Number(_)) => integer(text).map(|n| json!(n)),
        (ColumnType::Double, Value::Number(_)) => Some(json!(text.parse::<f64>().ok()?)),
        (ColumnType::List(item), Value::Array(_)) => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            items.iter().map(|raw| cell(raw.get(), item)).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        _ => None,
    }
}

/// The integer that a number is, however it is spelled: no other digit than zero stands behind the point once the
/// exponent has moved it.
fn integer(text: &str) -> Option<i64> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_end_matches('0');
    if digits.trim_start_matches('-').is_empty() {
        return Some(0);
    }
    let dropped = (all.len() - digits.len()) as i64;
    let power = exponent.parse::<i64>().ok()?.checked_add(dropped - fraction.len() as i64)?;
    let factor = 10_i128.checked_pow(u32::try_from(power).ok()?)?;
    i64::try_from(digits.parse::<i128>().ok()?.checked_mul(factor)?).ok()
}

/// A decoded row in the oracle's form.
pub(crate) fn decoded(batch: &RecordBatch, row: usize, columns: &[Column]) -> Vec<Value> {
    columns
        .iter()
        .map(|column| value(batch.column_by_name(&column.name).unwrap(), row, &column.kind))
        .collect()
}

fn value(array: &dyn Array, row: usize, kind: &ColumnType) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match kind {
        ColumnType::Text => json!(array.as_string::<i32>().value(row)),
        ColumnType::Boolean => json!(array.as_boolean().value(row)),
        ColumnType::Int => json!(array.as_primitive::<Int32Type>().value(row)),
        ColumnType::BigInt => json!(array.as_primitive::<Int64Type>().value(row)),
        ColumnType::Double => json!(array.as_primitive::<Float64Type>().value(row)),
        ColumnType::List(item) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|index| value(&items, index, item)).collect()
        }
        ColumnType::Struct(columns) => columns
            .iter()
            .zip(array.as_struct().columns())
            .map(|(column, array)| (column.name.clone(), value(array, row, &column.kind)))
            .collect(),
        other => panic!("the oracle does not know {other}"),
    }
}
