//! The values of one declared column while a batch is being decoded.
//!
//! Arrow's own builders cannot take back a row, and a record turns out to be bad only after some of its fields
//! have been read. These can: [`Column::truncate`] goes back to any earlier row. A column that the projection
//! leaves out checks every value all the same and keeps none, so a verdict cannot depend on the projection.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;
use stratus_seam::schema::{self, ColumnType};

use super::fields::FieldSet;
use super::time::TimestampUnit;

/// A column, or the items of a list.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: ColumnType,
    pub(super) not_null: bool,
    pub(super) unit: TimestampUnit,
    pub(super) values: Values,
    /// Whether values are kept, or only checked.
    pub(super) kept: bool,
    /// How many rows were pushed, kept or not.
    pub(super) len: usize,
    nulls: NullBufferBuilder,
}

/// Values by type. Those of NULL rows are there, as zeros.
#[derive(Debug)]
pub(super) enum Values {
    Boolean(BooleanBufferBuilder),
    SmallInt(Vec<i16>),
    Int(Vec<i32>),
    BigInt(Vec<i64>),
    Real(Vec<f32>),
    Double(Vec<f64>),
    Numeric(Vec<i128>, u8, i8),
    Text(Slices),
    Bytea(Slices),
    Date(Vec<i32>),
    /// Microseconds; whether the type has a zone.
    Timestamp(Vec<i64>, bool),
    Struct(FieldSet),
    /// Where each row's items end, and the items.
    List(Vec<i32>, Box<Column>),
}

/// Byte strings one behind the other.
#[derive(Debug, Default)]
pub(super) struct Slices {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Slices {
    pub(super) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.close();
    }

    /// Ends a value; the codec refuses chunks whose bytes an `i32` could not count.
    fn close(&mut self) {
        self.ends.push(self.bytes.len() as i32);
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let used =
            Self { ends: Vec::with_capacity(self.ends.len()), bytes: Vec::with_capacity(self.bytes.len()) };
        let full = std::mem::replace(self, used);
        (offsets(full.ends), Buffer::from_vec(full.bytes))
    }
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let mut all = Vec::with_capacity(ends.len() + 1);
    all.push(0);
    all.extend(ends);
    OffsetBuffer::new(ScalarBuffer::from(all))
}

impl Column {
    /// An empty column of a declared one.
    pub(super) fn new(declared: &schema::Column, unit: TimestampUnit) -> Self {
        Self {
            name: declared.name.clone(),
            kind: declared.kind.clone(),
            not_null: declared.not_null,
            unit,
            values: Values::new(&declared.kind, &declared.name, unit),
            kept: true,
            len: 0,
            nulls: NullBufferBuilder::new(0),
        }
    }

    /// Keeps or only checks the values from now on; the column must be empty.
    pub(super) fn keep(&mut self, kept: bool) {
        self.kept = kept;
        match &mut self.values {
            Values::Struct(fields) => fields.columns.iter_mut().for_each(|column| column.keep(kept)),
            Values::List(_, item) => item.keep(kept),
            _ => {}
        }
    }

