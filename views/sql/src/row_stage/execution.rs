//! The stage as an operator: a stream of batches in, a stream of evaluated batches out, partition by partition.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PhysicalExpr,
    PlanProperties,
};
use futures::StreamExt;

use super::{FailedRows, RowEvaluator};

/// The physical row stage.
#[derive(Debug)]
pub(crate) struct RowStageExec {
    input: Arc<dyn ExecutionPlan>,
    evaluator: Arc<RowEvaluator>,
    failed: FailedRows,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RowStageExec {
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        evaluator: Arc<RowEvaluator>,
        failed: FailedRows,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(evaluator.output())),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let properties = Arc::new(properties);
        Self { input, evaluator, failed, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for RowStageExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowStageExec: output=[")?;
        for (i, field) in self.evaluator.output().fields().iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, field.name())?;
        }
        write!(f, "]")
    }
}

impl ExecutionPlan for RowStageExec {
    fn name(&self) -> &str {
        "RowStageExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
        let mut children = children.into_iter();
        match (children.next(), children.next()) {
            (Some(input), None) => {
                Ok(Arc::new(Self::new(input, Arc::clone(&self.evaluator), self.failed.clone())))
            }
            _ => Err(DataFusionError::Internal("a row stage has one input".to_owned())),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(
                datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute,
            ),
        )
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let evaluator = Arc::clone(&self.evaluator);
        let failed = self.failed.clone();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let stream = input.map(move |batch| {
            let timer = metrics.elapsed_compute().timer();
            let (rows, failures) = evaluator.run(&batch?)?;
            timer.done();
            if failures > 0 {
                failed.add(failures);
            }
            metrics.record_output(rows.num_rows());
            Ok(rows)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.evaluator.output()), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
