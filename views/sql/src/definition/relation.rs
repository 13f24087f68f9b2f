//! What a view reads: one source, joined to dimension tables by equal columns.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, SubqueryAlias,
};

use super::conditions::widens;
use crate::canonical::conform_plan;
use crate::error::{SqlError, sqlstate_of};
use crate::query::CheckedQuery;
use crate::relations::Relations;

/// The session's state with the query's tables, all of them empty: only their columns matter.
pub(super) fn with_tables(
    state: SessionState,
    query: &CheckedQuery,
    relations: &Relations,
) -> std::result::Result<SessionState, SqlError> {
    let catalog = Arc::new(datafusion::catalog::MemoryCatalogProvider::new());
    let schema = Arc::new(datafusion::catalog::MemorySchemaProvider::new());
    for name in query.dimensions.iter().chain([&query.source]) {
        let Some(relation) = relations.get(name) else {
            return Err(SqlError::new("42P01", format!("relation \"{name}\" does not exist")));
        };
        let table =
            MemTable::try_new(relation.schema(), vec![Vec::new()]).map_err(|error| sqlstate_of(&error))?;
        use datafusion::catalog::SchemaProvider;
        schema.register_table(name.clone(), Arc::new(table)).map_err(|error| sqlstate_of(&error))?;
    }
    use datafusion::catalog::CatalogProvider;
    catalog.register_schema("public", schema).map_err(|error| sqlstate_of(&error))?;
    // A list of catalogs of its own: clones of a state share theirs.
    let mut state = state;
    let list = Arc::new(datafusion::catalog::MemoryCatalogProviderList::new());
    use datafusion::catalog::CatalogProviderList;
    list.register_catalog("stratus".to_owned(), catalog);
    state.register_catalog_list(list);
    Ok(state)
}

/// Whether the joins are ones that a stream can go through: a row of the source meets the dimension tables as
/// they are, and nothing waits for another row.
pub(super) fn check(plan: &LogicalPlan, source: &str) -> std::result::Result<(), SqlError> {
    match plan {
        LogicalPlan::TableScan(_) => Ok(()),
        LogicalPlan::SubqueryAlias(alias) => check(&alias.input, source),
        LogicalPlan::Join(join) => {
            if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
                return Err(SqlError::refused("a view joins with INNER JOIN or LEFT JOIN only"));
            }
            if join.join_type == JoinType::Left && reads(&join.right, source) {
                return Err(SqlError::refused("a source cannot be the right side of a LEFT JOIN")
                    .hint("put the source first"));
            }
            equalities(join)?;
            check(&join.left, source)?;
            check(&join.right, source)
        }
        other => Err(SqlError::refused(format!("a view cannot read from {}", other.display()))
            .hint("a view reads one source, joined to dimension tables")),
    }
}

/// Whether the plan scans the table.
pub(super) fn reads(plan: &LogicalPlan, table: &str) -> bool {
    let mut found = false;
    let _ = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == table
        {
            found = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// The pairs of equal columns of a join.
fn equalities(join: &Join) -> std::result::Result<Vec<(Expr, Expr)>, SqlError> {
    let refused = |what: &Expr| {
        SqlError::refused(format!("a join is by equal columns, not by {what}"))
            .hint("write ON left.column = right.column AND ..., and the rest into WHERE")
    };
    let mut pairs = join.on.clone();
    for condition in join.filter.iter().cloned().flat_map(split_conjunction_owned) {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                let (left, right) = (*left, *right);
                let belongs = |expr: &Expr, plan: &LogicalPlan| {
                    expr.column_refs().iter().all(|column| plan.schema().has_column(column))
                };
                if belongs(&left, &join.left) && belongs(&right, &join.right) {
                    pairs.push((left, right));
                } else if belongs(&left, &join.right) && belongs(&right, &join.left) {
                    pairs.push((right, left));
                } else {
                    return Err(refused(&Expr::BinaryExpr(BinaryExpr::new(
                        Box::new(left),
                        Operator::Eq,
                        Box::new(right),
                    ))));
                }
            }
            other => return Err(refused(&other)),
        }
    }
    if pairs.is_empty() {
        return Err(SqlError::refused("a join needs at least one pair of equal columns")
            .hint("write ON left.column = right.column"));
    }
    for (left, right) in &pairs {
        for (side, plan) in [(left, &join.left), (right, &join.right)] {
            if !is_column(side, plan) {
                return Err(SqlError::refused(format!(
                    "a join is by columns of one type, and {side} is not one"
                ))
                .hint("declare both columns with the same type"));
            }
        }
        let data_type = left.get_type(join.left.schema()).map_err(|error| sqlstate_of(&error))?;
        if data_type.is_floating() || data_type.is_nested() {
            return Err(SqlError::refused(format!("a join by {data_type} cannot be exact"))
                .hint("join by text, integers, decimals or times"));
        }
    }
    Ok(pairs)
}

