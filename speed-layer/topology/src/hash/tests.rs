use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
        DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, Float64Array, Int8Array,
        Int32Array, Int64Array, ListArray, NullArray, RunArray, StringArray, StructArray,
        TimestampMillisecondArray, TimestampSecondArray, UInt64Array,
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

/// One value of a type and the same, or another, of a second type.
fn alike(one: ArrayRef, other: ArrayRef) {
    assert_eq!(
        rows(&[Arc::clone(&one)]),
        rows(&[Arc::clone(&other)]),
        "{} and {}",
        one.data_type(),
        other.data_type()
    );
}

fn unlike(one: ArrayRef, other: ArrayRef) {
    assert_ne!(
        rows(&[Arc::clone(&one)]),
        rows(&[Arc::clone(&other)]),
        "{} and {}",
        one.data_type(),
        other.data_type()
    );
}

#[test]
fn bytes_of_a_fixed_size_are_bytes() {
    let fixed = |values: &[[u8; 3]]| -> ArrayRef {
        Arc::new(FixedSizeBinaryArray::try_from_iter(values.iter()).unwrap())
    };
    alike(fixed(&[*b"abc", *b"\0\0\0"]), Arc::new(BinaryArray::from_vec(vec![b"abc", b"\0\0\0"])));
    alike(fixed(&[*b"abc"]), Arc::new(StringArray::from(vec!["abc"])));
    alike(fixed(&[*b"abc", *b"xyz"]).slice(1, 1), fixed(&[*b"xyz"]));
    unlike(fixed(&[*b"abc"]), fixed(&[*b"abd"]));
}

#[test]
fn times_of_day_and_durations_hash_by_what_they_last() {
    use arrow::array as a;
    let times: [ArrayRef; 4] = [
        Arc::new(a::Time32SecondArray::from(vec![5, 86_399])),
        Arc::new(a::Time32MillisecondArray::from(vec![5_000, 86_399_000])),
        Arc::new(a::Time64MicrosecondArray::from(vec![5_000_000, 86_399_000_000])),
        Arc::new(a::Time64NanosecondArray::from(vec![5_000_000_000, 86_399_000_000_000])),
    ];
    times.windows(2).for_each(|pair| alike(Arc::clone(&pair[0]), Arc::clone(&pair[1])));
    unlike(times[0].slice(0, 1), Arc::new(a::Time32SecondArray::from(vec![6])));
    let durations: [ArrayRef; 4] = [
        Arc::new(a::DurationSecondArray::from(vec![-7, i64::MAX / 1_000_000_000])),
        Arc::new(a::DurationMillisecondArray::from(vec![-7_000, i64::MAX / 1_000_000_000 * 1_000])),
        Arc::new(a::DurationMicrosecondArray::from(vec![-7_000_000, i64::MAX / 1_000_000_000 * 1_000_000])),
        Arc::new(a::DurationNanosecondArray::from(vec![
            -7_000_000_000,
            i64::MAX / 1_000_000_000 * 1_000_000_000,
        ])),
    ];
    durations.windows(2).for_each(|pair| alike(Arc::clone(&pair[0]), Arc::clone(&pair[1])));
    unlike(durations[0].slice(0, 1), Arc::new(a::DurationSecondArray::from(vec![7])));
}

#[test]
fn intervals_hash_by_their_months_days_and_time() {
    use arrow::{array as a, datatypes as d};
    let months: ArrayRef = Arc::new(a::IntervalYearMonthArray::from(vec![14]));
    let days: ArrayRef =
        Arc::new(a::IntervalDayTimeArray::from(vec![d::IntervalDayTime { days: 3, milliseconds: 250 }]));
    let full = |months, days, nanoseconds| -> ArrayRef {
        let value = d::IntervalMonthDayNano { months, days, nanoseconds };
        Arc::new(a::IntervalMonthDayNanoArray::from(vec![value]))
    };
    alike(months, full(14, 0, 0));
    alike(days, full(0, 3, 250_000_000));
    // A month has no number of days, and a day none of hours.
    unlike(full(1, 0, 0), full(0, 30, 0));
    unlike(full(0, 1, 0), full(0, 0, 86_400_000_000_000));
}

