//! A validated topology: what runs, and who listens to whom.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    bolt::Bolt,
    config::{ComponentConfig, TopologyConfig},
    declare::StreamDeclaration,
    grouping::Grouping,
    lineage::TaskId,
    spout::Spout,
};

/// A stream of a component.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamRef {
    /// The component that emits it.
    pub component: String,
    /// The stream's id.
    pub stream: String,
}

impl fmt::Display for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.component, self.stream)
    }
}

pub(crate) type SpoutFactory = Arc<dyn Fn() -> Box<dyn Spout> + Send + Sync>;
pub(crate) type BoltFactory = Arc<dyn Fn() -> Box<dyn Bolt> + Send + Sync>;

#[derive(Clone)]
pub(crate) enum Part {
    Spout(SpoutFactory),
    Bolt(BoltFactory),
}

/// What a component listens to.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The stream.
    pub source: StreamRef,
    /// Which task receives which tuple.
    pub grouping: Grouping,
}

/// A component of a topology.
#[derive(Clone)]
pub struct Component {
    pub(crate) part: Part,
    pub(crate) executors: usize,
    pub(crate) tasks: Vec<TaskId>,
    pub(crate) streams: BTreeMap<String, StreamDeclaration>,
    pub(crate) inputs: Vec<Subscription>,
    pub(crate) config: ComponentConfig,
}

impl Component {
    /// Whether it is a spout; otherwise it is a bolt.
    pub fn is_spout(&self) -> bool {
        matches!(self.part, Part::Spout(_))
    }

    /// How many executors run its tasks.
    pub fn executors(&self) -> usize {
        self.executors
    }

    /// Its tasks, in order.
    pub fn tasks(&self) -> &[TaskId] {
        &self.tasks
    }

    /// The streams that it declares.
    pub fn streams(&self) -> &BTreeMap<String, StreamDeclaration> {
        &self.streams
    }

    /// What it listens to.
    pub fn inputs(&self) -> &[Subscription] {
        &self.inputs
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_spout() { "Spout" } else { "Bolt" };
        f.debug_struct(kind).field("tasks", &self.tasks).field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

/// A topology that can be submitted: every name in it is known, and its bolts form no cycle.
///
/// Made by [`TopologyBuilder`](crate::TopologyBuilder).
#[derive(Clone, Debug)]
pub struct Topology {
    pub(crate) config: TopologyConfig,
    pub(crate) components: BTreeMap<String, Component>,
}

impl Topology {
    /// Its components by id.
    pub fn components(&self) -> &BTreeMap<String, Component> {
        &self.components
    }

    /// Its settings.
    pub fn config(&self) -> &TopologyConfig {
        &self.config
    }

    /// Whether someone listens to both streams of a component.
    pub(crate) fn meet(&self, component: &str, one: &str, other: &str) -> bool {
        let mut listeners = self.listeners(component, one);
        listeners.any(|(one, _)| self.listeners(component, other).any(|(other, _)| one == other))
    }

    /// Who listens to a stream.
    pub(crate) fn listeners(
        &self,
        component: &str,
        stream: &str,
    ) -> impl Iterator<Item = (&str, &Subscription)> {
        self.components.iter().flat_map(move |(listener, listening)| {
            let of_stream = move |input: &&Subscription| {
                input.source.component == component && input.source.stream == stream
            };
            listening.inputs.iter().filter(of_stream).map(move |input| (listener.as_str(), input))
        })
    }
}
