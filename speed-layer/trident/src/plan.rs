//! From operations to the components of a topology: what lies between two repartitionings becomes one bolt.

mod check;

use std::collections::{BTreeMap, BTreeSet};

use stratus_topology::Grouping;

use crate::graph::{Graph, Kind, NodeId};

/// Operations that one bolt runs: a tree that begins with a spout or behind a repartitioning.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The component's id.
    pub(crate) component: String,
    /// Its operations; parents come before children.
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) parallelism: usize,
    /// Whether it writes to a state, and so waits for the commit.
    pub(crate) commits: bool,
    /// Which batches it belongs to.
    pub(crate) batch_group: usize,
}

/// A repartitioning between two groups.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    /// The node whose tuples travel.
    pub(crate) from: NodeId,
    /// The node that receives them, and as which of its inputs.
    pub(crate) to: NodeId,
    pub(crate) input: usize,
    pub(crate) grouping: Grouping,
}

impl Hop {
    /// The stream that the tuples travel by.
    pub(crate) fn stream(number: usize) -> String {
        format!("s{number}")
    }
}

/// A plan of components.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<Group>,
    pub(crate) hops: Vec<Hop>,
    /// The group of each node; a repartitioning has none.
    pub(crate) group_of: BTreeMap<NodeId, usize>,
    pub(crate) batch_groups: usize,
}

impl Plan {
    pub(crate) fn of(graph: &Graph) -> Self {
        let mut plan = Self::default();
        for (id, node) in graph.nodes.iter().enumerate() {
            if matches!(node.kind, Kind::Partition(_)) {
                continue;
            }
            let several = node.parents.len() > 1;
            let mut within = None;
            for (input, parent) in node.parents.iter().enumerate() {
                match &graph.nodes[*parent].kind {
                    Kind::Partition(grouping) => {
                        let from = graph.nodes[*parent].parents[0];
                        plan.hops.push(Hop { from, to: id, input, grouping: grouping.clone() });
                    }
                    // Streams that are put together meet behind a hop: their bolts are others.
                    _ if several => {
                        plan.hops.push(Hop {
                            from: *parent,
                            to: id,
                            input,
                            grouping: Grouping::LocalOrShuffle,
                        });
                    }
                    _ => within = plan.group_of.get(parent).copied(),
                }
            }
            let group = within.unwrap_or_else(|| {
                plan.groups.push(Group {
                    component: String::new(),
                    nodes: Vec::new(),
                    parallelism: 1,
                    commits: false,
                    batch_group: 0,
                });
                plan.groups.len() - 1
            });
            plan.groups[group].nodes.push(id);
            plan.group_of.insert(id, group);
        }
        plan.describe(graph);
        plan.match_states(graph);
        plan.connect();
        plan
    }

    fn describe(&mut self, graph: &Graph) {
        for (number, group) in self.groups.iter_mut().enumerate() {
            let nodes = || group.nodes.iter().map(|id| &graph.nodes[*id]);
            // A repartitioning runs nowhere: its hint is for those who take its tuples.
            let takes_from = nodes().flat_map(|node| node.parents.iter().map(|id| &graph.nodes[*id]));
            let partitions = takes_from.filter(|node| matches!(node.kind, Kind::Partition(_)));
            let hint = nodes().chain(partitions).filter_map(|node| node.parallelism).max().unwrap_or(1);
            group.parallelism = nodes().find_map(|node| node.partitions).unwrap_or(hint);
            group.commits = nodes().any(|node| matches!(node.kind, Kind::Processor { commits: true, .. }));
            group.component = match &graph.nodes[group.nodes[0]].kind {
                Kind::Spout { name, .. } => format!("spout-{name}"),
                _ => {
                    let names: Vec<&str> = nodes().map(|node| node.label.as_str()).collect();
                    format!("b-{number}-{}", names.join("-"))
                }
            };
        }
    }

    /// Who queries a state has as many tasks as those who write it, so that keys meet their partitions.
    fn match_states(&mut self, graph: &Graph) {
        // As often as there are groups: who writes a state may itself query another.
        let groups = self.groups.len();
        for group in (0..groups).flat_map(|_| 0..groups) {
            let beside = self.groups[group].nodes.iter().find_map(|id| graph.nodes[*id].beside);
            if let Some(writer) = beside {
                self.groups[group].parallelism = self.groups[self.group_of[&writer]].parallelism;
            }
        }
    }

    /// Groups that tuples pass between have their batches in common.
    fn connect(&mut self) {
        let mut batch_group: Vec<usize> = (0..self.groups.len()).collect();
        for hop in &self.hops {
            let (one, other) = (batch_group[self.group_of[&hop.from]], batch_group[self.group_of[&hop.to]]);
            batch_group.iter_mut().filter(|group| **group == other).for_each(|group| *group = one);
        }
        let numbers: BTreeSet<usize> = batch_group.iter().copied().collect();
        let number: BTreeMap<usize, usize> =
            numbers.into_iter().enumerate().map(|(at, group)| (group, at)).collect();
        self.batch_groups = number.len();
        for (group, of) in self.groups.iter_mut().zip(batch_group) {
            group.batch_group = number[&of];
        }
    }

    /// The groups that a group sends to, each once.
    pub(crate) fn downstream(&self, group: usize) -> BTreeSet<usize> {
        let hops = self.hops.iter().filter(|hop| self.group_of[&hop.from] == group);
        hops.map(|hop| self.group_of[&hop.to]).collect()
    }

    /// The groups whose tuples come only while their batch commits: they write a state, or are behind one that does.
    pub(crate) fn late(&self) -> BTreeSet<usize> {
        let mut late: BTreeSet<usize> =
            (0..self.groups.len()).filter(|group| self.groups[*group].commits).collect();
        loop {
            let behind = self.hops.iter().filter(|hop| late.contains(&self.group_of[&hop.from]));
            let behind: Vec<usize> = behind.map(|hop| self.group_of[&hop.to]).collect();
            let before = late.len();
            late.extend(behind);
            if late.len() == before {
                return late;
            }
        }
    }

    /// The groups that send to a group, each once.
    pub(crate) fn upstream(&self, group: usize) -> BTreeSet<usize> {
        let hops = self.hops.iter().filter(|hop| self.group_of[&hop.to] == group);
        hops.map(|hop| self.group_of[&hop.from]).collect()
    }
}
