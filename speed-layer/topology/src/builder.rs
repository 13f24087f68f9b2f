//! Builds topologies, and refuses those that cannot work.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::new_empty_array;
use thiserror::Error;

use crate::{
    bolt::Bolt,
    config::{ComponentConfig, TopologyConfig},
    declare::{DEFAULT_STREAM, OutputFieldsDeclarer, SYSTEM_STREAM, StreamDeclaration, system_schema},
    grouping::Grouping,
    hash::hash_rows,
    lineage::TaskId,
    spout::Spout,
    topology::{BoltFactory, Component, Part, SpoutFactory, StreamRef, Subscription, Topology},
};

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

/// Puts a topology together.
#[derive(Default)]
pub struct TopologyBuilder {
    components: Vec<(String, Draft)>,
    config: TopologyConfig,
}

struct Draft {
    part: Part,
    executors: usize,
    tasks: Option<usize>,
    inputs: Vec<Subscription>,
    over: ComponentConfig,
}

impl std::fmt::Debug for TopologyBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.components.iter().map(|(id, _)| id)).finish()
    }
}

/// Says more about a spout that was set.
#[derive(Debug)]
pub struct SpoutDeclarer<'a>(Declarer<'a>);

/// Says more about a bolt that was set: what it listens to, and how.
#[derive(Debug)]
pub struct BoltDeclarer<'a>(Declarer<'a>);

struct Declarer<'a>(&'a mut Draft);

impl std::fmt::Debug for Declarer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.0.inputs).finish()
    }
}

impl TopologyBuilder {
    /// An empty topology.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the topology's configuration.
    pub fn config(&mut self, config: TopologyConfig) -> &mut Self {
        self.config = config;
        self
    }

    /// Adds a spout that `make` makes one of per task, with `parallelism` executors. It is made again when an executor
    /// restarts.
    pub fn set_spout<S: Spout>(
        &mut self,
        id: &str,
        make: impl Fn() -> S + Send + Sync + 'static,
        parallelism: usize,
    ) -> SpoutDeclarer<'_> {
        let factory: SpoutFactory = Arc::new(move || Box::new(make()));
        SpoutDeclarer(Declarer(self.add(id, Part::Spout(factory), parallelism)))
    }

    /// Adds a bolt that `make` makes one of per task, with `parallelism` executors. It is made again when an executor
    /// restarts.
    pub fn set_bolt<B: Bolt>(
        &mut self,
        id: &str,
        make: impl Fn() -> B + Send + Sync + 'static,
        parallelism: usize,
    ) -> BoltDeclarer<'_> {
        let factory: BoltFactory = Arc::new(move || Box::new(make()));
        BoltDeclarer(Declarer(self.add(id, Part::Bolt(factory), parallelism)))
    }

    fn add(&mut self, id: &str, part: Part, executors: usize) -> &mut Draft {
        let draft =
            Draft { part, executors, tasks: None, inputs: Vec::new(), over: ComponentConfig::default() };
        self.components.push((id.to_owned(), draft));
        let last = self.components.len() - 1;
        &mut self.components[last].1
    }

    /// The topology, if it can run.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it, with the component, stream and field.
    pub fn build(&self) -> Result<Topology, TopologyError> {
        check_config(&self.config)?;
        let mut components = BTreeMap::new();
        for (id, draft) in &self.components {
            check_id("component", id)?;
            let component = draft.component(id)?;
            if components.insert(id.clone(), component).is_some() {
                return Err(TopologyError::Twice { what: "component", id: id.clone() });
            }
        }
        if !components.values().any(Component::is_spout) {
            return Err(TopologyError::NoSpout);
        }
        // Task 0 is the engine's own.
        let mut next = 1;
        for component in components.values_mut() {
            for task in &mut component.tasks {
                *task = next;
                next += 1;
            }
        }
        for (id, component) in &components {
            for input in &component.inputs {
                check_input(&components, id, input)?;
            }
        }
        check_cycles(&components)?;
        Ok(Topology { config: self.config.clone(), components })
    }
}

