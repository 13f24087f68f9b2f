//! Trident topologies: streams, and what they become.

use std::{cell::RefCell, collections::BTreeMap, fmt, rc::Rc, sync::Arc};

use stratus_topology::{Grouping, Topology, TopologyBuilder, TopologyConfig};

use crate::{
    batch::TransactionAttempt,
    bolt::{BATCH, COMMIT, COORD, GroupBolt, GroupSpec, Source},
    coordinator::{MasterCoordinator, Pace},
    drpc::DrpcServer,
    graph::{Graph, Kind, NodeId, TridentError},
    plan::{Hop, Plan},
    spout::TridentSpout,
    state::{SharedStates, StateFactory},
    stream::Stream,
};

/// Streams of batches, operations on them, and states that they keep.
///
/// Operations are declared on [`Stream`]s; [`build`](Self::build) makes one [`Topology`] of all.
pub struct TridentTopology {
    graph: Rc<RefCell<Graph>>,
    pace: Pace,
    config: TopologyConfig,
}

/// What a Trident topology became.
#[derive(Debug)]
pub struct TridentPlan {
    /// The topology, to be submitted to a cluster.
    pub topology: Topology,
    /// What is allowed and seldom meant, such as a spout and a state that are not exactly once together.
    pub warnings: Vec<String>,
}

impl Default for TridentTopology {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TridentTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.graph.borrow().fmt(f)
    }
}

impl TridentTopology {
    /// A topology without streams.
    pub fn new() -> Self {
        Self { graph: Rc::default(), pace: Pace::default(), config: TopologyConfig::default() }
    }

    /// How batches are paced.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Settings of the topology that comes of it.
    #[must_use]
    pub fn config(mut self, config: TopologyConfig) -> Self {
        self.config = config;
        self
    }

    /// The stream of a spout's batches.
    pub fn new_stream(&self, name: &str, spout: impl TridentSpout) -> Stream {
        let schema = spout.schema();
        let kind = Kind::Spout { name: name.to_owned(), spout: Arc::new(spout) };
        let node = self.graph.borrow_mut().add(kind, name, Vec::new(), schema);
        Stream::new(Rc::clone(&self.graph), node)
    }

    /// The stream of the calls of a function: each call is a batch with its arguments as the field `args`. What is to
    /// come back ends in [`Stream::returns`].
    pub fn new_drpc_stream(&self, function: &str, server: &DrpcServer) -> Stream {
        self.new_stream(&format!("drpc-{function}"), server.spout(function))
    }

    /// A state that this topology only queries. What queries it has as many tasks as it has partitions, or, if their
    /// number is free, as many as it is given: then each of them opens its part, as those who write the state do.
    pub fn new_static_state<F: StateFactory>(&self, factory: F) -> TridentState<F> {
        let partitions = factory.partitions();
        TridentState {
            graph: Rc::clone(&self.graph),
            node: None,
            states: SharedStates::new(factory),
            partitions,
        }
    }

    /// Plans the operations and builds the topology.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with the operations.
    pub fn build(&self) -> Result<TridentPlan, TridentError> {
        let graph = self.graph.borrow();
        if let Some(error) = &graph.error {
            return Err(error.clone());
        }
        if self.config.ackers == 0 {
            let why = "it has no ackers, and without them nobody learns that a batch failed".to_owned();
            return Err(TridentError::Misfit { operation: "the topology".to_owned(), why });
        }
        let plan = Plan::of(&graph);
        plan.check(&graph)?;
        let mut builder = TopologyBuilder::new();
        builder.config(self.config.clone());
        for batch_group in 0..plan.batch_groups {
            let spouts = plan.groups.iter().filter(|group| group.batch_group == batch_group);
            let spouts: Vec<(String, Arc<dyn TridentSpout>)> = spouts
                .filter_map(|group| match &graph.nodes[group.nodes[0]].kind {
                    Kind::Spout { name, spout } => Some((name.clone(), Arc::clone(spout))),
                    _ => None,
                })
                .collect();
            if spouts.len() > 1
                && let Some((name, _)) = spouts.iter().find(|(_, spout)| spout.stands_alone())
            {
                let others: Vec<&str> =
                    spouts.iter().map(|(other, _)| other.as_str()).filter(|other| other != name).collect();
                let why = format!("its calls cannot be put together with tuples of {}", others.join(", "));
                return Err(TridentError::Misfit { operation: format!("stream {name}"), why });
            }
            if spouts.len() > self.config.batch_rows {
                // A batch is told to all spouts in one piece.
                let why = format!(
                    "it puts {} spouts together and has {} batch_rows: there must be as many",
                    spouts.len(),
                    self.config.batch_rows
                );
                return Err(TridentError::Misfit { operation: "the topology".to_owned(), why });
            }
            let pace = spouts.iter().find_map(|(_, spout)| spout.pace()).unwrap_or_else(|| self.pace.clone());
            let spouts = Arc::new(spouts);
            let make = move || MasterCoordinator::new(Arc::clone(&spouts), pace.clone());
            builder.set_spout(&coordinator_of(batch_group), make, 1);
        }
        for number in 0..plan.groups.len() {
            add_group(&mut builder, &graph, &plan, number);
        }
        Ok(TridentPlan { topology: builder.build().map_err(Arc::new)?, warnings: graph.warnings.clone() })
    }
}

