//! The speed layer's plan: planned once, run for every micro-batch.
//!
//! Planning costs more than running, so the plan is made once. But a physical plan keeps what it has learnt: a hash
//! join holds its build side, and a plan that is run again answers with the first batch's rows for ever, without a
//! word. So the state of every operator is reset before each run, there is one partition, and the stream is on the
//! probe side of every join, which is checked when the plan is made. One thing is kept on purpose: the hash tables
//! of dimension tables, which are the same for every batch.

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
    /// All but the hash tables of dimension tables; every so many runs those too.
    Always,
    /// As DataFusion made it, streams on build sides included.
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
    runs: usize,
}

/// After so many runs the hash tables of dimension tables are built anew: an operator that is not reset also keeps
/// the metrics of each of its runs.
const REBUILD_AFTER: usize = 256;

impl PlannedOnce {
    pub(crate) async fn new(
        state: &SessionState,
        plan: &LogicalPlan,
        feed: Feed,
        resets: Resets,
    ) -> Result<Self> {
        let plan = state.create_physical_plan(plan).await?;
        let plan = if resets == Resets::Always { probe_with_stream(plan)? } else { plan };
        Ok(Self { plan, feed, context: state.task_ctx(), resets, runs: 0 })
    }

    pub(crate) async fn run(&mut self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        if self.resets == Resets::Always {
            self.plan = if self.runs.is_multiple_of(REBUILD_AFTER) {
                reset_plan_states(Arc::clone(&self.plan))?
            } else {
                reset_but_dimensions(Arc::clone(&self.plan))?
            };
            self.runs += 1;
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

/// `reset_plan_states`, except for joins whose build side reads dimension tables alone. They produce rows of their
/// probe side only (`check` sees to that), so nothing that they keep depends on a batch.
fn reset_but_dimensions(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let reset = plan.transform_up(|plan| match as_join(&plan) {
        Some(join) if !has_feed(join.left()) => Ok(Transformed::no(plan)),
        _ => plan.reset_state().map(Transformed::yes),
    })?;
    Ok(reset.data)
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
        let of_probe_rows = matches!(
            join.join_type(),
            JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti
        );
        let streams = has_feed(join.right()) && of_probe_rows;
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

#[cfg(test)]
mod tests {
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::datasource::MemTable;
    use stratus_seam::schema::{Column, ColumnType};

    use super::*;
    use crate::relations::Relations;

    const SQL: &str = "SELECT label, count(*) AS c FROM events JOIN dims USING (k) GROUP BY label";

    async fn batches() -> (View, HashMap<String, Arc<dyn TableProvider>>, [RecordBatch; 2]) {
        let column = |name: &str| Column::new(name, ColumnType::Text);
        let relations = Relations::new().with_source("events", vec![column("k")]).with_dimension(
            "dims",
            vec![column("k"), column("label")],
            "1",
        );
        let view = View::compile("v", SQL, &relations).await.unwrap();
        let context = session::session_context();
        let query = async |sql: &str| context.sql(sql).await.unwrap().collect().await.unwrap();
        let dims = query("select column1 as k, column2 as label from (values ('a', 'A'), ('b', 'B'))").await;
        let table = MemTable::try_new(dims[0].schema(), vec![dims]).unwrap();
        let dims: HashMap<String, Arc<dyn TableProvider>> =
            HashMap::from([("dims".to_owned(), Arc::new(table) as Arc<dyn TableProvider>)]);
        let first = query("select 'a' as k from generate_series(1, 3)").await.remove(0);
        let second = query("select 'b' as k from generate_series(1, 5)").await.remove(0);
        (view, dims, [first, second])
    }

    async fn answers(resets: Resets) -> Vec<String> {
        let (view, dims, batches) = batches().await;
        let mut plan = MicroBatchPlan::plan(&view, &dims, resets).await.unwrap();
        let mut answers = Vec::new();
        for batch in batches {
            let states = plan.plan.run(vec![batch]).await.unwrap();
            answers.push(pretty_format_batches(&states).unwrap().to_string());
        }
        answers
    }

    #[tokio::test]
    async fn a_plan_that_is_not_reset_answers_with_the_first_batch_for_ever() {
        let right = answers(Resets::Always).await;
        assert!(right[0].contains("| A  | 3") && right[1].contains("| B  | 5"), "{right:?}");
        let wrong = answers(Resets::Never).await;
        assert_eq!(wrong[0], right[0]);
        assert_eq!(wrong[1], wrong[0]);
    }

    #[tokio::test]
    async fn the_hash_tables_of_dimensions_are_kept_and_now_and_then_built_anew() {
        let (view, dims, batches) = batches().await;
        let mut plan = MicroBatchPlan::new(&view, &dims).await.unwrap();
        let mut answers = std::collections::BTreeSet::new();
        for _ in 0..2 * REBUILD_AFTER + 2 {
            for batch in &batches {
                let (states, _) = plan.run(vec![batch.clone()]).await.unwrap();
                answers.insert(pretty_format_batches(&states).unwrap().to_string());
            }
        }
        assert_eq!(answers.len(), 2);
        let metrics =
            plan.plan.plan.children().into_iter().fold(0, |most, child| most.max(metrics_of(child)));
        assert!(metrics < 100 * REBUILD_AFTER, "{metrics}");
    }

    fn metrics_of(plan: &Arc<dyn ExecutionPlan>) -> usize {
        let own = plan.metrics().map_or(0, |metrics| metrics.iter().count());
        plan.children().into_iter().fold(own, |most, child| most.max(metrics_of(child)))
    }
}
