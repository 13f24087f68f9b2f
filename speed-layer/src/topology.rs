//! The topology of a source: each event is read and decoded once, and feeds all views.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use std::time::Duration;
use stratus_topology::{CustomGrouping, Grouping, TaskChoice, TaskError, Topology, TopologyConfig};
use stratus_trident::TridentTopology;

use crate::error::SpeedError;
use crate::partials::{self, PartialStates};
use crate::spout::EventSpout;
use crate::states::{MergeStates, ShardStates};
use crate::work::Work;

/// Failures are told at once; this is only for words that were lost altogether.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(300);

/// Events, decoded once; each view's states of a task's part of the batch; and these, by shard, in the shards.
pub(crate) fn of(work: &Arc<Work>) -> Result<Topology, SpeedError> {
    let config = TopologyConfig { message_timeout: MESSAGE_TIMEOUT, ..TopologyConfig::default() };
    let topology = TridentTopology::new().config(config);
    let events = topology.new_stream("events", EventSpout::new(work));
    let columns = events.schema();
    let columns: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    let _shards = events
        .partition_aggregate_rows(&columns, PartialStates::new(work), partials::schema())
        .name("partial-states")
        .parallelism_hint(work.layer.limits.tasks.max(1))
        .partition(Grouping::custom(|| ByShard))
        .partition_persist(
            ShardStates::new(work),
            &["view", "epoch", "shard", "key", "state"],
            MergeStates::new(work),
            stratus_topology::fields([]),
        )
        .parallelism_hint(work.layer.limits.tasks.max(1));
    let plan = topology.build().map_err(|error| SpeedError::Topology(error.to_string()))?;
    for warning in &plan.warnings {
        tracing::warn!(source = work.source(), "{warning}");
    }
    Ok(plan.topology)
}

/// Sends a shard's rows to the task that holds the shard.
struct ByShard;

impl CustomGrouping for ByShard {
    fn choose_tasks(&mut self, rows: &RecordBatch, choice: &mut TaskChoice) -> Result<(), TaskError> {
        let column = rows.column_by_name("shard").ok_or("the stream has no field `shard`")?;
        let targets = choice.targets();
        for (row, shard) in column.as_primitive::<Int32Type>().values().iter().enumerate() {
            choice.send(row, *shard as usize % targets);
        }
        Ok(())
    }
}
