//! Reading one value out of a column.

use arrow::{
    array::{Array, AsArray, downcast_dictionary_array},
    datatypes::{
        DataType, Date32Type, Date64Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
        Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use thiserror::Error;

/// Why a value cannot be read, or written, as asked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CellError {
    /// The column's type holds no such values.
    #[error("it is of type {found}, and {asked} was asked for")]
    Type {
        /// What was asked for.
        asked: &'static str,
        /// The column's type.
        found: DataType,
    },
    /// The value is null, and only an `Option` can be.
    #[error("it is null; `Option<{asked}>` takes nulls")]
    Null {
        /// What was asked for.
        asked: &'static str,
    },
    /// The number does not fit.
    #[error("the number {number} does not fit into {asked}")]
    Range {
        /// The number.
        number: String,
        /// What was asked for.
        asked: &'static str,
    },
}

/// What a value of a tuple can be read as. Integers are also read from other widths that hold the number, from dates and
/// from timestamps (their raw number); strings and bytes from every layout and from dictionaries.
pub trait FromCell<'a>: Sized {
    /// What it is called in errors.
    const NAME: &'static str;

    /// The value in a row that is not null.
    ///
    /// # Errors
    ///
    /// The column holds other values, or the value does not fit.
    fn from_valid(array: &'a dyn Array, row: usize) -> Result<Self, CellError>;

    /// The value in a row.
    ///
    /// # Errors
    ///
    /// It is null, of another type, or does not fit.
    fn from_cell(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        if array.is_null(row) {
            Err(CellError::Null { asked: Self::NAME })
        } else {
            Self::from_valid(array, row)
        }
    }
}

impl<'a, T: FromCell<'a>> FromCell<'a> for Option<T> {
    const NAME: &'static str = T::NAME;

    fn from_valid(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        T::from_valid(array, row).map(Some)
    }

    fn from_cell(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        if array.is_null(row) || *array.data_type() == DataType::Null {
            return Ok(None);
        }
        match T::from_valid(array, row) {
            // A dictionary's key may be there and its value not.
            Err(CellError::Null { .. }) => Ok(None),
            read => read.map(Some),
        }
    }
}

fn wrong<T>(array: &dyn Array, asked: &'static str) -> Result<T, CellError> {
    Err(CellError::Type { asked, found: array.data_type().clone() })
}

impl<'a> FromCell<'a> for &'a str {
    const NAME: &'static str = "&str";

    fn from_valid(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        match array.data_type() {
            DataType::Utf8 => Ok(array.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => Ok(array.as_string::<i64>().value(row)),
            DataType::Utf8View => Ok(array.as_string_view().value(row)),
            DataType::Dictionary(_, _) => of_dictionary(array, row),
            _ => wrong(array, Self::NAME),
        }
    }
}

impl<'a> FromCell<'a> for String {
    const NAME: &'static str = "String";

    fn from_valid(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        <&str>::from_valid(array, row).map(str::to_owned)
    }
}

impl<'a> FromCell<'a> for &'a [u8] {
    const NAME: &'static str = "&[u8]";

    fn from_valid(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        match array.data_type() {
            DataType::Binary => Ok(array.as_binary::<i32>().value(row)),
            DataType::LargeBinary => Ok(array.as_binary::<i64>().value(row)),
            DataType::BinaryView => Ok(array.as_binary_view().value(row)),
            DataType::FixedSizeBinary(_) => Ok(array.as_fixed_size_binary().value(row)),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                <&str>::from_valid(array, row).map(str::as_bytes)
            }
            DataType::Dictionary(_, _) => of_dictionary(array, row),
            _ => wrong(array, Self::NAME),
        }
    }
}

/// A dictionary's value for a row.
fn of_dictionary<'a, T: FromCell<'a>>(array: &'a dyn Array, row: usize) -> Result<T, CellError> {
    downcast_dictionary_array!(
        array => match array.key(row) {
            Some(key) => T::from_cell(array.values().as_ref(), key),
            None => Err(CellError::Null { asked: T::NAME }),
        },
        _ => wrong(array, T::NAME),
    )
}

impl<'a> FromCell<'a> for bool {
    const NAME: &'static str = "bool";

    fn from_valid(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        array.as_boolean_opt().map_or_else(|| wrong(array, Self::NAME), |array| Ok(array.value(row)))
    }
}

