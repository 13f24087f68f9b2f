//! The values that a client binds to the parameters of a statement.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;
use stratus_sql::SqlError;

use super::binary::read_numeric;
use super::errors::error;
use super::types::parameter_type;

/// The days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The value of one parameter: the bytes that the client sent (none for NULL) in a format (0 text, 1 binary), of
/// the type that it was told (`oid`), as the type that the engine wants.
///
/// # Errors
/// 22P02 for a text that is no value of the type, 22P03 for malformed binary, 22003 for a value out of range.
pub(crate) fn value(
    number: usize,
    bytes: Option<&[u8]>,
    format: i16,
    oid: u32,
    wanted: &DataType,
) -> Result<ScalarValue, SqlError> {
    let Some(bytes) = bytes else {
        return ScalarValue::try_new_null(wanted).map_err(|e| error("XX000", e.to_string()));
    };
    let kind = Type::from_oid(oid).unwrap_or(Type::TEXT);
    let sent = if format == 1 {
        binary(bytes, &kind).ok_or_else(|| {
            let message = format!("incorrect binary data format in bind parameter {number} of type {kind}");
            error("22P03", message)
        })?
    } else {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| error("22021", format!("bind parameter {number} is not valid UTF-8")))?;
        if text.contains('\0') {
            return Err(error("22021", format!("bind parameter {number} holds a zero byte")));
        }
        return text_value(number, text, &kind, wanted);
    };
    as_wanted(number, sent, wanted)
}

/// A decimal keeps the digits that it came with: to round it to the type that was guessed before would change it.
fn as_wanted(number: usize, sent: ScalarValue, wanted: &DataType) -> Result<ScalarValue, SqlError> {
    let both_decimal =
        matches!(sent, ScalarValue::Decimal128(..)) && matches!(wanted, DataType::Decimal128(..));
    if both_decimal || sent.data_type() == *wanted {
        return Ok(sent);
    }
    let strict = datafusion::arrow::compute::CastOptions { safe: false, ..Default::default() };
    sent.cast_to_with_options(wanted, &strict).map_err(|cause| {
        let mut wrong = error("22003", format!("bind parameter {number} does not fit into {wanted}"));
        wrong.detail = Some(cause.to_string());
        wrong
    })
}

fn text_value(number: usize, text: &str, kind: &Type, wanted: &DataType) -> Result<ScalarValue, SqlError> {
    let invalid = |what: &dyn std::fmt::Display| {
        error("22P02", format!("invalid input syntax for type {what} in bind parameter {number}: \"{text}\""))
    };
    // A client that does not say what it sends means the type that is wanted.
    let declared = parameter_type(kind.oid());
    let target = match (&declared, kind) {
        (_, &Type::TEXT | &Type::UNKNOWN | &Type::VARCHAR) | (None, _) => wanted,
        (Some(declared), _) => declared,
    };
    let trimmed = text.trim();
    let sent = match target {
        DataType::Boolean => ScalarValue::Boolean(Some(boolean(trimmed).ok_or_else(|| invalid(&"boolean"))?)),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            ScalarValue::Binary(Some(bytea(text).ok_or_else(|| invalid(&"bytea"))?))
        }
        DataType::Decimal128(..) => {
            let (value, scale) = decimal(trimmed).ok_or_else(|| invalid(&"numeric"))?;
            ScalarValue::Decimal128(Some(value), 38, scale)
        }
        DataType::List(item) => {
            let items = super::arrays::parse(trimmed).ok_or_else(|| invalid(kind))?;
            let items = items
                .into_iter()
                .map(|item_text| match item_text {
                    None => {
                        ScalarValue::try_new_null(item.data_type()).map_err(|e| error("XX000", e.to_string()))
                    }
                    Some(item_text) => {
                        let value = text_value(number, &item_text, &Type::UNKNOWN, item.data_type())?;
                        // An array has one type for all: here the digits must fit into it.
                        value.cast_to(item.data_type()).map_err(|_| invalid(kind))
                    }
                })
                .collect::<Result<Vec<_>, _>>()?;
            ScalarValue::List(ScalarValue::new_list(&items, item.data_type(), true))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ScalarValue::Utf8(Some(text.to_owned())),
        DataType::Float32 | DataType::Float64 => {
            let number: f64 = trimmed.parse().map_err(|_| invalid(&"double precision"))?;
            ScalarValue::Float64(Some(number))
        }
        // The engine reads dates, times and integers as PostgreSQL prints them.
        other => ScalarValue::try_from_string(trimmed.to_owned(), other).map_err(|_| invalid(other))?,
    };
    as_wanted(number, sent, wanted)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = digits
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()?;
        return digits.chunks(2).map(|pair| Some((pair.first()? << 4) | pair.get(1)?)).collect();
    }
    // The older form: a backslash before three octal digits or before another backslash.
    let mut bytes = text.bytes();
    let mut value = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        match bytes.next()? {
            b'\\' => value.push(b'\\'),
            first @ b'0'..=b'3' => {
                let digit = |byte: Option<u8>| byte.filter(|b| (b'0'..=b'7').contains(b)).map(|b| b - b'0');
                value.push(((first - b'0') << 6) | (digit(bytes.next())? << 3) | digit(bytes.next())?);
            }
            _ => return None,
        }
    }
    Some(value)
}

