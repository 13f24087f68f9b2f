//! Streams of batches, and the operations on them.

mod grouped;
mod states;

use std::{cell::RefCell, fmt, rc::Rc, sync::Arc};

use arrow::datatypes::{Field, Schema, SchemaRef};
use stratus_topology::{CustomGrouping, Grouping, GroupingContext, TaskChoice, TaskError};

pub use grouped::GroupedStream;

use crate::{
    aggregator::{
        Aggregator, ChainedAggregator, Combined, CombinerAggregator, Recombined, Reduced, ReducerAggregator,
        RowsAggregator, single,
    },
    batch::TransactionAttempt,
    drpc::DrpcServer,
    graph::{Graph, Kind, NodeId, ProcessorFactory, TridentError},
    multi_reduce::{Join, JoinKind, MultiReducer},
    operation::{BatchFunction, Filter, Function},
    processor::{
        AggregateProcessor, AnswerProcessor, BestProcessor, EachProcessor, FilterProcessor, FlatMapProcessor,
        MergeProcessor, MultiReduceProcessor, OfNothing, Processor, ProjectProcessor, RowsAggregateProcessor,
        RowsProcessor,
    },
    topology::batch_task,
    tuple::{TridentTuple, TridentValue},
};

/// A stream of batches of tuples. Cloning is cheap; a stream may be taken by several operations.
///
/// Operations that ask for a field which is not there are noted, and
/// [`build`](crate::TridentTopology::build) answers with the first of them.
#[derive(Clone)]
pub struct Stream {
    graph: Rc<RefCell<Graph>>,
    node: NodeId,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?})", self.schema())
    }
}

impl Stream {
    pub(crate) fn new(graph: Rc<RefCell<Graph>>, node: NodeId) -> Self {
        Self { graph, node }
    }