/// The whole number in a row, whatever column it is in.
fn whole(array: &dyn Array, row: usize) -> Option<i128> {
    use DataType as T;
    Some(match array.data_type() {
        T::Int64 => i128::from(array.as_primitive::<Int64Type>().value(row)),
        T::Int32 => i128::from(array.as_primitive::<Int32Type>().value(row)),
        T::Int16 => i128::from(array.as_primitive::<Int16Type>().value(row)),
        T::Int8 => i128::from(array.as_primitive::<Int8Type>().value(row)),
        T::UInt64 => i128::from(array.as_primitive::<UInt64Type>().value(row)),
        T::UInt32 => i128::from(array.as_primitive::<UInt32Type>().value(row)),
        T::UInt16 => i128::from(array.as_primitive::<UInt16Type>().value(row)),
        T::UInt8 => i128::from(array.as_primitive::<UInt8Type>().value(row)),
        T::Date32 => i128::from(array.as_primitive::<Date32Type>().value(row)),
        T::Date64 => i128::from(array.as_primitive::<Date64Type>().value(row)),
        T::Timestamp(unit, _) => i128::from(match unit {
            TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row),
            TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row),
            TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
            TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row),
        }),
        _ => return None,
    })
}

macro_rules! whole_numbers {
    ($($number:ident: $column:ident),*) => {$(
        impl<'a> FromCell<'a> for $number {
            const NAME: &'static str = stringify!($number);

            fn from_valid(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
                if let Some(array) = array.as_primitive_opt::<$column>() {
                    return Ok(array.value(row));
                }
                match whole(array, row) {
                    Some(number) => Self::try_from(number)
                        .map_err(|_| CellError::Range { number: number.to_string(), asked: Self::NAME }),
                    None => wrong(array, Self::NAME),
                }
            }
        }
    )*};
}

whole_numbers!(
    i8: Int8Type, i16: Int16Type, i32: Int32Type, i64: Int64Type, u8: UInt8Type, u16: UInt16Type, u32: UInt32Type,
    u64: UInt64Type
);

impl<'a> FromCell<'a> for f32 {
    const NAME: &'static str = "f32";

    fn from_valid(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        array
            .as_primitive_opt::<Float32Type>()
            .map_or_else(|| wrong(array, Self::NAME), |array| Ok(array.value(row)))
    }
}

impl<'a> FromCell<'a> for f64 {
    const NAME: &'static str = "f64";

    fn from_valid(array: &'a dyn Array, row: usize) -> Result<Self, CellError> {
        match array.as_primitive_opt::<Float64Type>() {
            Some(array) => Ok(array.value(row)),
            None => f32::from_valid(array, row).map(Self::from).or_else(|_| wrong(array, Self::NAME)),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Float32Array, Int32Array, Int64Array, StringArray, UInt64Array};

    use super::*;

    #[test]
    fn values_are_read_as_asked_where_they_fit() {
        let numbers = Int32Array::from(vec![Some(7), None, Some(-1)]);
        assert_eq!(i64::from_cell(&numbers, 0), Ok(7));
        assert_eq!(u8::from_cell(&numbers, 0), Ok(7));
        assert_eq!(Option::<i64>::from_cell(&numbers, 1), Ok(None));
        assert_eq!(i64::from_cell(&numbers, 1), Err(CellError::Null { asked: "i64" }));
        assert!(matches!(u64::from_cell(&numbers, 2), Err(CellError::Range { asked: "u64", .. })));
        assert!(matches!(
            i64::from_cell(&UInt64Array::from(vec![u64::MAX]), 0),
            Err(CellError::Range { .. })
        ));
        assert_eq!(f64::from_cell(&Float32Array::from(vec![0.5]), 0), Ok(0.5));
    }

    #[test]
    fn strings_are_read_from_dictionaries_too() {
        let dictionary: DictionaryArray<arrow::datatypes::Int8Type> =
            vec![Some("a"), None, Some("b")].into_iter().collect();
        assert_eq!(<&str>::from_cell(&dictionary, 2), Ok("b"));
        assert_eq!(Option::<String>::from_cell(&dictionary, 1), Ok(None));
        assert_eq!(<&[u8]>::from_cell(&StringArray::from(vec!["xy"]), 0), Ok(&b"xy"[..]));
    }

    #[test]
    fn another_type_is_refused_by_name() {
        let error = <&str>::from_cell(&Int64Array::from(vec![1]), 0).unwrap_err();
        assert_eq!(error.to_string(), "it is of type Int64, and &str was asked for");
    }
}
