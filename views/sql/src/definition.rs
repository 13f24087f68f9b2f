//! The split of a definition: what is read, what is evaluated per row, what is aggregated, what comes after.
//!
//! The split is made on the plan as analysed (names and types resolved) and never optimised: the optimizer rewrites
//! `count(DISTINCT ...)`, drops constant keys and moves filters, each of which would change what a state means.

mod conditions;
mod relation;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchemaRef, ScalarValue, TableReference};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::sql::parser::Statement as PlannedStatement;

pub(crate) use relation::{replace_scans, scan_columns};

use crate::canonical::{canonical_type, is_plain};
use crate::class::{Class, classify};
use crate::combinators::{Argument, Call};
use crate::error::{SqlError, sqlstate_of};
use crate::query::CheckedQuery;
use crate::relations::Relations;
use crate::row_stage::{FilteredArgument, Key, RowExpressions, expand, trial};
use crate::{exact, extremes, session};

/// A definition in its parts.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// The source joined to its dimension tables, over scans without data.
    pub(crate) relation: LogicalPlan,
    /// The part of WHERE that cannot fail on any value: an ordinary filter, which the optimizer may push down.
    pub(crate) prefilter: Option<Expr>,
    /// The rest of WHERE, the keys, the arguments.
    pub(crate) rows: Arc<RowExpressions>,
    pub(crate) calls: Vec<AggregateCall>,
    /// The aggregation's own columns, as the plans above it name them: keys first, then aggregates.
    pub(crate) columns: Vec<(Option<TableReference>, FieldRef)>,
    /// HAVING and the expressions over aggregates, from the aggregation upwards.
    pub(crate) above: Vec<LogicalPlan>,
}

/// An aggregate of the view.
#[derive(Debug, Clone)]
pub(crate) struct AggregateCall {
    pub(crate) sql: String,
    pub(crate) class: Class,
    pub(crate) call: Arc<Call>,
    /// The arguments: columns `x..` of the row stage, and literals.
    pub(crate) arguments: Vec<Expr>,
    /// The column `f..` of the row stage that says which rows count.
    pub(crate) filter: Option<Expr>,
}

/// The session in which definitions are compiled: `sum`, `avg`, `min` and `max` are the exact ones.
pub(crate) fn compile_state() -> SessionState {
    let mut state = session::session_state(session::session_config(), Arc::new(RuntimeEnv::default()));
    for function in [exact::sum(), exact::avg(), extremes::min(), extremes::max()] {
        use datafusion::logical_expr::registry::FunctionRegistry;
        // Registering a function replaces the one of that name; it cannot fail.
        let _ = state.register_udaf(Arc::new(function));
    }
    state
}

/// Plans, analyses and splits a checked query.
pub(crate) async fn define(
    query: &CheckedQuery,
    relations: &Relations,
    state: &SessionState,
) -> Result<Definition, SqlError> {
    let state = relation::with_tables(state.clone(), query, relations)?;
    let statement = PlannedStatement::Statement(Box::new(query.statement.clone()));
    let planned = state.statement_to_plan(statement).await.map_err(|error| placed(&error, query))?;
    let analysed = state
        .analyzer()
        .execute_and_check(planned, state.config_options(), |_, _| {})
        .map_err(|error| placed(&error, query))?;
    Splitter { query, state: &state }.split(analysed)
}

/// The error with the position of the column that it is about.
fn placed(error: &DataFusionError, query: &CheckedQuery) -> SqlError {
    let column = column_of(error);
    let position = column.and_then(|column| query.position_of(&column));
    sqlstate_of(error).or_at(position)
}

fn column_of(error: &DataFusionError) -> Option<String> {
    use datafusion::common::SchemaError;
    match error {
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field } => {
                Some(field.name.clone())
            }
            _ => None,
        },
        DataFusionError::Plan(message) => {
            // "... column "t.c" must appear in the GROUP BY clause ..." and its like.
            let quoted = message.split('"').nth(1)?;
            quoted.rsplit('.').next().map(str::to_owned)
        }
        DataFusionError::Context(_, inner) => column_of(inner),
        DataFusionError::Diagnostic(_, inner) => column_of(inner),
        DataFusionError::Shared(inner) => column_of(inner),
        DataFusionError::Collection(errors) => errors.first().and_then(column_of),
        _ => None,
    }
}

struct Splitter<'a> {
    query: &'a CheckedQuery,
    state: &'a SessionState,
}

