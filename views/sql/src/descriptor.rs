//! The layout of a view's states: flat columns with exact Arrow types, which outlive the process that wrote them.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::Result;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::canonical::conform;

/// The version of the layout. It changes when the meaning of a state column does without its type changing.
pub const STATE_FORMAT: u32 = 1;

/// One column of states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateColumn {
    /// `g0..` for keys, `a0_s0..` for the states of aggregates.
    pub name: String,
    /// The Arrow type, exactly.
    #[serde(rename = "type", serialize_with = "write_type", deserialize_with = "read_type")]
    pub data_type: DataType,
}

/// The columns of a view's states. Every column may be NULL. A batch version, a shard and a micro-batch of one view
/// all have this layout, whatever encoding their store prefers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// The version of the layout.
    pub format: u32,
    /// Keys first. A view without GROUP BY has one constant key.
    pub keys: Vec<StateColumn>,
    /// The states of all aggregates, in order.
    pub states: Vec<StateColumn>,
}

impl Descriptor {
    /// The Arrow schema of the states.
    pub fn state_schema(&self) -> SchemaRef {
        let columns = self.keys.iter().chain(&self.states);
        Arc::new(Schema::new(
            columns
                .map(|column| Field::new(&column.name, column.data_type.clone(), true))
                .collect::<Vec<_>>(),
        ))
    }

    /// States as they came from a file or a store, in exactly these columns and types.
    pub fn conform(&self, states: &RecordBatch) -> Result<RecordBatch> {
        conform(states, &self.state_schema())
    }
}

fn write_type<S: Serializer>(data_type: &DataType, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match text(data_type) {
        Some(text) => serializer.serialize_str(&text),
        None => Err(serde::ser::Error::custom(format!("a state cannot be {data_type}"))),
    }
}

fn read_type<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<DataType, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("unknown state type \"{text}\"")))
}

const SIMPLE: [(&str, DataType); 16] = [
    ("boolean", DataType::Boolean),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("utf8", DataType::Utf8),
    ("binary", DataType::Binary),
    ("date32", DataType::Date32),
    ("time64_us", DataType::Time64(TimeUnit::Microsecond)),
    ("timestamp_us", DataType::Timestamp(TimeUnit::Microsecond, None)),
];

/// A type's name in a descriptor; `None` for types that no state has.
pub(crate) fn text(data_type: &DataType) -> Option<String> {
    if let Some((name, _)) = SIMPLE.iter().find(|(_, simple)| simple == data_type) {
        return Some((*name).to_owned());
    }
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => Some(format!("timestamp_us({zone})")),
        DataType::Decimal128(precision, scale) => Some(format!("decimal128({precision},{scale})")),
        DataType::Decimal256(precision, scale) => Some(format!("decimal256({precision},{scale})")),
        DataType::List(item) => {
            let null = if item.is_nullable() { "" } else { "!" };
            Some(format!("list({}{null} {})", item.name(), text(item.data_type())?))
        }
        _ => None,
    }
}

fn parse(text: &str) -> Option<DataType> {
    if let Some((_, simple)) = SIMPLE.iter().find(|(name, _)| *name == text) {
        return Some(simple.clone());
    }
    let (name, rest) = text.split_once('(')?;
    let inner = rest.strip_suffix(')')?;
    match name {
        "timestamp_us" => Some(DataType::Timestamp(TimeUnit::Microsecond, Some(inner.into()))),
        "decimal128" | "decimal256" => {
            let (precision, scale) = inner.split_once(',')?;
            let (precision, scale) = (precision.parse().ok()?, scale.parse().ok()?);
            Some(if name == "decimal128" {
                DataType::Decimal128(precision, scale)
            } else {
                DataType::Decimal256(precision, scale)
            })
        }
        "list" => {
            let (name, item) = inner.split_once(' ')?;
            let (name, nullable) = match name.strip_suffix('!') {
                Some(name) => (name, false),
                None => (name, true),
            };
            Some(DataType::List(Arc::new(Field::new(name, parse(item)?, nullable))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_comes_back_exactly() {
        let list = |name: &str, item, nullable| DataType::List(Arc::new(Field::new(name, item, nullable)));
        let types = SIMPLE.iter().map(|(_, simple)| simple.clone()).chain([
            DataType::Decimal128(38, 10),
            DataType::Decimal256(76, 2),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::Timestamp(TimeUnit::Microsecond, Some("+02:00".into())),
            list("item", DataType::Float64, true),
            list("element", list("item", DataType::UInt64, false), true),
        ]);
        for data_type in types {
            let column = StateColumn { name: "a0_s0".to_owned(), data_type };
            let json = serde_json::to_string(&column).unwrap();
            assert_eq!(serde_json::from_str::<StateColumn>(&json).unwrap(), column, "{json}");
            // What a version can hold, a shard can hold, too.
            assert!(stratus_seam::encoding::supports(&column.data_type), "{json}");
        }
        assert!(serde_json::from_str::<StateColumn>(r#"{"name":"x","type":"blob"}"#).is_err());
    }
}
