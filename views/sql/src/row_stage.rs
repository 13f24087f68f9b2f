//! The row stage: everything of a view that can fail on a value, in one place.
//!
//! `WHERE`, group keys, aggregate arguments and `FILTER` conditions are evaluated here and nowhere else, as they
//! were analysed, before any rewriting. A row on which one of them fails is left out of the view and counted; a
//! row that the condition rejects is not evaluated further and not counted; an argument is evaluated only where
//! its `FILTER` holds. The stage is a logical node of its own that shows the optimizer no expression, so no rule
//! can move a fallible condition below it, or simplify one layer's plan differently from the other's.

mod evaluate;
mod execution;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

pub(crate) use evaluate::{RowEvaluator, trial};

use execution::RowStageExec;

/// The number of rows that a run left out because an expression failed on them.
#[derive(Debug, Clone, Default)]
pub struct FailedRows(Arc<AtomicU64>);

impl FailedRows {
    /// The count so far. It is complete once the run has ended.
    pub fn count(&self) -> u64 {
        self.0.load(AtomicOrdering::Acquire)
    }

    /// The count so far, and none from here on.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, AtomicOrdering::AcqRel)
    }

    fn add(&self, rows: u64) {
        self.0.fetch_add(rows, AtomicOrdering::AcqRel);
    }
}

/// An aggregate's argument, with the index of the `FILTER` under which it is evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FilteredArgument {
    pub(crate) expr: Expr,
    pub(crate) data_type: DataType,
    pub(crate) filter: Option<usize>,
}

/// A group key and its canonical type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) expr: Expr,
    pub(crate) data_type: DataType,
}

/// What the stage evaluates, over the columns of its input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RowExpressions {
    pub(crate) predicate: Option<Expr>,
    pub(crate) keys: Vec<Key>,
    pub(crate) filters: Vec<Expr>,
    pub(crate) arguments: Vec<FilteredArgument>,
}

impl RowExpressions {
    /// The columns that come out: keys `g0..`, filters `f0..`, arguments `x0..`.
    pub(crate) fn output(&self) -> Schema {
        let keys = self.keys.iter().enumerate().map(|(i, key)| (format!("g{i}"), key.data_type.clone()));
        let filters = (0..self.filters.len()).map(|i| (format!("f{i}"), DataType::Boolean));
        let arguments = self
            .arguments
            .iter()
            .enumerate()
            .map(|(i, argument)| (format!("x{i}"), argument.data_type.clone()));
        let fields = keys.chain(filters).chain(arguments);
        Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).collect::<Vec<_>>())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Expr> {
        self.predicate
            .iter()
            .chain(self.keys.iter().map(|key| &key.expr))
            .chain(&self.filters)
            .chain(self.arguments.iter().map(|argument| &argument.expr))
    }

    /// The input columns that any expression reads.
    pub(crate) fn columns(&self) -> HashSet<&Column> {
        self.all().flat_map(Expr::column_refs).collect()
    }
}

/// The logical node.
#[derive(Debug, Clone)]
pub(crate) struct RowStage {
    input: LogicalPlan,
    expressions: Arc<RowExpressions>,
    schema: DFSchemaRef,
    failed: FailedRows,
}

impl RowStage {
    /// The plan with the stage on top.
    pub(crate) fn over(
        input: LogicalPlan,
        expressions: Arc<RowExpressions>,
        failed: FailedRows,
    ) -> Result<LogicalPlan> {
        let schema = Arc::new(DFSchema::try_from(expressions.output())?);
        let node = Arc::new(Self { input, expressions, schema, failed });
        Ok(LogicalPlan::Extension(Extension { node }))
    }
}

impl PartialEq for RowStage {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input && self.expressions == other.expressions
    }
}

impl Eq for RowStage {}

impl Hash for RowStage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.expressions.hash(state);
    }
}

impl PartialOrd for RowStage {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for RowStage {
    fn name(&self) -> &str {
        "RowStage"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// None: what the optimizer does not see it does not rewrite. The columns that the expressions read are told
    /// by `necessary_children_exprs`.
    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowStage: keys=[")?;
        for (i, key) in self.expressions.keys.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, key.expr)?;
        }
        write!(f, "]")?;
        if let Some(predicate) = &self.expressions.predicate {
            write!(f, ", where={predicate}")?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut inputs = inputs.into_iter();
        match (inputs.next(), inputs.next()) {
            (Some(input), None) => Ok(Self { input, ..self.clone() }),
            _ => Err(DataFusionError::Internal("a row stage has one input".to_owned())),
        }
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let mut indices = Vec::new();
        for column in self.expressions.columns() {
            indices.push(schema.index_of_column(column).ok()?);
        }
        indices.sort_unstable();
        indices.dedup();
        Some(vec![indices])
    }
}

/// Plans the stage. Sessions get it from [`crate::session`].
#[derive(Debug)]
pub(crate) struct RowStagePlanner;

#[async_trait]
impl ExtensionPlanner for RowStagePlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(stage) = node.as_any().downcast_ref::<RowStage>() else { return Ok(None) };
        let [input] = physical_inputs else {
            return Err(DataFusionError::Internal("a row stage has one input".to_owned()));
        };
        let evaluator = RowEvaluator::new(&stage.expressions, stage.input.schema())?;
        Ok(Some(Arc::new(RowStageExec::new(Arc::clone(input), Arc::new(evaluator), stage.failed.clone()))))
    }
}

/// Functions that have no implementation and exist only as something that the optimizer rewrites (`coalesce`
/// becomes CASE). The stage's expressions see no optimizer, so they are rewritten here.
pub(crate) fn expand(expr: Expr, schema: &DFSchemaRef, state: &SessionState) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};

    const EXPANDED: [&str; 8] = [
        "coalesce",
        "nvl",
        "ifnull",
        "nvl2",
        "arrow_cast",
        "arrow_try_cast",
        "cast_to_type",
        "try_cast_to_type",
    ];
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(schema))
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let expanded =
        expr.transform_up(|expr| match expr {
            Expr::ScalarFunction(call) if EXPANDED.contains(&call.func.name()) => {
                let func = Arc::clone(&call.func);
                Ok(match func.simplify(call.args, &context)? {
                    ExprSimplifyResult::Simplified(expr) => Transformed::yes(expr),
                    ExprSimplifyResult::Original(args) => Transformed::no(Expr::ScalarFunction(
                        datafusion::logical_expr::expr::ScalarFunction { func, args },
                    )),
                })
            }
            other => Ok(Transformed::no(other)),
        })?;
    Ok(expanded.data)
}
