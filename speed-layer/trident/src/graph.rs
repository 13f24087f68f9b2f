//! The operations of a Trident topology, as they were declared.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use stratus_topology::{Grouping, TaskError};
use thiserror::Error;

use crate::{processor::Processor, spout::TridentSpout};

pub(crate) type NodeId = usize;
pub(crate) type ProcessorFactory = Arc<dyn Fn() -> Result<Box<dyn Processor>, TaskError> + Send + Sync>;

/// Why a Trident topology cannot be built.
#[derive(Debug, Error)]
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
    /// Streams that are to be put together do not fit.
    #[error("{operation}: {why}")]
    Misfit {
        /// The operation.
        operation: String,
        /// What is wrong.
        why: String,
    },
    /// The topology that came of it is not valid.
    #[error(transparent)]
    Topology(#[from] Box<stratus_topology::TopologyError>),
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
    /// The first thing that was wrong.
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

    /// The places of fields. Where one is unknown that is noted, and the first field stands for it.
    pub(crate) fn columns(&mut self, node: NodeId, operation: &str, fields: &[&str]) -> Vec<usize> {
        let schema = Arc::clone(&self.nodes[node].schema);
        let place = |field: &&str| match schema.index_of(field) {
            Ok(place) => place,
            Err(_) => {
                let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                self.wrong(TridentError::UnknownField {
                    operation: operation.to_owned(),
                    field: (*field).to_owned(),
                    fields: known.join(", "),
                });
                0
            }
        };
        fields.iter().map(place).collect()
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
