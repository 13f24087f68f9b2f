//! The hash that fields grouping goes by: equal values have equal hashes, whatever their Arrow encoding.
//!
//! Integers hash by their number in every width, strings and bytes by their bytes in every layout, lists by their
//! elements, decimals and times by the number or instant that they stand for; `-0.0` is `0.0`, and every NaN is the
//! same. Seeds are fixed, so that every process on every machine agrees.

mod bytes;
mod nested;
mod numbers;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::DataType,
};
use thiserror::Error;

/// Values of this type have no hash.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("values of type {data_type} cannot be hashed")]
pub struct Unhashable {
    /// The type.
    pub data_type: DataType,
}

/// What a null hashes to, in every type.
const NULL: u64 = 0x6E75_6C6C_5F5F_5F5F;
/// What a row's hash begins with.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// One hash per row over all columns, which must be equally long. `hashes` is emptied first.
///
/// # Errors
///
/// A column's type is a union, or contains one.
pub fn hash_rows(columns: &[ArrayRef], hashes: &mut Vec<u64>) -> Result<(), Unhashable> {
    hashes.clear();
    let Some((first, others)) = columns.split_first() else { return Ok(()) };
    each(first.as_ref(), |_, hash| hashes.push(mix(SEED ^ hash)))?;
    for column in others {
        each(column.as_ref(), |row, hash| hashes[row] = mix(hashes[row].rotate_left(23) ^ hash))?;
    }
    Ok(())
}

/// Another hash of what hashed to `hash`, independent of it.
pub(crate) fn second_hash(hash: u64) -> u64 {
    mix(hash ^ 0xD6E8_FEB8_6659_FD93)
}

/// Calls back with each row and the hash of its value, in order.
fn each(array: &dyn Array, mut row: impl FnMut(usize, u64)) -> Result<(), Unhashable> {
    use DataType as T;
    let nulls = array.logical_nulls();
    // A value under a null is nobody's.
    let mut valid = |at: usize, hash: u64| match &nulls {
        Some(nulls) if nulls.is_null(at) => row(at, NULL),
        _ => row(at, hash),
    };
    match array.data_type() {
        T::Null => (0..array.len()).for_each(|at| valid(at, NULL)),
        T::Boolean => array.as_boolean().values().iter().enumerate().for_each(|(at, value)| {
            valid(at, numbers::integer(i128::from(value)));
        }),
        kind if numbers::is_number(kind) => numbers::each(array, &mut valid),
        kind if bytes::is_bytes(kind) => bytes::each(array, &mut valid),
        _ => nested::each(array, &mut valid)?,
    }
    Ok(())
}

/// A finalizer with full avalanche: that of MurmurHash3 in David Stafford's variant 13.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
