//! What filters leave of the values of single key columns.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::scalar::ScalarValue;
use stratus_seam::encoding::encode_rows;

/// A value of a key column, as it stands in an encoded key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Null,
    /// An integer, a date or a time, as the number that encodes it.
    Number(i128),
    /// Any other value, encoded.
    Text(String),
}

impl Value {
    /// Of a literal, for a column of type `kind`. None if the two are not compared as they stand, or if the column has
    /// no single encoding of the value: floats are left alone, for what equals them is the engine's business.
    pub(crate) fn of(literal: &ScalarValue, kind: &DataType) -> Option<Self> {
        if literal.is_null() {
            return Some(Self::Null);
        }
        if let Some((number, exact)) = number(literal, kind) {
            return exact.then_some(Self::Number(number));
        }
        let same = match (literal, kind) {
            (ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text), DataType::Utf8) => {
                ScalarValue::Utf8(text.clone())
            }
            (ScalarValue::BinaryView(bytes) | ScalarValue::LargeBinary(bytes), DataType::Binary) => {
                ScalarValue::Binary(bytes.clone())
            }
            (ScalarValue::Decimal128(value, _, scale), DataType::Decimal128(digits, of)) if scale == of => {
                ScalarValue::Decimal128(*value, *digits, *of)
            }
            (ScalarValue::Utf8(_), DataType::Utf8)
            | (ScalarValue::Binary(_), DataType::Binary)
            | (ScalarValue::Boolean(_), DataType::Boolean) => literal.clone(),
            _ => return None,
        };
        let row = encode_rows(&[same.to_array().ok()?], 1).ok()?.pop()?;
        Some(Self::Text(row.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
    }

    pub(crate) fn boolean(value: bool) -> Self {
        Self::Text(value.to_string())
    }

    pub(crate) fn encode(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// The number that a literal has in a column of type `kind`, rounded down, and whether it is exactly that one.
pub(crate) fn number(literal: &ScalarValue, kind: &DataType) -> Option<(i128, bool)> {
    use ScalarValue as S;
    if let DataType::Timestamp(TimeUnit::Microsecond, zone) = kind {
        let (number, per_micro, of) = match literal {
            S::TimestampSecond(Some(time), of) => (i128::from(*time) * 1_000_000, 1, of),
            S::TimestampMillisecond(Some(time), of) => (i128::from(*time) * 1000, 1, of),
            S::TimestampMicrosecond(Some(time), of) => (i128::from(*time), 1, of),
            S::TimestampNanosecond(Some(time), of) => (i128::from(*time), 1000, of),
            _ => return None,
        };
        // With a zone it is a moment, whatever the zone; without, a reading of a clock.
        let alike = zone.is_some() == of.is_some();
        return alike.then_some((number.div_euclid(per_micro), number.rem_euclid(per_micro) == 0));
    }
    let number = match (literal, kind) {
        (S::Int8(Some(n)), DataType::Int8) => i128::from(*n),
        (S::Int16(Some(n)), DataType::Int16) => i128::from(*n),
        (S::Int32(Some(n)), DataType::Int32) | (S::Date32(Some(n)), DataType::Date32) => i128::from(*n),
        (S::Int64(Some(n)), DataType::Int64) => i128::from(*n),
        (S::UInt8(Some(n)), DataType::UInt8) => i128::from(*n),
        (S::UInt16(Some(n)), DataType::UInt16) => i128::from(*n),
        (S::UInt32(Some(n)), DataType::UInt32) => i128::from(*n),
        (S::UInt64(Some(n)), DataType::UInt64) => i128::from(*n),
        _ => return None,
    };
    Some((number, true))
}

/// The values of one column that filters leave, or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Domain {
    Any,
    Values(BTreeSet<Value>),
    /// The numbers from the one to the other, both included; NULL is none of them.
    Range(i128, i128),
}

impl Domain {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Values(values) => values.is_empty(),
            Self::Range(low, high) => low > high,
        }
    }

    /// What is in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Any, other) | (other, Self::Any) => other.clone(),
            (Self::Range(low, high), Self::Range(from, to)) => Self::Range(*low.max(from), *high.min(to)),
            (Self::Values(values), Self::Values(others)) => {
                Self::Values(values.intersection(others).cloned().collect())
            }
            (Self::Values(values), Self::Range(low, high))
            | (Self::Range(low, high), Self::Values(values)) => {
                let within = |value: &&Value| match value {
                    Value::Null => false,
                    Value::Number(number) => (low..=high).contains(&number),
                    Value::Text(_) => true,
                };
                Self::Values(values.iter().filter(within).cloned().collect())
            }
        }
    }

    /// The values, each `step` from the last where the column has such; none if they are more than `most`.
    pub(crate) fn list(&self, step: Option<(i128, i128)>, most: usize) -> Option<Vec<String>> {
        match self {
            Self::Any => None,
            Self::Values(values) => {
                (values.len() <= most).then(|| values.iter().map(Value::encode).collect())
            }
            Self::Range(low, high) => {
                let (step, phase) = step?;
                let first = low.checked_sub(phase)?.checked_add(step - 1)?.div_euclid(step);
                let last = high.checked_sub(phase)?.div_euclid(step);
                let count = last.checked_sub(first)?.checked_add(1)?.max(0);
                if count > i128::try_from(most).ok()? {
                    return None;
                }
                Some((first..=last).map(|i| (phase + i * step).to_string()).collect())
            }
        }
    }
}
