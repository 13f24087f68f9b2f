//! The operations of a Trident topology, as they were declared.

use std::{fmt, sync::Arc};

use arrow::datatypes::{DataType, SchemaRef};
use stratus_topology::{Grouping, TaskError};
use thiserror::Error;

use crate::{processor::Processor, spout::TridentSpout};

pub(crate) type NodeId = usize;
pub(crate) type ProcessorFactory = Arc<dyn Fn() -> Result<Box<dyn Processor>, TaskError> + Send + Sync>;

/// Why a Trident topology cannot be built.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum TridentError {
    /// An operation asks for a field that its stream does not have.
    #[error("{operation} asks for field `{field}`, but its stream has {fields}")]
    UnknownField {
        /// The operation.
        operation: String,
        /// The unknown field.
        field: String,
        /// The fields that there are.
        fields: String,
    },
    /// Two fields of a stream would have one name.
    #[error("{operation} would give its stream two fields `{field}`")]
    Duplicate {
        /// The operation.
        operation: String,
        /// The name.
        field: String,
    },
    /// An operation does not fit its streams, their fields' types or the operations around it.
    #[error("{operation}: {why}")]
    Misfit {
        /// The operation.
        operation: String,
        /// What is wrong.
        why: String,
    },
    /// The topology that came of it is not valid.
    #[error(transparent)]
    Topology(#[from] Arc<stratus_topology::TopologyError>),
}

#[derive(Clone)]
pub(crate) enum Kind {
    Spout { name: String, spout: Arc<dyn TridentSpout> },
    Processor { make: ProcessorFactory, commits: bool },
    Partition(Grouping),
}

/// An operation.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) label: String,
    pub(crate) parents: Vec<NodeId>,
    pub(crate) schema: SchemaRef,
    pub(crate) parallelism: Option<usize>,
    /// How many tasks there must be.
    pub(crate) partitions: Option<usize>,
    /// The operation that must have as many tasks as this one.
    pub(crate) beside: Option<NodeId>,
}

/// All operations; a node's parents have lower numbers.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    /// The first thing that was wrong. It stays: what is planned from here on would read the wrong fields.
    pub(crate) error: Option<TridentError>,
    /// What is allowed and seldom meant.
    pub(crate) warnings: Vec<String>,
}

impl Graph {
    pub(crate) fn add(&mut self, kind: Kind, label: &str, parents: Vec<NodeId>, schema: SchemaRef) -> NodeId {
        let label = label.to_owned();
        self.nodes.push(Node {
            kind,
            label,
            parents,
            schema,
            parallelism: None,
            partitions: None,
            beside: None,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn wrong(&mut self, error: TridentError) {
        self.error.get_or_insert(error);
    }

    /// Notes that an operation does not fit, and why.
    pub(crate) fn misfit(&mut self, operation: &str, why: impl Into<String>) {
        self.wrong(TridentError::Misfit { operation: operation.to_owned(), why: why.into() });
    }

    /// Notes the first of these fields whose type an operation cannot take; `takes` says why.
    pub(crate) fn check_types<E: fmt::Display>(
        &mut self,
        node: NodeId,
        operation: &str,
        columns: &[usize],
        takes: impl Fn(&DataType) -> Result<(), E>,
    ) {
        let schema = Arc::clone(&self.nodes[node].schema);
        for field in columns.iter().filter_map(|column| schema.fields().get(*column)) {
            if let Err(why) = takes(field.data_type()) {
                let why = format!("field `{}` is of type {}: {why}", field.name(), field.data_type());
                return self.misfit(operation, why);
            }
        }
    }

    /// The places of fields. One that is unknown is noted, and has none.
    pub(crate) fn columns(&mut self, node: NodeId, operation: &str, fields: &[&str]) -> Vec<usize> {
        let schema = Arc::clone(&self.nodes[node].schema);
        let place = |field: &&str| {
            let place = schema.index_of(field).ok();
            if place.is_none() {
                let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                self.wrong(TridentError::UnknownField {
                    operation: operation.to_owned(),
                    field: (*field).to_owned(),
                    fields: known.join(", "),
                });
            }
            place
        };
        fields.iter().filter_map(place).collect()
    }

    /// The spouts that a node's tuples come from.
    pub(crate) fn spouts(&self, node: NodeId) -> Vec<NodeId> {
        match self.nodes[node].kind {
            Kind::Spout { .. } => vec![node],
            _ => self.nodes[node].parents.iter().flat_map(|parent| self.spouts(*parent)).collect(),
        }
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| (&node.label, &node.parents))).finish()
    }
}
