//! The declared schema of a source, in canonical types.
//!
//! A value must have one Arrow type on every path that it takes: the sketches of the two layers hash what they
//! are given, and hash `Utf8` and `Utf8View` differently. So a declared type maps to exactly one Arrow type,
//! here, and nowhere else.

use std::fmt;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The name of the master dataset's column with the log id.
pub const LOG_COLUMN: &str = "_log";
/// The name of the master dataset's column with the partition (INT).
pub const PARTITION_COLUMN: &str = "_partition";
/// The name of the master dataset's column with the offset (BIGINT).
pub const OFFSET_COLUMN: &str = "_offset";
/// The name of the master dataset's column with the record's own timestamp (TIMESTAMPTZ, NULL for a directory log).
pub const TIMESTAMP_COLUMN: &str = "_timestamp";

/// The type of a declared column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// BOOLEAN
    Boolean,
    /// SMALLINT, 16 bits
    SmallInt,
    /// INT, 32 bits
    Int,
    /// BIGINT, 64 bits
    BigInt,
    /// REAL, 32 bits
    Real,
    /// DOUBLE, 64 bits
    Double,
    /// NUMERIC(precision, scale), precision at most 38
    Numeric(u8, i8),
    /// TEXT, UTF-8
    Text,
    /// BYTEA
    Bytea,
    /// DATE
    Date,
    /// TIMESTAMP without time zone, microseconds
    Timestamp,
    /// TIMESTAMPTZ, microseconds, kept as UTC
    TimestampTz,
    /// STRUCT<name type, ...>
    Struct(Vec<Column>),
    /// type[]
    List(Box<Self>),
}

impl ColumnType {
    /// The one Arrow type of this type's values.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Real => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Numeric(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::Text => DataType::Utf8,
            Self::Bytea => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Struct(columns) => DataType::Struct(columns.iter().map(Column::field).collect()),
            Self::List(item) => DataType::List(Arc::new(Field::new("element", item.arrow(), true))),
        }
    }
}

/// The type as SQL spells it.
impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::SmallInt => f.write_str("SMALLINT"),
            Self::Int => f.write_str("INT"),
            Self::BigInt => f.write_str("BIGINT"),
            Self::Real => f.write_str("REAL"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Numeric(precision, scale) => write!(f, "NUMERIC({precision}, {scale})"),
            Self::Text => f.write_str("TEXT"),
            Self::Bytea => f.write_str("BYTEA"),
            Self::Date => f.write_str("DATE"),
            Self::Timestamp => f.write_str("TIMESTAMP"),
            Self::TimestampTz => f.write_str("TIMESTAMPTZ"),
            Self::Struct(columns) => {
                f.write_str("STRUCT<")?;
                for (i, column) in columns.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{} {}", column.name, column.kind)?;
                }
                f.write_str(">")
            }
            Self::List(item) => write!(f, "{item}[]"),
        }
    }
}

/// A declared column: every column may be NULL unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// The name, as the user wrote it (lower-cased by SQL unless quoted).
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// Whether NULL (or a missing field) makes a record a bad one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_null: bool,
}

impl Column {
    /// A column that may be NULL.
    pub fn new(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind, not_null: false }
    }

    fn field(&self) -> FieldRef {
        Arc::new(Field::new(&self.name, self.kind.arrow(), !self.not_null))
    }
}

/// The Arrow schema of the declared columns alone.
pub fn arrow_schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()))
}

/// The Arrow schema of a source's decoded events: the declared columns, then where each event stands in its log.
/// The master dataset has this schema, and so has every micro-batch of the speed layer.
pub fn event_schema(columns: &[Column]) -> SchemaRef {
    let mut fields: Vec<FieldRef> = columns.iter().map(Column::field).collect();
    fields.push(Arc::new(Field::new(LOG_COLUMN, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(PARTITION_COLUMN, DataType::Int32, false)));
    fields.push(Arc::new(Field::new(OFFSET_COLUMN, DataType::Int64, false)));
    fields.push(Arc::new(Field::new(TIMESTAMP_COLUMN, ColumnType::TimestampTz.arrow(), true)));
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_spelled_as_sql_spells_it() {
        let kind = ColumnType::List(Box::new(ColumnType::Struct(vec![
            Column::new("a", ColumnType::Numeric(10, 2)),
            Column::new("b", ColumnType::TimestampTz),
        ])));
        assert_eq!(kind.to_string(), "STRUCT<a NUMERIC(10, 2), b TIMESTAMPTZ>[]");
    }

    #[test]
    fn no_canonical_type_is_a_view_type_or_finer_than_microseconds() {
        let columns = [
            Column::new("t", ColumnType::Text),
            Column::new("b", ColumnType::Bytea),
            Column::new("s", ColumnType::Timestamp),
        ];
        let schema = arrow_schema(&columns);
        assert_eq!(schema.field(0).data_type(), &DataType::Utf8);
        assert_eq!(schema.field(1).data_type(), &DataType::Binary);
        assert_eq!(schema.field(2).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    }
}
