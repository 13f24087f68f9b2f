use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Date32Array, Date64Array, Decimal128Array, DictionaryArray,
        FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, ListArray,
        NullArray, RunArray, StringArray, StructArray, TimestampMillisecondArray, TimestampSecondArray,
        UInt64Array,
    },
    compute::cast,
    datatypes::{DataType, Field, Int32Type, Int64Type},
};
use proptest::prelude::*;

use super::*;

fn hashes(array: impl Array + 'static) -> Vec<u64> {
    rows(&[Arc::new(array)])
}

fn rows(columns: &[ArrayRef]) -> Vec<u64> {
    let mut hashes = vec![1, 2, 3];
    hash_rows(columns, &mut hashes).unwrap();
    hashes
}

/// Every layout of strings and bytes that holds the same.
fn layouts(strings: &ArrayRef) -> Vec<ArrayRef> {
    use DataType as T;
    let dictionary = |key: T, value: T| T::Dictionary(Box::new(key), Box::new(value));
    let kinds = [
        T::LargeUtf8,
        T::Utf8View,
        T::Binary,
        T::LargeBinary,
        T::BinaryView,
        dictionary(T::Int32, T::Utf8),
        dictionary(T::UInt16, T::LargeUtf8),
    ];
    let mut layouts: Vec<ArrayRef> = kinds.iter().map(|kind| cast(strings, kind).unwrap()).collect();
    layouts.push(Arc::new(strings.as_string::<i32>().iter().collect::<RunArray<Int32Type>>()));
    layouts
}

#[test]
fn whole_numbers_hash_by_their_number() {
    let expected = hashes(Int64Array::from(vec![5, 0, 127]));
    assert_eq!(hashes(Int8Array::from(vec![5, 0, 127])), expected);
    assert_eq!(hashes(UInt64Array::from(vec![5, 0, 127])), expected);
    assert_eq!(hashes(Int8Array::from(vec![-1])), hashes(Int64Array::from(vec![-1])));
    assert_ne!(hashes(Int64Array::from(vec![-1])), hashes(UInt64Array::from(vec![u64::MAX])));
}

#[test]
fn floats_hash_by_their_number() {
    let found = hashes(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 1.5]));
    assert_eq!(found[0], found[1]);
    assert_eq!(found[2], found[3]);
    assert_eq!(hashes(Float32Array::from(vec![1.5])), found[4..]);
}

#[test]
fn decimals_hash_without_trailing_zeros() {
    let scaled = |digits: i128, scale: i8| {
        hashes(Decimal128Array::from(vec![digits]).with_precision_and_scale(20, scale).unwrap())
    };
    assert_eq!(scaled(150, 2), scaled(15, 1));
    assert_eq!(scaled(0, 2), scaled(0, 7));
    assert_ne!(scaled(150, 2), scaled(150, 1));
}

#[test]
fn times_hash_by_their_instant() {
    let seconds = hashes(TimestampSecondArray::from(vec![7, -1]));
    assert_eq!(hashes(TimestampMillisecondArray::from(vec![7_000, -1_000]).with_timezone("UTC")), seconds);
    assert_eq!(hashes(Date32Array::from(vec![3])), hashes(Date64Array::from(vec![3 * 86_400_000])));
}

#[test]
fn nulls_are_equal_whatever_lies_under_them() {
    let null = hashes(NullArray::new(1))[0];
    let strings = StringArray::from(vec![Some("a"), None]);
    assert_eq!(hashes(strings)[1], null);
    let masked = Int64Array::new(vec![1, 2, 3].into(), Some(vec![true, false, false].into()));
    assert_eq!(hashes(masked)[1..], [null, null]);
    assert_eq!(hashes(BooleanArray::from(vec![None, Some(true)]))[0], null);
    let values = StringArray::from(vec![None, Some("b")]);
    let dictionary =
        DictionaryArray::<Int32Type>::new(Int32Array::from(vec![Some(0), None, Some(1)]), Arc::new(values));
    let found = hashes(dictionary);
    assert_eq!(found[..2], [null, null]);
    assert_eq!(found[2], hashes(StringArray::from(vec!["b"]))[0]);
}

#[test]
fn lists_and_structs_hash_by_their_elements() {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None]),
        Some(vec![]),
        None,
        Some(vec![Some(1), Some(2)]),
    ]);
    let narrow =
        FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)])], 2);
    assert_eq!(hashes(narrow)[0], hashes(lists.clone())[3]);
    assert_eq!(hashes(lists.slice(1, 3)), hashes(lists.clone())[1..]);
    let large =
        cast(&lists, &DataType::LargeList(Arc::new(Field::new_list_field(DataType::Int32, true)))).unwrap();
    assert_eq!(rows(&[large]), hashes(lists));
    let person = |name: &str, age: ArrayRef| {
        let names: ArrayRef = Arc::new(StringArray::from(vec![name]));
        StructArray::try_from(vec![("name", names), ("age", age)]).unwrap()
    };
    let old = hashes(person("ann", Arc::new(Int64Array::from(vec![70]))));
    assert_eq!(hashes(person("ann", Arc::new(Int8Array::from(vec![70])))), old);
    assert_ne!(hashes(person("bob", Arc::new(Int64Array::from(vec![70])))), old);
}

#[test]
fn the_order_of_columns_counts() {
    let (one, two): (ArrayRef, ArrayRef) =
        (Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![2])));
    assert_ne!(rows(&[Arc::clone(&one), Arc::clone(&two)]), rows(&[two, one]));
}

#[test]
fn the_hashes_are_for_ever() {
    // Other processes, and states that outlive this one, go by these.
    assert_eq!(hashes(Int64Array::from(vec![42])), [STORED[0]]);
    assert_eq!(hashes(StringArray::from(vec!["stratus"])), [STORED[1]]);
}

const STORED: [u64; 2] = [11_128_913_877_502_094_268, 5303145575325271160];

#[test]
fn keys_spread_evenly() {
    let found = hashes(Int64Array::from_iter_values(0..100_000));
    let mut counts = [0_usize; 7];
    for hash in found {
        counts[((u128::from(hash) * 7) >> 64) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (13_800..14_800).contains(count)), "{counts:?}");
}

proptest! {
    #[test]
    fn strings_hash_alike_in_every_layout_and_slice(
        strings in prop::collection::vec(prop::option::of("[a-c]{0,3}|[\\PC]{10,20}"), 1..20),
        cut in 0_usize..20,
    ) {
        let strings: ArrayRef = Arc::new(StringArray::from(strings));
        let expected = rows(&[Arc::clone(&strings)]);
        let cut = cut.min(strings.len() - 1);
        for layout in layouts(&strings) {
            prop_assert_eq!(&rows(&[Arc::clone(&layout)]), &expected, "{}", layout.data_type());
            let slice = layout.slice(cut, layout.len() - cut);
            prop_assert_eq!(rows(&[slice]), &expected[cut..], "{}", layout.data_type());
        }
    }
}
