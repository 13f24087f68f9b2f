//! Streams of batches, and the operations on them.

mod aggregation;
mod grouped;
mod partitioning;
mod states;
mod updaters;

use std::{cell::RefCell, fmt, rc::Rc, sync::Arc};

use arrow::{
    array::new_empty_array,
    datatypes::{DataType, Field, Schema, SchemaRef},
    row::{RowConverter, SortField},
};
use stratus_topology::{TaskError, hash_rows};

pub use grouped::GroupedStream;
pub use updaters::SnapshotGet;

use crate::{
    drpc::DrpcServer,
    graph::{Graph, Kind, NodeId, ProcessorFactory, TridentError},
    keys::can_be_key,
    multi_reduce::{Join, JoinKind, MultiReducer},
    operation::{BatchFunction, Filter, Function},
    processor::{
        AnswerProcessor, EachProcessor, FilterProcessor, FlatMapProcessor, MergeProcessor,
        MultiReduceProcessor, Processor, ProjectProcessor, RowsProcessor,
    },
    tuple::TridentTuple,
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

    /// So many tasks, at least, for everything between the last repartitioning and the next. Directly behind a
    /// repartitioning, as in `shuffle().parallelism_hint(2)`, it is for everything that takes the tuples, up to the next
    /// one. (Storm ignores it there.) Of several hints the greatest holds.
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

    /// Groups tuples by the values of these fields. As for fields grouping all NaNs are one value, and `-0.0` is `0.0`.
    pub fn group_by(&self, key: &[&str]) -> GroupedStream {
        let columns = self.columns("group_by", key);
        self.check_types("group_by", &columns, can_be_compared);
        GroupedStream::new(self.clone(), key)
    }

    /// The tuples of several streams, which have the same types of fields; the first one's names.
    pub fn merge(&self, others: &[&Self]) -> Self {
        let schema = self.schema();
        let kinds = |schema: &SchemaRef| -> Vec<_> {
            schema.fields().iter().map(|field| field.data_type().clone()).collect()
        };
        if others.iter().any(|other| kinds(&other.schema()) != kinds(&schema)) {
            self.graph.borrow_mut().misfit("merge", "the streams have fields of different types");
        }
        let parents = self.together("merge", others);
        let kept = Arc::clone(&schema);
        self.several("merge", parents, schema, move || MergeProcessor { schema: Arc::clone(&kept) })
    }

    /// Joins what two streams have of each batch, by key fields of equal types.
    pub fn join(&self, key: &[&str], other: &Self, other_key: &[&str], kind: JoinKind) -> Self {
        self.together("join", &[other]);
        let join = Join { kind, left: self.columns("join", key), right: other.columns("join", other_key) };
        let (left, right) = (self.schema(), other.schema());
        let kinds = |schema: &SchemaRef, columns: &[usize]| -> Vec<_> {
            columns.iter().map(|column| schema.field(*column).data_type().clone()).collect()
        };
        if kinds(&left, &join.left) != kinds(&right, &join.right) {
            self.graph.borrow_mut().misfit("join", "the keys are of different types");
        }
        self.check_types("join", &join.left, can_be_compared);
        let fields = join.fields(&left, &right);
        let schema = self.checked("join", fields);
        self.partition_by(key).multi_reduce(&[&other.partition_by(other_key)], join, schema)
    }

    /// Gives `reducer` what a partition of each batch has of this stream and the others.
    pub fn multi_reduce(&self, others: &[&Self], reducer: impl MultiReducer, schema: SchemaRef) -> Self {
        let parents = self.together("multi_reduce", others);
        let inputs: Vec<SchemaRef> =
            parents.iter().map(|parent| Arc::clone(&self.graph.borrow().nodes[*parent].schema)).collect();
        let kept = Arc::clone(&schema);
        self.several("reduce", parents, schema, move || MultiReduceProcessor {
            reducer: reducer.clone(),
            inputs: inputs.clone(),
            schema: Arc::clone(&kept),
        })
    }

    /// Answers the calls of a function with what each batch has here.
    pub fn returns(&self, function: &str, server: &DrpcServer) {
        let columns: Vec<usize> = (0..self.schema().fields().len()).collect();
        self.check_types("returns", &columns, can_be_key);
        let (server, function) = (server.clone(), function.to_owned());
        self.batch_global().processor("returns", self.schema(), move || AnswerProcessor {
            server: server.clone(),
            function: function.clone(),
            place: (0, 1),
        });
    }

    /// This stream and others of the same topology.
    fn together(&self, operation: &str, others: &[&Self]) -> Vec<NodeId> {
        let mut graph = self.graph.borrow_mut();
        let others = others.iter().map(|other| {
            if Rc::ptr_eq(&self.graph, &other.graph) {
                return other.node;
            }
            graph.misfit(operation, "the streams are of different topologies");
            self.node
        });
        std::iter::once(self.node).chain(others).collect()
    }

    /// Notes why an aggregation cannot take these fields, if it cannot.
    fn check_input(
        &self,
        operation: &str,
        input: &[&str],
        accepts: impl FnOnce(&Schema) -> Result<(), String>,
    ) {
        let columns = self.columns(operation, input);
        // Of fields that are not there nothing more is to be said.
        if columns.len() == input.len()
            && let Err(why) = accepts(&self.projected(&columns))
        {
            self.graph.borrow_mut().misfit(operation, why);
        }
    }

    /// Notes the first of these fields whose type an operation cannot take; `takes` says why.
    fn check_types<E: fmt::Display>(
        &self,
        operation: &str,
        columns: &[usize],
        takes: impl Fn(&DataType) -> Result<(), E>,
    ) {
        self.graph.borrow_mut().check_types(self.node, operation, columns, takes);
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

/// Whether values of a type can be told apart, as groups and joins do, and hashed, as fields grouping does.
fn can_be_compared(kind: &DataType) -> Result<(), String> {
    let none = [new_empty_array(kind)];
    let converted = RowConverter::new(vec![SortField::new(kind.clone())])
        .and_then(|converter| converter.convert_columns(&none));
    converted.map_err(|error| error.to_string())?;
    hash_rows(&none, &mut Vec::new()).map_err(|error| error.to_string())
}
