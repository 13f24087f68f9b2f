//! States merged into states, again and again: what a shard does with every micro-batch.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;

use crate::error::{SqlError, sqlstate_of};
use crate::feed::{Feed, FeedTable};
use crate::micro_batch::{PlannedOnce, Resets, once_state};
use crate::view::View;

/// A view's plan from flat states to flat states with one row per key, planned once.
#[derive(Debug)]
pub struct MergeStates {
    plan: PlannedOnce,
}

impl MergeStates {
    /// Plans the merge of the view's states.
    pub async fn new(view: &View) -> std::result::Result<Self, SqlError> {
        Self::plan(view).await.map_err(|error| sqlstate_of(&error))
    }

    async fn plan(view: &View) -> Result<Self> {
        let state = once_state();
        let feed = Feed::default();
        let table = Arc::new(FeedTable::new(view.descriptor().state_schema(), feed.clone()));
        let states = LogicalPlanBuilder::scan("states", provider_as_source(table), None)?.build()?;
        let plan = view.merge_states_plan(states)?;
        Ok(Self { plan: PlannedOnce::new(&state, &plan, feed, Resets::Always).await? })
    }

    /// The states merged: one row per key. Columns are found by name and cast to the descriptor's types.
    pub async fn run(&mut self, states: Vec<RecordBatch>) -> std::result::Result<Vec<RecordBatch>, SqlError> {
        self.plan.run(states).await.map_err(|error| sqlstate_of(&error))
    }
}
