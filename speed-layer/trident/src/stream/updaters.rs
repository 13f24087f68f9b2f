//! How aggregations write map states, and how values are looked up in them.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use stratus_topology::{RowBuilder, TaskError, ToCell};

use crate::{
    aggregator::{CombinerAggregator, ReducerAggregator, single},
    collector::TridentCollector,
    keys::state_keys,
    state::{MapState, QueryFunction, StateUpdater},
    tuple::{TridentTuple, TridentValue, tuples},
};

/// Combines each row's value with that of its key. Rows are a key's fields and a value.
#[derive(Clone)]
pub(super) struct CombineValues<C> {
    pub(super) combiner: C,
    pub(super) keys: usize,
}

#[async_trait]
impl<C: CombinerAggregator, S: MapState<C::Value>> StateUpdater<S> for CombineValues<C> {
    async fn update_state(
        &mut self,
        state: &mut S,
        rows: &RecordBatch,
        out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        let keys = state_keys(&rows.columns()[..self.keys], rows.num_rows())?;
        let values: Vec<C::Value> =
            tuples(rows).map(|tuple| tuple.get(self.keys)).collect::<Result<_, _>>()?;
        let combiner = self.combiner.clone();
        let mut update = |at: usize, before: Option<C::Value>| {
            Ok(match before {
                Some(before) => combiner.combine(before, values[at].clone())?,
                None => values[at].clone(),
            })
        };
        let updated = state.multi_update(&keys, &mut update).await?;
        new_values(rows, self.keys, updated, out)
    }
}

/// Brings each row into the value of its key. Rows are a key's fields and what the reducer reads.
#[derive(Clone)]
pub(super) struct ReduceValues<R> {
    pub(super) reducer: R,
    pub(super) keys: usize,
}

#[async_trait]
impl<R: ReducerAggregator, S: MapState<R::Value>> StateUpdater<S> for ReduceValues<R> {
    async fn update_state(
        &mut self,
        state: &mut S,
        rows: &RecordBatch,
        out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        let encoded = state_keys(&rows.columns()[..self.keys], rows.num_rows())?;
        // Each key once, with its rows.
        let mut places: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (row, key) in encoded.iter().enumerate() {
            places.entry(key).or_default().push(row as u32);
        }
        let keys: Vec<String> = places.keys().map(ToString::to_string).collect();
        let of_key: Vec<&Vec<u32>> = places.values().collect();
        let read: Vec<usize> = (self.keys..rows.num_columns()).collect();
        let input = rows.project(&read)?;
        let reducer = self.reducer.clone();
        let mut update = |at: usize, before: Option<R::Value>| {
            let mut value = before.unwrap_or_else(|| reducer.init());
            for row in of_key[at] {
                value = reducer.reduce(value, TridentTuple::new(&input, *row as usize))?;
            }
            Ok(value)
        };
        let updated = state.multi_update(&keys, &mut update).await?;
        let firsts = UInt32Array::from_iter_values(of_key.iter().map(|rows| rows[0]));
        let keyed = take_record_batch(rows, &firsts)?;
        new_values(&keyed, self.keys, updated, out)
    }
}

/// Emits each row's key with its new value.
fn new_values<V: TridentValue>(
    rows: &RecordBatch,
    keys: usize,
    values: Vec<V>,
    out: &mut TridentCollector,
) -> Result<(), TaskError> {
    let column = column(values, V::data_type())?;
    let columns: Vec<ArrayRef> = rows.columns()[..keys].iter().cloned().chain([column]).collect();
    out.emit_rows(columns)
}

/// A column of values; a null where there is none.
fn column<V: ToCell>(values: Vec<V>, kind: DataType) -> Result<ArrayRef, TaskError> {
    let mut builder = RowBuilder::new(single("value", kind), values.len())?;
    for value in values {
        builder.append((value,))?;
    }
    Ok(Arc::clone(builder.finish().column(0)))
}

/// The value of each row's key; null if there is none.
#[derive(Clone)]
pub(super) struct MapGet<V> {
    fields: SchemaRef,
    value: PhantomData<fn() -> V>,
}

impl<V: TridentValue> MapGet<V> {
    pub(super) fn new(field: &str) -> Self {
        Self { fields: single(field, V::data_type()), value: PhantomData }
    }
}

#[async_trait]
impl<V: TridentValue, S: MapState<V>> QueryFunction<S> for MapGet<V> {
    fn fields(&self) -> SchemaRef {
        Arc::clone(&self.fields)
    }

    async fn batch_retrieve(
        &mut self,
        state: &mut S,
        rows: &RecordBatch,
    ) -> Result<Vec<ArrayRef>, TaskError> {
        let keys = state_keys(rows.columns(), rows.num_rows())?;
        let values = state.multi_get(&keys).await?;
        Ok(vec![column(values, V::data_type())?])
    }
}

/// The value of an ungrouped [`persistent_aggregate`](super::Stream::persistent_aggregate) behind each tuple, as one field;
/// null if there is none yet. For [`state_query`](super::Stream::state_query), without input fields.
#[derive(Clone, Debug)]
pub struct SnapshotGet<V> {
    fields: SchemaRef,
    value: PhantomData<fn() -> V>,
}

impl<V: TridentValue> SnapshotGet<V> {
    /// The value as a field of this name.
    pub fn new(field: &str) -> Self {
        Self { fields: single(field, V::data_type()), value: PhantomData }
    }
}

#[async_trait]
impl<V: TridentValue, S: MapState<V>> QueryFunction<S> for SnapshotGet<V> {
    fn fields(&self) -> SchemaRef {
        Arc::clone(&self.fields)
    }

    async fn batch_retrieve(
        &mut self,
        state: &mut S,
        rows: &RecordBatch,
    ) -> Result<Vec<ArrayRef>, TaskError> {
        let value = state.multi_get(&state_keys(&[], 1)?).await?.into_iter().next().flatten();
        Ok(vec![column(vec![value; rows.num_rows()], V::data_type())?])
    }
}
