//! From records to tuples.

use std::sync::Arc;

use arrow::{
    array::{
        BinaryBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMillisecondBuilder,
    },
    datatypes::{DataType, SchemaRef, TimeUnit},
};
use stratus_topology::{TaskError, fields};
use thiserror::Error;

/// A record of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; a tombstone has none.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

/// The tuples that records became.
#[derive(Clone, Debug)]
pub struct Translated {
    /// The tuples.
    pub rows: RecordBatch,
    /// Row n is of the record at the n-th of these places; `None`: of the n-th record.
    pub records: Option<Vec<u32>>,
}

impl Translated {
    /// One tuple of each record.
    pub fn all(rows: RecordBatch) -> Self {
        Self { rows, records: None }
    }

    /// Tuples of the records at these places, in rising order. The others make none, and count as done.
    pub fn some(rows: RecordBatch, records: Vec<u32>) -> Self {
        Self { rows, records: Some(records) }
    }

    /// The place of each row's record among `count` records.
    pub(super) fn places(&self, count: usize) -> Result<Vec<u32>, TranslationError> {
        let rows = self.rows.num_rows();
        let Some(places) = &self.records else {
            return match rows == count {
                true => Ok((0..count as u32).collect()),
                false => Err(TranslationError::Rows { rows, records: count }),
            };
        };
        if places.len() != rows {
            return Err(TranslationError::Rows { rows, records: places.len() });
        }
        let rises = places.windows(2).all(|pair| pair[0] < pair[1]);
        if !rises || places.last().is_some_and(|last| *last as usize >= count) {
            return Err(TranslationError::Places { count });
        }
        Ok(places.clone())
    }
}

/// A translator's mistake.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TranslationError {
    /// Rows without a record, or the other way round.
    #[error(
        "the record translator made {rows} rows of {records} records: it must make one of each, or name those that it \
         made rows of with Translated::some"
    )]
    Rows {
        /// The rows.
        rows: usize,
        /// The records, or the places that were named.
        records: usize,
    },
    /// Places that are none.
    #[error(
        "the record translator named places that do not rise or are not below {count}, the number of records"
    )]
    Places {
        /// The records.
        count: usize,
    },
}

/// Makes tuples of records: of each record one, or none.
pub trait RecordTranslator: Send + Sync + 'static {
    /// The fields of the tuples.
    fn schema(&self) -> SchemaRef;

    /// Makes tuples of records, which may be of several partitions.
    ///
    /// # Errors
    ///
    /// After an error nothing is emitted, and the same records come again a little later: at an error that stays, the
    /// spout stands still. A record that cannot be read should be left out, or become a row that says so.
    fn translate(&self, records: &[Record<'_>]) -> Result<Translated, TaskError>;
}

/// Every record as it is: the fields `topic`, `partition`, `offset`, `key`, `value` and `timestamp`.
#[derive(Clone, Debug)]
pub struct WholeRecords {
    schema: SchemaRef,
}

impl Default for WholeRecords {
    fn default() -> Self {
        Self {
            schema: fields([
                ("topic", DataType::Utf8),
                ("partition", DataType::Int32),
                ("offset", DataType::Int64),
                ("key", DataType::Binary),
                ("value", DataType::Binary),
                ("timestamp", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ]),
        }
    }
}

impl RecordTranslator for WholeRecords {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn translate(&self, records: &[Record<'_>]) -> Result<Translated, TaskError> {
        let count = records.len();
        let size = |of: fn(&Record<'_>) -> usize| records.iter().map(of).sum::<usize>();
        let mut topic = StringBuilder::with_capacity(count, size(|record| record.topic.len()));
        let mut partition = Int32Builder::with_capacity(count);
        let mut offset = Int64Builder::with_capacity(count);
        let mut key = BinaryBuilder::with_capacity(count, size(|record| record.key.map_or(0, <[u8]>::len)));
        let mut value =
            BinaryBuilder::with_capacity(count, size(|record| record.value.map_or(0, <[u8]>::len)));
        let mut timestamp = TimestampMillisecondBuilder::with_capacity(count);
        for record in records {
            topic.append_value(record.topic);
            // Kafka has them as these types.
            partition.append_value(record.partition as i32);
            offset.append_value(record.offset as i64);
            key.append_option(record.key);
            value.append_option(record.value);
            timestamp.append_option(record.timestamp);
        }
        let rows = RecordBatch::try_new(
            self.schema(),
            vec![
                Arc::new(topic.finish()),
                Arc::new(partition.finish()),
                Arc::new(offset.finish()),
                Arc::new(key.finish()),
                Arc::new(value.finish()),
                Arc::new(timestamp.finish()),
            ],
        )?;
        Ok(Translated::all(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_records_must_fit() {
        let record =
            Record { topic: "t", partition: 3, offset: 9, key: None, value: Some(b"v"), timestamp: Some(5) };
        let rows = WholeRecords::default().translate(&[record, record]).unwrap().rows;
        assert_eq!(Translated::all(rows.clone()).places(2), Ok(vec![0, 1]));
        assert_eq!(
            Translated::all(rows.clone()).places(3),
            Err(TranslationError::Rows { rows: 2, records: 3 })
        );
        assert_eq!(Translated::some(rows.clone(), vec![0, 2]).places(3), Ok(vec![0, 2]));
        for places in [vec![2, 0], vec![1, 1], vec![1, 3]] {
            let wrong = Translated::some(rows.clone(), places).places(3);
            assert_eq!(wrong, Err(TranslationError::Places { count: 3 }));
        }
        assert_eq!(
            Translated::some(rows, vec![1]).places(3),
            Err(TranslationError::Rows { rows: 2, records: 1 })
        );
    }
}
