use arrow::{
    array::{BinaryViewArray, Int64Array, ListArray, StringArray, StringViewArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{Field, Int8Type, Int32Type, Schema},
};

use super::*;

const ROWS: usize = 4_096;

fn long(row: usize) -> String {
    format!("{row:->100}")
}

fn words<K: ArrowDictionaryKeyType>(rows: usize) -> DictionaryArray<K> {
    (0..rows).map(long).map(Some).collect::<Vec<_>>().iter().map(Option::as_deref).collect()
}

fn list(values: ArrayRef) -> ListArray {
    let offsets = OffsetBuffer::from_lengths(vec![1; values.len()]);
    let field = Field::new("item", values.data_type().clone(), true);
    ListArray::new(Arc::new(field), offsets, values, None)
}

/// Columns of which Arrow copies references alone.
fn columns() -> Vec<ArrayRef> {
    let views = StringViewArray::from_iter_values((0..ROWS).map(long));
    let bytes = BinaryViewArray::from_iter_values((0..ROWS).map(long));
    let shared: ArrayRef = Arc::new(views.clone());
    let field = Arc::new(Field::new("inner", DataType::Utf8View, true));
    let of_views = DictionaryArray::<Int32Type>::new((0..ROWS as i32).collect(), Arc::clone(&shared));
    vec![
        Arc::clone(&shared),
        Arc::new(bytes),
        Arc::new(words::<Int32Type>(ROWS)),
        Arc::new(of_views),
        Arc::new(list(Arc::clone(&shared))),
        Arc::new(StructArray::from(vec![(field, shared)])),
        Arc::new(list(Arc::new(words::<Int32Type>(ROWS)))),
    ]
}

fn batch(column: ArrayRef) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("column", column.data_type().clone(), true)]);
    RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
}

#[test]
fn rows_that_are_copied_hold_nothing_of_the_others() {
    for column in columns() {
        let rows = batch(column);
        assert!(rows.get_array_memory_size() > 100 * ROWS);
        let chosen = UInt32Array::from(vec![4_000, 3, 4_000]);
        let taken = take_rows(&rows, &chosen).unwrap();
        let kind = rows.schema().field(0).data_type().clone();
        assert!(taken.get_array_memory_size() < 2_500, "{kind}: {}", taken.get_array_memory_size());
        assert_eq!(taken, take_record_batch(&rows, &chosen).unwrap(), "{kind}");
        // Also of a part of a larger batch.
        let taken = take_rows(&rows.slice(1_000, 3_000), &UInt32Array::from(vec![3_000 - 1])).unwrap();
        assert!(taken.get_array_memory_size() < 2_500, "{kind}: {}", taken.get_array_memory_size());
        assert_eq!(taken, rows.slice(3_999, 1), "{kind}");
    }
}

#[test]
fn nulls_and_small_dictionaries_stay_what_they_are() {
    let few: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    let rows = batch(Arc::new(few));
    let taken = take_rows(&rows, &UInt32Array::from(vec![1, 3])).unwrap();
    assert_eq!(taken, take_record_batch(&rows, &UInt32Array::from(vec![1, 3])).unwrap());
    let many: DictionaryArray<Int8Type> =
        (0..100).map(|n| n.to_string()).collect::<Vec<_>>().iter().map(|n| Some(n.as_str())).collect();
    let nulls = batch(Arc::new(many));
    let empty = take_rows(&nulls, &UInt32Array::from(vec![None::<u32>, Some(70)])).unwrap();
    let words = empty.column(0).as_any_dictionary();
    assert_eq!(words.values().as_ref(), &StringArray::from(vec!["70"]) as &dyn Array);
    assert!(words.is_null(0) && words.is_valid(1));
}

#[test]
fn batches_are_cut_by_rows_and_by_bytes() {
    let text = |lengths: &[usize]| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(lengths.iter().map(|length| "x".repeat(*length))))
    };
    let covers = |batch: &RecordBatch, pieces: &[Range<usize>]| {
        assert_eq!(
            pieces.iter().cloned().flatten().collect::<Vec<_>>(),
            (0..batch.num_rows()).collect::<Vec<_>>()
        );
    };
    let small = batch(text(&[10; 100]));
    assert_eq!(pieces(&small, 40, 1 << 20), [0..40, 40..80, 80..100]);
    assert!(pieces(&small.slice(0, 0), 40, 1 << 20).is_empty());

    let large = batch(text(&[1_000; 64]));
    let cut = pieces(&large, 4_096, 10_000);
    covers(&large, &cut);
    assert!(cut.iter().all(|piece| piece.len() == 8), "{cut:?}");

    // One row that is larger than all may be goes alone.
    let mut lengths = [1; 64];
    lengths[20] = 100_000;
    let uneven = batch(text(&lengths));
    let cut = pieces(&uneven, 4_096, 10_000);
    covers(&uneven, &cut);
    assert!(cut.contains(&(20..21)) && cut.len() <= 7, "{cut:?}");
}

#[test]
fn a_part_of_a_large_batch_is_not_cut_for_what_the_rest_holds() {
    let mut all = columns();
    let numbers: ArrayRef = Arc::new((0..ROWS as i64).collect::<Int64Array>());
    all.extend([Arc::clone(&numbers), Arc::new(list(numbers)) as ArrayRef]);
    for column in all {
        let kind = column.data_type().clone();
        let part = batch(column).slice(100, 20);
        let cut = pieces(&part, 4_096, 10_000);
        assert!(cut.len() == 1 && cut[0] == (0..20), "{kind}: {cut:?}");
    }
}