impl Splitter<'_> {
    fn split(&self, plan: LogicalPlan) -> Result<Definition, SqlError> {
        let mut above = Vec::new();
        let mut rest = plan;
        let aggregate = loop {
            let input = match &rest {
                LogicalPlan::Aggregate(aggregate) => break aggregate.clone(),
                LogicalPlan::Projection(projection) => Arc::clone(&projection.input),
                LogicalPlan::Filter(filter) => Arc::clone(&filter.input),
                other => return Err(unknown(other)),
            };
            above.push(std::mem::replace(&mut rest, Arc::unwrap_or_clone(input)));
        };
        above.reverse();
        let mut conditions = Vec::new();
        let mut input = aggregate.input.as_ref();
        while let LogicalPlan::Filter(filter) = input {
            conditions.push(filter.predicate.clone());
            input = &filter.input;
        }
        let relation = input.clone();
        relation::check(&relation, &self.query.source)?;
        self.assemble(relation, conditions, &aggregate, above)
    }

    fn assemble(
        &self,
        relation: LogicalPlan,
        conditions: Vec<Expr>,
        aggregate: &Aggregate,
        above: Vec<LogicalPlan>,
    ) -> Result<Definition, SqlError> {
        let schema = Arc::clone(relation.schema());
        let (prefilter, predicate) = conditions::separate(conditions, &schema);
        let predicate = predicate.map(|expr| self.expand(expr, &schema)).transpose()?;
        let mut keys = Vec::new();
        for (place, expr) in aggregate.group_expr.iter().enumerate() {
            // A key that is written twice is one column of the aggregation.
            if !aggregate.group_expr.iter().take(place).any(|other| other == expr) {
                keys.push(self.key(expr.clone(), &schema)?);
            }
        }
        let visible_keys = keys.len();
        if keys.is_empty() {
            // States are always grouped: an ungrouped merge refuses the sparse sketches that a grouped one writes.
            keys.push(Key {
                expr: Expr::Literal(ScalarValue::Int16(Some(0)), None),
                data_type: DataType::Int16,
            });
        }
        let mut filters = Vec::new();
        let mut arguments = Vec::new();
        let mut calls = Vec::new();
        for expr in &aggregate.aggr_expr {
            calls.push(self.call(expr, &schema, &mut filters, &mut arguments)?);
        }
        let rows = RowExpressions { predicate, keys, filters, arguments };
        trial(&rows, &schema).map_err(|error| {
            let error = sqlstate_of(&error);
            let message = format!("an expression of this view fails on every event: {}", error.message);
            SqlError { message, ..error }
        })?;
        let columns =
            aggregate.schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let columns: Vec<_> = columns.collect();
        if columns.len() != visible_keys + calls.len() {
            return Err(SqlError::internal("the aggregation has other columns than its keys and aggregates"));
        }
        Ok(Definition { relation, prefilter, rows: Arc::new(rows), calls, columns, above })
    }

    fn expand(&self, expr: Expr, schema: &DFSchemaRef) -> Result<Expr, SqlError> {
        let expr =
            expand(expr.unalias_nested().data, schema, self.state).map_err(|error| sqlstate_of(&error))?;
        if expr.is_volatile() {
            return Err(SqlError::refused(format!("{expr} gives another answer each time")));
        }
        Ok(expr)
    }

    fn key(&self, expr: Expr, schema: &DFSchemaRef) -> Result<Key, SqlError> {
        let position =
            expr.column_refs().iter().next().and_then(|column| self.query.position_of(&column.name));
        let expr = self.expand(expr, schema)?;
        let analysed = expr.get_type(schema).map_err(|error| sqlstate_of(&error))?;
        let data_type = canonical_type(&analysed);
        if !is_plain(&data_type) {
            return Err(SqlError::refused(format!("{expr} is {analysed}, which cannot be a group key"))
                .hint("group by a column or an expression of a scalar type")
                .at(position));
        }
        Ok(Key { expr, data_type })
    }

    fn call(
        &self,
        expr: &Expr,
        schema: &DFSchemaRef,
        filters: &mut Vec<Expr>,
        arguments: &mut Vec<FilteredArgument>,
    ) -> Result<AggregateCall, SqlError> {
        let function = match expr.clone().unalias_nested().data {
            Expr::AggregateFunction(function) => function,
            other => return Err(SqlError::refused(format!("{other} cannot stand in a view"))),
        };
        let sql = written(expr);
        let name = function.func.name().to_owned();
        let position = self.query.position_of_aggregate(&name, &sql);
        let refused = |message: String, hint: &str| SqlError::refused(message).hint(hint).at(position);
        if function.params.distinct || function.params.null_treatment.is_some() {
            return Err(refused(
                format!("{sql} cannot stand in a view"),
                "leave DISTINCT or IGNORE NULLS out",
            ));
        }
        let (function, descending) = unordered(function);
        let filter = match function.params.filter {
            Some(filter) => Some(index(filters, self.expand(*filter, schema)?)),
            None => None,
        };
        let mut columns = Vec::new();
        let mut typed = Vec::new();
        for (place, argument) in function.params.args.into_iter().enumerate() {
            let argument = self.expand(argument, schema)?;
            let analysed = argument.get_type(schema).map_err(|error| sqlstate_of(&error))?;
            let literal = conditions::constant(&argument, schema);
            if let (Some(value), true) = (literal, place > 0 || name == "count") {
                let value = if descending && place == 1 { complement(value) } else { value };
                columns.push(Expr::Literal(value.clone(), None));
                typed.push(Argument::Literal(value));
                continue;
            }
            if place > 0 && name == "approx_percentile_cont" {
                return Err(refused(format!("the parameters of {sql} must be constants"), "write a literal"));
            }
            let data_type = canonical_type(&analysed);
            // What cannot fail needs no protection from rows that the FILTER rejects, and is cheaper without it.
            let filter = filter.filter(|_| !conditions::is_sure(&argument, schema));
            let argument = FilteredArgument { expr: argument, data_type: data_type.clone(), filter };
            let index = index(arguments, argument);
            columns.push(datafusion::prelude::col(format!("x{index}")));
            let field = datafusion::arrow::datatypes::Field::new(format!("x{index}"), data_type, true);
            typed.push(Argument::Value(Arc::new(field)));
        }
        let types: Vec<DataType> = typed.iter().map(Argument::data_type).collect();
        let class = classify(&name, &types.iter().collect::<Vec<_>>())
            .map_err(|refusal| refused(refusal.reason, &refusal.hint))?;
        let call = Call::new(Arc::clone(&function.func), typed)
            .map_err(|error| sqlstate_of(&error).or_at(position))?;
        let filter = filter.map(|index| datafusion::prelude::col(format!("f{index}")));
        Ok(AggregateCall { sql, class, call: Arc::new(call), arguments: columns, filter })
    }
}

