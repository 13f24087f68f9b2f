//! The evaluation of a batch: all rows at once, and only if that fails, ever smaller parts of it.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, RecordBatch,
    RecordBatchOptions,
};
use datafusion::arrow::compute::{cast, concat_batches, filter_record_batch, prep_null_mask_filter};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};
use datafusion::physical_plan::PhysicalExpr;

use super::RowExpressions;
use crate::extremes::Normal;

type Physical = Arc<dyn PhysicalExpr>;

/// The expressions of a view, ready to run over batches of one schema.
#[derive(Debug)]
pub(crate) struct RowEvaluator {
    predicate: Option<Physical>,
    /// The input's columns that anything after the predicate reads: the others need not be filtered.
    carried: Vec<usize>,
    carried_schema: SchemaRef,
    keys: Vec<Physical>,
    filters: Vec<Physical>,
    arguments: Vec<(Physical, Option<usize>)>,
    output: SchemaRef,
}

impl RowEvaluator {
    pub(crate) fn new(expressions: &RowExpressions, input: &DFSchema) -> Result<Self> {
        let mut carried = Vec::new();
        let after = expressions.keys.iter().map(|key| &key.expr).chain(&expressions.filters);
        for expr in after.chain(expressions.arguments.iter().map(|argument| &argument.expr)) {
            for column in expr.column_refs() {
                carried.push(input.index_of_column(column)?);
            }
        }
        carried.sort_unstable();
        carried.dedup();
        let qualified = carried.iter().map(|&index| {
            let (qualifier, field) = input.qualified_field(index);
            // Nullability is a promise of whoever feeds the stage, and nothing here relies on it.
            (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true)))
        });
        let carried_df = DFSchema::new_with_metadata(qualified.collect(), Default::default())?;
        let predicate = expressions.predicate.as_ref().map(|expr| physical(expr, input)).transpose()?;
        let keys =
            expressions.keys.iter().map(|key| physical(&key.expr, &carried_df)).collect::<Result<_>>()?;
        let filters =
            expressions.filters.iter().map(|expr| physical(expr, &carried_df)).collect::<Result<_>>()?;
        let arguments = expressions
            .arguments
            .iter()
            .map(|argument| Ok((physical(&argument.expr, &carried_df)?, argument.filter)))
            .collect::<Result<_>>()?;
        let carried_schema = Arc::new(carried_df.as_arrow().clone());
        let output = Arc::new(expressions.output());
        Ok(Self { predicate, carried, carried_schema, keys, filters, arguments, output })
    }

    pub(crate) fn output(&self) -> &SchemaRef {
        &self.output
    }

    /// The rows that the view takes from a batch, and how many it had to leave out because they failed.
    pub(crate) fn run(&self, batch: &RecordBatch) -> Result<(RecordBatch, u64)> {
        let carried = self.carry(batch)?;
        if let Ok(columns) = self.columns(batch, &carried) {
            return Ok((self.assemble(columns)?, 0));
        }
        let mut failed = 0;
        let mut parts = Vec::new();
        let mut open = vec![(0, batch.num_rows())];
        while let Some((from, rows)) = open.pop() {
            match self.columns(&batch.slice(from, rows), &carried.slice(from, rows)) {
                Ok(columns) => parts.push(self.assemble(columns)?),
                Err(_) if rows <= 1 => failed += 1,
                Err(_) => {
                    let half = rows / 2;
                    open.push((from + half, rows - half));
                    open.push((from, half));
                }
            }
        }
        Ok((concat_batches(&self.output, &parts)?, failed))
    }

    /// The columns that are read after the predicate. A batch of another schema is an error, not a failed row.
    fn carry(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.carried.len());
        for &index in &self.carried {
            match batch.columns().get(index) {
                Some(column) => columns.push(Arc::clone(column)),
                None => return Err(DataFusionError::Internal(format!("a batch without column {index}"))),
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.carried_schema), columns, &options)?)
    }

    /// The output's columns and their length; an error if any row fails.
    fn columns(&self, batch: &RecordBatch, carried: &RecordBatch) -> Result<(Vec<ArrayRef>, usize)> {
        let filtered = match &self.predicate {
            None => None,
            Some(predicate) => {
                let mask = mask(predicate, batch)?;
                if mask.has_false() { Some(filter_record_batch(carried, &mask)?) } else { None }
            }
        };
        let rows = filtered.as_ref().unwrap_or(carried);
        let count = rows.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.output.fields().len());
        for key in &self.keys {
            columns.push(normal(key.evaluate(rows)?.into_array(count)?));
        }
        let masks = self.filters.iter().map(|filter| mask(filter, rows)).collect::<Result<Vec<_>>>()?;
        columns.extend(masks.iter().map(|mask| Arc::new(mask.clone()) as ArrayRef));
        for (argument, filter) in &self.arguments {
            let value = match filter.and_then(|filter| masks.get(filter)) {
                Some(mask) => argument.evaluate_selection(rows, mask)?,
                None => argument.evaluate(rows)?,
            };
            columns.push(value.into_array(count)?);
        }
        for (column, field) in columns.iter_mut().zip(self.output.fields()) {
            if column.data_type() != field.data_type() {
                *column = strict_cast(column, field.data_type())?;
            }
        }
        Ok((columns, count))
    }

    fn assemble(&self, (columns, count): (Vec<ArrayRef>, usize)) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?)
    }
}

