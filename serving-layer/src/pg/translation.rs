//! Queries of the system catalog, put into words that the engine understands.
//!
//! Most is done by the rules of `datafusion-pg-catalog`. Its translator as a whole is used only for the few client
//! queries that it knows by heart and answers with nothing, because one of its rules replaces subqueries in a select
//! list by NULL, which would be a wrong answer. What the rules leave is translated here, and only in queries of the
//! catalog: nobody else's query is touched.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArguments, Query, SelectItem, SetExpr, Statement, TableFactor, Value,
    visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_pg_catalog::sql::rules::{
    AliasDuplicatedProjectionRewrite, CurrentUserVariableToSessionUserFunctionCall, FixArrayLiteral,
    FixVersionColumnName, PrependUnqualifiedPgTableName, ResolveUnqualifiedIdentifier,
    RewriteArrayAnyAllOperation, RewritePgCatalogOperator, RewriteRegCastToSubquery, SqlStatementRewriteRule,
    StripCallableQualifier, StripCollate,
};

/// The queries that are known by heart.
static KNOWN: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// The rules, in the order of the translator that they come from.
static RULES: LazyLock<Vec<Box<dyn SqlStatementRewriteRule>>> = LazyLock::new(|| {
    vec![
        Box::new(AliasDuplicatedProjectionRewrite),
        Box::new(ResolveUnqualifiedIdentifier),
        Box::new(RewriteArrayAnyAllOperation),
        Box::new(PrependUnqualifiedPgTableName),
        Box::new(StripCallableQualifier),
        Box::new(FixArrayLiteral),
        Box::new(CurrentUserVariableToSessionUserFunctionCall),
        Box::new(StripCollate),
        Box::new(RewritePgCatalogOperator),
        Box::new(RewriteRegCastToSubquery::new()),
        Box::new(FixVersionColumnName),
    ]
});

/// The translation of a query of the catalog; `None` if it cannot be parsed.
pub(super) fn translated(query: &str) -> Option<String> {
    let parser = Parser::new(&PostgreSqlDialect {});
    let statement = only(parser.try_with_sql(query).ok()?.parse_statements().ok()?)?;
    let original = statement.to_string();
    if let Some(known) = KNOWN.parse(query).ok().and_then(only).map(|known| known.to_string())
        && gives_nothing(&known)
        && !gives_nothing(&original)
    {
        return Some(known);
    }
    let mut statement = RULES.iter().fold(statement, |statement, rule| rule.rewrite(statement));
    finish(&mut statement);
    Some(statement.to_string())
}

fn only(mut statements: Vec<Statement>) -> Option<Statement> {
    let statement = statements.pop()?;
    statements.is_empty().then_some(statement)
}

fn gives_nothing(query: &str) -> bool {
    query.ends_with("WHERE false")
}

fn finish(statement: &mut Statement) {
    let _ = visit_expressions_mut(statement, |expression| {
        if let Some(replacement) = replacement(expression) {
            *expression = replacement;
        }
        ControlFlow::<()>::Continue(())
    });
}

fn replacement(expression: &Expr) -> Option<Expr> {
    match expression {
        // What clients collect this way is never here: memberships, options, policies, privileges, labels.
        Expr::Function(Function { name, args: FunctionArguments::Subquery(query), .. })
            if name.to_string().eq_ignore_ascii_case("array") && reads(query, is_catalogs) =>
        {
            parsed("make_array()")
        }
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
            if name.to_string().eq_ignore_ascii_case("generate_subscripts") =>
        {
            let (array, dimension) = (list.args.first()?, list.args.get(1)?);
            parsed(&format!("unnest(range(1, CAST(array_length({array}, {dimension}) AS BIGINT) + 1))"))
        }
        // There are no defaults of columns, no sequences, and no collations but the default one.
        Expr::Subquery(query) if reads(query, is_absent) => parsed("NULL"),
        Expr::Subquery(query) if reads(query, is_catalogs) => {
            aggregated(query).map(|query| Expr::Subquery(Box::new(query)))
        }
        Expr::Like { negated, any, expr, pattern, escape_char: Some(escape) } => Some(Expr::Like {
            negated: *negated,
            any: *any,
            expr: expr.clone(),
            pattern: Box::new(escaped(pattern, &escape.value)?),
            escape_char: None,
        }),
        Expr::ILike { negated, any, expr, pattern, escape_char: Some(escape) } => Some(Expr::ILike {
            negated: *negated,
            any: *any,
            expr: expr.clone(),
            pattern: Box::new(escaped(pattern, &escape.value)?),
            escape_char: None,
        }),
        _ => None,
    }
}

