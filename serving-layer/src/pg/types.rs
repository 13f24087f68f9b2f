//! Which PostgreSQL type a column of the engine has on the wire, and which Arrow type a client's parameter.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use pgwire::api::Type;
use pgwire::messages::data::FieldDescription;

/// Marks an INT column of the system catalog that holds object ids; the value names the kind of object.
const OID_ALIAS: &str = "pg.oid_alias";
/// Marks a TEXT column of the system catalog that is of PostgreSQL's one-byte type.
const CHAR: &str = "pg.char";

/// The few Arrow types that are written to the wire: every other type is cast to one of them first.
///
/// `None` is a type that has no counterpart; it goes out as text, in Arrow's own spelling.
pub(crate) fn wire_form(kind: &DataType) -> Option<DataType> {
    Some(match kind {
        DataType::Boolean => DataType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => DataType::Int16,
        DataType::Int32 | DataType::UInt16 => DataType::Int32,
        DataType::Int64 | DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 | DataType::Float32 => DataType::Float32,
        DataType::Float64 => DataType::Float64,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Decimal256(precision, scale) => DataType::Decimal256(*precision, *scale),
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, value) => wire_form(value)?,
        DataType::RunEndEncoded(_, value) => wire_form(value.data_type())?,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => DataType::List(wire_field(item)?),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(wire_field).collect::<Option<Vec<_>>>()?.into())
        }
        DataType::Map(..) | DataType::Union(..) => return None,
    })
}

fn wire_field(field: &FieldRef) -> Option<FieldRef> {
    let kind = wire_form(field.data_type())?;
    Some(Arc::new(Field::new(field.name(), kind, true)))
}

/// The PostgreSQL type of a column.
pub(crate) fn column_type(field: &Field) -> Type {
    if field.metadata().contains_key(CHAR) && wire_form(field.data_type()) == Some(DataType::Utf8) {
        return Type::CHAR;
    }
    if let (Some(alias), Some(DataType::Int32)) =
        (field.metadata().get(OID_ALIAS), wire_form(field.data_type()))
    {
        return match alias.as_str() {
            "regproc" => Type::REGPROC,
            "regprocedure" => Type::REGPROCEDURE,
            "regclass" => Type::REGCLASS,
            "regtype" => Type::REGTYPE,
            "regnamespace" => Type::REGNAMESPACE,
            "regrole" => Type::REGROLE,
            _ => Type::OID,
        };
    }
    value_type(field.data_type())
}

/// The PostgreSQL type of values of an Arrow type.
pub(crate) fn value_type(kind: &DataType) -> Type {
    match wire_form(kind) {
        Some(DataType::Boolean) => Type::BOOL,
        Some(DataType::Int16) => Type::INT2,
        Some(DataType::Int32) => Type::INT4,
        Some(DataType::Int64) => Type::INT8,
        Some(DataType::Float32) => Type::FLOAT4,
        Some(DataType::Float64) => Type::FLOAT8,
        Some(DataType::Decimal128(..) | DataType::Decimal256(..)) => Type::NUMERIC,
        Some(DataType::Binary) => Type::BYTEA,
        Some(DataType::Date32) => Type::DATE,
        Some(DataType::Time64(_)) => Type::TIME,
        Some(DataType::Timestamp(_, None)) => Type::TIMESTAMP,
        Some(DataType::Timestamp(_, Some(_))) => Type::TIMESTAMPTZ,
        Some(DataType::Interval(_)) => Type::INTERVAL,
        Some(DataType::Struct(_)) => Type::RECORD,
        Some(DataType::List(item)) => array_type(&innermost(item.data_type())),
        _ => Type::TEXT,
    }
}

/// PostgreSQL's arrays of any number of dimensions are of one type: that of the innermost element.
pub(crate) fn innermost(kind: &DataType) -> DataType {
    match kind {
        DataType::List(item) => innermost(item.data_type()),
        other => other.clone(),
    }
}

fn array_type(element: &DataType) -> Type {
    match value_type(element) {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::RECORD => Type::RECORD_ARRAY,
        _ => Type::TEXT_ARRAY,
    }
}