/// A decimal's unscaled value and scale, with every digit that is written.
fn decimal(text: &str) -> Option<(i128, i8)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut value: i128 = all.parse().ok()?;
    let mut scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    if scale < 0 {
        value = value.checked_mul(10_i128.checked_pow(scale.unsigned_abs())?)?;
        scale = 0;
    }
    let fits = value.unsigned_abs() < 10_u128.pow(38) && scale <= 38;
    fits.then_some((sign * value, i8::try_from(scale).ok()?))
}

/// A value in binary; `None` if it is malformed or its type is none that is read in binary.
fn binary(bytes: &[u8], kind: &Type) -> Option<ScalarValue> {
    Some(match *kind {
        Type::BOOL => ScalarValue::Boolean(Some(u8::from_be_bytes(bytes.try_into().ok()?) != 0)),
        Type::INT2 => ScalarValue::Int16(Some(i16::from_be_bytes(bytes.try_into().ok()?))),
        Type::INT4 | Type::OID | Type::REGCLASS | Type::REGTYPE | Type::REGNAMESPACE | Type::REGPROC => {
            ScalarValue::Int32(Some(i32::from_be_bytes(bytes.try_into().ok()?)))
        }
        Type::INT8 => ScalarValue::Int64(Some(i64::from_be_bytes(bytes.try_into().ok()?))),
        Type::FLOAT4 => ScalarValue::Float32(Some(f32::from_be_bytes(bytes.try_into().ok()?))),
        Type::FLOAT8 => ScalarValue::Float64(Some(f64::from_be_bytes(bytes.try_into().ok()?))),
        Type::NUMERIC => {
            let (value, scale) = read_numeric(bytes)?;
            ScalarValue::Decimal128(Some(value), 38, scale)
        }
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            ScalarValue::Utf8(Some(std::str::from_utf8(bytes).ok()?.to_owned()))
        }
        Type::CHAR => ScalarValue::Utf8(Some(char::from(*bytes.first()?).to_string())),
        Type::JSONB => {
            let text = bytes.strip_prefix(&[1])?;
            ScalarValue::Utf8(Some(std::str::from_utf8(text).ok()?.to_owned()))
        }
        Type::UUID => {
            let id = u128::from_be_bytes(bytes.try_into().ok()?);
            let hex = format!("{id:032x}");
            let parts = [hex.get(..8)?, hex.get(8..12)?, hex.get(12..16)?, hex.get(16..20)?, hex.get(20..)?];
            ScalarValue::Utf8(Some(parts.join("-")))
        }
        Type::BYTEA => ScalarValue::Binary(Some(bytes.to_vec())),
        Type::DATE => {
            ScalarValue::Date32(Some(i32::from_be_bytes(bytes.try_into().ok()?).checked_add(EPOCH_DAYS)?))
        }
        Type::TIME => ScalarValue::Time64Microsecond(Some(i64::from_be_bytes(bytes.try_into().ok()?))),
        Type::TIMESTAMP => ScalarValue::TimestampMicrosecond(Some(micros(bytes)?), None),
        Type::TIMESTAMPTZ => ScalarValue::TimestampMicrosecond(Some(micros(bytes)?), Some("UTC".into())),
        Type::INTERVAL => {
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            let value = i128::from_be_bytes(bytes);
            let micros = i64::try_from(value >> 64).ok()?;
            let days = i32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
            let months = i32::from_be_bytes(bytes.get(12..16)?.try_into().ok()?);
            ScalarValue::new_interval_mdn(months, days, micros.checked_mul(1_000)?)
        }
        _ => return super::arrays::binary(bytes, kind, binary),
    })
}

