//! The fields of one object: a record, or a struct within it.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use stratus_seam::schema;

use super::column::Column;
use super::time::TimestampUnit;
use super::value::ValueSeed;

/// Columns that are found by name.
#[derive(Debug)]
pub(super) struct FieldSet {
    pub(super) columns: Vec<Column>,
    index: HashMap<String, usize>,
}

impl FieldSet {
    pub(super) fn new(declared: &[schema::Column], unit: TimestampUnit) -> Self {
        Self {
            columns: declared.iter().map(|column| Column::new(column, unit)).collect(),
            index: declared.iter().enumerate().map(|(i, column)| (column.name.clone(), i)).collect(),
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(len));
    }

    /// Which column a field belongs to. Producers write their fields in one order, so the column after the last
    /// one is tried first.
    #[inline]
    fn position(&self, name: &str, expected: usize) -> Option<usize> {
        match self.columns.get(expected) {
            Some(column) if column.name == name => Some(expected),
            _ => self.index.get(name).copied(),
        }
    }
}

/// Reads one object as row number `row` of a field set, in which all columns have `row` rows yet.
pub(super) struct ObjectSeed<'a> {
    pub(super) fields: &'a mut FieldSet,
    pub(super) row: usize,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut expected = 0;
        while let Some(found) = map.next_key_seed(NameSeed { fields: self.fields, expected })? {
            let Some(position) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let column = &mut self.fields.columns[position];
            if column.len > self.row {
                // The name occurred before: the last one counts.
                column.truncate(self.row);
            }
            map.next_value_seed(ValueSeed { column })?;
            expected = position + 1;
        }
        for column in &mut self.fields.columns {
            if column.len == self.row {
                if column.not_null {
                    return Err(serde::de::Error::custom(format_args!(
                        "column {} is NOT NULL and the field is missing",
                        column.name
                    )));
                }
                column.push_null();
            }
        }
        Ok(())
    }
}

/// Reads a field's name as the position of its column.
struct NameSeed<'a> {
    fields: &'a FieldSet,
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.fields.position(name, self.expected))
    }
}