fn coordinator_of(batch_group: usize) -> String {
    format!("$mastercoord-bg{batch_group}")
}

fn add_group(builder: &mut TopologyBuilder, graph: &Graph, plan: &Plan, number: usize) {
    let group = &plan.groups[number];
    let spec = Arc::new(group_spec(graph, plan, number));
    let spout = spec.spout.is_some();
    let upstream = spec.upstream.clone();
    let mut bolt =
        builder.set_bolt(&group.component, move || GroupBolt::new(Arc::clone(&spec)), group.parallelism);
    let coordinator = coordinator_of(group.batch_group);
    if spout {
        bolt = bolt.input_stream(&coordinator, BATCH, Grouping::All);
    }
    if group.commits {
        bolt = bolt.input_stream(&coordinator, COMMIT, Grouping::All);
    }
    for component in upstream {
        bolt = bolt.input_stream(&component, COORD, Grouping::Direct);
    }
    for (at, hop) in plan.hops.iter().enumerate() {
        if plan.group_of[&hop.to] == number {
            let from = &plan.groups[plan.group_of[&hop.from]].component;
            bolt = bolt.input_stream(from, &Hop::stream(at), hop.grouping.clone());
        }
    }
}

fn group_spec(graph: &Graph, plan: &Plan, number: usize) -> GroupSpec {
    let group = &plan.groups[number];
    let place: BTreeMap<NodeId, usize> =
        group.nodes.iter().enumerate().map(|(place, node)| (*node, place)).collect();
    let hops = || plan.hops.iter().enumerate();
    let outgoing = hops().filter(|(_, hop)| place.contains_key(&hop.from));
    let streams = outgoing.map(|(at, hop)| (Hop::stream(at), Arc::clone(&graph.nodes[hop.from].schema)));
    let incoming = hops().filter(|(_, hop)| plan.group_of[&hop.to] == number);
    let sources = incoming.map(|(at, hop)| Source {
        component: plan.groups[plan.group_of[&hop.from]].component.clone(),
        stream: Hop::stream(at),
        place: place[&hop.to],
        input: hop.input,
    });
    let places = group.nodes.iter().map(|node| {
        let inside = |child: &&NodeId| {
            let child = &graph.nodes[**child];
            child.parents.len() == 1 && child.parents[0] == *node
        };
        crate::bolt::Place {
            make: match &graph.nodes[*node].kind {
                Kind::Processor { make, .. } => Some(Arc::clone(make)),
                _ => None,
            },
            children: group.nodes.iter().filter(inside).map(|child| place[child]).collect(),
            streams: hops().filter(|(_, hop)| hop.from == *node).map(|(at, _)| Hop::stream(at)).collect(),
        }
    });
    let names = |groups: std::collections::BTreeSet<usize>| {
        groups.into_iter().map(|group| plan.groups[group].component.clone()).collect()
    };
    GroupSpec {
        streams: streams.collect(),
        sources: sources.collect(),
        upstream: names(plan.upstream(number)),
        late: names(plan.upstream(number).intersection(&plan.late()).copied().collect()),
        downstream: names(plan.downstream(number)),
        commits: group.commits,
        spout: match &graph.nodes[group.nodes[0]].kind {
            Kind::Spout { name, spout } => Some((name.clone(), Arc::clone(spout))),
            _ => None,
        },
        operations: crate::bolt::OperationsPlan(places.collect()),
    }
}

/// A state of a topology: to be queried by streams of the same topology.
pub struct TridentState<F: StateFactory> {
    pub(crate) graph: Rc<RefCell<Graph>>,
    /// The operation that writes it.
    pub(crate) node: Option<NodeId>,
    pub(crate) states: Arc<SharedStates<F>>,
    /// How many partitions it must have, if that is not free.
    pub(crate) partitions: Option<usize>,
}

impl<F: StateFactory> fmt::Debug for TridentState<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TridentState({:?})", self.states)
    }
}

impl<F: StateFactory> TridentState<F> {
    /// So many tasks, at least, for what writes the state, and everything since the last repartitioning before it. A
    /// state whose number of partitions is fixed has so many tasks, whatever is asked for here.
    #[must_use]
    pub fn parallelism_hint(self, tasks: usize) -> Self {
        if let Some(node) = self.node {
            self.graph.borrow_mut().nodes[node].parallelism = Some(tasks);
        }
        self
    }

    /// The stream of what the updates emit: for aggregations each group with its new value.
    pub fn new_values_stream(&self) -> Option<Stream> {
        self.node.map(|node| Stream::new(Rc::clone(&self.graph), node))
    }
}

/// The one task of a batch that takes what belongs to the batch as a whole.
pub(crate) fn batch_task(attempt: TransactionAttempt, tasks: usize) -> usize {
    (attempt.txid % tasks as u64) as usize
}
