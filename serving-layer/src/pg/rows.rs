//! Batches turned into the rows of the wire, a limited number of bytes at a time.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use pgwire::messages::data::RowDescription;
use stratus_sql::SqlError;

use super::cells::{Cells, length};
use super::errors::error;
use super::types::{column_type, description};

/// Rows are handed on when they reach this many bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// In which form the client wants the columns of an answer: 0 is text, 1 binary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Formats(Vec<i16>);

impl Formats {
    /// All columns as text.
    pub(crate) fn text() -> Self {
        Self::default()
    }

    /// The formats as a client asks for them: none means text, one is for every column.
    ///
    /// # Errors
    /// 08P01 for a format that does not exist.
    pub(crate) fn asked(codes: Vec<i16>) -> Result<Self, SqlError> {
        match codes.iter().find(|code| !matches!(code, 0 | 1)) {
            Some(code) => Err(error("08P01", format!("unsupported format code: {code}"))),
            None => Ok(Self(codes)),
        }
    }

    /// Checks that there is a format for each of this many columns.
    ///
    /// # Errors
    /// 08P01
    pub(crate) fn check(&self, columns: usize) -> Result<(), SqlError> {
        if self.0.len() > 1 && self.0.len() != columns {
            let asked = self.0.len();
            let message = format!("bind message has {asked} result formats but query has {columns} columns");
            return Err(error("08P01", message));
        }
        Ok(())
    }

    fn of(&self, column: usize) -> i16 {
        match self.0.as_slice() {
            [all] => *all,
            several => several.get(column).copied().unwrap_or(0),
        }
    }

    /// The columns of an answer, described to the client.
    pub(crate) fn describe(&self, columns: &Schema) -> RowDescription {
        let fields = columns.fields().iter().enumerate();
        RowDescription::new(fields.map(|(i, field)| description(field, self.of(i))).collect())
    }
}

/// Some rows of an answer, as the bytes of their messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    bytes: Bytes,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Rows {
    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of all rows.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Takes the first rows away, at most this many.
    pub(crate) fn split_to(&mut self, rows: usize) -> Self {
        if rows >= self.len() {
            return std::mem::take(self);
        }
        let rest = self.ends.split_off(rows);
        let cut = self.ends.last().copied().unwrap_or(0);
        let first = Self { bytes: self.bytes.split_to(cut), ends: std::mem::take(&mut self.ends) };
        self.ends = rest.into_iter().map(|end| end - cut).collect();
        first
    }
}

/// Writes the rows of one batch.
#[derive(Debug)]
pub(crate) struct BatchRows {
    columns: Vec<(Cells, bool)>,
    rows: usize,
    next: usize,
}

impl BatchRows {
    /// Makes a batch ready.
    ///
    /// # Errors
    /// 22003 if a value has no place in its type on the wire.
    pub(crate) fn new(fields: &Schema, batch: &RecordBatch, formats: &Formats) -> Result<Self, SqlError> {
        let columns = fields.fields().iter().zip(batch.columns()).enumerate();
        let columns = columns.map(|(i, (field, array))| Ok((Cells::new(field, array)?, formats.of(i) == 1)));
        Ok(Self { columns: columns.collect::<Result<_, SqlError>>()?, rows: batch.num_rows(), next: 0 })
    }

    /// The next rows, about [`CHUNK_BYTES`]; `None` after the last.
    ///
    /// # Errors
    /// As [`Cells::write_sized`].
    pub(crate) fn next_rows(&mut self) -> Result<Option<Rows>, SqlError> {
        if self.next == self.rows {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(CHUNK_BYTES + 4_096);
        let mut ends = Vec::new();
        while self.next < self.rows && out.len() < CHUNK_BYTES {
            let start = out.len();
            out.push(b'D');
            out.extend_from_slice(&[0; 4]);
            let count = i16::try_from(self.columns.len());
            let count = count.map_err(|_| error("54011", "an answer can have at most 32767 columns"))?;
            out.extend_from_slice(&count.to_be_bytes());
            for (cells, binary) in &self.columns {
                cells.write_sized(self.next, &mut out, *binary)?;
            }
            let size = length(out.len() - start - 1)?.to_be_bytes();
            if let Some(place) = out.get_mut(start + 1..start + 5) {
                place.copy_from_slice(&size);
            }
            ends.push(out.len());
            self.next += 1;
        }
        Ok(Some(Rows { bytes: out.into(), ends }))
    }
}

/// Brings the rows of an answer into the columns that the client was promised.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    columns: SchemaRef,
    casts: bool,
}

impl Promise {
    /// What was promised (if anything), against what the answer has.
    ///
    /// # Errors
    /// 0A000 if the statement's columns are others than when it was prepared.
    pub(crate) fn new(promised: Option<&SchemaRef>, actual: &SchemaRef) -> Result<Self, SqlError> {
        let Some(promised) = promised else {
            return Ok(Self { columns: Arc::clone(actual), casts: false });
        };
        if promised.fields().len() != actual.fields().len() {
            return Err(changed());
        }
        let same = |(a, b): (&Arc<Field>, &Arc<Field>)| column_type(a) == column_type(b);
        let casts = !promised.fields().iter().zip(actual.fields()).all(same);
        let columns = if casts { Arc::clone(promised) } else { marked_like(promised, actual) };
        Ok(Self { columns, casts })
    }