fn strict_cast(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let options = datafusion::arrow::compute::CastOptions { safe: false, ..Default::default() };
    Ok(datafusion::arrow::compute::cast_with_options(column, data_type, &options)?)
}

/// A condition as SQL reads it: unknown is not true.
fn mask(condition: &Physical, batch: &RecordBatch) -> Result<BooleanArray> {
    let value = condition.evaluate(batch)?.into_array(batch.num_rows())?;
    let value =
        if value.data_type() == &DataType::Boolean { value } else { cast(&value, &DataType::Boolean)? };
    let mask = value.as_boolean();
    Ok(if mask.null_count() == 0 { mask.clone() } else { prep_null_mask_filter(mask) })
}

/// Keys that are equal in SQL have one form: one zero, one NaN.
fn normal(key: ArrayRef) -> ArrayRef {
    match key.data_type() {
        DataType::Float32 => normal_floats::<Float32Type>(&key),
        DataType::Float64 => normal_floats::<Float64Type>(&key),
        _ => key,
    }
}

fn normal_floats<T: ArrowPrimitiveType>(key: &ArrayRef) -> ArrayRef
where
    T::Native: Normal,
{
    let normalised: PrimitiveArray<T> = key.as_primitive::<T>().unary(Normal::normal);
    Arc::new(normalised)
}

/// The physical expression, with arithmetic that fails where it would wrap.
fn physical(expr: &Expr, schema: &DFSchema) -> Result<Physical> {
    let expr =
        create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    let schema: &Schema = schema.as_arrow();
    let checked = expr.transform_up(|expr| {
        if let Some(binary) = downcast::<BinaryExpr>(&expr) {
            return Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Physical));
        }
        if let Some(negative) = downcast::<NegativeExpr>(&expr) {
            let data_type = expr.data_type(schema)?;
            if data_type.is_signed_integer() {
                let zero: Physical = Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
                let difference = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg()));
                return Ok(Transformed::yes(Arc::new(difference.with_fail_on_overflow(true)) as Physical));
            }
        }
        Ok(Transformed::no(expr))
    })?;
    Ok(checked.data)
}

fn downcast<T: 'static>(expr: &Physical) -> Option<&T> {
    (expr.as_ref() as &dyn std::any::Any).downcast_ref::<T>()
}

/// Whether the expressions can be evaluated at all: over no rows, only constants can fail.
pub(crate) fn trial(expressions: &RowExpressions, input: &DFSchema) -> Result<()> {
    let evaluator = RowEvaluator::new(expressions, input)?;
    let empty = RecordBatch::new_empty(Arc::new(input.as_arrow().clone()));
    let carried = evaluator.carry(&empty)?;
    let columns = evaluator.columns(&empty, &carried)?;
    evaluator.assemble(columns).map(drop)
}
