//! Streams into states, and states into streams.

use std::{rc::Rc, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};

use super::{
    GroupedStream, Stream,
    updaters::{CombineValues, MapGet, ReduceValues},
};
use crate::{
    aggregator::{ChainedAggregator, Combined, CombinerAggregator, Recombined, ReducerAggregator, single},
    graph::{Kind, ProcessorFactory},
    keys::can_be_key,
    processor::{OfNothing, PersistProcessor, QueryProcessor},
    spout::SpoutKind,
    state::{MapState, QueryFunction, SharedStates, StateFactory, StateKind, StateUpdater},
    topology::TridentState,
    tuple::TridentValue,
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
        let (shared, fields, transactional) =
            (Arc::clone(&states), Arc::clone(&emitted), !self.is_of_calls());
        let make: ProcessorFactory = Arc::new(move || {
            let (states, updater, fields) = (Arc::clone(&shared), updater.clone(), Arc::clone(&fields));
            Ok(Box::new(PersistProcessor::new(states, updater, columns.clone(), fields, transactional)))
        });
        let mut graph = self.graph.borrow_mut();
        let node = graph.add(Kind::Processor { make, commits: true }, "persist", vec![self.node], emitted);
        graph.nodes[node].partitions = partitions;
        drop(graph);
        TridentState { graph: Rc::clone(&self.graph), node: Some(node), states, partitions }
    }

    /// Keeps one value of all tuples of all batches, in the entry `[]` of a map. Batches are combined before they travel
    /// to the one task that writes it; a hint for more tasks changes nothing. Each batch makes one new value, also one
    /// without tuples. [`SnapshotGet`](super::SnapshotGet) looks the value up.
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
        let value = single(field, <C::Value as TridentValue>::data_type());
        let partial =
            ChainedAggregator::new().aggregate(input, Combined(combiner.clone()), Arc::clone(&value));
        let whole =
            ChainedAggregator::new().aggregate(&[field], Recombined(combiner.clone()), Arc::clone(&value));
        // Not as batches are aggregated, each on a task of its own: one task must see all of them.
        let combined =
            self.aggregated(&[], partial, OfNothing::Never).global().aggregated(&[], whole, OfNothing::Once);
        combined.persist_as_one(factory, &[field], CombineValues { combiner, keys: 0 }, value)
    }

    /// Keeps one value of all tuples of all batches, in the entry `[]` of a map, tuple by tuple on one task. A batch
    /// without tuples changes nothing.
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
        self.check_input("reduce", input, |fields| reducer.accepts(fields));
        let value = single(field, <R::Value as TridentValue>::data_type());
        self.global().persist_as_one(factory, input, ReduceValues { reducer, keys: 0 }, value)
    }

    /// `partition_persist` with one partition.
    fn persist_as_one<F: StateFactory>(
        &self,
        factory: F,
        input: &[&str],
        updater: impl StateUpdater<F::State>,
        emitted: SchemaRef,
    ) -> TridentState<F> {
        if let Some(partitions) = factory.partitions().filter(|partitions| *partitions != 1) {
            let why = format!("one value is kept in one partition, and this state has {partitions}");
            self.graph.borrow_mut().misfit("persistent_aggregate", why);
        }
        let state = self.partition_persist(factory, input, updater, emitted);
        if let Some(node) = state.node {
            self.graph.borrow_mut().nodes[node].partitions = Some(1);
        }
        TridentState { partitions: Some(1), ..state }
    }

    /// Each tuple with what `query` finds for its `input` fields in a state. The tuples must be partitioned as those
    /// that the state is written from: group both by the same key, or let the state have one partition.
    pub fn state_query<F: StateFactory>(
        &self,
        state: &TridentState<F>,
        input: &[&str],
        query: impl QueryFunction<F::State>,
    ) -> Self {
        if !Rc::ptr_eq(&self.graph, &state.graph) {
            self.graph.borrow_mut().misfit("state_query", "the state is of another topology");
        }
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
            (node.beside, node.partitions) = (state.node, state.partitions);
        }
        queried
    }

    /// Whether its batches are remote calls.
    fn is_of_calls(&self) -> bool {
        let graph = self.graph.borrow();
        let mut spouts = graph.spouts(self.node).into_iter();
        spouts.any(
            |spout| matches!(&graph.nodes[spout].kind, Kind::Spout { spout, .. } if spout.stands_alone()),
        )
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
        self.check_key();
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
        self.check_key();
        self.stream.check_input("reduce", input, |fields| reducer.accepts(fields));
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
        self.check_key();
        self.partitioned().state_query(state, &self.names(), MapGet::<V>::new(field))
    }

    /// The key is written as text.
    fn check_key(&self) {
        let key = self.stream.columns("group_by", &self.names());
        self.stream.check_types("group_by", &key, can_be_key);
    }
}
