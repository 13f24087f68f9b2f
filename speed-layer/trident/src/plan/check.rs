//! What a plan must not ask for.

use super::Plan;
use crate::graph::{Graph, TridentError};

impl Plan {
    /// Whether every state has the tasks that it needs. One bolt runs everything between two repartitionings, so two of
    /// its operations may need different numbers of tasks; one of them would open the wrong partitions of its state.
    pub(crate) fn check(&self, graph: &Graph) -> Result<(), TridentError> {
        for group in &self.groups {
            for id in &group.nodes {
                let node = &graph.nodes[*id];
                let tasks = group.parallelism;
                let needs = match node.beside.and_then(|writer| self.group_of.get(&writer)) {
                    Some(writer) => Some(self.groups[*writer].parallelism),
                    None => node.partitions,
                };
                if let Some(needs) = needs.filter(|needs| *needs != tasks) {
                    let operation = node.label.clone();
                    let why = format!(
                        "its state has {needs} partitions, and runs together with operations whose state has \
                         {tasks}: put a repartitioning between them"
                    );
                    return Err(TridentError::Misfit { operation, why });
                }
            }
        }
        Ok(())
    }
}