    /// Appends NULL, whether or not the column may hold it: below a struct that is NULL nothing has a value.
    pub(super) fn push_null(&mut self) {
        self.len += 1;
        if let Values::Struct(fields) = &mut self.values {
            fields.columns.iter_mut().for_each(Self::push_null);
        }
        if !self.kept {
            return;
        }
        self.nulls.append_null();
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::SmallInt(values) => values.push(0),
            Values::Int(values) | Values::Date(values) => values.push(0),
            Values::BigInt(values) | Values::Timestamp(values, _) => values.push(0),
            Values::Real(values) => values.push(0.0),
            Values::Double(values) => values.push(0.0),
            Values::Numeric(values, ..) => values.push(0),
            Values::Text(values) | Values::Bytea(values) => values.close(),
            Values::Struct(_) => {}
            Values::List(ends, item) => ends.push(item.len as i32),
        }
    }

    /// Counts a row whose value has just been put into [`Column::values`], if the column keeps values.
    #[inline]
    pub(super) fn pushed(&mut self) {
        self.len += 1;
        if self.kept {
            self.nulls.append_non_null();
        }
    }

    /// Takes back all rows from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        if let Values::Struct(fields) = &mut self.values {
            fields.truncate(len);
        }
        if !self.kept {
            if let Values::List(_, item) = &mut self.values {
                item.truncate(0);
            }
            return;
        }
        self.nulls.truncate(len);
        match &mut self.values {
            Values::Boolean(values) => values.truncate(len),
            Values::SmallInt(values) => values.truncate(len),
            Values::Int(values) | Values::Date(values) => values.truncate(len),
            Values::BigInt(values) | Values::Timestamp(values, _) => values.truncate(len),
            Values::Real(values) => values.truncate(len),
            Values::Double(values) => values.truncate(len),
            Values::Numeric(values, ..) => values.truncate(len),
            Values::Text(values) | Values::Bytea(values) => values.truncate(len),
            Values::Struct(_) => {}
            Values::List(ends, item) => {
                ends.truncate(len);
                item.truncate(ends.last().map_or(0, |end| *end as usize));
            }
        }
    }

    /// The rows as an array; the column is empty afterwards.
    pub(super) fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        let len = std::mem::take(&mut self.len);
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::SmallInt(values) => Arc::new(Int16Array::new(taken(values), nulls)),
            Values::Int(values) => Arc::new(Int32Array::new(taken(values), nulls)),
            Values::BigInt(values) => Arc::new(Int64Array::new(taken(values), nulls)),
            Values::Real(values) => Arc::new(Float32Array::new(taken(values), nulls)),
            Values::Double(values) => Arc::new(Float64Array::new(taken(values), nulls)),
            Values::Numeric(values, precision, scale) => Arc::new(
                Decimal128Array::new(taken(values), nulls).with_precision_and_scale(*precision, *scale)?,
            ),
            Values::Text(values) => {
                let (offsets, bytes) = values.take();
                Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
            }
            Values::Bytea(values) => {
                let (offsets, bytes) = values.take();
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
            }
            Values::Date(values) => Arc::new(Date32Array::new(taken(values), nulls)),
            Values::Timestamp(values, zoned) => {
                let array = TimestampMicrosecondArray::new(taken(values), nulls);
                Arc::new(if *zoned { array.with_timezone("UTC") } else { array })
            }
            Values::Struct(fields) => struct_array(&self.kind, fields, nulls, len)?,
            Values::List(ends, item) => {
                let field = Arc::new(Field::new("element", item.kind.arrow(), true));
                let items = item.take()?;
                Arc::new(ListArray::try_new(field, offsets(std::mem::take(ends)), items, nulls)?)
            }
        })
    }
}

fn taken<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    let used = Vec::with_capacity(values.len());
    ScalarBuffer::from(std::mem::replace(values, used))
}

fn struct_array(
    kind: &ColumnType,
    fields: &mut FieldSet,
    nulls: Option<NullBuffer>,
    len: usize,
) -> Result<ArrayRef, ArrowError> {
    let arrow_fields = match kind.arrow() {
        DataType::Struct(arrow_fields) => arrow_fields,
        _ => Fields::empty(),
    };
    let arrays = fields.columns.iter_mut().map(Column::take).collect::<Result<Vec<ArrayRef>, _>>()?;
    Ok(Arc::new(StructArray::try_new_with_length(arrow_fields, arrays, nulls, len)?))
}

impl Values {
    fn new(kind: &ColumnType, name: &str, unit: TimestampUnit) -> Self {
        match kind {
            ColumnType::Boolean => Self::Boolean(BooleanBufferBuilder::new(0)),
            ColumnType::SmallInt => Self::SmallInt(Vec::new()),
            ColumnType::Int => Self::Int(Vec::new()),
            ColumnType::BigInt => Self::BigInt(Vec::new()),
            ColumnType::Real => Self::Real(Vec::new()),
            ColumnType::Double => Self::Double(Vec::new()),
            ColumnType::Numeric(precision, scale) => Self::Numeric(Vec::new(), *precision, *scale),
            ColumnType::Text => Self::Text(Slices::default()),
            ColumnType::Bytea => Self::Bytea(Slices::default()),
            ColumnType::Date => Self::Date(Vec::new()),
            ColumnType::Timestamp => Self::Timestamp(Vec::new(), false),
            ColumnType::TimestampTz => Self::Timestamp(Vec::new(), true),
            ColumnType::Struct(columns) => Self::Struct(FieldSet::new(columns, unit)),
            ColumnType::List(item) => {
                let item = schema::Column::new(format!("{name}[]"), item.as_ref().clone());
                Self::List(Vec::new(), Box::new(Column::new(&item, unit)))
            }
        }
    }
}
