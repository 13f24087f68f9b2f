//! How many bytes rows hold, and copies that hold no more than that.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, DictionaryArray, OffsetSizeTrait, PrimitiveArray, RecordBatch,
        RecordBatchOptions, UInt32Array, UInt64Array, downcast_dictionary_array, make_array,
    },
    compute::{take, take_record_batch},
    datatypes::{ArrowDictionaryKeyType, ArrowNativeType, DataType},
    error::ArrowError,
};

/// Batches are cut by their bytes so that several fit into a queue.
const OF_A_QUEUE: usize = 4;

/// Smaller ones are not cut: that would cost more than it saves.
const LEAST: usize = 64 << 10;

/// Larger ones always are. A column of text ends at 2 GiB.
const MOST: usize = 256 << 20;

/// A part of a batch smaller than this has its rows copied, so that it does not keep the memory of the whole.
pub(crate) const SHARE: usize = 4;

/// How many bytes a batch may hold on its way into a queue for so many. One row alone may hold more.
pub(crate) fn batch_bytes(queue_bytes: usize) -> usize {
    (queue_bytes / OF_A_QUEUE).clamp(LEAST, MOST)
}

/// Cuts the rows of a batch into ranges of at most so many rows and, as far as single rows allow, about so many bytes.
pub(crate) fn pieces(batch: &RecordBatch, most_rows: usize, most_bytes: usize) -> Vec<Range<usize>> {
    let rows = batch.num_rows();
    let by_rows = (0..rows).step_by(most_rows).map(|from| from..rows.min(from + most_rows));
    if batch.get_array_memory_size() <= most_bytes {
        return by_rows.collect();
    }
    let mut pieces = Vec::new();
    by_rows.for_each(|piece| halve(batch, piece, most_bytes, &mut pieces));
    pieces
}

fn halve(batch: &RecordBatch, piece: Range<usize>, most_bytes: usize, pieces: &mut Vec<Range<usize>>) {
    if piece.len() < 2 || own_bytes(batch, &piece) <= most_bytes {
        pieces.push(piece);
        return;
    }
    let middle = piece.start + piece.len() / 2;
    halve(batch, piece.start..middle, most_bytes, pieces);
    halve(batch, middle..piece.end, most_bytes, pieces);
}

/// About how many bytes some rows would hold by themselves.
fn own_bytes(batch: &RecordBatch, rows: &Range<usize>) -> usize {
    batch.columns().iter().map(|column| array_bytes(column, rows.clone())).sum()
}

fn array_bytes(array: &ArrayRef, rows: Range<usize>) -> usize {
    let count = rows.len();
    let part = array.slice(rows.start, count);
    match array.data_type() {
        kind if kind.primitive_width().is_some() => count * kind.primitive_width().unwrap_or_default(),
        DataType::Utf8 => text(part.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => text(part.as_string::<i64>().value_offsets()),
        DataType::Binary => text(part.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => text(part.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => views(part.as_string_view().views()),
        DataType::BinaryView => views(part.as_binary_view().views()),
        DataType::List(_) => {
            let list = part.as_list::<i32>();
            array_bytes(list.values(), ends(list.value_offsets())) + size_of_val(list.value_offsets())
        }
        DataType::LargeList(_) => {
            let list = part.as_list::<i64>();
            array_bytes(list.values(), ends(list.value_offsets())) + size_of_val(list.value_offsets())
        }
        DataType::Struct(_) => {
            part.as_struct().columns().iter().map(|column| array_bytes(column, 0..count)).sum()
        }
        // Each counts for its part of the values that all share.
        DataType::Dictionary(_, _) => {
            let values = array.as_any_dictionary().values();
            count * (size_of::<u64>() + values.get_array_memory_size() / values.len().max(1))
        }
        // One like the other.
        _ => count * (array.get_array_memory_size() / array.len().max(1)),
    }
}

/// What is between the first and the last of some offsets.
fn ends<O: OffsetSizeTrait>(offsets: &[O]) -> Range<usize> {
    match offsets {
        [first, .., last] => first.as_usize()..last.as_usize(),
        _ => 0..0,
    }
}

fn text<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    ends(offsets).len() + size_of_val(offsets)
}

fn views(views: &[u128]) -> usize {
    // The lower half of a view begins with its length; short values are in the view itself.
    let lengths = views.iter().map(|view| (*view as u32) as usize);
    lengths.filter(|length| *length > 12).sum::<usize>() + size_of_val(views)
}

/// Copies some rows of a batch into memory of their own. They exist. Unlike Arrow's own function this one also takes
/// batches without columns, and does not keep what only the other rows need.
pub(crate) fn take_rows(batch: &RecordBatch, rows: &UInt32Array) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    if batch.num_columns() == 0 {
        return RecordBatch::try_new_with_options(batch.schema(), Vec::new(), &options);
    }
    let taken = take_record_batch(batch, rows)?;
    if !batch.schema_ref().fields().iter().any(|field| shares(field.data_type())) {
        return Ok(taken);
    }
    let columns = taken.columns().iter().map(own).collect::<Result<_, _>>()?;
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

/// Whether Arrow copies only references to values of this type: into buffers of text, or a dictionary.
fn shares(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(_, _) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => shares(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| shares(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| shares(field.data_type())),
        DataType::RunEndEncoded(_, values) => shares(values.data_type()),
        _ => false,
    }
}

/// The same values without what only others need.
fn own(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        kind if !shares(kind) => Ok(Arc::clone(array)),
        DataType::Utf8View => Ok(Arc::new(array.as_string_view().gc()) as ArrayRef),
        DataType::BinaryView => Ok(Arc::new(array.as_binary_view().gc()) as ArrayRef),
        DataType::Dictionary(_, _) => {
            let words = array.as_any_dictionary();
            // Values that are about as many as the rows cost less to share than to sort out.
            if words.values().len() <= SHARE * array.len() && !shares(words.values().data_type()) {
                return Ok(Arc::clone(array));
            }
            let words = array.as_ref();
            downcast_dictionary_array!(
                words => own_words(words),
                _ => unreachable!("a dictionary by its type")
            )
        }
        _ => {
            let data = array.to_data();
            let children = data
                .child_data()
                .iter()
                .map(|child| own(&make_array(child.clone())).map(|child| child.to_data()))
                .collect::<Result<_, _>>()?;
            Ok(make_array(data.into_builder().child_data(children).build()?))
        }
    }
}

/// A dictionary of those values alone that are used.
fn own_words<K: ArrowDictionaryKeyType>(words: &DictionaryArray<K>) -> Result<ArrayRef, ArrowError> {
    let mut used: Vec<u64> = words.keys().iter().flatten().map(|key| key.as_usize() as u64).collect();
    used.sort_unstable();
    used.dedup();
    let place = |key: K::Native| used.binary_search(&(key.as_usize() as u64)).unwrap_or_default();
    let keys = words.keys().iter().map(|key| key.map(|key| K::Native::usize_as(place(key))));
    let keys: PrimitiveArray<K> = keys.collect();
    let values = own(&take(words.values(), &UInt64Array::from(used), None)?)?;
    Ok(Arc::new(DictionaryArray::try_new(keys, values)?))
}

#[cfg(test)]
mod tests;
