//! Batches of keys and numbers, and what comes of them.

use std::sync::{Arc, Mutex};

use arrow::{
    array::{Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use stratus_topology::fields;
use stratus_trident::{FeederBatchSpout, Stream, TridentTopology};

use crate::support::run;

pub(crate) const SOME: &[(&str, i64)] = &[("a", 3), ("b", 1), ("a", 5), ("c", 2), ("b", 9)];

/// Keeps every row that comes by, as text.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    /// A look at a stream's rows.
    pub(crate) fn watch(&self, stream: &Stream) {
        let seen = Arc::clone(&self.0);
        stream.map_rows(
            move |rows: &RecordBatch| {
                for row in 0..rows.num_rows() {
                    let values = rows
                        .columns()
                        .iter()
                        .map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
                    seen.lock().unwrap().push(values.collect::<Vec<_>>().join(","));
                }
                Ok(rows.clone())
            },
            stream.schema(),
        );
    }

    /// What has come by since the last time, sorted.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut seen = self.take_in_order();
        seen.sort();
        seen
    }

    pub(crate) fn take_in_order(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

pub(crate) fn pairs() -> SchemaRef {
    fields([("key", DataType::Utf8), ("number", DataType::Int64)])
}

pub(crate) fn pair_batch(pairs_given: &[(&str, i64)]) -> RecordBatch {
    let keys = StringArray::from_iter_values(pairs_given.iter().map(|(key, _)| key));
    let numbers = Int64Array::from_iter_values(pairs_given.iter().map(|(_, number)| *number));
    RecordBatch::try_new(pairs(), vec![Arc::new(keys), Arc::new(numbers)]).unwrap()
}

/// Feeds batches through some operations; what comes of them.
pub(crate) async fn of_batches(
    batches: &[RecordBatch],
    operations: impl Fn(Stream) -> Stream,
) -> Vec<String> {
    let (spout, seen) = (FeederBatchSpout::new(batches[0].schema()), Seen::default());
    let topology = TridentTopology::new();
    seen.watch(&operations(topology.new_stream("pairs", spout.clone())));
    let test = async {
        for batch in batches {
            spout.feed_and_wait(batch.clone()).await;
        }
    };
    run(&topology, test).await;
    seen.take()
}

/// Feeds batches of pairs through some operations; what comes of them.
pub(crate) async fn of_pairs(
    batches: &[&[(&str, i64)]],
    operations: impl Fn(Stream) -> Stream,
) -> Vec<String> {
    let batches: Vec<RecordBatch> = batches.iter().map(|given| pair_batch(given)).collect();
    of_batches(&batches, operations).await
}
