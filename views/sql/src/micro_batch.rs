//! The speed layer's plan: planned once, run for every micro-batch.
//!
//! Planning costs more than running, so the plan is made once. But a physical plan keeps what it has learnt: a hash
//! join holds its build side, and a plan that is run again answers with the first batch's rows for ever, without a
//! word. So the state of every operator is reset before each run, there is one partition, and the stream is on the
//! probe side of every join, which is checked when the plan is made.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;

use crate::error::{SqlError, sqlstate_of};
use crate::feed::{Feed, FeedExec, FeedTable};
use crate::row_stage::FailedRows;
use crate::session;
use crate::view::View;

/// A view's plan from decoded events to flat states, planned once.
#[derive(Debug)]
pub struct MicroBatchPlan {
    plan: PlannedOnce,
    failed: FailedRows,
}

impl MicroBatchPlan {
    /// Plans the view over micro-batches of `source`'s events. The dimension tables are read here, once.
    pub async fn new(
        view: &View,
        dimensions: &HashMap<String, Arc<dyn TableProvider>>,
    ) -> std::result::Result<Self, SqlError> {
        Self::plan(view, dimensions, Resets::Always).await.map_err(|error| sqlstate_of(&error))
    }

    async fn plan(
        view: &View,
        dimensions: &HashMap<String, Arc<dyn TableProvider>>,
        resets: Resets,
    ) -> Result<Self> {
        let state = once_state();
        let mut held: HashMap<String, Arc<dyn TableProvider>> = HashMap::new();
        for (name, provider) in dimensions {
            if view.dimensions().contains(name) {
                held.insert(name.clone(), hold(&state, provider).await?);
            }
        }
        let feed = Feed::default();
        let table = Arc::new(FeedTable::new(view.feed_schema(), feed.clone()));
        let states = view.states_plan(table, &held)?;
        let plan = PlannedOnce::new(&state, &states.plan, feed, resets).await?;
        Ok(Self { plan, failed: states.failed })
    }

    /// The states of one micro-batch, one row per key, and how many rows were left out because an expression failed
    /// on them. Columns are found by name; those that the view does not read may be missing.
    pub async fn run(
        &mut self,
        events: Vec<RecordBatch>,
    ) -> std::result::Result<(Vec<RecordBatch>, u64), SqlError> {
        self.failed.take();
        let states = self.plan.run(events).await.map_err(|error| sqlstate_of(&error))?;
        Ok((states, self.failed.take()))
    }
}

/// Whether a plan's state is reset before each run. Never is for tests, to see what goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resets {
    Always,
    #[cfg(test)]
    Never,
}

/// A physical plan over a feed that can be run again and again.
#[derive(Debug)]
pub(crate) struct PlannedOnce {
    plan: Arc<dyn ExecutionPlan>,
    feed: Feed,
    context: Arc<TaskContext>,
    resets: Resets,
}

impl PlannedOnce {
    pub(crate) async fn new(
        state: &SessionState,
        plan: &LogicalPlan,
        feed: Feed,
        resets: Resets,
    ) -> Result<Self> {
        let plan = state.create_physical_plan(plan).await?;
        let plan = if resets == Resets::Always { probe_with_stream(plan)? } else { plan };
        Ok(Self { plan, feed, context: state.task_ctx(), resets })
    }

    pub(crate) async fn run(&mut self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        if self.resets == Resets::Always {
            self.plan = reset_plan_states(Arc::clone(&self.plan))?;
        }
        self.feed.fill(batches);
        let result = collect(Arc::clone(&self.plan), Arc::clone(&self.context)).await;
        self.feed.clear();
        result
    }
}

/// A state for plans that are run many times over small inputs.
pub(crate) fn once_state() -> SessionState {
    let mut config = session::session_config().with_target_partitions(1);
    let optimizer = &mut config.options_mut().optimizer;
    // What a join learns from one batch must not filter the next.
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    let rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = PhysicalOptimizer::new()
        .rules
        .into_iter()
        // It would choose sides by size, and knows nothing of the stream's.
        .filter(|rule| rule.name() != "join_selection")
        .collect();
    session::builder(config, Arc::new(RuntimeEnv::default())).with_physical_optimizer_rules(rules).build()
}

/// A dimension table in memory.
async fn hold(state: &SessionState, provider: &Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let context = SessionContext::new_with_state(state.clone());
    let batches = context.read_table(Arc::clone(provider))?.collect().await?;
    let table = datafusion::datasource::MemTable::try_new(provider.schema(), vec![batches])?;
    Ok(Arc::new(table))
}

/// The plan with the stream on the probe side of every join.
fn probe_with_stream(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let swapped = plan.transform_up(|plan| {
        let Some(join) = as_join(&plan) else { return Ok(Transformed::no(plan)) };
        if !has_feed(join.left()) {
            return Ok(Transformed::no(plan));
        }
        Ok(Transformed::yes(join.swap_inputs(PartitionMode::CollectLeft)?))
    })?;
    check(&swapped.data)?;
    Ok(swapped.data)
}

fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    if plan.children().len() > 1 {
        let Some(join) = as_join(plan) else {
            let message = format!("{} cannot stand in a plan that is run many times", plan.name());
            return Err(DataFusionError::Internal(message));
        };
        let streams = has_feed(join.right()) && matches!(join.join_type(), JoinType::Inner | JoinType::Right);
        if has_feed(join.left()) || (has_feed(plan) && !streams) {
            let message = "a join has the stream on its build side".to_owned();
            return Err(DataFusionError::Internal(message));
        }
    }
    plan.children().into_iter().try_for_each(check)
}

fn as_join(plan: &Arc<dyn ExecutionPlan>) -> Option<&HashJoinExec> {
    (plan.as_ref() as &dyn std::any::Any).downcast_ref::<HashJoinExec>()
}

fn has_feed(plan: &Arc<dyn ExecutionPlan>) -> bool {
    (plan.as_ref() as &dyn std::any::Any).is::<FeedExec>() || plan.children().into_iter().any(has_feed)
}
