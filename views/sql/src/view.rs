//! A compiled view: what it reads, what its states look like, and the three plans.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Result as PlanResult, ScalarValue, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::prelude::col;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::canonical::{conform_plan, output_type};
use crate::class::Class;
use crate::definition::{AggregateCall, Definition, compile_state, define, replace_scans, scan_columns};
use crate::descriptor::{Descriptor, STATE_FORMAT, StateColumn};
use crate::error::{SqlError, sqlstate_of};
use crate::key_grid::{KeyGrid, grid_of};
use crate::query::{CheckedQuery, check};
use crate::relations::{Relation, Relations};
use crate::row_stage::{FailedRows, RowStage};

/// A group key of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// The key as it was written (an output column's name, or the expression).
    pub name: String,
    /// Its canonical type.
    pub data_type: DataType,
}

/// An aggregate of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateInfo {
    /// The call, as SQL.
    pub sql: String,
    /// How exactly the layers agree on it.
    pub class: Class,
    /// The types of its state's columns.
    pub states: Vec<DataType>,
}

/// A plan from events to states.
#[derive(Debug, Clone)]
pub struct StatesPlan {
    /// Flat states, one row per key.
    pub plan: LogicalPlan,
    /// How many rows a run of the plan left out; a plan that is run twice counts twice.
    pub failed: FailedRows,
}

/// A view's definition, compiled. It holds no data and no session, and is cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    source: String,
    dimensions: Vec<String>,
    source_columns: Vec<String>,
    definition: Definition,
    grouped: bool,
    keys: Vec<KeyColumn>,
    aggregates: Vec<AggregateInfo>,
    descriptor: Descriptor,
    output: SchemaRef,
    feed: SchemaRef,
    fingerprint: String,
}

impl View {
    /// Compiles the query of the view called `name`. Positions in errors count characters of `query_sql`, from 1.
    pub async fn compile(name: &str, query_sql: &str, relations: &Relations) -> Result<Self, SqlError> {
        let state = compile_state();
        let query = check(query_sql, relations, &state)?;
        let definition = define(&query, relations, &state).await?;
        let descriptor = describe(&definition);
        // A type that no state has would otherwise be found when the first version is published.
        for column in descriptor.keys.iter().chain(&descriptor.states) {
            let kept = stratus_seam::encoding::supports(&column.data_type);
            if !kept || crate::descriptor::text(&column.data_type).is_none() {
                return Err(SqlError::refused(format!("{} cannot be kept as a state", column.data_type)));
            }
        }
        let grouped = !query.ungrouped;
        let mut view = Inner {
            name: name.to_owned(),
            source: query.source.clone(),
            dimensions: query.dimensions.clone(),
            source_columns: source_columns(&definition, &query.source),
            grouped,
            keys: keys(&definition, grouped),
            aggregates: definition.calls.iter().map(info).collect(),
            fingerprint: fingerprint(&query, &definition, &descriptor, relations)?,
            output: Arc::new(Schema::empty()),
            feed: relations.get(&query.source).map_or_else(|| Arc::new(Schema::empty()), Relation::schema),
            descriptor,
            definition,
        };
        let empty = view.empty_states().map_err(|error| sqlstate_of(&error))?;
        let merged = view.merged(empty).map_err(|error| sqlstate_of(&error))?;
        view.output = Arc::new(merged.schema().as_arrow().clone());
        Ok(Self { inner: Arc::new(view) })
    }

    /// The view's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The one source that it reads.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// The dimension tables that it joins, by name.
    pub fn dimensions(&self) -> &[String] {
        &self.inner.dimensions
    }

    /// The columns of the source that it reads (possibly `_partition`, `_offset`, `_timestamp`), by name. A decoder
    /// may leave out all others.
    pub fn source_columns(&self) -> &[String] {
        &self.inner.source_columns
    }

    /// The columns that users see: no view types, no unsigned integers.
    pub fn output_schema(&self) -> SchemaRef {
        Arc::clone(&self.inner.output)
    }

    /// The group keys; none for a view without GROUP BY.
    pub fn keys(&self) -> &[KeyColumn] {
        &self.inner.keys
    }