/// A column, perhaps under a cast that cannot fail.
fn is_column(expr: &Expr, plan: &LogicalPlan) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Cast(Cast { expr: inner, .. }) => {
            matches!(inner.as_ref(), Expr::Column(_))
                && matches!(
                    (inner.get_type(plan.schema()), expr.get_type(plan.schema())),
                    (Ok(from), Ok(to)) if widens(&from, &to)
                )
        }
        _ => false,
    }
}

/// The relation over tables that have data. Each is brought to the columns and types that were declared.
pub(crate) fn replace_scans(
    plan: &LogicalPlan,
    tables: &HashMap<String, Arc<dyn TableProvider>>,
) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let name = scan.table_name.table();
            let Some(provider) = tables.get(name) else {
                return Err(DataFusionError::Plan(format!(
                    "table '{name}' not found: it has no data to read"
                )));
            };
            let source = provider_as_source(Arc::clone(provider));
            let scanned = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?.build()?;
            conform_plan(scanned, scan.projected_schema.as_arrow())
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = replace_scans(&alias.input, tables)?;
            Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?))
        }
        LogicalPlan::Join(join) => {
            let left = replace_scans(&join.left, tables)?;
            let right = replace_scans(&join.right, tables)?;
            let pairs = equalities(join).map_err(DataFusionError::from)?;
            Ok(LogicalPlan::Join(Join::try_new(
                Arc::new(left),
                Arc::new(right),
                pairs,
                None,
                join.join_type,
                join.join_constraint,
                join.null_equality,
                false,
            )?))
        }
        other => Err(DataFusionError::Internal(format!("a view cannot read from {}", other.display()))),
    }
}

/// The declared columns of the scanned table that have one of these names with that qualifier.
pub(crate) fn scan_columns(
    plan: &LogicalPlan,
    table: &str,
    used: &dyn Fn(&datafusion::common::Column) -> bool,
) -> Vec<String> {
    let mut names = Vec::new();
    collect(plan, table, None, used, &mut names);
    names.sort();
    names.dedup();
    names
}

fn collect(
    plan: &LogicalPlan,
    table: &str,
    alias: Option<&datafusion::common::TableReference>,
    used: &dyn Fn(&datafusion::common::Column) -> bool,
    names: &mut Vec<String>,
) {
    match plan {
        LogicalPlan::TableScan(scan) if scan.table_name.table() == table => {
            let qualifier = alias.unwrap_or(&scan.table_name);
            for field in scan.projected_schema.fields() {
                if used(&datafusion::common::Column::new(Some(qualifier.clone()), field.name())) {
                    names.push(field.name().clone());
                }
            }
        }
        LogicalPlan::SubqueryAlias(named) => collect(&named.input, table, Some(&named.alias), used, names),
        other => {
            for input in other.inputs() {
                collect(input, table, alias, used, names);
            }
        }
    }
}