    /// The fields of its tuples.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.graph.borrow().nodes[self.node].schema)
    }

    /// So many tasks, at least, for everything between the last repartitioning and the next.
    #[must_use]
    pub fn parallelism_hint(self, tasks: usize) -> Self {
        self.graph.borrow_mut().nodes[self.node].parallelism = Some(tasks);
        self
    }

    /// What the last operation is called in the topology.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        name.clone_into(&mut self.graph.borrow_mut().nodes[self.node].label);
        self
    }

    /// Each tuple with what `function` emits for it, once per emission. The function sees the `input` fields.
    pub fn each(&self, input: &[&str], function: impl Function, emitted: SchemaRef) -> Self {
        let columns = self.columns("each", input);
        let schema = self.appended("each", emitted.fields().iter().map(|field| field.as_ref().clone()));
        let kept = Arc::clone(&schema);
        self.processor("each", schema, move || EachProcessor {
            function: function.clone(),
            input: columns.clone(),
            emitted: Arc::clone(&emitted),
            schema: Arc::clone(&kept),
        })
    }

    /// The tuples that `filter` keeps. The filter sees the `input` fields.
    pub fn filter(&self, input: &[&str], filter: impl Filter) -> Self {
        let columns = self.columns("filter", input);
        let make = move || FilterProcessor { filter: filter.clone(), input: columns.clone() };
        self.processor("filter", self.schema(), make)
    }

    /// The same tuples; `look` sees each of them.
    pub fn peek(&self, look: impl Fn(TridentTuple<'_>) + Clone + Send + Sync + 'static) -> Self {
        let columns: Vec<usize> = (0..self.schema().fields().len()).collect();
        let filter = move |tuple: TridentTuple<'_>| {
            look(tuple);
            Ok::<_, TaskError>(true)
        };
        let make = move || FilterProcessor { filter: filter.clone(), input: columns.clone() };
        self.processor("peek", self.schema(), make)
    }

    /// One tuple, or several or none, of these fields in place of each tuple.
    pub fn flat_map(&self, function: impl Function, schema: SchemaRef) -> Self {
        let kept = Arc::clone(&schema);
        let make = move || FlatMapProcessor { function: function.clone(), schema: Arc::clone(&kept) };
        self.processor("map", schema, make)
    }

    /// As [`flat_map`](Self::flat_map), under the name for functions that emit one tuple for each.
    pub fn map(&self, function: impl Function, schema: SchemaRef) -> Self {
        self.flat_map(function, schema)
    }

    /// Other rows in place of these, a whole [`RecordBatch`](arrow::array::RecordBatch) at a time.
    pub fn map_rows(&self, function: impl BatchFunction, schema: SchemaRef) -> Self {
        let kept = Arc::clone(&schema);
        let make = move || RowsProcessor { function: function.clone(), schema: Arc::clone(&kept) };
        self.processor("map", schema, make)
    }

    /// Some of the fields.
    pub fn project(&self, keep: &[&str]) -> Self {
        let columns = self.columns("project", keep);
        let schema = self.projected(&columns);
        self.processor("project", schema, move || ProjectProcessor { columns: columns.clone() })
    }

    /// Spreads tuples evenly over the tasks of what follows.
    pub fn shuffle(&self) -> Self {
        self.repartition(Grouping::Shuffle)
    }

    /// As [`shuffle`](Self::shuffle), to tasks in the same process if there are any.
    pub fn local_or_shuffle(&self) -> Self {
        self.repartition(Grouping::LocalOrShuffle)
    }

    /// Sends tuples with equal values of these fields to the same task.
    pub fn partition_by(&self, key: &[&str]) -> Self {
        self.columns("partition_by", key);
        self.repartition(Grouping::fields(key))
    }

    /// Sends every tuple to every task of what follows.
    pub fn broadcast(&self) -> Self {
        self.repartition(Grouping::All)
    }

    /// Sends all tuples to one task.
    pub fn global(&self) -> Self {
        self.repartition(Grouping::Global)
    }

    /// Sends all tuples of a batch to one task; different batches may go to different tasks.
    pub fn batch_global(&self) -> Self {
        self.repartition(Grouping::custom(|| BatchGlobal))
    }

    /// Sends tuples to the tasks that a grouping of the user's own chooses.
    pub fn partition(&self, grouping: Grouping) -> Self {
        self.repartition(grouping)
    }

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

    /// Answers the calls of a function with what each batch has here.
    pub fn returns(&self, function: &str, server: &DrpcServer) {
        let (server, function) = (server.clone(), function.to_owned());
        self.batch_global().processor("returns", self.schema(), move || AnswerProcessor {
            server: server.clone(),
            function: function.clone(),
            place: (0, 1),
        });
    }

    fn best(&self, count: usize, field: &str, greatest: bool) -> Self {
        let column = self.columns("best", &[field])[0];
        self.processor("best", self.schema(), move || BestProcessor { count, by: Some((column, greatest)) })
    }

    /// Groups tuples by the values of these fields.
    pub fn group_by(&self, key: &[&str]) -> GroupedStream {
        self.columns("group_by", key);
        GroupedStream::new(self.clone(), key)
    }

    /// The tuples of several streams, which have the same types of fields; the first one's names.
    pub fn merge(&self, others: &[&Self]) -> Self {
        let schema = self.schema();
        let kinds = |schema: &SchemaRef| -> Vec<_> {
            schema.fields().iter().map(|field| field.data_type().clone()).collect()
        };
        if others.iter().any(|other| kinds(&other.schema()) != kinds(&schema)) {
            let why = "the streams have fields of different types".to_owned();
            self.graph.borrow_mut().wrong(TridentError::Misfit { operation: "merge".to_owned(), why });
        }
        let parents = std::iter::once(self.node).chain(others.iter().map(|other| other.node)).collect();
        let kept = Arc::clone(&schema);
        self.several("merge", parents, schema, move || MergeProcessor { schema: Arc::clone(&kept) })
    }

    /// Joins what two streams have of each batch, by key fields of equal types.
    pub fn join(&self, key: &[&str], other: &Self, other_key: &[&str], kind: JoinKind) -> Self {
        let join = Join { kind, left: self.columns("join", key), right: other.columns("join", other_key) };
        let (left, right) = (self.schema(), other.schema());
        let kinds = |schema: &SchemaRef, columns: &[usize]| -> Vec<_> {
            columns.iter().map(|column| schema.field(*column).data_type().clone()).collect()
        };
        if kinds(&left, &join.left) != kinds(&right, &join.right) {
            let why = "the keys are of different types".to_owned();
            self.graph.borrow_mut().wrong(TridentError::Misfit { operation: "join".to_owned(), why });
        }
        let fields = join.fields(&left, &right);
        let schema = self.checked("join", fields);
        self.partition_by(key).multi_reduce(&[&other.partition_by(other_key)], join, schema)
    }

    /// Gives `reducer` what a partition of each batch has of this stream and the others.
    pub fn multi_reduce(&self, others: &[&Self], reducer: impl MultiReducer, schema: SchemaRef) -> Self {
        let parents: Vec<NodeId> =
            std::iter::once(self.node).chain(others.iter().map(|other| other.node)).collect();
        let inputs: Vec<SchemaRef> =
            parents.iter().map(|parent| Arc::clone(&self.graph.borrow().nodes[*parent].schema)).collect();
        let kept = Arc::clone(&schema);
        self.several("reduce", parents, schema, move || MultiReduceProcessor {
            reducer: reducer.clone(),
            inputs: inputs.clone(),
            schema: Arc::clone(&kept),
        })
    }

    fn aggregated(&self, key: &[usize], chain: ChainedAggregator, of_nothing: OfNothing) -> Self {
        let input = self.schema();
        for link in &chain.links {
            let names: Vec<&str> = link.input.iter().map(String::as_str).collect();
            self.columns("aggregate", &names);
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

    fn columns(&self, operation: &str, names: &[&str]) -> Vec<usize> {
        self.graph.borrow_mut().columns(self.node, operation, names)
    }

    fn projected(&self, columns: &[usize]) -> SchemaRef {
        let schema = self.schema();
        Arc::new(Schema::new(columns.iter().map(|column| schema.field(*column).clone()).collect::<Vec<_>>()))
    }

    /// The stream's fields and these.
    fn appended(&self, operation: &str, fields: impl Iterator<Item = Field>) -> SchemaRef {
        let all = self.schema().fields().iter().map(|field| field.as_ref().clone()).chain(fields).collect();
        self.checked(operation, all)
    }

    /// A schema of these fields, if their names differ.
    fn checked(&self, operation: &str, fields: Vec<Field>) -> SchemaRef {
        let twice =
            (1..fields.len()).find(|at| fields[..*at].iter().any(|field| field.name() == fields[*at].name()));
        if let Some(at) = twice {
            let (operation, field) = (operation.to_owned(), fields[at].name().clone());
            self.graph.borrow_mut().wrong(TridentError::Duplicate { operation, field });
        }
        Arc::new(Schema::new(fields))
    }

    fn repartition(&self, grouping: Grouping) -> Self {
        // Between two repartitionings there must be something that runs.
        let on = match self.graph.borrow().nodes[self.node].kind {
            Kind::Partition(_) => Some((0..self.schema().fields().len()).collect::<Vec<usize>>()),
            _ => None,
        };
        let from = match on {
            Some(columns) => {
                self.processor("pass", self.schema(), move || ProjectProcessor { columns: columns.clone() })
            }
            None => self.clone(),
        };
        let schema = from.schema();
        let node =
            self.graph.borrow_mut().add(Kind::Partition(grouping), "partition", vec![from.node], schema);
        Self::new(Rc::clone(&self.graph), node)
    }

    fn processor<P: Processor + 'static>(
        &self,
        label: &str,
        schema: SchemaRef,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Self {
        self.several(label, vec![self.node], schema, make)
    }

    fn several<P: Processor + 'static>(
        &self,
        label: &str,
        parents: Vec<NodeId>,
        schema: SchemaRef,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Self {
        self.fallible(label, parents, schema, move || Ok(Box::new(make())))
    }

    fn fallible(
        &self,
        label: &str,
        parents: Vec<NodeId>,
        schema: SchemaRef,
        make: impl Fn() -> Result<Box<dyn Processor>, TaskError> + Send + Sync + 'static,
    ) -> Self {
        let make: ProcessorFactory = Arc::new(make);
        let node =
            self.graph.borrow_mut().add(Kind::Processor { make, commits: false }, label, parents, schema);
        Self::new(Rc::clone(&self.graph), node)
    }
}

/// Sends a batch as a whole to one task.
struct BatchGlobal;

impl CustomGrouping for BatchGlobal {
    fn prepare(&mut self, _context: &GroupingContext) {}

    fn choose_tasks(
        &mut self,
        _rows: &arrow::array::RecordBatch,
        choice: &mut TaskChoice,
    ) -> Result<(), TaskError> {
        let label = choice.label().ok_or("a tuple belongs to no batch")?;
        choice.send_all(batch_task(TransactionAttempt::of(label), choice.targets()));
        Ok(())
    }
}
