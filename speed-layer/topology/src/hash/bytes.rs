//! Strings and bytes, by their bytes.

use arrow::{
    array::{Array, AsArray},
    datatypes::DataType,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::SEED;

pub(super) fn is_bytes(kind: &DataType) -> bool {
    use DataType as T;
    matches!(
        kind,
        T::Utf8
            | T::LargeUtf8
            | T::Utf8View
            | T::Binary
            | T::LargeBinary
            | T::BinaryView
            | T::FixedSizeBinary(_)
    )
}

pub(super) fn each(array: &dyn Array, row: &mut impl FnMut(usize, u64)) {
    use DataType as T;
    let mut one = |at: usize, value: &[u8]| row(at, xxh3_64_with_seed(value, SEED));
    let rows = 0..array.len();
    // Values under nulls are read, too: every layout allows it, and the caller leaves them out.
    match array.data_type() {
        T::Utf8 => {
            let array = array.as_string::<i32>();
            rows.for_each(|at| one(at, array.value(at).as_bytes()));
        }
        T::LargeUtf8 => {
            let array = array.as_string::<i64>();
            rows.for_each(|at| one(at, array.value(at).as_bytes()));
        }
        T::Utf8View => {
            let array = array.as_string_view();
            rows.for_each(|at| one(at, array.value(at).as_bytes()));
        }
        T::Binary => {
            let array = array.as_binary::<i32>();
            rows.for_each(|at| one(at, array.value(at)));
        }
        T::LargeBinary => {
            let array = array.as_binary::<i64>();
            rows.for_each(|at| one(at, array.value(at)));
        }
        T::BinaryView => {
            let array = array.as_binary_view();
            rows.for_each(|at| one(at, array.value(at)));
        }
        _ => {
            let array = array.as_fixed_size_binary();
            rows.for_each(|at| one(at, array.value(at)));
        }
    }
}