    /// The aggregates, in the order of their states.
    pub fn aggregates(&self) -> &[AggregateInfo] {
        &self.inner.aggregates
    }

    /// Whether the view has GROUP BY. One without always has exactly one group, even over no events.
    pub fn is_grouped(&self) -> bool {
        self.inner.grouped
    }

    /// The values that each key column of the states can have at all, where it is a bucket of time.
    pub fn key_grids(&self) -> Vec<Option<KeyGrid>> {
        self.inner.definition.rows.keys.iter().map(|key| grid_of(&key.expr, &key.data_type)).collect()
    }

    /// Tells whether two sets of states may be merged: hexadecimal SHA-256 over the query in canonical spelling, the
    /// schemas and dimension contents that it reads, the types of keys, arguments and states, the engine's version and the
    /// states' format. States under another fingerprint are recomputed, never merged.
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    /// The layout of the states.
    pub fn descriptor(&self) -> &Descriptor {
        &self.inner.descriptor
    }

    /// The source's columns that the view may name, as micro-batches bring them.
    pub(crate) fn feed_schema(&self) -> SchemaRef {
        Arc::clone(&self.inner.feed)
    }

    /// The plan from events to flat states, one row per key. `source` has (at least) the columns of the source's
    /// events, and whoever gives it decides which events those are; `dimensions` are looked up by name.
    pub fn states_plan(
        &self,
        source: Arc<dyn TableProvider>,
        dimensions: &HashMap<String, Arc<dyn TableProvider>>,
    ) -> Result<StatesPlan, SqlError> {
        let failed = FailedRows::default();
        let plan =
            self.inner.states(source, dimensions, failed.clone()).map_err(|error| sqlstate_of(&error))?;
        Ok(StatesPlan { plan, failed })
    }

    /// The plan from flat states to flat states with one row per key: incremental runs, roll-ups.
    pub fn merge_states_plan(&self, states: LogicalPlan) -> Result<LogicalPlan, SqlError> {
        self.inner.merge_states(states).map_err(|error| sqlstate_of(&error))
    }

    /// The plan from flat states (the batch version's UNION ALL the speed layer's) to the columns that users see.
    /// Filters on plain group keys above it are pushed below the merge, into the scans of the states.
    pub fn merged_plan(&self, states: LogicalPlan) -> Result<LogicalPlan, SqlError> {
        self.inner.merged(states).map_err(|error| sqlstate_of(&error))
    }
}

impl Inner {
    fn states(
        &self,
        source: Arc<dyn TableProvider>,
        dimensions: &HashMap<String, Arc<dyn TableProvider>>,
        failed: FailedRows,
    ) -> PlanResult<LogicalPlan> {
        let mut tables = dimensions.clone();
        tables.insert(self.source.clone(), source);
        let mut plan = replace_scans(&self.definition.relation, &tables)?;
        if let Some(prefilter) = &self.definition.prefilter {
            plan = LogicalPlanBuilder::from(plan).filter(prefilter.clone())?.build()?;
        }
        let rows = RowStage::over(plan, Arc::clone(&self.definition.rows), failed)?;
        self.grouped(rows, |call| {
            let state = call.call.state(call.arguments.clone());
            match &call.filter {
                None => Ok(state),
                Some(filter) => {
                    use datafusion::logical_expr::ExprFunctionExt;
                    state.filter(filter.clone()).build()
                }
            }
        })
    }

    fn merge_states(&self, states: LogicalPlan) -> PlanResult<LogicalPlan> {
        let states = conform_plan(states, &self.descriptor.state_schema())?;
        let mut place = 0..;
        self.grouped(states, |call| Ok(call.call.merge_state(state_columns(place.next(), call))))
    }

