//! What a task is told about itself and its topology.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{clock::Clock, lineage::TaskId, topology::Topology};

/// What a spout or bolt may fail with. The engine passes the text on: to the spout whose tuples failed, into the log,
/// and into the metrics.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// A task's place in its topology.
#[derive(Clone, Debug)]
pub struct TaskContext {
    pub(crate) topology_name: Arc<str>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) component: Arc<str>,
    pub(crate) task: TaskId,
    pub(crate) index: usize,
    pub(crate) clock: Clock,
}

impl TaskContext {
    /// The name that the topology was submitted by.
    pub fn topology_name(&self) -> &str {
        &self.topology_name
    }

    /// The topology.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The task's component.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The task's id, which is unique in the topology.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The task's place among the tasks of its component, from 0.
    pub fn task_index(&self) -> usize {
        self.index
    }

    /// How many tasks the component has.
    pub fn task_count(&self) -> usize {
        self.component_tasks(&self.component).len()
    }

    /// The tasks of a component; none if there is no such component.
    pub fn component_tasks(&self, component: &str) -> &[TaskId] {
        self.topology.components.get(component).map_or(&[], |component| &component.tasks)
    }

    /// The component's settings over the topology's.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = self.topology.config.settings.clone();
        if let Some(component) = self.topology.components.get(&*self.component) {
            settings.extend(component.config.settings.clone());
        }
        settings
    }

    /// Time as the cluster sees it, since the cluster began.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }
}