fn unknown(plan: &LogicalPlan) -> SqlError {
    SqlError::refused(format!("a view is one SELECT with aggregates, this one has: {}", plan.display()))
        .hint("see docs/views.md")
}

/// The call as DataFusion writes it, without the tables' names.
fn written(expr: &Expr) -> String {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let bare = expr.clone().unalias_nested().data.transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) => {
                Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(column.name)))
            }
            Expr::Cast(cast) => Transformed::yes(*cast.expr),
            other => Transformed::no(other),
        })
    });
    let text = match bare {
        Ok(bare) => bare.data.human_display().to_string(),
        Err(_) => expr.human_display().to_string(),
    };
    text.replace("count(1)", "count(*)").replace("count(Int64(1))", "count(*)")
}

/// `approx_percentile_cont(p) WITHIN GROUP (ORDER BY x)` as `approx_percentile_cont(x, p)`; descending order
/// turns p into 1 - p.
fn unordered(mut function: AggregateFunction) -> (AggregateFunction, bool) {
    let orders = std::mem::take(&mut function.params.order_by);
    let descending = orders.first().is_some_and(|order| !order.asc);
    (function, descending)
}

fn complement(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(p)) => ScalarValue::Float64(Some(1.0 - p)),
        ScalarValue::Float32(Some(p)) => ScalarValue::Float32(Some(1.0 - p)),
        other => other,
    }
}

fn index<T: PartialEq>(known: &mut Vec<T>, item: T) -> usize {
    match known.iter().position(|other| *other == item) {
        Some(index) => index,
        None => {
            known.push(item);
            known.len() - 1
        }
    }
}

/// The conjunction of conditions; `None` of none.
pub(crate) fn all_of(conditions: impl IntoIterator<Item = Expr>) -> Option<Expr> {
    conditions
        .into_iter()
        .reduce(|left, right| datafusion::logical_expr::binary_expr(left, Operator::And, right))
}