    /// GROUP BY the keys, one struct of states per aggregate, taken apart into flat columns.
    fn grouped(
        &self,
        input: LogicalPlan,
        mut aggregate: impl FnMut(&AggregateCall) -> PlanResult<Expr>,
    ) -> PlanResult<LogicalPlan> {
        let keys: Vec<Expr> = self.descriptor.keys.iter().map(|key| col(key.name.as_str())).collect();
        let mut states = Vec::new();
        let mut flat = keys.clone();
        for (place, call) in self.definition.calls.iter().enumerate() {
            let name = format!("a{place}");
            states.push(aggregate(call)?.alias(&name));
            for (part, field) in call.call.states().iter().enumerate() {
                flat.push(get_field(col(&name), field.name().as_str()).alias(format!("a{place}_s{part}")));
            }
        }
        LogicalPlanBuilder::from(input).aggregate(keys, states)?.project(flat)?.build()
    }

    fn merged(&self, states: LogicalPlan) -> PlanResult<LogicalPlan> {
        let mut states = conform_plan(states, &self.descriptor.state_schema())?;
        if !self.grouped {
            // One group even over no events: the state of nothing merges into every other without a trace.
            states = LogicalPlanBuilder::from(states).union(self.neutral()?)?.build()?;
        }
        let keys: Vec<Expr> = self.descriptor.keys.iter().map(|key| col(key.name.as_str())).collect();
        let calls = self.definition.calls.iter().enumerate();
        let merges: Vec<Expr> = calls
            .map(|(place, call)| call.call.merge(state_columns(Some(place), call)).alias(format!("a{place}")))
            .collect();
        let mut plan = LogicalPlanBuilder::from(states).aggregate(keys, merges)?.build()?;
        // The names and types that the plans above were analysed with.
        let visible_keys = if self.grouped { self.descriptor.keys.len() } else { 0 };
        let mut exprs = Vec::with_capacity(self.definition.columns.len());
        for (place, (qualifier, field)) in self.definition.columns.iter().enumerate() {
            let name = match place.checked_sub(visible_keys) {
                None => format!("g{place}"),
                Some(aggregate) => format!("a{aggregate}"),
            };
            let found = plan.schema().field_with_unqualified_name(&name)?.data_type().clone();
            let column = Expr::Column(Column::new_unqualified(name));
            let column =
                if &found == field.data_type() { column } else { cast(column, field.data_type().clone()) };
            exprs.push(column.alias_qualified(qualifier.clone(), field.name()));
        }
        plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
        for node in &self.definition.above {
            plan = node.with_new_exprs(node.expressions(), vec![plan])?;
        }
        let columns: Vec<(Option<TableReference>, Arc<Field>)> =
            plan.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        let outputs = columns.into_iter().map(|(qualifier, field)| {
            let wanted = output_type(field.data_type());
            let column = Expr::Column(Column::new(qualifier, field.name()));
            let column = if &wanted == field.data_type() { column } else { cast(column, wanted) };
            column.alias(field.name())
        });
        LogicalPlanBuilder::from(plan).project(outputs.collect::<Vec<_>>())?.build()
    }

    /// The one state of a view without GROUP BY over no events.
    fn neutral(&self) -> PlanResult<LogicalPlan> {
        let mut columns: Vec<ArrayRef> = vec![ScalarValue::Int16(Some(0)).to_array()?];
        for call in &self.definition.calls {
            for (state, field) in call.call.neutral()?.iter().zip(call.call.states()) {
                columns.push(datafusion::arrow::compute::cast(&state.to_array()?, field.data_type())?);
            }
        }
        let batch = RecordBatch::try_new(self.descriptor.state_schema(), columns)?;
        self.scan("neutral", vec![batch])
    }

    fn empty_states(&self) -> PlanResult<LogicalPlan> {
        self.scan("states", Vec::new())
    }

    fn scan(&self, name: &str, batches: Vec<RecordBatch>) -> PlanResult<LogicalPlan> {
        let table = MemTable::try_new(self.descriptor.state_schema(), vec![batches])?;
        LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)?.build()
    }
}

fn state_columns(place: Option<usize>, call: &AggregateCall) -> Vec<Expr> {
    let place = place.unwrap_or_default();
    (0..call.call.states().len()).map(|part| col(format!("a{place}_s{part}"))).collect()
}

