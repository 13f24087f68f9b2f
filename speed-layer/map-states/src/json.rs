//! Values as JSON.
//!
//! JSON has no NaN and no infinities, and serde_json writes a null for them: that reads as nothing at all where the value
//! is an `Option`, and as none of the state's values elsewhere. So they are refused before they are written.

use std::fmt;

use serde::{Serialize, Serializer, ser};

/// The text of a value.
pub(crate) fn text<T: Serialize>(value: &T) -> Result<String, NotJson> {
    let text = serde_json::to_string(value).map_err(|error| NotJson(error.to_string()))?;
    // All but a few values have no null to be looked into.
    if text.contains("null") {
        value.serialize(Finite)?;
    }
    Ok(text)
}

/// Why a value has no text.
#[derive(Debug)]
pub(crate) struct NotJson(String);

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotJson {}

impl ser::Error for NotJson {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

/// Writes nothing, and fails at a number that JSON cannot say.
#[derive(Clone, Copy)]
struct Finite;

macro_rules! nothing {
    ($($name:ident: $kind:ty),*) => {
        $(fn $name(self, _: $kind) -> Result<(), NotJson> {
            Ok(())
        })*
    };
}

impl Serializer for Finite {
    type Ok = ();
    type Error = NotJson;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    nothing! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_char: char,
        serialize_str: &str, serialize_bytes: &[u8], serialize_unit_struct: &'static str
    }

    fn serialize_f32(self, value: f32) -> Result<(), NotJson> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), NotJson> {
        match value.is_finite() {
            true => Ok(()),
            false => Err(NotJson(format!("it is {value}, which JSON cannot say"))),
        }
    }

    fn serialize_none(self) -> Result<(), NotJson> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotJson> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NotJson> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), NotJson> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotJson> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotJson> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, NotJson> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, NotJson> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, NotJson> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, NotJson> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, NotJson> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, NotJson> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, NotJson> {
        Ok(self)
    }
}

macro_rules! parts {
    ($($kind:ident: $name:ident($($named:ty)?);)*) => {$(
        impl ser::$kind for Finite {
            type Ok = ();
            type Error = NotJson;

            fn $name<T: Serialize + ?Sized>(&mut self, $(_: $named,)? value: &T) -> Result<(), NotJson> {
                value.serialize(*self)
            }

            fn end(self) -> Result<(), NotJson> {
                Ok(())
            }
        }
    )*};
}

parts! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(&'static str);
    SerializeStructVariant: serialize_field(&'static str);
}

impl ser::SerializeMap for Finite {
    type Ok = ();
    type Error = NotJson;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NotJson> {
        key.serialize(*self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotJson> {
        value.serialize(*self)
    }

    fn end(self) -> Result<(), NotJson> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stratus_trident::{OpaqueValue, TransactionalValue};

    use super::*;

    #[test]
    fn numbers_that_json_cannot_say_are_refused_wherever_they_are() {
        assert_eq!(text(&OpaqueValue::new(3, 1.5, Some(2.0))).unwrap(), "[3,1.5,2.0]");
        assert_eq!(text(&OpaqueValue::new(3, None::<f64>, Some(None))).unwrap(), "[3,null,null]");
        assert_eq!(text(&Some("null")).unwrap(), "\"null\"");
        assert_eq!(text(&BTreeMap::from([("a", (None::<f64>, 1.0))])).unwrap(), "{\"a\":[null,1.0]}");
        let error = text(&TransactionalValue(3, f64::NAN)).unwrap_err().to_string();
        assert_eq!(error, "it is NaN, which JSON cannot say");
        text(&OpaqueValue::new(3, 1.0, Some(f64::INFINITY))).unwrap_err();
        text(&OpaqueValue::new(3, Some(f64::NAN), None)).unwrap_err();
        text(&BTreeMap::from([("a", (None::<f64>, f32::NEG_INFINITY))])).unwrap_err();
    }
}
