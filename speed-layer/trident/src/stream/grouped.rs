//! Streams by groups.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::Stream;
use crate::{
    aggregator::{
        Aggregator, ChainedAggregator, Combined, CombinerAggregator, Recombined, Reduced, ReducerAggregator,
        single,
    },
    processor::OfNothing,
    tuple::TridentValue,
};

/// A stream whose tuples are grouped by the values of some fields.
#[derive(Clone, Debug)]
pub struct GroupedStream {
    pub(super) stream: Stream,
    pub(super) key: Vec<String>,
}

impl GroupedStream {
    pub(super) fn new(stream: Stream, key: &[&str]) -> Self {
        Self { stream, key: key.iter().map(ToString::to_string).collect() }
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.key.iter().map(String::as_str).collect()
    }

    /// The stream with its key's tuples on one task each.
    pub(super) fn partitioned(&self) -> Stream {
        self.stream.partition_by(&self.names())
    }

    /// Aggregates each group of a batch: its key with what the aggregator emits for it.
    pub fn aggregate(&self, input: &[&str], aggregator: impl Aggregator, emitted: SchemaRef) -> Stream {
        self.chained_aggregate(ChainedAggregator::new().aggregate(input, aggregator, emitted))
    }

    /// Several aggregations of each group of a batch, in one pass.
    pub fn chained_aggregate(&self, chain: ChainedAggregator) -> Stream {
        let partitioned = self.partitioned();
        let key = partitioned.columns("group_by", &self.names());
        partitioned.aggregated(&key, chain, OfNothing::Never)
    }

    /// Aggregates each group of a batch to one value; partitions are combined before they travel.
    pub fn combine<C: CombinerAggregator>(&self, input: &[&str], combiner: C, field: &str) -> Stream {
        let value = single(field, <C::Value as TridentValue>::data_type());
        let key = self.stream.columns("group_by", &self.names());
        let partial =
            ChainedAggregator::new().aggregate(input, Combined(combiner.clone()), Arc::clone(&value));
        let partial = self.stream.aggregated(&key, partial, OfNothing::Never);
        let whole = ChainedAggregator::new().aggregate(&[field], Recombined(combiner), value);
        Self { stream: partial, key: self.key.clone() }.chained_aggregate(whole)
    }

    /// Aggregates each group of a batch to one value.
    pub fn reduce<R: ReducerAggregator>(&self, input: &[&str], reducer: R, field: &str) -> Stream {
        self.aggregate(input, Reduced(reducer), single(field, <R::Value as TridentValue>::data_type()))
    }
}
