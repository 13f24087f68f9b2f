//! The builder of one column.

use std::{fmt, sync::Arc};

use arrow::{
    array::{
        Array, ArrayBuilder, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Float32Builder,
        Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, LargeBinaryBuilder,
        LargeStringBuilder, PrimitiveArray, StringBuilder, StringDictionaryBuilder, StringViewBuilder,
        UInt8Builder, UInt16Builder, UInt32Builder, UInt64Builder,
    },
    datatypes::{
        DataType, Date32Type, Int32Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType,
    },
};

use crate::cell::CellError;

/// Takes the values of one field.
pub struct ColumnBuilder {
    kind: DataType,
    values: Values,
    last_is_null: bool,
    /// Bytes of text that were appended.
    text_bytes: usize,
    /// How many of them with the last value.
    last_bytes: usize,
}

impl fmt::Debug for ColumnBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColumnBuilder({})", self.kind)
    }
}

enum Values {
    Boolean(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt8(UInt8Builder),
    UInt16(UInt16Builder),
    UInt32(UInt32Builder),
    UInt64(UInt64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    String(StringBuilder),
    LargeString(LargeStringBuilder),
    StringView(StringViewBuilder),
    Dictionary(Box<StringDictionaryBuilder<Int32Type>>),
    Binary(BinaryBuilder),
    LargeBinary(LargeBinaryBuilder),
}

/// Does the same with whichever builder it is.
macro_rules! with {
    ($values:expr, $builder:ident => $body:expr) => {
        match $values {
            Values::Boolean($builder) => $body,
            Values::Int8($builder) => $body,
            Values::Int16($builder) => $body,
            Values::Int32($builder) => $body,
            Values::Int64($builder) => $body,
            Values::UInt8($builder) => $body,
            Values::UInt16($builder) => $body,
            Values::UInt32($builder) => $body,
            Values::UInt64($builder) => $body,
            Values::Float32($builder) => $body,
            Values::Float64($builder) => $body,
            Values::String($builder) => $body,
            Values::LargeString($builder) => $body,
            Values::StringView($builder) => $body,
            Values::Dictionary($builder) => $body,
            Values::Binary($builder) => $body,
            Values::LargeBinary($builder) => $body,
        }
    };
}

impl ColumnBuilder {
    /// A builder for a type; `None` if its values cannot be written one by one.
    pub(super) fn new(kind: &DataType, capacity: usize) -> Option<Self> {
        use DataType as T;
        let text = capacity * 8;
        let values = match kind {
            T::Boolean => Values::Boolean(BooleanBuilder::with_capacity(capacity)),
            T::Int8 => Values::Int8(Int8Builder::with_capacity(capacity)),
            T::Int16 => Values::Int16(Int16Builder::with_capacity(capacity)),
            // Days since 1970.
            T::Int32 | T::Date32 => Values::Int32(Int32Builder::with_capacity(capacity)),
            // Seconds, or their fractions, since 1970.
            T::Int64 | T::Timestamp(_, _) => Values::Int64(Int64Builder::with_capacity(capacity)),
            T::UInt8 => Values::UInt8(UInt8Builder::with_capacity(capacity)),
            T::UInt16 => Values::UInt16(UInt16Builder::with_capacity(capacity)),
            T::UInt32 => Values::UInt32(UInt32Builder::with_capacity(capacity)),
            T::UInt64 => Values::UInt64(UInt64Builder::with_capacity(capacity)),
            T::Float32 => Values::Float32(Float32Builder::with_capacity(capacity)),
            T::Float64 => Values::Float64(Float64Builder::with_capacity(capacity)),
            T::Utf8 => Values::String(StringBuilder::with_capacity(capacity, text)),
            T::LargeUtf8 => Values::LargeString(LargeStringBuilder::with_capacity(capacity, text)),
            T::Utf8View => Values::StringView(StringViewBuilder::with_capacity(capacity)),
            T::Dictionary(key, value) if **key == T::Int32 && **value == T::Utf8 => {
                Values::Dictionary(Box::new(StringDictionaryBuilder::with_capacity(capacity, 64, 512)))
            }
            T::Binary => Values::Binary(BinaryBuilder::with_capacity(capacity, text)),
            T::LargeBinary => Values::LargeBinary(LargeBinaryBuilder::with_capacity(capacity, text)),
            _ => return None,
        };
        Some(Self { kind: kind.clone(), values, last_is_null: false, text_bytes: 0, last_bytes: 0 })
    }

    pub(super) fn ends_with_null(&self) -> bool {
        self.last_is_null
    }

    /// About how many bytes its values hold.
    pub(super) fn held_bytes(&self, rows: usize) -> usize {
        let each = self.kind.primitive_width().unwrap_or(size_of::<u32>());
        self.text_bytes + rows * each
    }

    /// Forgets everything behind the first `rows` values, which is at most one.
    pub(super) fn truncate(&mut self, rows: usize) {
        let length = with!(&self.values, builder => builder.len());
        if length > rows {
            self.text_bytes -= self.last_bytes;
            let kept = self.build().slice(0, rows);
            // Through an array and back: only failed rows come here.
            self.refill(&kept);
        }
    }

    fn build(&mut self) -> ArrayRef {
        with!(&mut self.values, builder => Arc::new(builder.finish()) as ArrayRef)
    }

    fn refill(&mut self, kept: &ArrayRef) {
        use arrow::datatypes as t;
        match &mut self.values {
            Values::Boolean(builder) => builder.append_array(kept.as_boolean()),
            Values::Int8(builder) => builder.append_array(kept.as_primitive::<t::Int8Type>()),
            Values::Int16(builder) => builder.append_array(kept.as_primitive::<t::Int16Type>()),
            Values::Int32(builder) => builder.append_array(kept.as_primitive::<t::Int32Type>()),
            Values::Int64(builder) => builder.append_array(kept.as_primitive::<t::Int64Type>()),
            Values::UInt8(builder) => builder.append_array(kept.as_primitive::<t::UInt8Type>()),
            Values::UInt16(builder) => builder.append_array(kept.as_primitive::<t::UInt16Type>()),
            Values::UInt32(builder) => builder.append_array(kept.as_primitive::<t::UInt32Type>()),
            Values::UInt64(builder) => builder.append_array(kept.as_primitive::<t::UInt64Type>()),
            Values::Float32(builder) => builder.append_array(kept.as_primitive::<t::Float32Type>()),
            Values::Float64(builder) => builder.append_array(kept.as_primitive::<t::Float64Type>()),
            Values::String(builder) => kept.as_string::<i32>().iter().for_each(|v| builder.append_option(v)),
            Values::LargeString(builder) => {
                kept.as_string::<i64>().iter().for_each(|v| builder.append_option(v))
            }
            Values::StringView(builder) => {
                kept.as_string_view().iter().for_each(|v| builder.append_option(v))
            }
            Values::Dictionary(builder) => {
                let words = kept.as_dictionary::<Int32Type>();
                let values = words.values().as_string::<i32>();
                words.keys_iter().for_each(|key| builder.append_option(key.map(|key| values.value(key))));
            }
            Values::Binary(builder) => kept.as_binary::<i32>().iter().for_each(|v| builder.append_option(v)),
            Values::LargeBinary(builder) => {
                kept.as_binary::<i64>().iter().for_each(|v| builder.append_option(v))
            }
        }
    }

    /// The column, which leaves the builder empty.
    pub(super) fn finish(&mut self) -> ArrayRef {
        self.text_bytes = 0;
        self.last_bytes = 0;
        let built = self.build();
        match &self.kind {
            DataType::Date32 => {
                let days = built.as_primitive::<Int32Type>();
                Arc::new(PrimitiveArray::<Date32Type>::new(days.values().clone(), days.nulls().cloned()))
            }
            DataType::Timestamp(unit, zone) => {
                let times = built.as_primitive::<arrow::datatypes::Int64Type>();
                let (values, nulls, zone) = (times.values().clone(), times.nulls().cloned(), zone.clone());
                match unit {
                    TimeUnit::Second => Arc::new(
                        PrimitiveArray::<TimestampSecondType>::new(values, nulls).with_timezone_opt(zone),
                    ),
                    TimeUnit::Millisecond => Arc::new(
                        PrimitiveArray::<TimestampMillisecondType>::new(values, nulls)
                            .with_timezone_opt(zone),
                    ),
                    TimeUnit::Microsecond => Arc::new(
                        PrimitiveArray::<TimestampMicrosecondType>::new(values, nulls)
                            .with_timezone_opt(zone),
                    ),
                    TimeUnit::Nanosecond => Arc::new(
                        PrimitiveArray::<TimestampNanosecondType>::new(values, nulls).with_timezone_opt(zone),
                    ),
                }
            }
            _ => built,
        }
    }

    fn wrong(&self, asked: &'static str) -> CellError {
        CellError::Type { asked, found: self.kind.clone() }
    }

    fn null(&mut self) {
        self.last_is_null = true;
        self.last_bytes = 0;
        with!(&mut self.values, builder => builder.append_null());
    }

    fn text(&mut self, value: &str) -> Result<(), CellError> {
        self.last_is_null = false;
        match &mut self.values {
            Values::String(builder) => builder.append_value(value),
            Values::LargeString(builder) => builder.append_value(value),
            Values::StringView(builder) => builder.append_value(value),
            Values::Dictionary(builder) => builder.append_value(value),
            _ => return Err(self.wrong("a string")),
        }
        self.count(value.len());
        Ok(())
    }

    fn bytes(&mut self, value: &[u8]) -> Result<(), CellError> {
        self.last_is_null = false;
        match &mut self.values {
            Values::Binary(builder) => builder.append_value(value),
            Values::LargeBinary(builder) => builder.append_value(value),
            _ => return Err(self.wrong("bytes")),
        }
        self.count(value.len());
        Ok(())
    }

    fn count(&mut self, bytes: usize) {
        self.text_bytes += bytes;
        self.last_bytes = bytes;
    }

    fn boolean(&mut self, value: bool) -> Result<(), CellError> {
        self.last_is_null = false;
        match &mut self.values {
            Values::Boolean(builder) => builder.append_value(value),
            _ => return Err(self.wrong("a bool")),
        }
        Ok(())
    }

    fn float(&mut self, value: f64) -> Result<(), CellError> {
        self.last_is_null = false;
        match &mut self.values {
            Values::Float64(builder) => builder.append_value(value),
            _ => return Err(self.wrong("an f64")),
        }
        Ok(())
    }

    fn short_float(&mut self, value: f32) -> Result<(), CellError> {
        match &mut self.values {
            Values::Float32(builder) => {
                self.last_is_null = false;
                builder.append_value(value);
                Ok(())
            }
            _ => self.float(f64::from(value)),
        }
    }

    fn whole<N: Copy + ToString + TryInto<i64> + TryInto<u64>>(
        &mut self,
        number: N,
    ) -> Result<(), CellError> {
        self.last_is_null = false;
        let signed: Result<i64, _> = number.try_into();
        let unsigned: Result<u64, _> = number.try_into();
        macro_rules! put {
            ($builder:expr, $number:expr) => {
                match $number.ok().and_then(|number| number.try_into().ok()) {
                    Some(number) => {
                        $builder.append_value(number);
                        Ok(())
                    }
                    None => Err(()),
                }
            };
        }
        let put = match &mut self.values {
            Values::Int64(builder) => put!(builder, signed),
            Values::Int32(builder) => put!(builder, signed),
            Values::Int16(builder) => put!(builder, signed),
            Values::Int8(builder) => put!(builder, signed),
            Values::UInt64(builder) => put!(builder, unsigned),
            Values::UInt32(builder) => put!(builder, unsigned),
            Values::UInt16(builder) => put!(builder, unsigned),
            Values::UInt8(builder) => put!(builder, unsigned),
            _ => return Err(self.wrong("a whole number")),
        };
        put.map_err(|()| CellError::Range { number: number.to_string(), asked: self.whole_name() })
    }

    fn whole_name(&self) -> &'static str {
        match &self.values {
            Values::Int8(_) => "Int8",
            Values::Int16(_) => "Int16",
            Values::Int32(_) => "Int32",
            Values::UInt8(_) => "UInt8",
            Values::UInt16(_) => "UInt16",
            Values::UInt32(_) => "UInt32",
            Values::UInt64(_) => "UInt64",
            _ => "Int64",
        }
    }
}

/// A value that can be written into a column.
pub trait ToCell {
    /// Appends the value.
    ///
    /// # Errors
    ///
    /// The column's type holds no such value, or the number does not fit.
    fn write(self, column: &mut ColumnBuilder) -> Result<(), CellError>;
}

macro_rules! cells {
    ($($value:ty => $write:expr),* $(,)?) => {$(
        impl ToCell for $value {
            fn write(self, column: &mut ColumnBuilder) -> Result<(), CellError> {
                let write: fn(&mut ColumnBuilder, Self) -> Result<(), CellError> = $write;
                write(column, self)
            }
        }
    )*};
}

cells! {
    &str => |column, value| column.text(value),
    String => |column, value| column.text(&value),
    &String => |column, value| column.text(value),
    &[u8] => |column, value| column.bytes(value),
    Vec<u8> => |column, value| column.bytes(&value),
    bool => |column, value| column.boolean(value),
    i8 => |column, value| column.whole(value),
    i16 => |column, value| column.whole(value),
    i32 => |column, value| column.whole(value),
    i64 => |column, value| column.whole(value),
    u8 => |column, value| column.whole(value),
    u16 => |column, value| column.whole(value),
    u32 => |column, value| column.whole(value),
    u64 => |column, value| column.whole(value),
    usize => |column, value| column.whole(value as u64),
    f32 => |column, value| column.short_float(value),
    f64 => |column, value| column.float(value),
}

impl<T: ToCell> ToCell for Option<T> {
    fn write(self, column: &mut ColumnBuilder) -> Result<(), CellError> {
        match self {
            Some(value) => value.write(column),
            None => {
                column.null();
                Ok(())
            }
        }
    }
}