#[test]
fn decimals_of_every_width_hash_by_their_number() {
    use arrow::{array as a, datatypes::i256};
    let widths = |digits: i32, scale: i8| -> [ArrayRef; 4] {
        [
            Arc::new(a::Decimal32Array::from(vec![digits]).with_precision_and_scale(9, scale).unwrap()),
            Arc::new(
                a::Decimal64Array::from(vec![i64::from(digits)]).with_precision_and_scale(18, scale).unwrap(),
            ),
            Arc::new(
                Decimal128Array::from(vec![i128::from(digits)]).with_precision_and_scale(38, scale).unwrap(),
            ),
            Arc::new(
                a::Decimal256Array::from(vec![i256::from(digits)])
                    .with_precision_and_scale(76, scale)
                    .unwrap(),
            ),
        ]
    };
    for digits in [0, 150, -1_500, 999_999_999] {
        let (one, scaled) = (widths(digits, 2), widths(digits, 3));
        for other in &one[1..] {
            alike(Arc::clone(&one[0]), Arc::clone(other));
        }
        if digits != 0 {
            unlike(Arc::clone(&one[0]), Arc::clone(&scaled[3]));
        }
    }
    alike(Arc::clone(&widths(150, 2)[0]), Arc::clone(&widths(15, 1)[3]));
}

#[test]
fn halves_hash_like_longer_floats() {
    let halves = |values: &[f32]| -> ArrayRef {
        cast(&(Arc::new(Float32Array::from(values.to_vec())) as ArrayRef), &DataType::Float16).unwrap()
    };
    let values = [1.5, 0.0, -0.0, -2.25, f32::INFINITY, f32::NAN];
    alike(halves(&values), Arc::new(Float32Array::from(values.to_vec())));
    alike(halves(&values), Arc::new(Float64Array::from(values.map(f64::from).to_vec())));
    unlike(halves(&[1.5]), halves(&[1.25]));
}

#[test]
fn dictionaries_hash_by_their_values_whatever_these_are() {
    let kinds = [
        DataType::Int64,
        DataType::Float64,
        DataType::Decimal128(20, 2),
        DataType::Date32,
        DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None),
    ];
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(40), Some(7)]));
    for kind in kinds {
        let plain = match kind {
            DataType::Date32 => cast(&cast(&numbers, &DataType::Int32).unwrap(), &kind).unwrap(),
            _ => cast(&numbers, &kind).unwrap(),
        };
        let keys = Int32Array::from(vec![Some(1), None, Some(0), Some(1)]);
        let values = arrow::compute::take(&plain, &Int32Array::from(vec![2, 0]), None).unwrap();
        alike(Arc::new(DictionaryArray::<Int32Type>::new(keys, values)), plain);
    }
}

#[test]
fn maps_and_views_of_lists_hash_by_their_elements() {
    use arrow::{array as a, buffer::OffsetBuffer};
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None]),
        Some(vec![]),
        None,
        Some(vec![Some(1), Some(2)]),
    ]);
    let plain: ArrayRef = Arc::new(lists.clone());
    alike(Arc::new(a::ListViewArray::from(lists.clone())), Arc::clone(&plain));
    let large = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)])]);
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    let large = a::LargeListArray::new(
        item,
        OffsetBuffer::new(vec![0_i64, 2].into()),
        Arc::clone(large.values()),
        None,
    );
    alike(Arc::new(a::LargeListViewArray::from(large)), plain.slice(3, 1));
    // A map is a list of its entries.
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1)]));
    let entries = StructArray::try_from(vec![("keys", keys), ("values", values)]).unwrap();
    let entry = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let offsets = OffsetBuffer::new(vec![0, 2, 3].into());
    let map = a::MapArray::new(Arc::clone(&entry), offsets.clone(), entries.clone(), None, false);
    let map: ArrayRef = Arc::new(map);
    alike(Arc::clone(&map), Arc::new(ListArray::new(entry, offsets, Arc::new(entries), None)));
    unlike(map.slice(0, 1), map.slice(1, 1));
}

#[test]
fn unions_are_refused_wherever_they_are() {
    use arrow::datatypes::{UnionFields, UnionMode};
    let kinds = [Field::new("number", DataType::Int64, true), Field::new("word", DataType::Utf8, true)];
    let union = DataType::Union(UnionFields::from_fields(kinds), UnionMode::Dense);
    let list = DataType::List(Arc::new(Field::new_list_field(union.clone(), true)));
    for kind in [union.clone(), list] {
        let refused = hash_rows(&[arrow::array::new_empty_array(&kind)], &mut Vec::new()).unwrap_err();
        assert_eq!(refused, Unhashable { data_type: union.clone() });
    }
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
