//! Streams into states, and states into streams.

use std::{rc::Rc, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Schema, SchemaRef},
};
use async_trait::async_trait;
use stratus_seam::encoding::encode_rows;
use stratus_topology::{RowBuilder, TaskError};

use super::{GroupedStream, Stream};
use crate::{
    aggregator::{CombinerAggregator, ReducerAggregator, single},
    collector::TridentCollector,
    graph::{Kind, ProcessorFactory},
    processor::{PersistProcessor, QueryProcessor},
    spout::SpoutKind,
    state::{MapState, QueryFunction, SharedStates, StateFactory, StateKind, StateUpdater},
    topology::TridentState,
    tuple::{TridentValue, tuples},
};

impl Stream {
    /// Brings the tuples' `input` fields into a state, batch by batch, each partition into its own. What the updater
    /// emits is the stream of new values.
    pub fn partition_persist<F: StateFactory>(
        &self,
        factory: F,
        input: &[&str],
        updater: impl StateUpdater<F::State>,
        emitted: SchemaRef,
    ) -> TridentState<F> {
        self.warn_unless_exactly_once(factory.kind());
        let columns = self.columns("partition_persist", input);
        let partitions = factory.partitions();
        let states = SharedStates::new(factory);
        let (shared, fields) = (Arc::clone(&states), Arc::clone(&emitted));
        let make: ProcessorFactory = Arc::new(move || {
            let (states, updater) = (Arc::clone(&shared), updater.clone());
            Ok(Box::new(PersistProcessor::new(states, updater, columns.clone(), Arc::clone(&fields))))
        });
        let mut graph = self.graph.borrow_mut();
        let node = graph.add(Kind::Processor { make, commits: true }, "persist", vec![self.node], emitted);
        graph.nodes[node].partitions = partitions;
        drop(graph);
        TridentState {
            graph: Rc::clone(&self.graph),
            node: Some(node),
            states,
            partitions: partitions.unwrap_or(1),
        }
    }

    /// Each tuple with what `query` finds for its `input` fields in a state. The tuples must be partitioned as those
    /// that the state is written from: group both by the same key, or let the state have one partition.
    pub fn state_query<F: StateFactory>(
        &self,
        state: &TridentState<F>,
        input: &[&str],
        query: impl QueryFunction<F::State>,
    ) -> Self {
        let columns = self.columns("state_query", input);
        let schema =
            self.appended("state_query", query.fields().fields().iter().map(|field| field.as_ref().clone()));
        let (states, kept) = (Arc::clone(&state.states), Arc::clone(&schema));
        let queried = self.fallible("query", vec![self.node], schema, move || {
            let states = Arc::clone(&states);
            Ok(Box::new(QueryProcessor::new(states, query.clone(), columns.clone(), Arc::clone(&kept))))
        });
        {
            let mut graph = queried.graph.borrow_mut();
            let node = &mut graph.nodes[queried.node];
            (node.beside, node.partitions) = (state.node, state.node.is_none().then_some(state.partitions));
        }
        queried
    }

    fn warn_unless_exactly_once(&self, state: StateKind) {
        let mut graph = self.graph.borrow_mut();
        for spout in graph.spouts(self.node) {
            let Kind::Spout { name, spout } = &graph.nodes[spout].kind else { continue };
            let kind = spout.kind();
            let exactly_once = match (kind, state) {
                (SpoutKind::NonTransactional, _) | (_, StateKind::NonTransactional) => false,
                (SpoutKind::Opaque, StateKind::Transactional) => false,
                (SpoutKind::Transactional, _) | (SpoutKind::Opaque, StateKind::Opaque) => true,
            };
            if !exactly_once {
                let warning =
                    format!("spout `{name}` is {kind:?} and a state of it is {state:?}: not exactly once");
                graph.warnings.push(warning);
            }
        }
    }
}

impl GroupedStream {
    /// Keeps the value of every group over all batches in a map. Batches are combined before they travel, so that the
    /// state is written once for each group of a batch. New values come with the group's key.
    pub fn persistent_aggregate<C, F>(
        &self,
        factory: F,
        input: &[&str],
        combiner: C,
        field: &str,
    ) -> TridentState<F>
    where
        C: CombinerAggregator,
        F: StateFactory,
        F::State: MapState<C::Value>,
    {
        let combined = self.combine(input, combiner.clone(), field);
        let all: Vec<&str> = self.names().into_iter().chain([field]).collect();
        let emitted = combined.schema();
        combined.partition_persist(factory, &all, CombineValues { combiner, keys: self.key.len() }, emitted)
    }