/// The Arrow type of a parameter that the client declares with this type id; `None` leaves it to the engine.
pub(crate) fn parameter_type(oid: u32) -> Option<DataType> {
    let kind = Type::from_oid(oid)?;
    Some(match kind {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 | Type::OID | Type::REGCLASS | Type::REGTYPE | Type::REGNAMESPACE | Type::REGPROC => {
            DataType::Int32
        }
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        // The precision that the engine's own literals have room for, with as many digits after the point.
        Type::NUMERIC => DataType::Decimal128(38, 10),
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::CHAR
        | Type::UUID
        | Type::JSON
        | Type::JSONB => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        Type::BOOL_ARRAY => list(DataType::Boolean),
        Type::INT2_ARRAY => list(DataType::Int16),
        Type::INT4_ARRAY | Type::OID_ARRAY => list(DataType::Int32),
        Type::INT8_ARRAY => list(DataType::Int64),
        Type::FLOAT4_ARRAY => list(DataType::Float32),
        Type::FLOAT8_ARRAY => list(DataType::Float64),
        Type::NUMERIC_ARRAY => list(DataType::Decimal128(38, 10)),
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY | Type::NAME_ARRAY => {
            list(DataType::Utf8)
        }
        Type::BYTEA_ARRAY => list(DataType::Binary),
        Type::DATE_ARRAY => list(DataType::Date32),
        Type::TIMESTAMP_ARRAY => list(DataType::Timestamp(TimeUnit::Microsecond, None)),
        Type::TIMESTAMPTZ_ARRAY => list(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        _ => return None,
    })
}

fn list(item: DataType) -> DataType {
    // The engine's own name for the element of an array, so that no cast stands between the two.
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// A column as it is described to the client, in a format (0 text, 1 binary).
pub(crate) fn description(field: &Field, format: i16) -> FieldDescription {
    let kind = column_type(field);
    let size = match kind {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::INTERVAL => 16,
        Type::OID
        | Type::REGPROC
        | Type::REGPROCEDURE
        | Type::REGCLASS
        | Type::REGTYPE
        | Type::REGNAMESPACE => 4,
        _ => -1,
    };
    let modifier = match wire_form(field.data_type()) {
        Some(DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale)) => {
            numeric_modifier(precision, scale)
        }
        _ => -1,
    };
    // A NUL would end the name early and break the framing.
    let name = field.name().replace('\0', "\u{fffd}");
    FieldDescription::new(name, 0, 0, kind.oid(), size, modifier, format)
}

/// Precision and scale as PostgreSQL packs them.
fn numeric_modifier(precision: u8, scale: i8) -> i32 {
    ((i32::from(precision) << 16) | (i32::from(scale) & 0x7ff)) + 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_canonical_type_has_its_postgresql_type() {
        let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        for (kind, expected) in [
            (DataType::Boolean, Type::BOOL),
            (DataType::Int16, Type::INT2),
            (DataType::Int32, Type::INT4),
            (DataType::Int64, Type::INT8),
            (DataType::Float32, Type::FLOAT4),
            (DataType::Float64, Type::FLOAT8),
            (DataType::Decimal128(10, 2), Type::NUMERIC),
            (DataType::UInt64, Type::NUMERIC),
            (DataType::Utf8, Type::TEXT),
            (DataType::Binary, Type::BYTEA),
            (DataType::Date32, Type::DATE),
            (micros(None), Type::TIMESTAMP),
            (micros(Some("UTC")), Type::TIMESTAMPTZ),
            (list(DataType::Int64), Type::INT8_ARRAY),
            (list(list(micros(Some("UTC")))), Type::TIMESTAMPTZ_ARRAY),
            (DataType::Struct(vec![Field::new("a", DataType::Int64, true)].into()), Type::RECORD),
            (DataType::Null, Type::TEXT),
            (DataType::Duration(TimeUnit::Nanosecond), Type::INTERVAL),
            (DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8View)), Type::TEXT),
        ] {
            assert_eq!(value_type(&kind), expected, "{kind}");
        }
    }

    #[test]
    fn a_parameter_comes_back_as_the_type_it_was_declared_with() {
        for kind in
            [Type::BOOL, Type::INT8, Type::NUMERIC, Type::TIMESTAMPTZ, Type::TEXT_ARRAY, Type::INTERVAL]
        {
            assert_eq!(value_type(&parameter_type(kind.oid()).unwrap()), kind);
        }
        assert_eq!(parameter_type(0), None);
        assert_eq!(parameter_type(Type::UNKNOWN.oid()), None);
    }

    #[test]
    fn a_numerics_precision_is_told() {
        let field = Field::new("n", DataType::Decimal128(10, 2), true);
        assert_eq!(description(&field, 0).type_modifier, 655_366);
    }
}