impl Draft {
    fn component(&self, id: &str) -> Result<Component, TopologyError> {
        let tasks = self.tasks.unwrap_or(self.executors);
        if self.executors == 0 || tasks < self.executors {
            return Err(TopologyError::Parallelism {
                component: id.to_owned(),
                executors: self.executors,
                tasks,
            });
        }
        let mut declarer = OutputFieldsDeclarer::default();
        let config = match &self.part {
            Part::Spout(make) => {
                let spout = make();
                spout.declare_output_fields(&mut declarer);
                spout.configuration()
            }
            Part::Bolt(make) => {
                let bolt = make();
                bolt.declare_output_fields(&mut declarer);
                bolt.configuration()
            }
        };
        if let Some(stream) = declarer.twice.first() {
            return Err(TopologyError::Twice { what: "stream", id: format!("{id}.{stream}") });
        }
        for (stream, declaration) in &declarer.streams {
            check_id("stream", stream)?;
            let fields = declaration.schema.fields();
            let mut names = BTreeSet::new();
            if let Some(twice) = fields.iter().find(|field| !names.insert(field.name())) {
                let id = format!("{id}.{stream}.{}", twice.name());
                return Err(TopologyError::Twice { what: "field", id });
            }
        }
        let config = config.overridden_by(self.over.clone());
        check_component_config(&config)
            .map_err(|why| TopologyError::Setting { component: id.to_owned(), why: Box::new(why) })?;
        let system = StreamDeclaration { schema: system_schema(), direct: false };
        declarer.streams.insert(SYSTEM_STREAM.to_owned(), system);
        Ok(Component {
            part: self.part.clone(),
            executors: self.executors,
            tasks: vec![TaskId::default(); tasks],
            streams: declarer.streams,
            inputs: self.inputs.clone(),
            config,
        })
    }
}

impl SpoutDeclarer<'_> {
    /// Gives it more tasks than executors.
    pub fn set_num_tasks(self, tasks: usize) -> Self {
        self.0.0.tasks = Some(tasks);
        self
    }

    /// Settings for this component; they cover what the spout asks for itself.
    pub fn config(self, config: ComponentConfig) -> Self {
        self.0.0.over = config;
        self
    }
}

impl BoltDeclarer<'_> {
    /// Gives it more tasks than executors.
    pub fn set_num_tasks(self, tasks: usize) -> Self {
        self.0.0.tasks = Some(tasks);
        self
    }

    /// Settings for this component; they cover what the bolt asks for itself.
    pub fn config(self, config: ComponentConfig) -> Self {
        self.0.0.over = config;
        self
    }

    /// Listens to the component's default stream.
    pub fn input(self, component: &str, grouping: Grouping) -> Self {
        self.input_stream(component, DEFAULT_STREAM, grouping)
    }

    /// Listens to a stream of a component.
    pub fn input_stream(self, component: &str, stream: &str, grouping: Grouping) -> Self {
        let source = StreamRef { component: component.to_owned(), stream: stream.to_owned() };
        self.0.0.inputs.push(Subscription { source, grouping });
        self
    }

    /// [`Grouping::Shuffle`] on the default stream.
    pub fn shuffle_grouping(self, component: &str) -> Self {
        self.input(component, Grouping::Shuffle)
    }

    /// [`Grouping::Fields`] on the default stream.
    pub fn fields_grouping(self, component: &str, fields: &[&str]) -> Self {
        self.input(component, Grouping::fields(fields))
    }

    /// [`Grouping::Global`] on the default stream.
    pub fn global_grouping(self, component: &str) -> Self {
        self.input(component, Grouping::Global)
    }

    /// [`Grouping::All`] on the default stream.
    pub fn all_grouping(self, component: &str) -> Self {
        self.input(component, Grouping::All)
    }

    /// [`Grouping::LocalOrShuffle`] on the default stream.
    pub fn local_or_shuffle_grouping(self, component: &str) -> Self {
        self.input(component, Grouping::LocalOrShuffle)
    }

    /// [`Grouping::None`] on the default stream.
    pub fn none_grouping(self, component: &str) -> Self {
        self.input(component, Grouping::None)
    }

    /// [`Grouping::PartialKey`] on the default stream.
    pub fn partial_key_grouping(self, component: &str, fields: &[&str]) -> Self {
        self.input(component, Grouping::partial_key(fields))
    }

    /// [`Grouping::Direct`] on a direct stream.
    pub fn direct_grouping(self, component: &str, stream: &str) -> Self {
        self.input_stream(component, stream, Grouping::Direct)
    }
}

