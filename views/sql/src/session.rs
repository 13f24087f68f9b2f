//! The sessions of the product. A session from elsewhere would bring view types (two encodings of one value) and
//! could not plan a view's row stage.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::common::config::Dialect;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::row_stage::RowStagePlanner;

/// The settings that every session starts from.
pub fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_default_catalog_and_schema("stratus", "public")
        .with_create_default_catalog_and_schema(true);
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.time_zone = Some("UTC".to_owned());
    // Beyond 1 a partial aggregation is never skipped, so that it does not hand on one key many times over.
    options.execution.skip_partial_aggregation_probe_ratio_threshold = 1.1;
    config
}

/// A session's state with these settings and this runtime.
pub fn session_state(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionState {
    builder(config, runtime).build()
}

/// A session with these settings and this runtime.
pub fn session_context_with(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionContext {
    SessionContext::new_with_state(session_state(config, runtime))
}

/// A session with the default settings and a runtime of its own.
pub fn session_context() -> SessionContext {
    session_context_with(session_config(), Arc::new(RuntimeEnv::default()))
}

pub(crate) fn builder(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionStateBuilder {
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_query_planner(Arc::new(Planner))
}

/// DataFusion's planner, which also knows the row stage.
#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn datafusion::catalog::Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(RowStagePlanner)])
            .create_physical_plan(plan, session)
            .await
    }
}
