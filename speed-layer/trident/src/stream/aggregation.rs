//! Aggregations of batches, or of partitions of them.

use std::sync::Arc;

use arrow::{array::new_empty_array, compute::sort_to_indices, datatypes::SchemaRef};

use super::Stream;
use crate::{
    aggregator::{
        Aggregator, ChainedAggregator, Combined, CombinerAggregator, Recombined, Reduced, ReducerAggregator,
        RowsAggregator, single,
    },
    processor::{AggregateProcessor, BestProcessor, OfNothing, RowsAggregateProcessor},
    tuple::TridentValue,
};

impl Stream {
    /// Aggregates each partition of a batch by itself. What the aggregator emits takes the place of the tuples.
    pub fn partition_aggregate(
        &self,
        input: &[&str],
        aggregator: impl Aggregator,
        emitted: SchemaRef,
    ) -> Self {
        self.aggregated(
            &[],
            ChainedAggregator::new().aggregate(input, aggregator, emitted),
            OfNothing::Always,
        )
    }

    /// Aggregates each partition of a batch by itself, all of its rows at once. What the aggregator returns takes the
    /// place of the rows.
    pub fn partition_aggregate_rows(
        &self,
        input: &[&str],
        aggregator: impl RowsAggregator,
        emitted: SchemaRef,
    ) -> Self {
        let (input, schema) = (self.columns("partition_aggregate_rows", input), Arc::clone(&emitted));
        self.fallible("aggregate", vec![self.node], emitted, move || {
            let (aggregator, input) = (aggregator.clone(), input.clone());
            Ok(Box::new(RowsAggregateProcessor { aggregator, input, schema: Arc::clone(&schema) }))
        })
    }

    /// Aggregates each batch as a whole.
    pub fn aggregate(&self, input: &[&str], aggregator: impl Aggregator, emitted: SchemaRef) -> Self {
        let chain = ChainedAggregator::new().aggregate(input, aggregator, emitted);
        self.batch_global().aggregated(&[], chain, OfNothing::Once)
    }

    /// Aggregates each batch as a whole, to one value; partitions are combined before they travel.
    pub fn combine<C: CombinerAggregator>(&self, input: &[&str], combiner: C, field: &str) -> Self {
        let value = single(field, <C::Value as TridentValue>::data_type());
        let partial =
            ChainedAggregator::new().aggregate(input, Combined(combiner.clone()), Arc::clone(&value));
        let whole = ChainedAggregator::new().aggregate(&[field], Recombined(combiner), value);
        self.aggregated(&[], partial, OfNothing::Never).batch_global().aggregated(&[], whole, OfNothing::Once)
    }

    /// Aggregates each batch as a whole, to one value.
    pub fn reduce<R: ReducerAggregator>(&self, input: &[&str], reducer: R, field: &str) -> Self {
        self.aggregate(input, Reduced(reducer), single(field, <R::Value as TridentValue>::data_type()))
    }

    /// Several aggregations of each batch as a whole, in one pass.
    pub fn chained_aggregate(&self, chain: ChainedAggregator) -> Self {
        self.batch_global().aggregated(&[], chain, OfNothing::Once)
    }

    /// The first tuples of each partition of a batch.
    pub fn first_n(&self, count: usize) -> Self {
        self.processor("first", self.schema(), move || BestProcessor { count, by: None })
    }

    /// The tuples of each partition of a batch that have the greatest values of a field, the greatest first.
    pub fn top_n(&self, count: usize, field: &str) -> Self {
        self.best(count, field, true)
    }

    /// The tuple of each partition of a batch that has the least value of a field.
    pub fn min_by(&self, field: &str) -> Self {
        self.best(1, field, false)
    }

    /// The tuple of each partition of a batch that has the greatest value of a field.
    pub fn max_by(&self, field: &str) -> Self {
        self.best(1, field, true)
    }

    fn best(&self, count: usize, field: &str, greatest: bool) -> Self {
        let column = self.columns("best", &[field]).first().copied().unwrap_or(0);
        self.check_types("best", &[column], |kind| {
            sort_to_indices(&new_empty_array(kind), None, Some(count)).map(drop)
        });
        self.processor("best", self.schema(), move || BestProcessor { count, by: Some((column, greatest)) })
    }

    pub(super) fn aggregated(&self, key: &[usize], chain: ChainedAggregator, of_nothing: OfNothing) -> Self {
        let input = self.schema();
        for link in &chain.links {
            let names: Vec<&str> = link.input.iter().map(String::as_str).collect();
            self.check_input("aggregate", &names, |fields| link.make().accepts(fields));
        }
        let keys = key.iter().map(|column| input.field(*column).clone());
        let emitted =
            chain.links.iter().flat_map(|link| link.emitted.fields().iter().map(|f| f.as_ref().clone()));
        let schema = self.checked("aggregate", keys.chain(emitted).collect());
        let (key, kept) = (key.to_vec(), Arc::clone(&schema));
        self.fallible("aggregate", vec![self.node], schema, move || {
            let processor =
                AggregateProcessor::new(&input, &key, &chain.links, Arc::clone(&kept), of_nothing)?;
            Ok(Box::new(processor))
        })
    }
}
