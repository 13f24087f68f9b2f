//! Why a topology is refused.

use thiserror::Error;

use crate::topology::StreamRef;

/// Why a topology cannot run.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopologyError {
    /// Two components, streams of one, or fields of one have the same name.
    #[error("{what} `{id}` is declared twice")]
    Twice {
        /// What it is.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Ids that begin with two underscores are the engine's.
    #[error("{what} `{id}` cannot be named so: an id is not empty and does not begin with `__`")]
    Reserved {
        /// What it is.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Neither zero executors nor fewer tasks than executors make sense.
    #[error(
        "component `{component}` has {executors} executors for {tasks} tasks: at least one of each, and no executor without a task"
    )]
    Parallelism {
        /// The component.
        component: String,
        /// Its executors.
        executors: usize,
        /// Its tasks.
        tasks: usize,
    },
    /// A topology without a spout does nothing.
    #[error("the topology has no spout: add one with set_spout")]
    NoSpout,
    /// A subscription names a component that does not exist.
    #[error("bolt `{bolt}` listens to component `{component}`, which does not exist")]
    UnknownComponent {
        /// The listener.
        bolt: String,
        /// The unknown component.
        component: String,
    },
    /// A bolt listens to a stream twice, by whatever groupings: it would receive everything twice. In Storm the second
    /// subscription silently takes the place of the first.
    #[error("bolt `{bolt}` listens to stream `{stream}` twice: one subscription, one grouping")]
    Again {
        /// The listener.
        bolt: String,
        /// The stream.
        stream: StreamRef,
    },
    /// A subscription names a stream that its component does not declare.
    #[error(
        "bolt `{bolt}` listens to stream `{stream}` of component `{component}`, which declares only {declared}"
    )]
    UnknownStream {
        /// The listener.
        bolt: String,
        /// The source.
        component: String,
        /// The unknown stream.
        stream: String,
        /// What there is.
        declared: String,
    },
    /// A grouping names a field that the stream does not have.
    #[error(
        "bolt `{bolt}` groups stream `{stream}` by field `{field}`, which it does not have: its fields are {declared}"
    )]
    UnknownField {
        /// The listener.
        bolt: String,
        /// The stream.
        stream: StreamRef,
        /// The unknown field.
        field: String,
        /// What there is.
        declared: String,
    },
    /// A grouping by no field at all.
    #[error(
        "bolt `{bolt}` groups stream `{stream}` by no field: name at least one, or use the global grouping"
    )]
    NoField {
        /// The listener.
        bolt: String,
        /// The stream.
        stream: StreamRef,
    },
    /// Values of a field's type have no hash.
    #[error(
        "bolt `{bolt}` groups stream `{stream}` by field `{field}` of type {kind}, which cannot be hashed"
    )]
    UnhashableField {
        /// The listener.
        bolt: String,
        /// The stream.
        stream: StreamRef,
        /// The field.
        field: String,
        /// Its type.
        kind: String,
    },
    /// Only direct streams take the direct grouping, and only that.
    #[error(
        "bolt `{bolt}` listens to stream `{stream}` by the {grouping} grouping, but the stream is {declared}"
    )]
    Direct {
        /// The listener.
        bolt: String,
        /// The stream.
        stream: StreamRef,
        /// The grouping's name.
        grouping: &'static str,
        /// How the stream is declared.
        declared: &'static str,
    },
    /// Bolts that wait for one another's room could wait for ever.
    #[error("the bolts {0} form a cycle, which could wait for its own room for ever")]
    Cycle(String),
    /// A number of the configuration is zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A time of the configuration is zero.
    #[error("{0} must be more than zero")]
    NoTime(&'static str),
    /// A setting of a component is wrong.
    #[error("{}", of_component(.component, .why))]
    Setting {
        /// The component.
        component: String,
        /// What is wrong.
        why: Box<Self>,
    },
}

/// An error about a setting, which begins with its name, with the component that it is of.
fn of_component(component: &str, why: &TopologyError) -> String {
    match why {
        TopologyError::Zero(name) => format!("{name} of component `{component}` must be at least 1"),
        TopologyError::NoTime(name) => format!("{name} of component `{component}` must be more than zero"),
        other => format!("component `{component}`: {other}"),
    }
}
