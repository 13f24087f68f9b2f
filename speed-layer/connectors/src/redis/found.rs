//! What a lookup found.

use std::borrow::Cow;

use redis::Value;
use stratus_topology::TaskError;

/// A value that a lookup found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RedisFound {
    /// A string, a field of a hash or an element of a list; a score, as text, under the older protocol.
    Bytes(Vec<u8>),
    /// A number of members.
    Integer(i64),
    /// A score.
    Double(f64),
}

impl RedisFound {
    /// `None`: nothing is there.
    pub(super) fn of(value: &Value) -> Result<Option<Self>, TaskError> {
        Ok(Some(match value {
            Value::Nil => return Ok(None),
            Value::BulkString(bytes) => Self::Bytes(bytes.clone()),
            Value::SimpleString(text) => Self::Bytes(text.clone().into_bytes()),
            Value::Int(number) => Self::Integer(*number),
            Value::Double(number) => Self::Double(*number),
            other => return Err(format!("the Redis server answered a lookup with {other:?}").into()),
        }))
    }

    /// As text; what is not UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes),
            Self::Integer(number) => number.to_string().into(),
            Self::Double(number) => number.to_string().into(),
        }
    }

    /// As a whole number, if it is one or the text of one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Bytes(_) => self.text().parse().ok(),
            Self::Double(_) => None,
        }
    }

    /// As a number, if it is one or the text of one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            Self::Bytes(_) => self.text().parse().ok(),
        }
    }
}