fn describe(definition: &Definition) -> Descriptor {
    let keys = definition.rows.keys.iter().enumerate();
    let keys =
        keys.map(|(place, key)| StateColumn { name: format!("g{place}"), data_type: key.data_type.clone() });
    let mut states = Vec::new();
    for (place, call) in definition.calls.iter().enumerate() {
        for (part, field) in call.call.states().iter().enumerate() {
            let name = format!("a{place}_s{part}");
            states.push(StateColumn { name, data_type: field.data_type().clone() });
        }
    }
    Descriptor { format: STATE_FORMAT, keys: keys.collect(), states }
}

fn keys(definition: &Definition, grouped: bool) -> Vec<KeyColumn> {
    if !grouped {
        return Vec::new();
    }
    let named = definition.columns.iter().zip(&definition.rows.keys);
    named
        .map(|((qualifier, field), key)| {
            let column = Expr::Column(Column::new(qualifier.clone(), field.name()));
            let name = output_name(&definition.above, &column).unwrap_or_else(|| field.name().clone());
            KeyColumn { name, data_type: key.data_type.clone() }
        })
        .collect()
}

/// The name under which the SELECT list shows a column of the aggregation as it is.
fn output_name(above: &[LogicalPlan], column: &Expr) -> Option<String> {
    let Some(LogicalPlan::Projection(projection)) = above.last() else { return None };
    projection.expr.iter().find_map(|expr| match expr {
        Expr::Alias(alias) if alias.expr.as_ref() == column => Some(alias.name.clone()),
        Expr::Column(found) if expr == column => Some(found.name.clone()),
        _ => None,
    })
}

fn info(call: &AggregateCall) -> AggregateInfo {
    AggregateInfo {
        sql: call.sql.clone(),
        class: call.class,
        states: call.call.states().iter().map(|field| field.data_type().clone()).collect(),
    }
}

fn source_columns(definition: &Definition, source: &str) -> Vec<String> {
    let mut used: Vec<Column> = definition.rows.columns().into_iter().cloned().collect();
    used.extend(definition.prefilter.iter().flat_map(Expr::column_refs).cloned());
    joined(&definition.relation, &mut used);
    scan_columns(&definition.relation, source, &|column| used.contains(column))
}

fn joined(plan: &LogicalPlan, used: &mut Vec<Column>) {
    if let LogicalPlan::Join(join) = plan {
        let on = join.on.iter().flat_map(|(left, right)| [left, right]);
        used.extend(on.chain(&join.filter).flat_map(Expr::column_refs).cloned());
    }
    for input in plan.inputs() {
        joined(input, used);
    }
}

/// What a fingerprint covers, in a form whose parts cannot run into one another.
#[derive(Serialize)]
struct Fingerprinted<'a> {
    sql: String,
    source: &'a [stratus_seam::schema::Column],
    dimensions: Vec<(&'a str, &'a [stratus_seam::schema::Column], &'a str)>,
    arguments: Vec<Vec<String>>,
    descriptor: &'a Descriptor,
    engine: &'static str,
}

fn fingerprint(
    query: &CheckedQuery,
    definition: &Definition,
    descriptor: &Descriptor,
    relations: &Relations,
) -> Result<String, SqlError> {
    let mut dimensions = Vec::new();
    for name in &query.dimensions {
        if let Some(Relation::Dimension { columns, content_hash }) = relations.get(name) {
            dimensions.push((name.as_str(), columns.as_slice(), content_hash.as_str()));
        }
    }
    let arguments = definition.calls.iter().map(|call| {
        call.call.arguments().iter().map(|argument| format!("{argument:?}")).collect::<Vec<String>>()
    });
    let covered = Fingerprinted {
        sql: query.statement.to_string(),
        source: relations.get(&query.source).map(Relation::columns).unwrap_or_default(),
        dimensions,
        arguments: arguments.collect(),
        descriptor,
        engine: datafusion::DATAFUSION_VERSION,
    };
    let text = serde_json::to_vec(&covered)
        .map_err(|error| SqlError::internal(format!("the fingerprint cannot be written: {error}")))?;
    Ok(hex::encode(Sha256::digest(&text)))
}