    /// The columns that the rows have.
    pub(crate) fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Brings one batch into these columns.
    ///
    /// # Errors
    /// 0A000 if a value cannot be brought into the type that was promised.
    pub(crate) fn keep(&self, batch: RecordBatch) -> Result<RecordBatch, SqlError> {
        if !self.casts {
            return Ok(batch);
        }
        let strict = CastOptions { safe: false, ..Default::default() };
        let columns = self.columns.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, array)| cast_with_options(array, field.data_type(), &strict));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|_| changed())?;
        RecordBatch::try_new(Arc::clone(&self.columns), columns).map_err(|_| changed())
    }
}

/// The actual columns with the promised marks: the engine's optimizer may lose what the planner knew of a column.
fn marked_like(promised: &Schema, actual: &Schema) -> SchemaRef {
    let fields = promised.fields().iter().zip(actual.fields());
    let fields = fields.map(|(promised, actual)| {
        actual.as_ref().clone().with_nullable(true).with_metadata(promised.metadata().clone())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn changed() -> SqlError {
    let mut changed = error("0A000", "cached plan must not change result type");
    changed.hint = Some("prepare the statement again".to_owned());
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Array, ArrayRef, Int64Array, ListArray, StringArray, UInt64Array};
    use datafusion::arrow::datatypes::{DataType, Int32Type};

    fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
        let fields = fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn one(array: ArrayRef, format: i16) -> Result<Vec<u8>, SqlError> {
        let fields = schema(&[("a", array.data_type().clone())]);
        let batch = RecordBatch::try_new(Arc::clone(&fields), vec![array]).unwrap();
        let formats = Formats::asked(vec![format]).unwrap();
        let rows = BatchRows::new(&fields, &batch, &formats)?.next_rows()?.unwrap();
        Ok(rows.bytes()[7..].to_vec())
    }

    #[test]
    fn rows_are_cut_where_they_end() {
        let numbers: Vec<i64> = (0..20_000).collect();
        let fields = schema(&[("n", DataType::Int64)]);
        let batch =
            RecordBatch::try_new(Arc::clone(&fields), vec![Arc::new(Int64Array::from(numbers))]).unwrap();
        let mut batch = BatchRows::new(&fields, &batch, &Formats::text()).unwrap();
        let mut bytes = Vec::new();
        let mut count = 0;
        while let Some(mut rows) = batch.next_rows().unwrap() {
            assert!(rows.bytes().len() < CHUNK_BYTES + 100);
            while !rows.is_empty() {
                let part = rows.split_to(7);
                assert!(part.len() <= 7 && part.bytes().starts_with(b"D"));
                count += part.len();
                bytes.extend_from_slice(part.bytes());
            }
        }
        assert_eq!(count, 20_000);
        // Every message still says its own length.
        let mut at = 0;
        while at < bytes.len() {
            let size = u32::from_be_bytes(bytes[at + 1..at + 5].try_into().unwrap());
            at += 1 + size as usize;
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn nested_arrays_are_rectangles_in_binary() {
        let inner = |rows: Vec<Vec<i32>>| -> ArrayRef {
            let items = rows.into_iter().map(|row| Some(row.into_iter().map(Some)));
            let items = ListArray::from_iter_primitive::<Int32Type, _, _>(items);
            let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
            let offsets = datafusion::arrow::buffer::OffsetBuffer::from_lengths([items.len()]);
            Arc::new(ListArray::new(field, offsets, Arc::new(items), None))
        };
        assert_eq!(one(inner(vec![vec![1, 2], vec![3, 4]]), 0).unwrap()[4..], *b"{{1,2},{3,4}}");
        assert_eq!(one(inner(vec![vec![1], vec![3, 4]]), 1).unwrap_err().sqlstate, "2202E");
        let binary = one(inner(vec![vec![1, 2], vec![3, 4]]), 1).unwrap();
        assert_eq!(binary[4..8], 2_i32.to_be_bytes());
        assert_eq!(binary[16..32], [2_i32, 1, 2, 1].map(i32::to_be_bytes).concat());
        assert_eq!(binary.len(), 32 + 4 * 8);
    }

    #[test]
    fn a_value_is_never_changed_by_its_way_to_the_wire() {
        let largest: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
        assert_eq!(one(largest, 0).unwrap()[4..], *b"18446744073709551615");
    }

    #[test]
    fn what_was_promised_is_kept_or_refused() {
        let promised = schema(&[("a", DataType::Int64)]);
        let batch = |array: ArrayRef| {
            RecordBatch::try_new(schema(&[("a", array.data_type().clone())]), vec![array]).unwrap()
        };
        let text = batch(Arc::new(StringArray::from(vec!["12"])));
        let promise = Promise::new(Some(&promised), &text.schema()).unwrap();
        assert_eq!(promise.keep(text).unwrap().schema(), promised);
        let text = batch(Arc::new(StringArray::from(vec!["x"])));
        assert_eq!(promise.keep(text).unwrap_err().sqlstate, "0A000");
        let two = schema(&[("a", DataType::Int64), ("b", DataType::Int64)]);
        assert_eq!(Promise::new(Some(&promised), &two).unwrap_err().sqlstate, "0A000");
    }
}
