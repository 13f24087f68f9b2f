//! Mappers for keys and values that are fields of the tuples.

use std::borrow::Cow;

use arrow::datatypes::{DataType, SchemaRef};
use stratus_topology::{CellError, FieldError, FromCell, TaskError, Tuple, WrongField, fields};

use super::{
    data_type::{RedisDataType, RedisMembership},
    filter::RedisFilterMapper,
    found::RedisFound,
    increment::{RedisIncrement, RedisIncrementMapper},
    lookup::{LookupRows, RedisLookupMapper},
    store::RedisStoreMapper,
};

/// Stores one field under another one. Text and bytes are stored as they are, numbers and truth values as text; null
/// fails the tuple.
#[derive(Clone, Debug)]
pub struct StoreFields {
    data_type: RedisDataType,
    key: String,
    value: String,
}

impl StoreFields {
    /// Stores the field `value` under the field `key`.
    pub fn new(data_type: RedisDataType, key: &str, value: &str) -> Self {
        Self { data_type, key: key.to_owned(), value: value.to_owned() }
    }
}

impl RedisStoreMapper for StoreFields {
    fn data_type(&self) -> RedisDataType {
        self.data_type.clone()
    }

    fn key<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError> {
        Ok(bytes(tuple, &self.key)?)
    }

    fn value<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError> {
        Ok(bytes(tuple, &self.value)?)
    }
}

/// Counts the values of a field in one hash.
#[derive(Clone, Debug)]
pub struct IncrementField {
    hash: String,
    field: String,
    amount: Option<String>,
}

impl IncrementField {
    /// Adds 1 for each tuple to the field of the hash that is named like the value of the tuple's field `field`.
    pub fn new(hash: &str, field: &str) -> Self {
        Self { hash: hash.to_owned(), field: field.to_owned(), amount: None }
    }

    /// Adds the whole number in this field of the tuple instead.
    #[must_use]
    pub fn by(mut self, amount: &str) -> Self {
        self.amount = Some(amount.to_owned());
        self
    }
}

impl RedisIncrementMapper for IncrementField {
    fn increment<'a>(&'a self, tuple: Tuple<'a>) -> Result<RedisIncrement<'a>, TaskError> {
        let amount = self.amount.as_ref().map_or(Ok(1), |amount| tuple.get_by_name(amount))?;
        Ok(RedisIncrement { hash: self.hash.as_bytes().into(), field: bytes(tuple, &self.field)?, amount })
    }
}

/// Looks a field up and emits it with what was found: two texts, of which the second is null if nothing is there. What
/// is not UTF-8 is replaced.
#[derive(Clone, Debug)]
pub struct LookupField {
    data_type: RedisDataType,
    key: String,
    schema: SchemaRef,
}

impl LookupField {
    /// Looks the field `key` up, and emits the fields `key` and `value`, under these names.
    pub fn new(data_type: RedisDataType, key: &str, value: &str) -> Self {
        let schema = fields([(key, DataType::Utf8), (value, DataType::Utf8)]);
        Self { data_type, key: key.to_owned(), schema }
    }
}

impl RedisLookupMapper for LookupField {
    fn data_type(&self) -> RedisDataType {
        self.data_type.clone()
    }

    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn key<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError> {
        Ok(bytes(tuple, &self.key)?)
    }

    fn emit(
        &self,
        tuple: Tuple<'_>,
        found: Option<&RedisFound>,
        rows: &mut LookupRows,
    ) -> Result<(), TaskError> {
        let key = bytes(tuple, &self.key)?;
        let value = found.map(RedisFound::text);
        rows.emit((&*String::from_utf8_lossy(&key), value.as_deref()))
    }
}

/// Lets pass the tuples one field of which is known.
#[derive(Clone, Debug)]
pub struct FilterField {
    membership: RedisMembership,
    key: String,
    schema: SchemaRef,
}

impl FilterField {
    /// Lets pass the tuples whose field `key` is there; `schema` are the fields of the tuples that come.
    pub fn new(membership: RedisMembership, key: &str, schema: SchemaRef) -> Self {
        Self { membership, key: key.to_owned(), schema }
    }
}

impl RedisFilterMapper for FilterField {
    fn membership(&self) -> RedisMembership {
        self.membership.clone()
    }

    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn key<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError> {
        Ok(bytes(tuple, &self.key)?)
    }
}

/// A field of a tuple as bytes.
fn bytes<'a>(tuple: Tuple<'a>, field: &str) -> Result<Cow<'a, [u8]>, FieldError> {
    let is_no = |error: &FieldError| {
        matches!(error.why, WrongField::Value(CellError::Type { .. } | CellError::Range { .. }))
    };
    match tuple.get_by_name::<&[u8]>(field) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) if is_no(&error) => {
            let text = text::<i64>(tuple, field)
                .or_else(|| text::<u64>(tuple, field))
                .or_else(|| text::<f64>(tuple, field))
                .or_else(|| text::<bool>(tuple, field));
            text.map(|text| text.into_bytes().into()).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

fn text<'a, T: FromCell<'a> + ToString>(tuple: Tuple<'a>, field: &str) -> Option<String> {
    tuple.get_by_name::<T>(field).ok().map(|value| value.to_string())
}
