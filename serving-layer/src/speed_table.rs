//! The speed layer's states of one view at one T, as a table.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};

use crate::key_set::KeySet;
use crate::reading::{SpeedRows, ViewReading};

/// Reads the states when a query is planned, so that a read that was overtaken starts over before a row was shown.
/// Filters on group keys become look-ups; the engine filters again what they find.
#[derive(Debug)]
pub(crate) struct SpeedTable(pub(crate) Arc<ViewReading>);

#[async_trait]
impl TableProvider for SpeedTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = KeySet::of(filters, &self.0.view);
        let rows = self.0.rows(&wanted).await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let batches = [rows.batches.clone()];
        let states = MemorySourceConfig::try_new_exec(&batches, self.schema(), projection.cloned())?;
        Ok(Arc::new(SpeedScan { shown: shown(&self.0, &rows), states }))
    }
}

/// What a plan shows of a scan.
fn shown(reading: &ViewReading, rows: &SpeedRows) -> String {
    let (view, epochs, shards) = (reading.view.name(), reading.choice.chain.len(), reading.shards());
    let read = match &rows.keys {
        KeySet::All => format!("{} of {shards} shards", rows.keys),
        KeySet::Keys(_) => format!("{} in {} of {shards} shards", rows.keys, rows.shards),
    };
    let found: usize = rows.batches.iter().map(|batch| batch.num_rows()).sum();
    format!("view={view}, epochs={epochs}, {read}, rows={found}")
}

/// States that have been read, and how.
#[derive(Debug)]
struct SpeedScan {
    shown: String,
    states: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for SpeedScan {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpeedScan: {}", self.shown)
    }
}

impl ExecutionPlan for SpeedScan {
    fn name(&self) -> &str {
        "SpeedScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.states.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() {
            Ok(self)
        } else {
            Err(DataFusionError::Internal("a scan of speed state has no input".to_owned()))
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.states.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.states.metrics()
    }
}
