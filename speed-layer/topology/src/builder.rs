//! Builds topologies, and refuses those that cannot work.

mod checks;
mod error;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use checks::{check_component_config, check_config, check_cycles, check_id, check_input};
pub use error::TopologyError;

use crate::{
    bolt::Bolt,
    config::{ComponentConfig, TopologyConfig},
    declare::{DEFAULT_STREAM, OutputFieldsDeclarer, SYSTEM_STREAM, StreamDeclaration, system_schema},
    grouping::Grouping,
    lineage::TaskId,
    spout::Spout,
    topology::{BoltFactory, Component, Part, SpoutFactory, StreamRef, Subscription, Topology},
};

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
            for (at, input) in component.inputs.iter().enumerate() {
                check_input(&components, id, input)?;
                if component.inputs[..at].iter().any(|before| before.source == input.source) {
                    return Err(TopologyError::Again { bolt: id.clone(), stream: input.source.clone() });
                }
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

    /// Listens to a stream of a component; to each at most once.
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