/// A scalar subquery with its value under `max`: the engine takes a correlated one only with an aggregate, and these
/// look up one row by its id.
fn aggregated(query: &Query) -> Option<Query> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_slice()
    else {
        return None;
    };
    let is_aggregate = |expression: &Expr| {
        matches!(expression, Expr::Function(function)
            if AGGREGATES.contains(&function.name.to_string().to_ascii_lowercase().as_str()))
    };
    let mut aggregates = false;
    let _ = visit_expressions(value, |expression| {
        aggregates |= is_aggregate(expression);
        ControlFlow::<()>::Continue(())
    });
    if select.from.is_empty() || query.with.is_some() || query.order_by.is_some() {
        return None;
    }
    let mut select = select.clone();
    if !aggregates {
        select.projection = vec![SelectItem::UnnamedExpr(parsed(&format!("max({value})"))?)];
    } else if query.limit_clause.is_none() {
        return None;
    }
    let mut query = query.clone();
    query.body = Box::new(SetExpr::Select(select));
    // An aggregate gives one row, and the engine would apply a limit before it looks for the outer row's.
    query.limit_clause = None;
    Some(query)
}

const AGGREGATES: &[&str] =
    &["array_agg", "avg", "bool_and", "bool_or", "count", "max", "min", "string_agg", "sum"];

fn parsed(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_expr().ok()
}

/// A pattern with the backslash for another escape character: the engine knows no other.
fn escaped(pattern: &Expr, escape: &Value) -> Option<Expr> {
    let Value::SingleQuotedString(escape) = escape else { return None };
    let mut characters = escape.chars();
    let (Some(escape), None) = (characters.next(), characters.next()) else { return None };
    if escape == '\\' || escape == '\'' {
        return None;
    }
    // A doubled escape character is set aside as chr(1) while the single ones are replaced.
    parsed(&format!(
        "replace(replace(replace(replace({pattern}, '\\', '\\\\'), '{escape}{escape}', chr(1)), '{escape}', '\\'), chr(1), '{escape}')"
    ))
}

/// Whether a query begins to read in a table of this kind.
fn reads(query: &Query, kind: fn(&str) -> bool) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let Some(TableFactor::Table { name, .. }) = select.from.first().map(|from| &from.relation) else {
        return false;
    };
    let name = name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_ascii_lowercase());
    name.is_some_and(|name| kind(&name))
}

fn is_absent(table: &str) -> bool {
    matches!(table, "pg_attrdef" | "pg_sequence" | "pg_collation")
}

/// A table of the catalog, or the elements of one of its arrays.
fn is_catalogs(table: &str) -> bool {
    table.starts_with("pg_") || table == "unnest"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_does_not_know_is_put_otherwise() {
        let text = translated("SELECT ARRAY(SELECT rolname FROM pg_roles) AS m FROM pg_roles").unwrap();
        assert!(text.contains("make_array()"), "{text}");
        let text =
            translated("SELECT (SELECT seqstart FROM pg_catalog.pg_sequence) AS s FROM pg_class").unwrap();
        assert!(text.contains("NULL AS s"), "{text}");
        let text = translated("SELECT 1 FROM pg_class WHERE relname NOT LIKE 'a/_%' ESCAPE '/'").unwrap();
        assert!(text.contains("NOT LIKE replace(") && !text.contains("ESCAPE"), "{text}");
        let text = translated("SELECT (SELECT max(id) FROM events), ARRAY(SELECT id FROM events), version()")
            .unwrap();
        assert!(text.contains("max(id)") && text.contains("ARRAY(SELECT id"), "{text}");
        assert_eq!(translated("SELECT (1"), None);
    }
}
