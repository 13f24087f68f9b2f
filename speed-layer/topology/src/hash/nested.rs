//! Values of values: lists by their elements, structs by their fields, dictionaries and runs by what they mean.

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, AsArray, downcast_dictionary_array, downcast_run_array, make_array},
    datatypes::DataType,
};

use super::{SEED, Unhashable, mix};

pub(super) fn each(array: &dyn Array, row: &mut impl FnMut(usize, u64)) -> Result<(), Unhashable> {
    use DataType as T;
    match array.data_type() {
        T::Struct(_) => {
            let columns = array.as_struct().columns();
            let mut hashes = vec![SEED; array.len()];
            for column in columns {
                of(column.as_ref(), |at, hash| hashes[at] = mix(hashes[at].rotate_left(23) ^ hash))?;
            }
            hashes.into_iter().enumerate().for_each(|(at, hash)| row(at, hash));
        }
        T::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.offsets();
            lists(list.values(), array.len(), |at| offsets[at] as usize..offsets[at + 1] as usize, row)?;
        }
        T::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.offsets();
            lists(list.values(), array.len(), |at| offsets[at] as usize..offsets[at + 1] as usize, row)?;
        }
        T::ListView(_) => {
            let list = array.as_list_view::<i32>();
            let range = |at: usize| {
                list.value_offset(at) as usize..(list.value_offset(at) + list.value_size(at)) as usize
            };
            lists(list.values(), array.len(), range, row)?;
        }
        T::LargeListView(_) => {
            let list = array.as_list_view::<i64>();
            let range = |at: usize| {
                list.value_offset(at) as usize..(list.value_offset(at) + list.value_size(at)) as usize
            };
            lists(list.values(), array.len(), range, row)?;
        }
        T::FixedSizeList(_, size) => {
            let size = *size as usize;
            lists(array.as_fixed_size_list().values(), array.len(), |at| at * size..(at + 1) * size, row)?;
        }
        T::Map(_, _) => {
            let map = array.as_map();
            let entries: ArrayRef = make_array(map.entries().to_data());
            let offsets = map.offsets();
            lists(&entries, array.len(), |at| offsets[at] as usize..offsets[at + 1] as usize, row)?;
        }
        T::Dictionary(_, _) => downcast_dictionary_array!(
            array => {
                let hashes = all(array.values().as_ref())?;
                for at in 0..array.len() {
                    // A null key has no value; the caller knows that it is null.
                    row(at, array.key(at).map_or(0, |key| hashes[key]));
                }
            }
            kind => return Err(Unhashable { data_type: kind.clone() }),
        ),
        T::RunEndEncoded(_, _) => downcast_run_array!(
            array => {
                let hashes = all(array.values().as_ref())?;
                for at in 0..array.len() {
                    row(at, hashes[array.get_physical_index(at)]);
                }
            }
            kind => return Err(Unhashable { data_type: kind.clone() }),
        ),
        kind => return Err(Unhashable { data_type: kind.clone() }),
    }
    Ok(())
}

/// The elements are of all kinds, so the recursion goes through an object and not through ever new types.
fn of(array: &dyn Array, mut row: impl FnMut(usize, u64)) -> Result<(), Unhashable> {
    let row: &mut dyn FnMut(usize, u64) = &mut row;
    super::each(array, row)
}

fn all(array: &dyn Array) -> Result<Vec<u64>, Unhashable> {
    let mut hashes = Vec::with_capacity(array.len());
    of(array, |_, hash| hashes.push(hash))?;
    Ok(hashes)
}

fn lists(
    values: &ArrayRef,
    rows: usize,
    range: impl Fn(usize) -> Range<usize>,
    row: &mut impl FnMut(usize, u64),
) -> Result<(), Unhashable> {
    let hashes = all(values.as_ref())?;
    for at in 0..rows {
        let elements = &hashes[range(at)];
        let seed = mix(SEED ^ elements.len() as u64);
        row(at, elements.iter().fold(seed, |hash, element| mix(hash.rotate_left(23) ^ element)));
    }
    Ok(())
}