    /// Keeps the value of every group over all batches in a map, tuple by tuple.
    pub fn persistent_reduce<R, F>(
        &self,
        factory: F,
        input: &[&str],
        reducer: R,
        field: &str,
    ) -> TridentState<F>
    where
        R: ReducerAggregator,
        F: StateFactory,
        F::State: MapState<R::Value>,
    {
        let partitioned = self.partitioned();
        let schema = partitioned.schema();
        let key = partitioned.columns("group_by", &self.names());
        let fields = key.iter().map(|column| schema.field(*column).clone());
        let value = single(field, <R::Value as TridentValue>::data_type());
        let emitted = Arc::new(Schema::new(fields.chain([value.field(0).clone()]).collect::<Vec<_>>()));
        let all: Vec<&str> = self.names().into_iter().chain(input.iter().copied()).collect();
        partitioned.partition_persist(factory, &all, ReduceValues { reducer, keys: self.key.len() }, emitted)
    }

    /// Each tuple with the value of its group in a map.
    pub fn state_query<V, F>(&self, state: &TridentState<F>, field: &str) -> Stream
    where
        V: TridentValue,
        F: StateFactory,
        F::State: MapState<V>,
    {
        let query = MapGet::<V> { fields: single(field, V::data_type()), value: std::marker::PhantomData };
        self.partitioned().state_query(state, &self.names(), query)
    }
}

/// Combines each row's value with that of its key. Rows are a key's fields and a value; a key comes once.
#[derive(Clone)]
struct CombineValues<C> {
    combiner: C,
    keys: usize,
}

#[async_trait]
impl<C: CombinerAggregator, S: MapState<C::Value>> StateUpdater<S> for CombineValues<C> {
    async fn update_state(
        &mut self,
        state: &mut S,
        rows: &RecordBatch,
        out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        let keys = encode_rows(&rows.columns()[..self.keys], rows.num_rows())?;
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
struct ReduceValues<R> {
    reducer: R,
    keys: usize,
}

#[async_trait]
impl<R: ReducerAggregator, S: MapState<R::Value>> StateUpdater<S> for ReduceValues<R> {
    async fn update_state(
        &mut self,
        state: &mut S,
        rows: &RecordBatch,
        out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        let encoded = encode_rows(&rows.columns()[..self.keys], rows.num_rows())?;
        // Each key once, with its rows.
        let mut places: std::collections::BTreeMap<&str, Vec<u32>> = std::collections::BTreeMap::new();
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
                value = reducer.reduce(value, crate::tuple::TridentTuple::new(&input, *row as usize))?;
            }
            Ok(value)
        };
        let updated = state.multi_update(&keys, &mut update).await?;
        let firsts = arrow::array::UInt32Array::from_iter_values(of_key.iter().map(|rows| rows[0]));
        let keyed = arrow::compute::take_record_batch(rows, &firsts)?;
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
    let column = column(values)?;
    let columns: Vec<ArrayRef> = rows.columns()[..keys].iter().cloned().chain([column]).collect();
    out.emit_rows(columns)
}

fn column<V: TridentValue>(values: Vec<V>) -> Result<ArrayRef, TaskError> {
    let mut builder = RowBuilder::new(single("value", V::data_type()), values.len())?;
    for value in values {
        builder.append((value,))?;
    }
    Ok(Arc::clone(builder.finish().column(0)))
}

/// The value of each row's key; null if there is none.
#[derive(Clone)]
struct MapGet<V> {
    fields: SchemaRef,
    value: std::marker::PhantomData<fn() -> V>,
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
        let keys = encode_rows(rows.columns(), rows.num_rows())?;
        let values = state.multi_get(&keys).await?;
        let mut builder = RowBuilder::new(Arc::clone(&self.fields), values.len())?;
        for value in values {
            builder.append((value,))?;
        }
        Ok(vec![Arc::clone(builder.finish().column(0))])
    }
}