fn micros(bytes: &[u8]) -> Option<i64> {
    i64::from_be_bytes(bytes.try_into().ok()?).checked_add(EPOCH_MICROS)
}

/// The type id that the client is told for a parameter: its own if it has declared one.
pub(crate) fn told_type(declared: u32, wanted: &DataType) -> u32 {
    let is_declared = declared != 0 && declared != Type::UNKNOWN.oid();
    if is_declared { declared } else { super::types::value_type(wanted).oid() }
}

/// Timestamps of the engine's that are finer than PostgreSQL's are asked for in PostgreSQL's microseconds, and text
/// in the engine's plainest form: what a driver sends has no more, and one form for each is less to go wrong.
pub(crate) fn plain(kind: DataType) -> DataType {
    match kind {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone),
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str, kind: &Type, wanted: &DataType) -> Result<ScalarValue, SqlError> {
        value(1, Some(text.as_bytes()), 0, kind.oid(), wanted)
    }

    #[test]
    fn texts_become_what_is_wanted() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let unknown = Type::UNKNOWN;
        assert_eq!(text("12", &unknown, &DataType::Int64).unwrap(), ScalarValue::Int64(Some(12)));
        assert_eq!(text(" on ", &unknown, &DataType::Boolean).unwrap(), ScalarValue::Boolean(Some(true)));
        assert_eq!(text("it's", &unknown, &DataType::Utf8).unwrap(), ScalarValue::from("it's"));
        assert_eq!(
            text("2026-11-23 01:02:03.5+01", &unknown, &micros).unwrap(),
            ScalarValue::TimestampMicrosecond(Some(1_795_392_123_500_000), Some("UTC".into()))
        );
        assert_eq!(
            text("\\x0aFF", &Type::BYTEA, &DataType::Binary).unwrap(),
            ScalarValue::Binary(Some(vec![10, 255]))
        );
        assert_eq!(
            text("a\\\\\\001", &Type::BYTEA, &DataType::Binary).unwrap(),
            ScalarValue::Binary(Some(b"a\\\x01".to_vec()))
        );
        assert_eq!(text("NaN", &unknown, &DataType::Float64).unwrap().to_string(), "NaN");
        assert_eq!(text("x", &unknown, &DataType::Int64).unwrap_err().sqlstate, "22P02");
        assert_eq!(text("300000", &Type::INT8, &DataType::Int16).unwrap_err().sqlstate, "22003");
    }

    #[test]
    fn a_decimal_keeps_its_digits() {
        let wanted = DataType::Decimal128(38, 10);
        let long = "0.12345678901234567890";
        assert_eq!(
            text(long, &Type::NUMERIC, &wanted).unwrap(),
            ScalarValue::Decimal128(Some(12_345_678_901_234_567_890), 38, 20)
        );
        assert_eq!(decimal("-1.5e3"), Some((-1_500, 0)));
        assert_eq!(decimal("1e-2"), Some((1, 2)));
        assert_eq!(decimal("."), None);
    }

    #[test]
    fn binary_values_are_read_by_their_declared_type() {
        let int = value(1, Some(&7_i16.to_be_bytes()), 1, Type::INT2.oid(), &DataType::Int64).unwrap();
        assert_eq!(int, ScalarValue::Int64(Some(7)));
        let null = value(1, None, 1, Type::INT2.oid(), &DataType::Int64).unwrap();
        assert_eq!(null, ScalarValue::Int64(None));
        let short = value(3, Some(&[1]), 1, Type::INT4.oid(), &DataType::Int32).unwrap_err();
        assert_eq!((short.sqlstate, short.message.contains("parameter 3")), ("22P03", true));
        let mut interval = (-5_i64).to_be_bytes().to_vec();
        interval.extend_from_slice(&3_i32.to_be_bytes());
        interval.extend_from_slice(&2_i32.to_be_bytes());
        assert_eq!(binary(&interval, &Type::INTERVAL), Some(ScalarValue::new_interval_mdn(2, 3, -5_000)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0_usize..12) {
            let kinds = [
                Type::BOOL, Type::INT8, Type::NUMERIC, Type::TEXT, Type::BYTEA, Type::DATE, Type::TIMESTAMPTZ,
                Type::INTERVAL, Type::INT4_ARRAY, Type::TEXT_ARRAY, Type::UUID, Type::NUMERIC_ARRAY,
            ];
            for format in [0, 1] {
                let wanted = parameter_type(kinds[kind].oid()).unwrap();
                let _ = value(1, Some(&bytes), format, kinds[kind].oid(), &wanted);
            }
        }
    }
}