/// An error about a setting, which begins with its name, with the component that it is of.
fn of_component(component: &str, why: &TopologyError) -> String {
    match why {
        TopologyError::Zero(name) => format!("{name} of component `{component}` must be at least 1"),
        TopologyError::NoTime(name) => format!("{name} of component `{component}` must be more than zero"),
        other => format!("component `{component}`: {other}"),
    }
}

fn check_component_config(config: &ComponentConfig) -> Result<(), TopologyError> {
    let counts = [
        ("max_spout_pending", config.max_spout_pending),
        ("queue_rows", config.queue_rows),
        ("queue_bytes", config.queue_bytes),
    ];
    if let Some((name, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
        return Err(TopologyError::Zero(name));
    }
    // Nothing but ticks would ever come.
    if config.tick.is_some_and(|tick| tick.is_zero()) {
        return Err(TopologyError::NoTime("tick"));
    }
    Ok(())
}

fn check_config(config: &TopologyConfig) -> Result<(), TopologyError> {
    if config.message_timeout.is_zero() {
        return Err(TopologyError::NoTime("message_timeout"));
    }
    let counts = [
        ("max_spout_pending", config.max_spout_pending),
        ("batch_rows", config.batch_rows),
        ("queue_rows", config.queue_rows),
        ("queue_bytes", config.queue_bytes),
    ];
    match counts.iter().find(|(_, count)| *count == 0) {
        Some((name, _)) => Err(TopologyError::Zero(name)),
        None => Ok(()),
    }
}

fn check_id(what: &'static str, id: &str) -> Result<(), TopologyError> {
    if id.is_empty() || id.starts_with("__") {
        return Err(TopologyError::Reserved { what, id: id.to_owned() });
    }
    Ok(())
}

fn check_input(
    components: &BTreeMap<String, Component>,
    bolt: &str,
    input: &Subscription,
) -> Result<(), TopologyError> {
    let source = &input.source;
    let bolt = bolt.to_owned();
    let Some(component) = components.get(&source.component) else {
        return Err(TopologyError::UnknownComponent { bolt, component: source.component.clone() });
    };
    let Some(stream) = component.streams.get(&source.stream) else {
        let declared: Vec<&str> = component.streams.keys().map(String::as_str).collect();
        return Err(TopologyError::UnknownStream {
            bolt,
            component: source.component.clone(),
            stream: source.stream.clone(),
            declared: declared.join(", "),
        });
    };
    if stream.direct != matches!(input.grouping, Grouping::Direct) {
        let declared = if stream.direct { "direct" } else { "not direct" };
        return Err(TopologyError::Direct {
            bolt,
            stream: source.clone(),
            grouping: input.grouping.name(),
            declared,
        });
    }
    let Some(fields) = input.grouping.key() else { return Ok(()) };
    if fields.is_empty() {
        return Err(TopologyError::NoField { bolt, stream: source.clone() });
    }
    for field in fields {
        let Ok(declared) = stream.schema.field_with_name(field) else {
            let declared: Vec<&str> =
                stream.schema.fields().iter().map(|field| field.name().as_str()).collect();
            let declared = declared.join(", ");
            return Err(TopologyError::UnknownField {
                bolt,
                stream: source.clone(),
                field: field.clone(),
                declared,
            });
        };
        if hash_rows(&[new_empty_array(declared.data_type())], &mut Vec::new()).is_err() {
            let kind = declared.data_type().to_string();
            return Err(TopologyError::UnhashableField {
                bolt,
                stream: source.clone(),
                field: field.clone(),
                kind,
            });
        }
    }
    Ok(())
}

/// Takes away, again and again, who listens only to what is already gone, and whom nobody listens to who is left: what
/// stays is on a cycle, or between two.
fn check_cycles(components: &BTreeMap<String, Component>) -> Result<(), TopologyError> {
    let mut left: BTreeSet<&str> = components.keys().map(String::as_str).collect();
    loop {
        let waits = |id: &&str| {
            components[*id].inputs.iter().any(|input| left.contains(input.source.component.as_str()))
        };
        let delays = |id: &&str| {
            let delayed =
                |other: &&str| components[*other].inputs.iter().any(|input| input.source.component == *id);
            left.iter().any(delayed)
        };
        let waiting: BTreeSet<&str> = left.iter().copied().filter(|id| waits(id) && delays(id)).collect();
        if waiting.len() == left.len() {
            break;
        }
        left = waiting;
    }
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = left.iter().map(|id| format!("`{id}`")).collect();
    Err(TopologyError::Cycle(names.join(", ")))
}
