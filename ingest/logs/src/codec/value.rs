//! One JSON value, read into a column by the rules of its declared type.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::column::{Column, Values};
use super::fields::ObjectSeed;
use super::{number, time};

/// Appends the value that comes next to a column.
pub(super) struct ValueSeed<'a> {
    pub(super) column: &'a mut Column,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.column.values {
            Values::Text(_) | Values::Boolean(_) | Values::Struct(_) | Values::List(..) => {
                deserializer.deserialize_option(Nullable { column: self.column })
            }
            // The token itself: serde_json would make a rounded double of a number before it could be judged.
            _ => {
                let token = <&RawValue>::deserialize(deserializer)?.get();
                push_token(self.column, token)
                    .map_err(|reason| Error::custom(format_args!("{}: {reason}", Name(self.column))))
            }
        }
    }
}

/// A column as errors name it.
struct Name<'a>(&'a Column);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for column {}", self.0.kind, self.0.name)
    }
}

const NOT_NULL: &str = "the column is NOT NULL and the value is null";

/// Reads null or a value of the types whose values serde reads as they are.
struct Nullable<'a> {
    column: &'a mut Column,
}

impl<'de> Visitor<'de> for Nullable<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Name(self.column))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_none()
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        if self.column.not_null {
            return Err(E::custom(format_args!("{}: {NOT_NULL}", Name(self.column))));
        }
        self.column.push_null();
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match &mut self.column.values {
            Values::Text(_) => deserializer.deserialize_str(Value { column: self.column }),
            Values::Boolean(_) => deserializer.deserialize_bool(Value { column: self.column }),
            Values::Struct(fields) => {
                ObjectSeed { fields, row: self.column.len }.deserialize(deserializer)?;
                self.column.pushed();
                Ok(())
            }
            _ => deserializer.deserialize_seq(Value { column: self.column }),
        }
    }
}

struct Value<'a> {
    column: &'a mut Column,
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Name(self.column))
    }

    #[inline]
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if let (true, Values::Text(values)) = (self.column.kept, &mut self.column.values) {
            values.push(text.as_bytes());
        }
        self.column.pushed();
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if let (true, Values::Boolean(values)) = (self.column.kept, &mut self.column.values) {
            values.append(value);
        }
        self.column.pushed();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let kept = self.column.kept;
        if let Values::List(ends, item) = &mut self.column.values {
            while items.next_element_seed(ValueSeed { column: item.as_mut() })?.is_some() {}
            if kept {
                ends.push(item.len as i32);
            } else {
                item.truncate(0);
            }
        }
        self.column.pushed();
        Ok(())
    }
}

/// Appends one token: null, a number, a string, or what is bad here in any case.
fn push_token(column: &mut Column, token: &str) -> Result<(), Cow<'static, str>> {
    const NO_VALUE: &str = "a value of another type";
    const FOR_NUMBERS: &str = "a JSON number is expected";
    const FOR_STRINGS: &str = "a JSON string is expected";
    if token == "null" {
        if column.not_null {
            return Err(NOT_NULL.into());
        }
        column.push_null();
        return Ok(());
    }
    let (text, quoted) = match unquoted(token)? {
        Some(text) => (text, true),
        None if token.starts_with(['[', '{', 't', 'f']) => return Err(NO_VALUE.into()),
        None => (Cow::Borrowed(token), false),
    };
    let kept = column.kept;
    match &mut column.values {
        Values::SmallInt(_) | Values::Int(_) | Values::BigInt(_) | Values::Real(_) | Values::Double(_)
            if quoted =>
        {
            return Err(FOR_NUMBERS.into());
        }
        Values::Bytea(_) | Values::Date(_) if !quoted => return Err(FOR_STRINGS.into()),
        Values::SmallInt(values) => push(kept, values, integer(&text)?),
        Values::Int(values) => push(kept, values, integer(&text)?),
        Values::BigInt(values) => push(kept, values, integer(&text)?),
        Values::Real(values) => push(kept, values, number::real(&text).map_err(told)?),
        Values::Double(values) => push(kept, values, number::double(&text).map_err(told)?),
        Values::Numeric(values, precision, scale) => {
            let value = number::scaled(&text, i64::from(*scale)).map_err(told)?;
            if value.unsigned_abs() >= 10_u128.pow(u32::from(*precision)) {
                return Err(told(number::Refusal::Range));
            }
            push(kept, values, value);
        }
        Values::Date(values) => push(kept, values, time::date(&text)?),
        Values::Timestamp(values, zoned) => {
            let micros = if quoted {
                time::from_text(&text, column.unit, *zoned)?
            } else {
                time::from_number(&text, column.unit)?
            };
            push(kept, values, micros);
        }
        Values::Bytea(values) => {
            let bytes = BASE64.decode(text.as_bytes()).map_err(|error| format!("not base64: {error}"))?;
            if kept {
                values.push(&bytes);
            }
        }
        // ValueSeed reads these itself.
        Values::Boolean(_) | Values::Text(_) | Values::Struct(_) | Values::List(..) => {
            return Err(NO_VALUE.into());
        }
    }
    column.pushed();
    Ok(())
}

#[inline]
fn push<T>(kept: bool, values: &mut Vec<T>, value: T) {
    if kept {
        values.push(value);
    }
}

fn told(refusal: number::Refusal) -> Cow<'static, str> {
    refusal.to_string().into()
}

fn integer<T: TryFrom<i128>>(text: &str) -> Result<T, Cow<'static, str>> {
    let value = number::scaled(text, 0).map_err(told)?;
    T::try_from(value).map_err(|_| told(number::Refusal::Range))
}

/// The characters of a string token; none for another token.
fn unquoted(token: &str) -> Result<Option<Cow<'_, str>>, String> {
    let Some(inner) = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Ok(None);
    };
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Some(Cow::Borrowed(inner)));
    }
    let text: String = serde_json::from_str(token).map_err(|error| error.to_string())?;
    Ok(Some(Cow::Owned(text)))
}
